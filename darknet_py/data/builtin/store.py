"""Location and creation of the built-in data sets: generated on first use, complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from darknet_py import shipped
from darknet_py.data.datafile import write_list

_MARK = "complete"  # this file exists in a folder that is complete


def dataset_folder(name: str) -> Path:
    """data/NAME of the checkout that contains this file; of an installed package, a folder in the user's cache."""
    data = shipped.ROOT / "data"
    if not shipped.INSTALLED and os.access(data, os.W_OK):
        return data / name
    return cache_folder() / name


def cache_folder() -> Path:
    """Folder for data that can be generated again: in the user's cache, or in the temporary folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    if not os.access(cache, os.W_OK):
        cache = Path(tempfile.gettempdir())
    return cache / "darknet_py"


def is_builtin(path: Path, name: str) -> bool:
    """Whether a file is our own data/NAME.data, not a user's file of that name."""
    if path.name != f"{name}.data":
        return False
    with suppress(OSError):
        return f"data/{name}/train.txt" in path.read_text(encoding="utf-8", errors="replace")
    return False


def create_folder(folder: Path, stamp: str, fill: Callable[[Path], None]) -> None:
    """Creates a folder atomically, unless it is complete and has the same stamp.

    Several processes may do so at the same time: one complete folder remains.

    Args:
        folder: The folder.
        stamp: Version of its contents.
        fill: Writes the contents into a temporary folder, which is then renamed.

    Raises:
        OSError: The folder cannot be written.
    """
    if _complete(folder, stamp):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        fill(work)
        (work / _MARK).write_text(stamp)
        work.chmod(0o755)  # mkdtemp creates private folders
        for _ in range(3):
            with suppress(OSError):  # another process may be renaming its own copy
                if folder.exists() and not _complete(folder, stamp):
                    folder.rename(work.with_suffix(".old"))
                    shutil.rmtree(work.with_suffix(".old"), ignore_errors=True)
                work.rename(folder)
            if _complete(folder, stamp):
                return
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def update_list(path: Path, lines: Sequence[str]) -> None:
    """Writes a list if its lines differ. Lists contain absolute paths, which change when the folder is moved."""
    if path.is_file() and path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() == list(lines):
        return
    write_list(path, lines)


def _complete(folder: Path, stamp: str) -> bool:
    with suppress(OSError):
        return (folder / _MARK).read_text() == stamp
    return False
