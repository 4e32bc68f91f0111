"""Atomic writing of files, their names, and reading of text files."""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from darknet_py.errors import DarknetError, DataError

_NAME_BYTES = 255  # of a file name, on all common file systems
_NOT_IN_NAMES = '<>:"/\\|?*' if os.name == "nt" else "/"
_INSPECTED = 1024  # characters in which a zero byte means that a file is not text


def write_atomically(path: str | Path, chunks: bytes | Iterable[bytes], error: type[DarknetError] = DataError) -> None:
    """Writes a temporary file beside `path`, syncs and renames it, so that the file is complete or unchanged.

    Args:
        path: The file, which is replaced if it exists. Devices and pipes are written to directly.
        chunks: The contents.
        error: Type of the exception.

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
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the path
        raise error(f"{_shown(path)}: cannot write: {_reason(problem)}") from problem
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
        raise DataError(f"{_shown(path)}: cannot write: there is no folder {_shown(path.parent)}") from None
    except (OSError, ValueError) as problem:
        raise DataError(f"{_shown(path)}: cannot write: {_reason(problem)}") from None


def check_output_folder(path: str | Path) -> None:
    """Raises DataError where a folder cannot be made or written to; as `check_output_file`."""
    path = Path(path)
    try:
        with suppress(FileNotFoundError):
            os.lstat(path)
        existing = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
        _check_folder(existing)
    except (OSError, ValueError) as problem:
        raise DataError(f"{_shown(path)}: cannot make this folder: {_reason(problem)}") from None


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


def open_regular(path: str | Path, what: str) -> BinaryIO:
    """A regular file, open for reading bytes. Raises DataError: path, `what` and the reason."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # reading /dev/zero or a pipe would not end
            raise DataError(f"{_shown(path)}: cannot read the {what}: not a file")
        return path.open("rb")
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the path
        raise DataError(f"{_shown(path)}: cannot read the {what}: {_reason(problem)}") from problem


def read_text(path: str | Path, what: str, *, keep_bytes: bool = False) -> str:
    """Reads a regular text file.

    Args:
        path: The file.
        what: What the file is, for messages.
        keep_bytes: See `decode_text`.

    Returns:
        The text.

    Raises:
        DataError: The file cannot be read or is not a text file.
    """
    with open_regular(path, what) as file:
        try:
            content = file.read()
        except OSError as problem:
            raise DataError(f"{_shown(path)}: cannot read the {what}: {_reason(problem)}") from problem
    return decode_text(content, path, what, keep_bytes=keep_bytes)


def decode_text(content: bytes, path: str | Path, what: str, *, keep_bytes: bool = False) -> str:
    """Decodes the content of a text file.

    Args:
        content: The file's content.
        path: The file, for messages.
        what: What the file is, for messages.
        keep_bytes: Whether the text can be written back unchanged: line endings stay, and bytes that are not UTF-8
            become surrogate escapes. Otherwise such bytes become U+FFFD, and line endings `\\n`.

    Returns:
        The text.

    Raises:
        DataError: The file is not a text file.
    """
    if keep_bytes:
        text = content.decode("utf-8", "surrogateescape")
    else:
        text = content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return checked_text(text, path, f"the {what}")


def checked_text(text: str, path: str | Path, what: str) -> str:
    """Returns a text read from `path`; raises DataError if it is binary data, such as an image, weights or UTF-16."""
    download = failed_download(text[:_INSPECTED].encode("utf-8", "replace"))
    if download:
        raise DataError(f"{path}: cannot read {what}: {download}")
    if "\0" in text[:_INSPECTED]:  # later zero bytes end a line, as in C
        raise DataError(f"{path}: cannot read {what}: not a text file")
    return text


def failed_download(start: bytes) -> str:
    """What a file is whose content was not downloaded, from its first bytes; empty for any other file."""
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page; download the file itself (on GitHub: Raw)"
    if start.startswith(b"version https://git-lfs.github.com/"):
        return "it is a Git LFS pointer; download the file that it stands for (git lfs pull)"
    return ""


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


def _shown(path: str | Path) -> str:
    """A path in a message: zero bytes as they are escaped, an endless one cut."""
    text = str(path)
    return (repr(text) if "\0" in text else text)[:300]


def _reason(problem: OSError | ValueError) -> str:
    """Why a file could not be read, without its path."""
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem)


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
        raise error(f"{_shown(path)}: cannot make this folder: {_reason(problem)}") from problem
    return Path(path)
