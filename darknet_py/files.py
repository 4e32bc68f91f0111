"""Atomic writing of files, and reading of text files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from darknet_py.errors import DarknetError, DataError

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


def open_regular(path: str | Path, what: str) -> BinaryIO:
    """A regular file, open for reading bytes. Raises DataError: path, `what` and the reason."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # reading /dev/zero or a pipe would not end
            raise DataError(f"{path}: cannot read the {what}: not a file")
        return path.open("rb")
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the path
        raise DataError(f"{path}: cannot read the {what}: {_reason(problem)}") from problem


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
            raise DataError(f"{path}: cannot read the {what}: {_reason(problem)}") from problem
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
    except OSError as problem:
        raise error(f"{path}: cannot make this folder: {problem.strerror or problem}") from problem
    return Path(path)
