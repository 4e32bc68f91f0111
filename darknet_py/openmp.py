"""How OpenMP's threads, among which torch divides each operation, wait for each other.

By default they look for work for milliseconds before they sleep. Where another process wants their core, that time is
lost for both: a training can take three times as long beside one busy core of two. This module imports little, as
every command runs it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

# Milliseconds after which a thread of Intel's (and LLVM's) runtime sleeps: longer than the pauses between a network's
# operations. The default is 200.
_BLOCK_TIME = "1"
# How often a thread of libgomp, the runtime in torch's builds for Linux, looks for work before it sleeps. The default
# is 30 times that, some milliseconds. It is the smallest value that costs nothing where all cores are free.
_SPIN_COUNT = "10000"
_RUNTIME = "libiomp5.so"  # of the package intel-openmp, the extra `openmp`


def share_cores() -> None:
    """Has OpenMP's threads wait less eagerly, unless the environment says how. Call it before torch is imported.

    With the extra `openmp`, Intel's runtime takes the place of libgomp: its threads give up their core sooner, and lose
    nothing where nobody else wants it.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return
    os.environ.setdefault("KMP_BLOCKTIME", _BLOCK_TIME)
    os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
    library = Path(sys.prefix, "lib", _RUNTIME)
    if sys.platform == "linux" and "torch" not in sys.modules and library.is_file():
        # Where it cannot be loaded, as on another processor, libgomp does the same work.
        with suppress(OSError):
            # Of the whole process: there torch looks for OpenMP's functions first.
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
