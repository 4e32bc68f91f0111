"""`python -m darknet_py.zoo`: lists the zoo, prints a cfg, or writes them all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from darknet_py.errors import DarknetError
from darknet_py.files import make_folder, write_atomically
from darknet_py.zoo import ZOO, build


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m darknet_py.zoo", description="Darknet cfgs, written from parts.")
    parser.add_argument("name", nargs="?", help="network to print (default: list the names)")
    parser.add_argument("--classes", type=int, help="number of classes (default: as published)")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write every network to FOLDER/NAME.cfg")
    options = parser.parse_args(arguments)
    try:
        if options.write:
            folder = make_folder(options.write)
            for name in ZOO:
                write_atomically(folder / f"{name}.cfg", build(name).encode())
        else:
            print(build(options.name, options.classes) if options.name else "\n".join(ZOO))
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
