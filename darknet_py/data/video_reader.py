"""Frames of a video file, a camera or a network stream, through OpenCV."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

import cv2

from darknet_py.data.images import Image
from darknet_py.errors import DataError

_PREFETCH = 8  # frames of a file that are decoded in advance
_DEFAULT_RATE = 25.0  # frames per second, if the source does not tell


class FrameReader:
    """Iterates over (number from 0 on, frame): uint8 (H, W, 3) RGB, or (H, W, 1) with channels=1.

    source: a file, a camera's number, or an address that OpenCV opens (rtsp://, http:// …). A file yields every frame
    (with `skip`, every skip + 1st). A live source yields the newest frame and drops those missed meanwhile, as C's
    `demo` does. Raises DataError for a source that cannot be opened. Use as a context manager.
    """

    def __init__(self, source: str, channels: int = 3, skip: int = 0):
        if channels not in (1, 3):
            raise DataError(f"{source}: expected a network of 1 or 3 channels for a video, got {channels}")
        self.name = f"camera {source}" if source.isdecimal() else source
        self.live = source.isdecimal() or "://" in source
        if not self.live and not os.path.isfile(source):
            raise DataError(f"{source:.300}: video file not found (expected a file, a camera number or a URL)")
        self._capture = _open(int(source) if source.isdecimal() else source)
        if not self._capture.isOpened():
            raise DataError(f"{self.name}: cannot be opened as a video")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 1 <= rate <= 1000 else _DEFAULT_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = None if self.live or not 0 < count < 1e9 else -(-int(count) // (skip + 1))
        self._flag = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGR2GRAY
        self._skip = skip
        self._frames: queue.Queue[tuple[int, Any] | None] = queue.Queue(1 if self.live else _PREFETCH)
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the source."""
        self._stop.set()
        self._reader.join(5)  # the thread of a stream that hangs ends with the process
        if not self._reader.is_alive():
            self._capture.release()

    def __iter__(self) -> Iterator[tuple[int, Image]]:
        while (entry := self._frames.get()) is not None:
            number, frame = entry
            image = cv2.cvtColor(frame, self._flag)
            yield number, image[:, :, None] if image.ndim == 2 else image

    def _read(self) -> None:
        number = 0
        while not self._stop.is_set() and self._capture.grab():
            is_due = number % (self._skip + 1) == 0
            decoded, frame = self._capture.retrieve() if is_due else (False, None)
            if decoded:
                self._put((number, frame))
            number += 1
        self._put(None)

    def _put(self, entry: tuple[int, Any] | None) -> None:
        while not self._stop.is_set():
            try:
                return self._frames.put(entry, timeout=0 if self.live else 0.1)
            except queue.Full:
                if self.live and entry is not None:
                    self._drop()

    def _drop(self) -> None:
        try:
            self._frames.get_nowait()
        except queue.Empty:  # it has just been taken
            return


def _open(source: int | str) -> cv2.VideoCapture:
    """Opens the source with the messages of OpenCV silenced."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source)
    finally:
        logging.setLogLevel(level)
