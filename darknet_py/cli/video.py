"""`video CFG SOURCE`: boxes in a video, from a camera or a stream; Darknet's `detector demo`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.cli.common import (
    count,
    darknet_argument,
    json_argument,
    output_file_in_new_folder,
    output_prefix,
    positive,
)
from darknet_py.cli.darknet_output import DemoLines
from darknet_py.cli.detect import detect_options, detection_arguments, load_detector
from darknet_py.cli.detect_results import json_list
from darknet_py.cli.video_streams import VideoStreams, stream_arguments
from darknet_py.counted import counted
from darknet_py.data.images import Image
from darknet_py.data.video_reader import FrameReader
from darknet_py.errors import DataError
from darknet_py.files import make_folder, write_atomically
from darknet_py.inference.detect import detect, uses_letter_box
from darknet_py.inference.detections import Detections, JsonFrame
from darknet_py.inference.tracking import ObjectTracker
from darknet_py.view.draw import save_image
from darknet_py.view.video_writer import VideoFile
from darknet_py.view.window import check_window, show


def configure(parser: argparse.ArgumentParser) -> None:
    detection_arguments(parser)
    parser.add_argument("source", metavar="SOURCE", help="a file, a URL (rtsp://, http://) or a camera's number")
    parser.add_argument(
        "--out",
        type=output_file_in_new_folder,
        metavar="FILE",
        help="the video to write (default: predictions/SOURCE.mp4)",
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
    stream_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """130 where Ctrl-C stopped a file; the results so far are kept. A live source has no other end."""
    if args.show:
        check_window()
    net = load_detector(args)
    if args.images:
        make_folder(Path(args.images).parent)
    with ExitStack() as stack:
        frames = stack.enter_context(FrameReader(args.source, net.graph.net.channels, args.skip))
        out = None
        if not args.no_video:
            out = stack.enter_context(VideoFile(video_path(args), frames.rate / (args.skip + 1)))
        streams = stack.enter_context(VideoStreams(args, frames.live))
        detection = _VideoDetection(args, net, frames, streams)
        if args.darknet:
            detection.lines = stack.enter_context(DemoLines(args.source, args.ext_output, out is not None))
        found = detection.run(None if out is None else out.write)
        if args.json and args.json != "-":
            write_atomically(args.json, json_list(found))
        else:
            for entry in found:
                if args.json:
                    print(json.dumps(entry, ensure_ascii=False), flush=True)
    print(
        detection.result(out.path if out and detection.count else None),
        file=sys.stderr if args.json == "-" or args.darknet else sys.stdout,
    )
    return 130 if detection.interrupted and not frames.live else 0


class _VideoDetection:
    """Reads the frames once: detects, draws, shows."""

    def __init__(self, args: argparse.Namespace, net: BackendNetwork, frames: FrameReader, streams: VideoStreams):
        self.args, self.net, self.frames, self.streams = args, net, frames, streams
        self.lines: DemoLines | None = None
        self.tracker = ObjectTracker(frames.rate / (args.skip + 1)) if args.track else None
        self.count = 0
        self.seconds = 0.0
        self.interrupted = False

    def run(self, write: Callable[[Image], None] | None) -> Iterator[JsonFrame]:
        """The JSON of each frame; `write` takes the frame with boxes."""
        args, start = self.args, time.perf_counter()
        total = self.frames.count if args.limit is None else min(self.frames.count or args.limit, args.limit)
        bar = tqdm(total=total, unit="frame", disable=not sys.stderr.isatty())
        try:
            for number, image, found in self._detections():
                self.count += 1
                drawn = None
                if write or args.images or args.show or self.streams.needs_image:
                    drawn = found.plot(image)
                    if write:
                        write(drawn)
                    if args.images:
                        save_image(f"{args.images}_{self.count:08d}.jpg", drawn)
                    if args.show and not show(drawn):
                        break
                bar.set_postfix_str(found.summary()[:60], refresh=False)
                bar.update()
                entry = found.to_frame(number + 1)
                self.streams.send(entry, drawn, found)
                if self.lines is not None:
                    self.lines.print_frame(found)
                yield entry
                self.seconds = time.perf_counter() - start
                if self.count == args.limit or (args.seconds and self.seconds >= args.seconds):
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        bar.close()

    def result(self, video: Path | None) -> str:
        """One line: number of frames, speed, and where the results are."""
        if not self.count and not self.interrupted:
            raise DataError(f"{self.frames.name}: no frame of this video can be read")
        results = [f"video in {video}"] if video else []
        if self.args.images:
            results.append(f"images in {self.args.images}_*.jpg")
        if self.args.json and self.args.json != "-":
            results.append(f"detections in {self.args.json}")
        return "; ".join(
            [f"{counted(self.count, 'frame')}, {self.count / max(self.seconds, 1e-9):.1f} per second", *results]
        )

    def _detections(self) -> Iterator[tuple[int, Image, Detections]]:
        """Number, image and visible detections of each frame."""
        options = detect_options(self.args, self.net.names)
        frames = iter(self.frames)
        while batch := list(islice(frames, self.args.batch)):
            found = detect(self.net, [self._resized(image) for _, image in batch], options)
            for (number, image), detections in zip(batch, found, strict=True):
                visible = replace(detections.visible(), image_size=(image.shape[1], image.shape[0]))
                yield number, image, self.tracker.update(visible) if self.tracker else visible

    def _resized(self, image: Image) -> Image:
        """At the network's size by OpenCV's resize, as in C's `demo`; letterboxed frames are resized as images are."""
        if uses_letter_box(self.net.graph, self.args.letter_box):
            return image
        net = self.net.graph.net
        resized = cv2.resize(image, (net.width, net.height))
        return np.asarray(resized, np.uint8).reshape(net.height, net.width, -1)


def video_path(args: argparse.Namespace) -> Path:
    """The video file to write."""
    if args.out:
        return Path(args.out)
    name = Path(args.source.partition("?")[0]).stem or "stream"
    return Path("predictions") / f"{f'camera{name}' if args.source.isdecimal() else name}.mp4"
