"""Reading of files and texts that others have written: the package reads every such file through this module.

A file is read only where it is a regular one of a sensible size, and what a text does to a terminal is escaped.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import BinaryIO

from darknet_py.counted import counted
from darknet_py.errors import DarknetError, DataError

MAX_TEXT = 1 << 24  # bytes of a cfg or of another text; the largest cfg known has 200 kB
MAX_BYTES = 1 << 32  # of any other file that is read whole
if sys.platform == "win32":
    _READ_ONLY = os.O_RDONLY | os.O_BINARY  # else it translates line ends
else:
    _READ_ONLY = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer is not waited for
_INSPECTED = 1024  # characters in which a zero byte means that a file is not text
# Control characters, line and paragraph separators, and signs that turn the direction of writing.
_UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_TO_ESCAPE = re.compile(rf"(?![\t\n])[{_UNPRINTABLE}\ud800-\udfff]")  # with bytes that are not UTF-8
_TO_CLEAN = re.compile(f"[{_UNPRINTABLE}\\s]+")


def open_regular(path: str | os.PathLike[str], what: str, error: type[DarknetError] = DataError) -> BinaryIO:
    """Opens a regular file for reading bytes.

    Reading a device such as /dev/zero would not end, and a pipe waits for its writer. It is the open file that is
    tested, so that it cannot be exchanged in between.

    Args:
        path: The file.
        what: What the file is, for messages.
        error: Type of the exception.

    Raises:
        error: The file cannot be opened or is not a regular file. Its cause is the OSError, if there is one.
    """
    try:
        descriptor = os.open(path, _READ_ONLY)
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the path
        raise error(f"{shown_path(path)}: cannot read the {what}: {reason(problem)}") from problem
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "it is a folder" if stat.S_ISDIR(mode) else "not a file (it is a device or a pipe)"
        raise error(f"{shown_path(path)}: cannot read the {what}: {kind}")
    return open(descriptor, "rb")


def read_file(
    path: str | os.PathLike[str], what: str, error: type[DarknetError] = DataError, limit: int = MAX_BYTES
) -> bytes:
    """Reads a regular file.

    Args:
        path: The file.
        what: What the file is, for messages.
        error: Type of the exception.
        limit: The largest size in bytes. A file of holes can claim terabytes.

    Returns:
        The content.

    Raises:
        error: The file cannot be read, is not a regular file or is too large.
    """
    with open_regular(path, what, error) as file:
        return read_content(file, path, what, error, limit)


def read_content(
    file: BinaryIO,
    path: str | os.PathLike[str],
    what: str,
    error: type[DarknetError] = DataError,
    limit: int = MAX_BYTES,
) -> bytes:
    """`read_file` of a file that `open_regular` has opened, from its start."""
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        message = f"expected at most {counted(limit, 'byte', ',')}, got {size:,}"
        raise error(f"{shown_path(path)}: cannot read the {what}: {message}")
    try:
        return file.read()
    except OSError as problem:
        raise error(f"{shown_path(path)}: cannot read the {what}: {reason(problem)}") from problem


def read_text(path: str | os.PathLike[str], what: str, *, keep_bytes: bool = False) -> str:
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
    return decode_text(read_file(path, what, limit=MAX_TEXT), path, what, keep_bytes=keep_bytes)


def decode_text(content: bytes, path: str | os.PathLike[str], what: str, *, keep_bytes: bool = False) -> str:
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


def checked_text(text: str, path: str | os.PathLike[str], what: str) -> str:
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


def printable(text: str) -> str:
    """A text with escapes such as `\\x1b` for what would act on a terminal; line ends and tabs stay."""
    return _TO_ESCAPE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class _EscapingText(io.TextIOWrapper):
    def write(self, text: str) -> int:
        # A carriage return before a line is one of C's lines of progress; within a line it comes from a name.
        lines = ("\r" * line.startswith("\r") + printable(line.removeprefix("\r")) for line in text.split("\n"))
        return super().write("\n".join(lines))


@contextmanager
def escaped_output() -> Iterator[None]:
    """Within it, standard output is `printable`: names of files and classes cannot act on a terminal.

    Outputs of other kinds, as in notebooks, stay as they are.
    """
    original = sys.stdout
    if not isinstance(original, io.TextIOWrapper):
        yield
        return
    original.flush()
    buffering = original.line_buffering
    escaping = _EscapingText(original.buffer, original.encoding, "backslashreplace", line_buffering=buffering)
    try:
        with redirect_stdout(escaping):
            yield
        escaping.flush()
    finally:
        with suppress(OSError):  # where the other end of a pipe is closed, that error is on its way already
            escaping.detach()


def clean_names(names: Iterable[str]) -> list[str]:
    """Names for files of one name a line: white space and control characters become single spaces."""
    return [_TO_CLEAN.sub(" ", name).strip() for name in names]


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path in a message: zero bytes as they are escaped, an endless one cut."""
    text = os.fspath(path)
    return (repr(text) if "\0" in text else text)[:300]


def first_line(error: Exception) -> str:
    """What another library says is wrong, without the lines that follow; its type where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def reason(problem: OSError | ValueError) -> str:
    """Why a file could not be read or written, without its path."""
    if isinstance(problem, ValueError):
        return "the path has a zero byte"
    return problem.strerror or str(problem)
