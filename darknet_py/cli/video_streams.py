"""What `video` sends while it runs: JSON and MJPEG streams, and messages to a web server."""

from __future__ import annotations

import argparse
import time

import cv2

from darknet_py.cli.common import port
from darknet_py.cli.darknet_output import json_frame
from darknet_py.data.images import Image
from darknet_py.inference.detections import Detections, JsonFrame
from darknet_py.serving.http_post import HttpPoster, post_message
from darknet_py.serving.listen import listen
from darknet_py.serving.streams import JSON_STREAM, MJPEG_STREAM, StreamServer, mjpeg_part

_QUALITY = 40  # of `demo`


def stream_arguments(parser: argparse.ArgumentParser) -> None:
    """--json-port, --mjpeg-port, --stream-host, --http-post."""
    parser.add_argument("--json-port", type=port, metavar="PORT", help="serve Darknet's JSON of each frame over HTTP")
    parser.add_argument("--mjpeg-port", type=port, metavar="PORT", help="serve the frames with boxes, for browsers")
    parser.add_argument(
        "--stream-host", default="127.0.0.1", metavar="HOST", help="address of both (default: this machine alone)"
    )
    parser.add_argument(
        "--http-post", metavar="HOST/PATH", help="post the classes of each frame, as text, to a web server"
    )


class VideoStreams:
    """The streams that the arguments ask for. Use as a context manager.

    Args:
        args: Those of `stream_arguments`, and --seconds.
        source: Where the video comes from.
        live: Whether the source goes on while nobody reads it.
        number: Of the source, from 0 on; it is added to the ports.

    Raises:
        DarknetError: A port is taken.
    """

    def __init__(self, args: argparse.Namespace, source: str, live: bool, number: int):
        self._json = self._mjpeg = None
        if args.json_port is not None:
            self._json = StreamServer(listen(args.stream_host, args.json_port + number), JSON_STREAM, live)
        if args.mjpeg_port is not None:
            self._mjpeg = StreamServer(listen(args.stream_host, args.mjpeg_port + number), MJPEG_STREAM, live)
        self._poster = HttpPoster(args.http_post, once=bool(args.seconds)) if args.http_post else None
        self._source = source

    @property
    def needs_image(self) -> bool:
        """Whether somebody looks at the frames."""
        return self._mjpeg is not None and self._mjpeg.readers > 0

    def send(self, entry: JsonFrame, drawn: Image | None, found: Detections) -> None:
        """Sends a frame.

        Args:
            entry: Its JSON.
            drawn: RGB or gray, with boxes; None where nobody looks at it.
            found: Its visible detections.
        """
        if self._json:
            self._json.send(json_frame(entry).encode())
        if self._mjpeg and drawn is not None:
            image = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR) if drawn.ndim == 3 and drawn.shape[2] == 3 else drawn
            self._mjpeg.send(mjpeg_part(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()))
        if self._poster:
            self._poster.send(post_message(found, self._source, time.localtime()))

    def __enter__(self) -> VideoStreams:
        return self

    def __exit__(self, *_: object) -> None:
        for part in (self._json, self._mjpeg, self._poster):
            if part:
                part.close()
