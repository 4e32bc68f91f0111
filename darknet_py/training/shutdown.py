"""Ctrl-C and SIGTERM: the first asks to stop after the current iteration, the second stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulShutdown:
    """While it is entered, `asked` tells whether to stop. Only the main thread can listen."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader process, forked from here: it goes on until its parent needs it no more
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nfinishing this iteration, then saving; once more stops at once", file=sys.stderr, flush=True)
