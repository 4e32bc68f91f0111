"""`video CFG SOURCE …`: boxes in videos, from cameras or streams; Darknet's `detector demo`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.cli.common import (
    count,
    darknet_argument,
    json_argument,
    message_stream,
    output_file,
    output_file_in_new_folder,
    output_prefix,
    positive,
    rank_timeout_argument,
    seconds,
)
from darknet_py.cli.darknet_output import DemoLines
from darknet_py.cli.detect import detect_options, detection_arguments, load_detector
from darknet_py.cli.detect_results import json_list
from darknet_py.cli.shard import exit_code, shard_argument, shared_work
from darknet_py.cli.usage import UsageError
from darknet_py.cli.video_list import Video, VideoList, is_list
from darknet_py.cli.video_regions import check_regions, region_arguments
from darknet_py.cli.video_streams import VideoStreams, stream_arguments
from darknet_py.counted import counted
from darknet_py.data.images import Image
from darknet_py.data.video_reader import Frame, FrameReader, next_frames
from darknet_py.errors import DataError
from darknet_py.files import make_folder, write_atomically
from darknet_py.inference.detect import detect, uses_letter_box
from darknet_py.inference.detections import Detections, JsonFrame
from darknet_py.inference.regions import RegionCounter
from darknet_py.inference.tracking import ObjectTracker
from darknet_py.training.distributed import DistContext
from darknet_py.view.draw import save_image
from darknet_py.view.heat_map import HeatMap
from darknet_py.view.video_writer import VideoFile
from darknet_py.view.window import check_window, show


def configure(parser: argparse.ArgumentParser) -> None:
    detection_arguments(parser)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="files, URLs (rtsp://, http://) or cameras' numbers, which one network searches together; or a list of "
        "files (.txt), which are searched one after another",
    )
    parser.add_argument(
        "--out",
        type=output_file_in_new_folder,
        metavar="FILE",
        help="the video to write (default: predictions/SOURCE.mp4); _1, _2 … are added to the name of each of several",
    )
    parser.add_argument("--no-video", action="store_true", help="write no video")
    parser.add_argument(
        "--images",
        "--pictures",
        type=output_prefix,
        metavar="PREFIX",
        help="write each frame as PREFIX_00000001.jpg …",
    )
    json_argument(parser, "Darknet's JSON to FILE, or to stdout, a line per frame")
    parser.add_argument("--show", action="store_true", help="show the frames in a window; Escape quits")
    parser.add_argument("--skip", type=count, default=0, metavar="N", help="frames to skip after each (default: 0)")
    parser.add_argument("--limit", type=positive, metavar="N", help="stop after N frames")
    parser.add_argument("--seconds", type=positive, metavar="S", help="stop after S seconds")
    parser.add_argument(
        "--ext-output", action="store_true", help="with --darknet: print the pixel coordinates of boxes"
    )
    darknet_argument(parser, "`detector demo` prints: objects and frames per second of each frame")
    parser.add_argument(
        "--track",
        action="store_true",
        help="number the objects: the same in all frames, drawn and in JSON (extra: track)",
    )
    region_arguments(parser)
    parser.add_argument(
        "--heat-map",
        type=output_file,
        metavar="FILE",
        help="write where objects were, over the last frame; named as --out for several sources",
    )
    parser.add_argument(
        "--reconnect",
        type=seconds,
        default=60,
        metavar="S",
        help="seconds for which a lost stream is opened again (default: 60)",
    )
    stream_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="leave out the videos of a list that are done")
    shard_argument(parser, "search the K-th of N shares of a list; the last process to end writes the JSON of all")
    rank_timeout_argument(parser)


def run(args: argparse.Namespace) -> int:
    """130 where Ctrl-C stopped a file; the results so far are kept. A live source has no other end."""
    if is_list(args.sources):
        with shared_work(args.shard, args.rank_timeout) as watch:
            return exit_code(_search_list(args), watch)
    if args.shard or args.resume or DistContext.from_environment().size > 1:
        raise UsageError("--shard, --resume, torchrun: expected a list of videos (.txt), got its videos or a stream")
    several = len(args.sources) > 1
    if several and args.darknet:
        raise UsageError(f"--darknet: expected one video, as in C, got {len(args.sources)}")
    check_regions(args)
    if args.show:
        check_window()
    net = load_detector(args)
    if args.images:
        make_folder(Path(args.images).parent)
    with ExitStack() as stack:
        sources = [
            _Source(args, name, number, f"_{number + 1}" if several else "", net.graph.net.channels, stack)
            for number, name in enumerate(args.sources)
        ]
        detection = _VideoDetection(args, net, sources)
        if args.darknet:
            detection.lines = stack.enter_context(DemoLines(args.sources[0], args.ext_output, not args.no_video))
        found = detection.run()
        if args.json and args.json != "-":
            write_atomically(args.json, json_list(found))
        else:
            for entry in found:
                if args.json:
                    print(json.dumps(entry, ensure_ascii=False), flush=True)
    heat_maps = [path for source in sources if (path := source.save_heat_map())]
    print(detection.result(heat_maps), file=sys.stderr if args.darknet else message_stream(args.json))
    return 130 if detection.interrupted and not all(source.frames.live for source in sources) else 0


def _search_list(args: argparse.Namespace) -> bool:
    """Searches a list of videos, or the share of this process; whether one could not be read."""
    check_regions(args)
    videos, failed = VideoList(args), False
    net = load_detector(args)
    if args.images:
        make_folder(Path(args.images).parent)
    for video in videos.pending:
        try:
            videos.write(video, _search_video(args, net, video))
        except DataError as error:
            failed = True
            print(f"darknet_py: {error}", file=sys.stderr)
            videos.write(video, [], str(error))
    print(videos.finish())
    return failed


def _search_video(args: argparse.Namespace, net: BackendNetwork, video: Video) -> Iterator[JsonFrame]:
    """The frames of one video of a list; its files are named by its number."""
    with ExitStack() as stack:
        source = _Source(args, video.path, video.number, f"_{video.number + 1}", net.graph.net.channels, stack)
        if source.frames.live:
            raise DataError(f"{video.path}: expected a file in a list of videos, got a camera or a stream")
        detection = _VideoDetection(args, net, [source])
        yield from detection.run()
    if detection.interrupted:
        raise KeyboardInterrupt
    heat_map = source.save_heat_map()
    print(f"{video.path}: {detection.result([heat_map] if heat_map else [])}")


class _Source:
    """A video and what is made of it; `suffix` is added to the names of its files."""

    def __init__(self, args: argparse.Namespace, name: str, number: int, suffix: str, channels: int, stack: ExitStack):
        self._args, self._name, self._suffix = args, name, suffix
        self.frames = stack.enter_context(FrameReader(self._name, channels, args.skip, args.reconnect))
        self.out = None
        if not args.no_video:
            self.out = stack.enter_context(
                VideoFile(self._path(args.out or _default_path(self._name)), self.frames.rate)
            )
        self._streams = stack.enter_context(VideoStreams(args, self._name, self.frames.live, number))
        self._tracker = ObjectTracker(self.frames.rate) if args.track else None
        self._regions: RegionCounter | None = None
        self._heat_map = HeatMap() if args.heat_map else None
        self._last: Image | None = None
        self.count = 0

    def handle(self, frame: Frame, found: Detections) -> tuple[JsonFrame, Detections, bool]:
        """Draws, shows and sends a frame. Its JSON, its visible detections, and whether it shall go on."""
        args, image, goes_on = self._args, frame.image, True
        found = replace(found.visible(), image_size=(image.shape[1], image.shape[0]))
        if self._tracker:
            found = self._tracker.update(found)
        self.count += 1
        entry = found.to_frame(frame.number + 1, self._name if self._suffix else None)
        entry["seconds"] = round(frame.seconds, 6)
        if args.line or args.zone:
            self._regions = self._regions or RegionCounter(args.line, args.zone, found.image_size)
            entry["lines"], entry["zones"] = self._regions.update(found)
        if self._heat_map:
            self._heat_map.add(found)
            self._last = image
        drawn = None
        if self.out or args.images or args.show or self._streams.needs_image:
            drawn = found.plot(image)
            if self._regions:
                drawn = self._regions.draw(drawn)
            if self.out:
                self.out.write(drawn, frame.seconds)
            if args.images:
                save_image(f"{args.images}{self._suffix}_{self.count:08d}.jpg", drawn)
            goes_on = not args.show or show(drawn, title=self._name)
        self._streams.send(entry, drawn, found)
        return entry, found, goes_on

    def save_heat_map(self) -> Path | None:
        """Writes --heat-map; returns where, or None without frames or where none was asked for."""
        if self._heat_map is None or self._last is None:
            return None
        path = self._path(self._args.heat_map)
        save_image(path, self._heat_map.draw(self._last))
        return path

    def _path(self, path: str | Path) -> Path:
        """The file of this source."""
        path = Path(path)
        return path.with_name(f"{path.stem}{self._suffix}{path.suffix}")


class _VideoDetection:
    """Reads the frames of all sources once."""

    def __init__(self, args: argparse.Namespace, net: BackendNetwork, sources: Sequence[_Source]):
        self._args, self._net, self._sources = args, net, sources
        self.lines: DemoLines | None = None
        self._seconds = 0.0
        self.interrupted = False

    def run(self) -> Iterator[JsonFrame]:
        """The JSON of each frame."""
        args, start = self._args, time.perf_counter()
        counts = [source.frames.count for source in self._sources]
        known = [count if args.limit is None else min(count, args.limit) for count in counts if count is not None]
        total = sum(known) if len(known) == len(counts) else None
        bar = tqdm(total=total, unit="frame", disable=not sys.stderr.isatty())
        try:
            for source, frame, detections in self._detections():
                entry, found, goes_on = source.handle(frame, detections)
                if not goes_on:
                    break
                bar.set_postfix_str(found.summary()[:60], refresh=False)
                bar.update()
                if self.lines is not None:
                    self.lines.print_frame(found)
                yield entry
                self._seconds = time.perf_counter() - start
                if args.seconds and self._seconds >= args.seconds:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        bar.close()

    def result(self, heat_maps: Sequence[Path]) -> str:
        """One line: number of frames, speed, and where the results are."""
        args = self._args
        for source in self._sources:
            if not source.count and not self.interrupted:
                raise DataError(f"{source.frames.name}: no frame of this video can be read")
        results = [f"video in {source.out.path}" for source in self._sources if source.out and source.count]
        results += [f"heat map in {path}" for path in heat_maps]
        if args.images:
            results.append(f"images in {args.images}_*.jpg")
        if args.json and args.json != "-":
            results.append(f"detections in {args.json}")
        count = sum(source.count for source in self._sources)
        return "; ".join([f"{counted(count, 'frame')}, {count / max(self._seconds, 1e-9):.1f} per second", *results])

    def _detections(self) -> Iterator[tuple[_Source, Frame, Detections]]:
        """Each frame with its detections. A forward pass takes --batch frames, or one of each source that has one."""
        options = detect_options(self._args, self._net.names)
        batch: list[tuple[_Source, Frame]] = []
        for round_of_frames in chain(next_frames([source.frames for source in self._sources]), [[]]):
            batch += [(self._sources[index], frame) for index, frame in round_of_frames]
            if not batch or (round_of_frames and len(batch) < self._args.batch):
                continue
            found = detect(self._net, [self._resized(frame.image) for _, frame in batch], options)
            for (source, frame), detections in zip(batch, found, strict=True):
                if source.count != self._args.limit:
                    yield source, frame, detections
            batch = []
            if all(source.count == self._args.limit or source.frames.ended for source in self._sources):
                return

    def _resized(self, image: Image) -> Image:
        """At the network's size by OpenCV's resize, as in C's `demo`; letterboxed frames are resized as images are."""
        if uses_letter_box(self._net.graph, self._args.letter_box):
            return image
        net = self._net.graph.net
        resized = cv2.resize(image, (net.width, net.height))
        return np.asarray(resized, np.uint8).reshape(net.height, net.width, -1)


def _default_path(source: str) -> Path:
    """The video file of a source."""
    name = Path(source.partition("?")[0]).stem or "stream"
    return Path("predictions") / f"{f'camera{name}' if source.isdecimal() else name}.mp4"
