"""How the C library keeps the memory that tensors of a training on the CPU free."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Names and numbers of glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MMAP_MAX = -4
_NEVER = -1
_DEFAULT_MMAP_MAX = 65536
_LARGEST_MMAP_THRESHOLD = 32 << 20


@contextmanager
def freed_memory_reused(device: torch.device) -> Iterator[None]:
    """Has the process keep freed memory for its next tensors, on Linux with glibc; elsewhere it changes nothing.

    device: where the training computes; on a GPU, torch itself reuses memory.

    A training step frees hundreds of megabytes, which glibc returns to the system. It gets them back page by page, each
    filled with zeros: a tenth of the time of a step. Afterwards they are returned, and large blocks are as in a process
    that has freed some.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)  # glibc's own ratio
        libc.malloc_trim(0)
