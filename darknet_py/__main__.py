"""`python -m darknet_py`."""

import atexit
import os
import sys
from contextlib import suppress

from darknet_py.cli import main

# How often a thread of libgomp looks for work before it sleeps: longer than the pauses between a network's operations.
# The default is 30 times that, some milliseconds, which are lost where another process wants the core.
_SPIN_COUNT = "10000"


def run() -> None:
    """`main`, then the end of this process.

    One that has used torch ends without taking Python down piece by piece: while that goes on, a thread of torch can
    call std::terminate, and a training that is done would count as failed.
    """
    set_spin_count()
    status = main()
    if "torch" in sys.modules:
        atexit._run_exitfuncs()
        with suppress(BrokenPipeError):  # `… | head`
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def set_spin_count() -> None:
    """Has OpenMP's threads wait less eagerly, unless the environment says how. Call it before torch is imported."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT


if __name__ == "__main__":
    run()
