"""Ctrl-C and SIGTERM: the first asks training to stop after the current iteration, the second stops at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulShutdown:
    """Listens for signals while it is entered. Only the main thread can listen.

    Attributes:
        requested: Whether a signal has asked to stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._process = os.getpid()

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked loader process: it runs until its parent needs it no more
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning("stopping after this iteration; press Ctrl-C again to quit immediately")
