"""`python -m darknet_py`."""

import atexit
import os
import sys

from darknet_py.cli import main


def run() -> None:
    """`main`, then the end of this process.

    One that torchrun started ends without taking Python down piece by piece: while that goes on, a thread of torch's
    process group can call std::terminate, and a training that is done would count as failed.
    """
    status = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
