"""Where the built-in sets lie, and how they get there: drawn on first use, complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from darknet_py import shipped
from darknet_py.data.datafile import write_list

_MARK = "complete"  # the file that is in a folder when all else is


def home(name: str) -> Path:
    """data/NAME of the checkout this file lies in, else (of an installed package) a folder in the user's cache."""
    data = shipped.ROOT / "data"
    if not shipped.INSTALLED and os.access(data, os.W_OK):
        return data / name
    return cache_folder() / name


def cache_folder() -> Path:
    """Where data that can be made again is kept: in the user's cache, else among temporary files."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    if not os.access(cache, os.W_OK):
        cache = Path(tempfile.gettempdir())
    return cache / "darknet_py"


def is_builtin(path: Path, name: str) -> bool:
    """Whether a file is the checkout's data/NAME.data (and not somebody's own of that name)."""
    if path.name != f"{name}.data":
        return False
    with suppress(OSError):
        return f"data/{name}/train.txt" in path.read_text(encoding="utf-8", errors="replace")
    return False


def make(folder: Path, stamp: str, draw: Callable[[Path], None]) -> None:
    """Lets `draw` fill a folder beside `folder` and moves it there in one step, unless `stamp` is there already.

    However many processes do so at once, one complete set remains. Raises OSError.
    """
    if _complete(folder, stamp):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        draw(work)
        (work / _MARK).write_text(stamp)
        work.chmod(0o755)  # mkdtemp's folders are private
        for _ in range(3):
            with suppress(OSError):  # another process may be moving its own copy there
                if folder.exists() and not _complete(folder, stamp):
                    folder.rename(work.with_suffix(".old"))
                    shutil.rmtree(work.with_suffix(".old"), ignore_errors=True)
                work.rename(folder)
            if _complete(folder, stamp):
                return
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refresh(path: Path, lines: Sequence[str]) -> None:
    """Writes a list unless it says so already. Lists name absolute paths, which change when the set is moved."""
    if path.is_file() and path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() == list(lines):
        return
    write_list(path, lines)


def _complete(folder: Path, stamp: str) -> bool:
    with suppress(OSError):
        return (folder / _MARK).read_text() == stamp
    return False
