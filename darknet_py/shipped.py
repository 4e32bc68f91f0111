"""The cfgs and the data files that come with the package, found by their bare names from any folder."""

from __future__ import annotations

import difflib
import os
from functools import cache
from pathlib import Path

from darknet_py.errors import DataError

_PACKAGE = Path(__file__).resolve().parent
INSTALLED = (_PACKAGE / "_shipped").is_dir()  # else this is a checkout, where both folders stand beside the package
ROOT = _PACKAGE / "_shipped" if INSTALLED else _PACKAGE.parent
_PATTERNS = ("cfg/*.cfg", "data/*.data", "data/*.names")


def find(path: str | os.PathLike[str], what: str) -> Path:
    """The path itself where something exists there, else the shipped file of that bare name.

    Args:
        path: of the user, such as `my/net.cfg`, or the name of a shipped file, such as `yolov4.cfg`.
        what: the kind of file, for the message: "cfg", "names file".

    Raises:
        DataError: neither exists; the message names the most similar shipped file.
    """
    path = Path(path)
    if os.path.lexists(path):
        return path
    files = _files()
    if str(path) in files:
        return files[str(path)]
    stems = {Path(name).stem: name for name in files if name.endswith(path.suffix)}
    similar = [stems[stem] for stem in difflib.get_close_matches(path.stem, stems, n=3, cutoff=0.75)]
    hint = f"; did you mean {' or '.join(similar)} (shipped with darknet_py)?" if similar else ""
    raise DataError(f"{what} not found: {path!s:.300}{hint}")


def is_shipped(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a shipped file, and not the user's own of the same name."""
    return _files().get(Path(path).name) == Path(os.path.abspath(path)).resolve()


def shipped_cfgs() -> list[Path]:
    """All shipped cfgs."""
    return [path for path in _files().values() if path.suffix == ".cfg"]


@cache
def _files() -> dict[str, Path]:
    return {path.name: path for pattern in _PATTERNS for path in sorted(ROOT.glob(pattern))}
