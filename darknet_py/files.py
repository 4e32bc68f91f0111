"""Writing files so that they are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from darknet_py.errors import DarknetError, DataError


def write_atomically(path: str | Path, chunks: bytes | Iterable[bytes], error: type[DarknetError] = DataError) -> None:
    """Writes beside `path`, syncs and renames, so that a reader or a crash never meets half a file.

    An existing file is replaced and stays whole when writing fails. Raises `error` with the path and the reason.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        raise error(f"{path}: cannot write: {problem.strerror or problem}") from problem
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: str | Path, error: type[DarknetError] = DataError) -> Path:
    """The folder, made with its parents where missing. Raises `error`."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise error(f"{path}: cannot make this folder: {problem.strerror or problem}") from problem
    return Path(path)
