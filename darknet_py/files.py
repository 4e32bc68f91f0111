"""Writing files so that they are complete or not there, and reading those that a cfg names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from darknet_py.errors import DarknetError, DataError

_LOOK = 1024


def write_atomically(path: str | Path, chunks: bytes | Iterable[bytes], error: type[DarknetError] = DataError) -> None:
    """Writes beside `path`, syncs and renames, so that a reader or a crash never meets half a file.

    An existing file is replaced and stays whole when writing fails; a device or a pipe is written to. Raises `error`
    with the path and the reason.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pieces = [chunks] if isinstance(chunks, bytes) else chunks
    try:
        if _is_device(path):
            with open(path, "wb") as file:
                file.writelines(pieces)
            return
        with open(temporary, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        raise error(f"{path}: cannot write: {problem.strerror or problem}") from problem
    finally:
        temporary.unlink(missing_ok=True)


def read_text(path: str | Path, what: str, *, keep_bytes: bool = False) -> str:
    """A regular file's text; bytes that are not UTF-8 become U+FFFD. Raises DataError: path, `what` and the reason.

    keep_bytes: line endings stay, and bytes that are not UTF-8 become surrogate escapes, so that the text can be
    written back unchanged.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # reading /dev/zero or a pipe would not end
            raise DataError(f"{path}: cannot read the {what}: not a file")
        errors, newline = ("surrogateescape", "") if keep_bytes else ("replace", None)
        with path.open(encoding="utf-8", errors=errors, newline=newline) as file:
            text = file.read()
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the path
        raise DataError(f"{path}: cannot read the {what}: {getattr(problem, 'strerror', None) or problem}") from problem
    return checked_text(text, path, f"the {what}")


def checked_text(text: str, path: str | Path, what: str) -> str:
    """The text that was read from `path`, unless it is none: a picture, weights, UTF-16. Raises DataError."""
    if "\0" in text[:_LOOK]:  # further on it ends a line, as in C
        raise DataError(f"{path}: cannot read {what}: not a text file")
    return text


def _is_device(path: Path) -> bool:
    """/dev/null, /dev/stdout and the like, which must not be replaced by a file."""
    return path.parent in (Path("/dev"), Path("/dev/fd")) or (
        path.exists() and not path.is_file() and not path.is_dir()
    )


def make_folder(path: str | Path, error: type[DarknetError] = DataError) -> Path:
    """The folder, made with its parents where missing. Raises `error`."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise error(f"{path}: cannot make this folder: {problem.strerror or problem}") from problem
    return Path(path)
