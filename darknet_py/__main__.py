"""`python -m darknet_py`."""

import atexit
import os
import sys
from contextlib import suppress

from darknet_py.cli import main
from darknet_py.openmp import share_cores


def run() -> None:
    """`main`, then the end of this process.

    One that has used torch ends without taking Python down piece by piece: while that goes on, a thread of torch can
    call std::terminate, and a training that is done would count as failed.
    """
    share_cores()
    status = main()
    if "torch" in sys.modules:
        atexit._run_exitfuncs()
        with suppress(BrokenPipeError):  # `… | head`
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
