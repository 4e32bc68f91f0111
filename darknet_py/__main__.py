"""`python -m darknet_py`."""

import sys

from darknet_py.cli import main

if __name__ == "__main__":
    sys.exit(main())
