"""Runs one command of a checkout's command line and writes down the way it takes through the package.

    python trace_command.py REPORT.json PACKAGE_FOLDER INPUT_FILE … -- COMMAND ARGUMENT …

`measure.py` starts it in a process of its own, with the checkout on PYTHONPATH. Only function calls count; what runs
while a module is being imported does not.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
from collections import Counter
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType

_HEAVY = ("numpy", "torch", "cv2")  # imported before tracing begins, which slows them down


class Tracer:
    """Counts calls in the files of one folder, changes from file to file, and reads of some files."""

    def __init__(self, package: Path, inputs: list[Path]):
        self.files: set[str] = set()
        self.calls = 0
        self.changes = 0
        self.parses = 0
        self.reads: Counter[str] = Counter()  # by input file
        self._prefix = str(package) + os.sep
        self._inputs = {str(path) for path in inputs}
        self._files: dict[CodeType, str] = {}
        self._importing: Counter[int] = Counter()  # by thread: modules of the package being imported
        self._last: dict[int, str] = {}  # by thread: the file called last

    def start(self) -> None:
        sys.addaudithook(self._audit)
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def stop(self) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "return"):
            return
        code = frame.f_code
        file = self._files.get(code)
        if file is None:
            name = code.co_filename
            file = self._files[code] = name[len(self._prefix) :] if name.startswith(self._prefix) else ""
        if not file:
            return
        thread = threading.get_ident()
        if code.co_name == "<module>" and file != "__main__.py":
            self._importing[thread] += 1 if event == "call" else -1
            return
        if event == "return" or self._importing[thread]:
            return
        self.files.add(file)
        self.calls += 1
        if self._last.get(thread) not in (None, file):
            self.changes += 1
        self._last[thread] = file
        if code.co_name == "parse_sections" and file == os.path.join("cfg", "sections.py"):
            self.parses += 1

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        flags = arguments[2]
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path in self._inputs:
            self.reads[Path(path).name] += 1


def main() -> None:
    split = sys.argv.index("--")
    report, package, *inputs = (Path(argument).resolve() for argument in sys.argv[1:split])
    command = sys.argv[split + 1 :]
    for name in _HEAVY:
        with suppress(ImportError):
            import_module(name)
    sys.path[0] = str(package.parent)  # rather than this script's folder
    sys.argv = [package.name, *command]
    tracer = Tracer(package, inputs)
    status: object = 0
    tracer.start()
    try:
        runpy.run_module(package.name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    finally:
        tracer.stop()
    imported = [name for name in sys.modules if name == package.name or name.startswith(package.name + ".")]
    result = {
        "files": len(tracer.files),
        "changes": tracer.changes,
        "calls": tracer.calls,
        "modules imported": len(imported),
        "cfg parses": tracer.parses,
        "reads": dict(sorted(tracer.reads.items())),
    }
    report.write_text(json.dumps(result))
    sys.exit(0 if status is None else status if isinstance(status, int) else 1)


if __name__ == "__main__":
    main()
