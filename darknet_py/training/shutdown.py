"""Ctrl-C, SIGTERM and SIGHUP: the first asks training to stop and save, a later one ends it at once.

Python runs its signal handlers between two of its own instructions, and one backward pass of a large network can take
a minute of C++. A thread therefore reads the signals from a pipe (`signal.set_wakeup_fd`): it answers while
torch computes.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

logger = logging.getLogger(__name__)

_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else [])]
_SAME_REQUEST = 0.3  # seconds; `timeout` and some schedulers send a signal to a process and to its group
_INTERRUPTED = 130  # exit code


class StopRequested(KeyboardInterrupt):
    """Raised inside `GracefulShutdown.interruptible` once a signal has asked to stop."""


class GracefulShutdown:
    """Listens for signals while it is entered. Only the main thread can listen.

    Args:
        quit: What is done just before a later signal ends the process, wherever it is. None: a later signal raises
            KeyboardInterrupt as soon as Python runs again, which leaves the process to its owner.
        raises: Whether `interruptible` raises StopRequested. Several processes cannot stop without agreeing on it.

    Attributes:
        requested: Whether a signal has asked to stop.
    """

    def __init__(self, quit: Callable[[], None] | None = None, *, raises: bool = True) -> None:
        self.requested = False
        self._quit = quit
        self._raises = raises
        self._interruptible = False
        self._first = 0.0
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._previous_wakeup = -1
        self._pipe = (-1, -1)
        self._process = os.getpid()

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in _SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                self._previous[number] = signal.signal(number, self._handle)
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._previous:
            return
        signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._pipe[1])  # ends the thread

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A part of the training that may be left anywhere: StopRequested is raised in it, or on entering it."""
        self._interruptible = self._raises
        try:
            if self.requested and self._raises:
                raise StopRequested
            yield
        finally:
            self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked loader process: it runs until its parent needs it no more
        if self._is_repeated():
            raise KeyboardInterrupt
        self.requested = True
        if self._interruptible:
            raise StopRequested

    def _is_repeated(self) -> bool:
        """Whether a signal is a later request than the first, which it is noted as otherwise."""
        now = time.monotonic()
        self._first = self._first or now
        return now - self._first > _SAME_REQUEST

    def _watch(self) -> None:
        """Runs in a thread of its own."""
        asked = False
        while numbers := os.read(self._pipe[0], 64):
            if not any(number in self._previous for number in numbers):
                continue
            if self._is_repeated() and self._quit is not None:
                self._end(self._quit)
            if not asked:
                asked = True
                logger.warning("stopping and saving; press Ctrl-C again to quit immediately")
        os.close(self._pipe[0])

    def _end(self, quit: Callable[[], None]) -> None:
        """Ends the process: its loader processes, what `quit` puts in order, then itself."""
        with suppress(Exception):
            for child in multiprocessing.active_children():
                child.kill()
        with suppress(Exception):
            quit()
        with suppress(OSError):
            os.write(2, b"\ninterrupted; the last saved state is kept\n")
        os._exit(_INTERRUPTED)
