"""`video CFG SOURCE`: boxes in a video, from a camera or a stream; Darknet's `detector demo`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darknet_py.cli.common import count, positive
from darknet_py.cli.detect import finding_arguments, frame, load_detector, summary

if TYPE_CHECKING:
    from darknet_py.data.images import Image
    from darknet_py.data.video_reader import FrameReader
    from darknet_py.model.network import Network
    from darknet_py.view.draw import Picture

HELP = "find objects in a video, from a camera or a stream: writes a video with boxes, pictures, JSON"
_ESCAPE = 27


def configure(parser: argparse.ArgumentParser) -> None:
    finding_arguments(parser)
    parser.add_argument("source", metavar="SOURCE", help="a file, an address (rtsp://, http://) or a camera's number")
    parser.add_argument("--out", metavar="FILE", help="the video to write (default: predictions/SOURCE.mp4)")
    parser.add_argument("--no-video", action="store_true", help="write no video")
    parser.add_argument("--pictures", metavar="PREFIX", help="write each frame as PREFIX_00000001.jpg …")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="Darknet's JSON to FILE, or to stdout, a line per frame"
    )
    parser.add_argument("--show", action="store_true", help="show it in a window; Escape ends")
    parser.add_argument("--skip", type=count, default=0, metavar="N", help="frames left out after each (default: 0)")
    parser.add_argument("--limit", type=positive, metavar="N", help="end after N frames")
    parser.add_argument("--seconds", type=positive, metavar="S", help="end after S seconds")


def run(args: argparse.Namespace) -> int:
    """130 where Ctrl-C ended a file; what was found until then is kept. A live source has no other end."""
    from darknet_py.data.video_reader import FrameReader
    from darknet_py.files import make_folder, write_atomically
    from darknet_py.view.video_writer import VideoFile

    net = load_detector(args)
    if args.pictures:
        make_folder(Path(args.pictures).parent)
    with ExitStack() as stack:
        frames = stack.enter_context(FrameReader(args.source, net.graph.net.channels, args.skip))
        out = None
        if not args.no_video:
            out = stack.enter_context(VideoFile(video_path(args), frames.rate / (args.skip + 1)))
        look = _Look(args, net, frames)
        found = look.run(None if out is None else out.write)
        if args.json and args.json != "-":
            write_atomically(args.json, _as_list(found))
        else:
            for entry in found:
                if args.json:
                    print(json.dumps(entry, ensure_ascii=False), flush=True)
    print(look.result(out.path if out and look.count else None), file=sys.stderr if args.json == "-" else sys.stdout)
    return 130 if look.interrupted and not frames.live else 0


class _Look:
    """Goes through the frames once: finds, draws, shows."""

    def __init__(self, args: argparse.Namespace, net: Network, frames: FrameReader):
        self.args, self.net, self.frames = args, net, frames
        self.count = 0
        self.seconds = 0.0
        self.interrupted = False

    def run(self, write: Callable[[Picture], None] | None) -> Iterator[dict[str, Any]]:
        """An entry for each frame; `write` takes its picture with boxes."""
        from tqdm import tqdm

        from darknet_py.view.draw import draw, is_visible_class, save_picture

        args, start = self.args, time.perf_counter()
        total = self.frames.count if args.limit is None else min(self.frames.count or args.limit, args.limit)
        bar = tqdm(total=total, unit="frame", disable=not sys.stderr.isatty())
        try:
            for number, image, all_found in self._found():
                found = [detection for detection in all_found if is_visible_class(detection.name)]
                self.count += 1
                if write or args.pictures or args.show:
                    picture = draw(image, found)
                    if write:
                        write(picture)
                    if args.pictures:
                        save_picture(f"{args.pictures}_{self.count:08d}.jpg", picture)
                    if args.show and not _show(picture):
                        break
                bar.set_postfix_str(summary(found)[:60], refresh=False)
                bar.update()
                yield frame(number + 1, found)
                self.seconds = time.perf_counter() - start
                if self.count == args.limit or (args.seconds and self.seconds >= args.seconds):
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        bar.close()

    def result(self, video: Path | None) -> str:
        """One line: how much, how fast, and where it is."""
        from darknet_py.errors import DataError

        if not self.count and not self.interrupted:
            raise DataError(f"{self.frames.name}: expected a video, got no frame that can be read")
        places = [f"video in {video}"] if video else []
        if self.args.pictures:
            places.append(f"pictures in {self.args.pictures}_*.jpg")
        if self.args.json and self.args.json != "-":
            places.append(f"detections in {self.args.json}")
        return "; ".join([f"{self.count} frames, {self.count / max(self.seconds, 1e-9):.1f} per second", *places])

    def _found(self) -> Iterator[tuple[int, Image, list[Any]]]:
        from darknet_py.inference.detect import detect

        frames = iter(self.frames)
        while batch := list(islice(frames, self.args.batch)):
            inputs = [self._input(image) for _, image in batch]
            found = detect(self.net, inputs, self.args.thresh, self.args.nms, len(inputs))
            for (number, image), each in zip(batch, found, strict=True):
                yield number, image, each

    def _input(self, image: Image) -> Image:
        """At the network's size by OpenCV's resize, as C's `demo`; images and letterboxes have Darknet's own."""
        import cv2

        net = self.net.graph.net
        if net.letter_box:
            return image
        return cv2.resize(image, (net.width, net.height)).reshape(net.height, net.width, -1)


def video_path(args: argparse.Namespace) -> Path:
    """Where the video goes."""
    if args.out:
        return Path(args.out)
    name = Path(args.source.partition("?")[0]).stem or "stream"
    return Path("predictions") / f"{f'camera{name}' if args.source.isdecimal() else name}.mp4"


def _as_list(entries: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """One JSON list, written as it grows."""
    before = "["
    for entry in entries:
        yield f"{before}\n{json.dumps(entry, ensure_ascii=False)}".encode()
        before = ","
    yield b"[]\n" if before == "[" else b"\n]\n"


def _show(picture: Picture) -> bool:
    """Shows it; False once Escape is pressed."""
    import cv2

    from darknet_py.errors import DarknetError

    try:
        cv2.imshow("darknet_py", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF != _ESCAPE
    except cv2.error:
        raise DarknetError("--show: this OpenCV has no windows (opencv-python-headless), leave it out") from None
