"""Loader processes: they make whole batches in shared memory, in order, and end with their parent."""

from __future__ import annotations

import atexit
import ctypes
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from darknet_py.errors import DataError

_PREFETCH = 4  # batches that each worker makes ahead


class Work(Protocol):
    """What workers do: `__getitems__` answers a request with (images (B, H, W, C), anything …), or says what is wrong.

    Faults are values (a line of text), as torch would wrap an exception of a worker in its traceback.
    """

    def __getitems__(self, request: Any) -> tuple[Any, ...] | str: ...


def default_workers() -> int:
    """One process per core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def run(work: Work, requests: Iterable[Any], workers: int, device: torch.device) -> Iterator[tuple[Any, ...]]:
    """Collated answers to `requests` (lists of what `work` takes), in order; the first is sent to `device`."""
    # Forked workers start at once and share cached images; newer Pythons would spawn them by default.
    context = "fork" if sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods() else None
    batches = iter(
        DataLoader(
            work,  # type: ignore[arg-type]
            batch_sampler=requests,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            multiprocessing_context=context if workers else None,
            worker_init_fn=start_worker,
            prefetch_factor=_PREFETCH if workers else None,
            generator=torch.Generator(),  # its own, so that reading data never moves torch's global one
        )
    )
    # Ends the workers now, not when the garbage collector comes by; at exit before Python kills them one by one.
    shutdown = getattr(batches, "_shutdown_workers", None)
    mapped: dict[
        int, torch.UntypedStorage
    ] = {}  # workers' `SharedBufferPool`, so that none is mapped anew for each batch
    if shutdown:
        atexit.register(shutdown)
    try:
        for answer in batches:
            if isinstance(answer, str):
                raise DataError(answer)
            if workers and device.type == "cpu" and answer[0].dtype == torch.uint8:
                if len(mapped) > 2 * workers * (_PREFETCH + 1):  # they were replaced by larger ones
                    mapped.clear()
                storage = answer[0].untyped_storage()
                mapped[storage.data_ptr()] = storage
            yield to_device(answer[0], device), *answer[1:]
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(f"a loader process ended unexpectedly: {str(error).splitlines()[0]}") from None
    finally:
        if shutdown:
            atexit.unregister(shutdown)
            shutdown()


def start_worker(_: int = 0) -> None:
    """What a loader process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(AttributeError, OSError):
        os.setpgid(0, 0)  # Ctrl-C and `kill` of the group are for the main process, which then ends its workers
    cv2.setNumThreads(0)
    with suppress(AttributeError, OSError):
        # Keep freed memory (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc): images come and go all the time, and taking
        # their pages from the system again and again costs as much as a resize.
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 1 << 30)
        libc.mallopt(-3, 1 << 30)


def _as_it_is(answer: Any) -> Any:
    return answer


def room(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """An empty tensor, in shared memory when called in a worker."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=kind)
    storage = torch.empty(0, dtype=kind).untyped_storage()._new_shared(math.prod(shape) * kind.itemsize)
    return torch.empty(0, dtype=kind).set_(storage).view(shape)  # type: ignore[call-overload]


class SharedBufferPool:
    """`room` for batches of uint8, in a few buffers that are used in turn.

    Fresh memory costs more than painting it: each of its pages has to come from the system. `run` copies a batch
    (`to_device`) before it asks for another, and a worker is at most `_PREFETCH` batches ahead of that.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._turn = 0

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        if not self._buffers:
            ahead = 0 if torch.utils.data.get_worker_info() is None else _PREFETCH
            self._buffers = [torch.empty(0, dtype=torch.uint8)] * (1 + ahead)
        self._turn = (self._turn + 1) % len(self._buffers)
        if self._buffers[self._turn].numel() < size:
            self._buffers[self._turn] = room((size,), torch.uint8)
        return self._buffers[self._turn][:size].view(shape)


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, C) uint8 or float → (B, C, H, W) float in 0..1 on the device, channels-last in memory."""
    images = images.to(device, non_blocking=device.type == "cuda").permute(0, 3, 1, 2)
    return torch.div(images, 255) if images.dtype == torch.uint8 else images
