"""Atomic writing of files, their names and fingerprints."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from darknet_py.errors import DarknetError, DataError
from darknet_py.untrusted import open_regular, reason, shown_path

_NAME_BYTES = 255  # of a file name, on all common file systems
_NOT_IN_NAMES = '<>:"/\\|?*' if os.name == "nt" else "/"


def write_atomically(
    path: str | Path, chunks: bytes | Iterable[bytes], error: type[DarknetError] = DataError, *, sync: bool = True
) -> None:
    """Writes a temporary file beside `path`, syncs and renames it, so that the file is complete or unchanged.

    Args:
        path: The file, which is replaced if it exists. Devices and pipes are written to directly.
        chunks: The contents.
        error: Type of the exception.
        sync: Whether the file survives a loss of power right after; without, a killed process alone.

    Raises:
        error: The file cannot be written.
    """
    path = Path(path)
    process = f".{os.getpid()}.tmp"
    temporary = path.parent / f".{_cut(path.name, _NAME_BYTES - 1 - len(process))}{process}"
    pieces = [chunks] if isinstance(chunks, bytes) else chunks
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_device(path):
            with open(path, "wb") as file:
                file.writelines(pieces)
            return
        with open(temporary, "wb") as file:
            file.writelines(pieces)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if sync:
            _sync_folder(path.parent)
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the path
        raise error(f"{shown_path(path)}: cannot write: {reason(problem)}") from problem
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def check_output_file(path: str | Path, *, makes_folder: bool = False) -> None:
    """Raises DataError where a file cannot be written, to be called before the work whose result it is.

    makes_folder: whether its folder is made where it is missing.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        os.lstat(path.parent)
        if not os.path.exists(path):
            _check_folder(path.parent)
            with suppress(FileNotFoundError):
                os.lstat(path)  # raises where the name is too long
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError:
        if makes_folder:
            return check_output_folder(path.parent)
        raise DataError(f"{shown_path(path)}: cannot write: there is no folder {shown_path(path.parent)}") from None
    except (OSError, ValueError) as problem:
        raise DataError(f"{shown_path(path)}: cannot write: {reason(problem)}") from None


def check_output_folder(path: str | Path) -> None:
    """Raises DataError where a folder cannot be made or written to; as `check_output_file`."""
    path = Path(path)
    try:
        with suppress(FileNotFoundError):
            os.lstat(path)
        existing = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
        _check_folder(existing)
    except (OSError, ValueError) as problem:
        raise DataError(f"{shown_path(path)}: cannot make this folder: {reason(problem)}") from None


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def file_names(names: Sequence[str], prefix: str = "", suffix: str = "") -> list[str]:
    """A file name for each of `names`, all different, that stays inside its folder.

    `prefix + name + suffix` where that is possible and the first of its kind. Otherwise slashes and control characters
    become `_`, long names are cut, and `_` and the index in `names` is appended to what exists already.

    Args:
        names: Any texts, such as class names.
        prefix: Start of all file names.
        suffix: End of all file names.
    """
    room = _NAME_BYTES - len(os.fsencode(prefix + suffix))
    safe = [_cut(_without_forbidden(name), room) for name in names]
    taken: dict[str, int] = {}
    for k, name in enumerate(names):
        if safe[k] == name:
            taken.setdefault(_on_disk(name), k)
    for k, name in enumerate(safe):
        if taken.setdefault(_on_disk(name), k) != k:
            number = k
            while taken.setdefault(_on_disk(safe[k]), k) != k:
                safe[k] = f"{_cut(name, room - len(f'_{number}'))}_{number}"
                number += len(names)
    return [f"{prefix}{name}{suffix}" for name in safe]


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder survive a loss of power, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # not every file system has it
    finally:
        os.close(descriptor)


def _without_forbidden(name: str) -> str:
    """The name with `_` for what cannot or should not be part of a file name."""
    letters = ("_" if letter in _NOT_IN_NAMES or unicodedata.category(letter) == "Cc" else letter for letter in name)
    text = "".join(letters)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:  # half a pair of UTF-16
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text


def _cut(name: str, size: int) -> str:
    """The name's first characters, of at most `size` bytes in all."""
    content = os.fsencode(name)
    return name if len(content) <= size else content[:size].decode("utf-8", "ignore")


def _on_disk(name: str) -> str:
    """Equal for names that are the same file."""
    return unicodedata.normalize("NFC", name).casefold() if os.name == "nt" or sys.platform == "darwin" else name


def _is_device(path: Path) -> bool:
    """Whether the path is a device such as /dev/null or /dev/stdout, which must not be replaced by a file."""
    return path.parent in (Path("/dev"), Path("/dev/fd")) or (
        path.exists() and not path.is_file() and not path.is_dir()
    )


def make_folder(path: str | Path, error: type[DarknetError] = DataError) -> Path:
    """Creates the folder and its parents if missing and returns it; raises `error` if that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the path
        raise error(f"{shown_path(path)}: cannot make this folder: {reason(problem)}") from problem
    return Path(path)


def sha256_of(path: Path, error: type[DarknetError] = DataError) -> str:
    """The SHA-256 of a file, in hexadecimal, read in parts. Raises `error`."""
    try:
        with path.open("rb") as file:
            return _sha256(file)
    except OSError as problem:
        raise error(f"{path}: cannot read: {reason(problem)}") from problem


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _checksum_path(path: str | Path) -> Path:
    return Path(f"{os.fspath(path)}.sha256")


def write_checksum(path: Path, error: type[DarknetError] = DataError) -> str:
    """Writes PATH.sha256, as `sha256sum` does, for a file that has just been written.

    Args:
        path: The file.
        error: Type of the exception.

    Returns:
        The SHA-256.

    Raises:
        error: The file cannot be read, or the checksum cannot be written.
    """
    digest = sha256_of(path, error)
    write_atomically(_checksum_path(path), f"{digest}  {path.name}\n".encode("utf-8", "surrogateescape"), error)
    return digest


def remove_checksum(path: str | Path) -> None:
    """Removes PATH.sha256, before the file is replaced: it is never beside a file that it is not of."""
    with suppress(OSError, ValueError):
        _checksum_path(path).unlink(missing_ok=True)


def stored_checksum(path: str | Path) -> str:
    """The SHA-256 in PATH.sha256; empty where there is no such file, or it is one of another kind."""
    try:
        with open_regular(_checksum_path(path), "checksum") as file:
            words = file.read(1 << 12).split()
    except DataError:
        return ""
    return words[0].decode("latin-1").lower() if words and re.fullmatch(rb"[0-9a-fA-F]{64}", words[0]) else ""


def check_checksum(file: BinaryIO, path: str | Path, error: type[DarknetError]) -> None:
    """Compares an open file with PATH.sha256, where there is one, and goes back to its start.

    Raises:
        error: The file is not the one that the checksum is of.
    """
    stored = stored_checksum(path)
    if not stored:
        return
    found = _sha256(file)
    file.seek(0)
    if found != stored:
        raise error(
            f"{shown_path(path)}: not the file that {_checksum_path(path).name} is of: damaged, or written by another "
            "program (remove the checksum to use it as it is)"
        )
