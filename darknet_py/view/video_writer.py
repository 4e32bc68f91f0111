"""Writes images to a video file through OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from darknet_py.data.images import Image
from darknet_py.errors import DataError
from darknet_py.files import make_folder

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v"}


_LONGEST_GAP = 600.0  # seconds; after a longer one the frames are taken to have other times


class VideoFile:
    """A video file; close it with `close` or use it in a `with` statement.

    OpenCV's writer knows one rate for the whole file, no times. A frame with a time is therefore repeated until the
    next one's, and left out where that comes within the same 1 / rate: a frame is shown within half of that of its
    time.

    Args:
        path: The file; its extension chooses the codec (`CODECS`).
        rate: Frames per second.

    Raises:
        DataError: An unknown extension, or a path that cannot be written.
    """

    def __init__(self, path: str | Path, rate: float):
        self.path = Path(path)
        ending = self.path.suffix.lower()
        if ending not in CODECS:
            raise DataError(f"{path}: expected a video ending in {', '.join(CODECS)}, got {ending or 'no ending'}")
        make_folder(self.path.parent)
        self._codec = cv2.VideoWriter_fourcc(*CODECS[ending])  # type: ignore[attr-defined]
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None
        self._size = 0, 0
        self._waiting: cv2.typing.MatLike | None = None  # the newest frame, at `_position` in the file
        self._position, self._start = 0, 0.0

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, frame: Image, seconds: float | None = None) -> None:
        """Writes a frame.

        Args:
            frame: uint8 (H, W, 3) RGB; it is resized if its size differs from the first frame's.
            seconds: Its time; None: it follows on the frame before. The first frame is the beginning of the file.
        """
        if self._writer is None:
            self._size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(str(self.path), self._codec, self._rate, self._size)
            if not self._writer.isOpened():
                raise DataError(f"{self.path}: cannot write the video")
        if frame.shape[1::-1] != self._size:
            frame = np.asarray(cv2.resize(frame, self._size), np.uint8)
        if self._waiting is None:
            self._start = seconds or 0.0
        else:
            due = self._position + 1
            if seconds is not None:
                slot = round((seconds - self._start) * self._rate)
                if 0 <= slot - self._position <= _LONGEST_GAP * self._rate:
                    due = slot
                else:
                    self._start = seconds - due / self._rate
            for _ in range(due - self._position):
                self._writer.write(self._waiting)
            self._position = due
        self._waiting = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)

    def close(self) -> None:
        """Finishes the file."""
        if self._writer is not None:
            if self._waiting is not None:
                self._writer.write(self._waiting)
            self._writer.release()
            self._writer = None
