"""Frames of a video file, a camera or a network stream, through OpenCV."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2

from darknet_py.data.images import Image
from darknet_py.errors import DataError

logger = logging.getLogger(__name__)

_PREFETCH = 8  # frames of a file that are decoded in advance
_DEFAULT_RATE = 25.0  # frames per second, if the source does not tell
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds before a lost stream is opened again; they double
_POLL = 0.005  # seconds between looks at live sources that have nothing new


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        number: From 0 on, in its source.
        image: uint8 (H, W, 3) RGB, or (H, W, 1) of a reader with channels=1.
        seconds: Its time: in the file, or since a live source was opened.
    """

    number: int
    image: Image
    seconds: float


class FrameReader:
    """Iterates over the frames of a source. Use as a context manager.

    A file yields every frame (with `skip`, every skip + 1st). A live source yields the newest frame and drops those
    missed meanwhile, as C's `demo` does; a stream that is lost is opened again.

    Args:
        source: A file, a camera's number, or an address that OpenCV opens (rtsp://, http:// …).
        channels: Of the images, 1 or 3.
        skip: Frames to skip after each.
        patience: Seconds without a frame after which a lost stream is given up.

    Attributes:
        name: The source, for messages.
        live: Whether it goes on while nobody reads it.
        rate: Frames per second.
        count: Number of frames; None where it is not known.
        ended: Whether `take` gives no frame any more.

    Raises:
        DataError: The source cannot be opened.
    """

    def __init__(self, source: str, channels: int = 3, skip: int = 0, patience: float = 60.0):
        if channels not in (1, 3):
            raise DataError(f"{source}: expected a network of 1 or 3 channels for a video, got {channels}")
        self.name = f"camera {source}" if source.isdecimal() else source
        self.live = source.isdecimal() or "://" in source
        if not self.live and not os.path.isfile(source):
            raise DataError(f"{source:.300}: video file not found (expected a file, a camera number or a URL)")
        self._source = int(source) if source.isdecimal() else source
        self._capture = _open(self._source)
        if not self._capture.isOpened():
            raise DataError(f"{self.name}: cannot be opened as a video")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = (rate if 1 <= rate <= 1000 else _DEFAULT_RATE) / (skip + 1)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        is_finite = 0 < count < 1e9
        self.count = None if self.live or not is_finite else -(-int(count) // (skip + 1))
        self._patience = patience if "://" in source and not is_finite else 0.0
        self._flag = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGR2GRAY
        self._skip = skip
        self._frames: queue.Queue[tuple[int, Any, float] | None] = queue.Queue(1 if self.live else _PREFETCH)
        self.ended = False
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

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.take()) is not None:
            yield frame

    def take(self, waits: bool = True) -> Frame | None:
        """The next frame; None after the last one and, unless it waits, where there is none yet."""
        if self.ended:
            return None
        try:
            entry = self._frames.get(block=waits)
        except queue.Empty:
            return None
        if entry is None:
            self.ended = True
            return None
        number, frame, seconds = entry
        image = cv2.cvtColor(frame, self._flag)
        return Frame(number, image[:, :, None] if image.ndim == 2 else image, seconds)

    def _read(self) -> None:
        number, start = 0, time.monotonic()
        last, wait = start, _FIRST_WAIT  # of the last frame; before the next attempt to open a lost stream
        while not self._stop.is_set():
            if not self._capture.grab():
                if not self._open_again(last, wait):
                    break
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            if wait > _FIRST_WAIT:
                logger.info("%s: the stream is back after %.1f seconds", self.name, time.monotonic() - last)
            last, wait = time.monotonic(), _FIRST_WAIT
            seconds = last - start if self.live else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            is_due = number % (self._skip + 1) == 0
            decoded, frame = self._capture.retrieve() if is_due else (False, None)
            if decoded:
                self._put((number, frame, seconds))
            number += 1
        self._put(None)

    def _open_again(self, last: float, wait: float) -> bool:
        """Opens a lost stream after a wait; False where it has been lost for too long."""
        left = last + self._patience - time.monotonic()
        if left <= 0:
            if self._patience:
                logger.warning("%s: the stream was lost for %g seconds; given up", self.name, self._patience)
            return False
        if wait == _FIRST_WAIT:
            logger.warning("%s: the stream was lost; opening it again for %g seconds", self.name, self._patience)
        self._stop.wait(min(wait, left))
        self._capture.release()
        self._capture = _open(self._source)
        return True

    def _put(self, entry: tuple[int, Any, float] | None) -> None:
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


def next_frames(readers: Sequence[FrameReader]) -> Iterator[list[tuple[int, Frame]]]:
    """The next frame of each source, with the source's index, until all have ended.

    Files are waited for. Live sources are not, unless there is one alone: a stream that hangs does not stop the others.
    """
    while not all(reader.ended for reader in readers):
        taken = [reader.take(len(readers) == 1 or not reader.live) for reader in readers]
        if found := [(index, frame) for index, frame in enumerate(taken) if frame is not None]:
            yield found
        else:
            time.sleep(_POLL)


def _open(source: int | str) -> cv2.VideoCapture:
    """Opens the source with the messages of OpenCV silenced."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source)
    finally:
        logging.setLogLevel(level)
