"""The processes that `torchrun` started together: how they meet, and how a lost one is noticed.

A stopped process, or one whose host is gone, closes no connection: whoever waits for it in a collective operation waits
until that times out. So each process has a thread that counts up a key of the store through which they met, and one
that looks whether the others still do. They run beside the computation, however long that takes.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, NoReturn

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from darknet_py.errors import TrainError

TIMEOUT = 120.0  # seconds without an answer after which a process is given up
_JOINING = 600.0  # seconds for the others to start: imports may be slow; at least the timeout
_PATIENCE = 30.0  # seconds after which the missing ones are named
_BEATS = 6  # per timeout
_LONGEST_PAUSE, _SHORT_PAUSE = 5.0, 0.1  # seconds between beats; while processes meet or part
_PARTING = 5.0  # seconds for the last words
_PR_SET_PDEATHSIG = 1
_WORKING, _DONE, _LEFT = "working", "done", "left"

logger = logging.getLogger(__name__)
_active: PeerWatch | None = None  # of this process
# By address, of rank 0, for as long as it runs: the next training meets at the same one.
_servers: dict[tuple[str, int], TCPStore] = {}


class _Beat(NamedTuple):
    """What a process last wrote."""

    number: str = ""
    status: str = ""
    process: str = ""
    host: str = ""

    @classmethod
    def parse(cls, text: bytes) -> _Beat:
        return cls(*text.decode("utf-8", "replace").split(" ", 3))


class PeerWatch:
    """Meets the other processes and watches them while it is entered.

    A process that does not answer ends this one, with a line that names it and exit code 1: the main thread may wait
    for it inside a library. On leaving, a process waits until all are done.

    Args:
        rank: Of this process.
        size: Number of processes.
        timeout: Seconds after which a process that does not answer is given up.
        advice: What to do then.

    Raises:
        TrainError: Not all processes have started in time.
    """

    def __init__(self, rank: int, size: int, timeout: float, advice: str):
        self._rank, self._size, self._timeout, self._advice = rank, size, timeout, advice
        self._joining = max(_JOINING, timeout)
        if not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
            raise TrainError(f"WORLD_SIZE={size}: expected MASTER_ADDR and MASTER_PORT too, as torchrun sets them")
        self._address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._agent_has_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self._pause = min(timeout / _BEATS, _LONGEST_PAUSE)
        self._status = _WORKING
        self._hurry, self._stopping = threading.Event(), threading.Event()
        self._beats: dict[int, _Beat] = {}  # the last ones of the others, by rank
        self._rounds = 0  # of beats that the store has answered
        self._token = ""  # of these processes, which the store may have had others before
        self._groups = 0
        self._has_named = False  # who has not started
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> PeerWatch:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_parent()
        self._started = time.monotonic()
        deadline = self._started + self._joining
        try:
            # Without an agent that has a store for all, rank 0 does; other users of the same address share it.
            self._store = self._connect(deadline, is_master=self._rank == 0 and not self._agent_has_store)
            if self._rank == 0 and not self._agent_has_store:
                _servers.setdefault(self._address, self._store)
            self._token = self._meet(deadline)
            self._start()
            self._wait_for_all(deadline)
        except RuntimeError as error:  # torch's, such as DistNetworkError
            raise TrainError(f"rank {self._rank}: {self._store_name} does not answer; {self._advice}") from error
        finally:
            if not self._is_complete:
                self._stopping.set()
        self._hurry.clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._say(_DONE)
            while not all(beat.status in (_DONE, _LEFT) for beat in self._beats.values()):
                time.sleep(_SHORT_PAUSE)
        self._say(_LEFT)
        deadline = time.monotonic() + _PARTING
        if kind is None and self._rank == 0:  # which may hold the store
            while time.monotonic() < deadline and not all(beat.status == _LEFT for beat in self._beats.values()):
                time.sleep(_SHORT_PAUSE)
        self._stopping.set()
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), _SHORT_PAUSE))

    def group_store(self, timeout: timedelta) -> Store:
        """A store for a process group; each call gives another one, the same to all processes."""
        self._groups += 1
        deadline = time.monotonic() + self._joining
        store = self._connect(deadline, is_master=False)
        store.set_timeout(timeout)
        return PrefixStore(f"{self._token}/group {self._groups}", store)

    @property
    def _is_complete(self) -> bool:
        """Whether all others have been heard."""
        return len(self._beats) == self._size - 1

    @property
    def _store_name(self) -> str:
        """Who has the store, for messages."""
        store = "the store at {}:{}".format(*self._address)
        if self._agent_has_store:
            return f"{store} (of torchrun's first agent)"
        return f"{self._name(0, self._beats)}, which has {store},"

    @staticmethod
    def _name(rank: int, beats: Mapping[int, _Beat]) -> str:
        """A rank, with its process and host where they are known."""
        beat = beats.get(rank)
        return f"rank {rank} (process {beat.process} on {beat.host})" if beat else f"rank {rank}"

    def _connect(self, deadline: float, is_master: bool) -> TCPStore:
        timeout = timedelta(seconds=max(deadline - time.monotonic(), 1))
        return TCPStore(*self._address, is_master=is_master, timeout=timeout, wait_for_workers=False, multi_tenant=True)

    def _meet(self, deadline: float) -> str:
        """A name that rank 0 makes up for these processes.

        torchrun keeps a store over its restarts, with what ended processes have written (pytorch/pytorch#135712), and
        its agents count restarts differently where a host was replaced. So each process asks with a word that was
        never used before, and rank 0 answers until it has heard from all.
        """
        if self._rank:
            question = uuid.uuid4().hex
            self._store.set(f"darknet_py/question/{self._rank}", question)
            while not self._store.check([f"darknet_py/answer/{question}"]):
                self._check_deadline(deadline, [0])
                time.sleep(_SHORT_PAUSE)
            return self._store.get(f"darknet_py/answer/{question}").decode()
        token = f"darknet_py/{uuid.uuid4().hex}"
        missing = list(range(1, self._size))
        while missing:
            for rank in missing:
                if self._store.check([f"darknet_py/question/{rank}"]):
                    question = self._store.get(f"darknet_py/question/{rank}").decode()
                    self._store.set(f"darknet_py/answer/{question}", token)
            missing = [rank for rank in missing if not self._store.check([f"{token}/{rank}"])]
            self._check_deadline(deadline, missing)
            time.sleep(_SHORT_PAUSE if missing else 0)
        return token

    def _wait_for_all(self, deadline: float) -> None:
        while not self._is_complete:
            self._check_deadline(deadline, sorted(set(range(self._size)) - {self._rank, *self._beats}))
            time.sleep(_SHORT_PAUSE)

    def _check_deadline(self, deadline: float, missing: list[int]) -> None:
        """Names the missing processes: after a while in the log, at the deadline as an error."""
        if not missing:
            return
        names = f"rank {', '.join(map(str, missing))}"
        now = time.monotonic()
        if now > deadline:
            raise TrainError(f"rank {self._rank}: {names}: not started within {self._joining:g} s; {self._advice}")
        if now > self._started + _PATIENCE and not self._has_named and (self._rank == 0 or missing == [0]):
            self._has_named = True
            logger.warning("rank %d: waiting for %s to start", self._rank, names)

    def _start(self) -> None:
        self._hurry.set()
        for work in (self._beat, self._watch):
            thread = threading.Thread(target=work, name=f"darknet_py {work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _say(self, status: str) -> None:
        self._status = status
        self._hurry.set()

    def _beat(self) -> None:
        """Counts up, and reads what the others have counted."""
        others = [rank for rank in range(self._size) if rank != self._rank]
        keys = {rank: f"{self._token}/{rank}" for rank in others}
        says = f"{os.getpid()} {socket.gethostname()}"
        try:
            while True:
                is_last = self._stopping.is_set()
                self._store.set(f"{self._token}/{self._rank}", f"{self._rounds} {self._status} {says}")
                known = [rank for rank in others if rank in self._beats or self._store.check([keys[rank]])]
                values = self._store.multi_get([keys[rank] for rank in known]) if known else []
                read = {rank: _Beat.parse(value) for rank, value in zip(known, values, strict=True)}
                self._beats = {**self._beats, **read}
                self._rounds += 1
                if is_last:
                    return
                if self._hurry.is_set():
                    self._stopping.wait(_SHORT_PAUSE)
                else:
                    self._hurry.wait(self._pause)
        except RuntimeError:  # the store is gone; `_watch` notices that nothing comes any more
            return

    def _watch(self) -> None:
        """Ends this process where another one has been silent for too long."""
        silence = dict.fromkeys(range(self._size), 0.0)  # seconds; this process's own is that of the store
        last, rounds, before = time.monotonic(), 0, dict(self._beats)
        while not self._stopping.wait(self._pause):
            # No more than a pause, because this process, or its whole machine, may have been stopped itself.
            now = time.monotonic()
            passed, last = min(now - last, 2 * self._pause), now
            if self._rounds == rounds:
                silence[self._rank] += passed
            else:
                rounds, beats = self._rounds, dict(self._beats)
                silence[self._rank] = 0.0
                for rank, beat in beats.items():
                    silence[rank] = silence[rank] + passed if beat == before.get(rank) and beat.status != _LEFT else 0.0
                before = beats
            if silence[self._rank] >= self._timeout:
                self._give_up(self._store_name, 1)
            lost = [rank for rank, seconds in silence.items() if seconds >= self._timeout]
            if lost:
                self._give_up(", ".join(self._name(rank, before) for rank in lost), len(lost))

    def _give_up(self, names: str, count: int) -> NoReturn:
        logger.error(
            "rank %d: %s %s not answered for %g s; %s",
            self._rank,
            names,
            "has" if count == 1 else "have",
            self._timeout,
            self._advice,
        )
        logging.shutdown()
        for child in multiprocessing.active_children():
            child.kill()
        # What this process leaves is whole at any time, and the system drops its lock.
        os._exit(1)


@contextmanager
def watch_peers(rank: int, size: int, timeout: float, advice: str) -> Iterator[PeerWatch | None]:
    """A `PeerWatch` of this process; inside of another one that one. A single process needs none.

    Args:
        rank: Of this process.
        size: Number of processes.
        timeout: Seconds after which a process that does not answer is given up.
        advice: What to do then.

    Yields:
        The watch, or None.

    Raises:
        TrainError: Not all processes have started in time.
    """
    global _active
    if _active is not None or size == 1:
        yield _active
        return
    with PeerWatch(rank, size, timeout, advice) as watch:
        _active = watch
        try:
            yield watch
        finally:
            _active = None


def end_with_parent() -> None:
    """Lets the system kill this process when its parent ends (Linux).

    A rank would train on without its agent, beside the ranks that a new agent starts, and write the same files. What it
    leaves is whole at any time.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
