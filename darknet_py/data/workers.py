"""Loader processes: they prepare whole batches in shared memory, in order, and end with their parent."""

from __future__ import annotations

import atexit
import ctypes
import logging
import math
import multiprocessing
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import cv2
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from darknet_py.errors import DataError
from darknet_py.untrusted import first_line

_PREFETCH = 4  # batches that each worker prepares in advance
_SHARED_MEMORY = "/dev/shm"  # of Linux
_STALLED = 600  # seconds without a batch, after which the loader processes are given up

logger = logging.getLogger(__name__)
_warned: set[str] = set()

T = TypeVar("T")
Request = TypeVar("Request")
Labels = TypeVar("Labels")
Labels_co = TypeVar("Labels_co", covariant=True)


class Work(Protocol[Request, Labels_co]):
    """Work of a loader process: it answers requests with images (B, H, W, C) and what belongs to them, or an error.

    An error is returned as a line of text, because torch would wrap an exception of a worker in its traceback.
    """

    def __getitems__(self, requests: list[Request], /) -> tuple[Tensor, Labels_co] | str: ...


def default_workers() -> int:
    """One process per available core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def run_workers(
    work: Work[Request, Labels], requests: Iterable[list[Request]], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Labels]]:
    """Answers of `work` to `requests`, in order, with their images on `device`. Raises DataError.

    Without shared memory (`_SHARED_MEMORY`) this process does the work; where it is full, batches travel through pipes.
    """
    if workers and not _can_share():
        workers = 0
    # Forked workers start at once and share cached images; newer Pythons would spawn them by default.
    context = "fork" if sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods() else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more than cores: the user's choice
        loader: DataLoader[object] = DataLoader(
            _Packing(work),  # type: ignore[arg-type]
            batch_sampler=requests,
            num_workers=workers,
            timeout=_STALLED if workers else 0,
            collate_fn=_identity,
            pin_memory=device.type == "cuda",
            multiprocessing_context=context if workers else None,
            worker_init_fn=start_worker,
            prefetch_factor=_PREFETCH if workers else None,
            generator=torch.Generator(),  # its own, so that reading data leaves the global generator of torch alone
        )
        others = multiprocessing.active_children()
        batches = iter(loader)
    # Ends the workers now and not in the garbage collector; at exit before Python kills them one by one.
    shutdown = getattr(batches, "_shutdown_workers", None)
    processes = [child for child in multiprocessing.active_children() if child not in others]

    def end() -> None:
        if shutdown:
            shutdown()
        _kill(processes)

    mapped: dict[int, torch.UntypedStorage] = {}  # keeps the buffers of the workers mapped between batches
    atexit.register(end)
    try:
        for answer in batches:
            if isinstance(answer, str):
                raise DataError(answer)
            images, labels = _unpacked(answer)
            if workers and device.type == "cpu" and images.dtype == torch.uint8:
                if len(mapped) > 2 * workers * (_PREFETCH + 1):  # replaced by larger ones
                    mapped.clear()
                if images.is_shared():
                    storage = images.untyped_storage()
                    mapped[storage.data_ptr()] = storage
                else:
                    _warn_of_full_memory()
            yield to_device(images, device), labels
    except RuntimeError as error:
        if "DataLoader timed out" in str(error):
            stopped = ", ".join(str(process.pid) for process in processes)
            _kill(processes)
            raise DataError(
                f"no batch for {_STALLED} s: the loader processes ({stopped}) have stopped, or the disk does not answer"
            ) from None
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(f"a loader process terminated unexpectedly: {first_line(error)}") from None
    finally:
        atexit.unregister(end)
        end()


def _kill(processes: Iterable[BaseProcess]) -> None:
    """Ends what SIGTERM did not: Python would wait for a stopped process when it exits."""
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()


def _can_share() -> bool:
    """Whether the system lets processes share memory and locks; otherwise the reason is logged."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        _warn(
            f"{_SHARED_MEMORY}: {error.strerror or error}: without it there are no loader processes, and the main "
            "process loads the images (as with --workers 0)"
        )
        return False
    return True


def _warn_of_full_memory() -> None:
    with suppress(OSError):
        size = shutil.disk_usage(_SHARED_MEMORY).total
        _warn(
            f"{_SHARED_MEMORY} is full ({size / 2**20:,.0f} MiB): batches reach the main process through pipes, which "
            "is slower; enlarge it (docker run --shm-size=2g), or take fewer loader processes (--workers)"
        )


def _warn(text: str) -> None:
    """Logs it, once in this process."""
    if text not in _warned:
        _warned.add(text)
        logger.warning("%s", text)


class _Packed(NamedTuple):
    """A tensor that is pickled; torch would put one of its own into shared memory."""

    array: NDArray[Any]


class _Packing(Generic[Request, Labels]):
    """`work` whose tensors are pickled in a worker, but for those that are in shared memory already."""

    def __init__(self, work: Work[Request, Labels]):
        self._work = work

    def __getitems__(self, requests: list[Request], /) -> object:
        answer = self._work.__getitems__(requests)
        return answer if torch.utils.data.get_worker_info() is None else _packed(answer)


def _packed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_shared() else _Packed(value.numpy())
    return tuple(map(_packed, value)) if type(value) is tuple else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, _Packed):
        return torch.from_numpy(value.array)
    return tuple(map(_unpacked, value)) if type(value) is tuple else value


def start_worker(_: int = 0) -> None:
    """Initializes a loader process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as SIGINT: for the main process
    with suppress(AttributeError, OSError):
        os.setpgid(0, 0)  # the main process handles Ctrl-C and signals to the group, and ends its workers
    cv2.setNumThreads(0)
    with suppress(AttributeError, OSError):
        # Keep freed memory (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc): returning the pages of each image to the
        # system and requesting them again costs as much as a resize.
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 1 << 30)
        libc.mallopt(-3, 1 << 30)


def _identity(answer: T) -> T:
    return answer


def empty_shared(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """An uninitialized tensor, in shared memory when called in a worker and where there is enough of it."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=kind)
    try:
        storage = torch.empty(0, dtype=kind).untyped_storage()._new_shared(math.prod(shape) * kind.itemsize)
    except RuntimeError:  # no space: torch allocates the pages at once
        return torch.empty(shape, dtype=kind)
    return torch.empty(0, dtype=kind).set_(storage).view(shape)  # type: ignore[call-overload]


class SharedBufferPool:
    """Shared memory for uint8 batches: a few buffers, used in turn.

    New memory would cost more than filling it, as each page comes from the system. `run_workers` copies a batch
    (`to_device`) before it requests another, and a worker is at most `_PREFETCH` batches ahead.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._next = 0

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        if not self._buffers:
            ahead = 0 if torch.utils.data.get_worker_info() is None else _PREFETCH
            self._buffers = [torch.empty(0, dtype=torch.uint8)] * (1 + ahead)
        self._next = (self._next + 1) % len(self._buffers)
        if self._buffers[self._next].numel() < size:
            self._buffers[self._next] = empty_shared((size,), torch.uint8)
        return self._buffers[self._next][:size].view(shape)


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, C) uint8 or float → (B, C, H, W) float in 0..1 on the device, channels-last in memory."""
    images = images.to(device, non_blocking=device.type == "cuda").permute(0, 3, 1, 2)
    # torch.div converts value by value and takes 1.7 times as long, with the same bits.
    return images.float().div_(255) if images.dtype == torch.uint8 else images
