"""Where images come from: files, folders, globs, lists of images and web addresses."""

from __future__ import annotations

import glob
import http.client
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from os import PathLike, fspath

from darknet_py.counted import counted
from darknet_py.data.datafile import list_folder, read_list
from darknet_py.data.images import Image, decode_image
from darknet_py.data.public_web import public_opener
from darknet_py.errors import DataError
from darknet_py.untrusted import read_file

MAX_URL_BYTES = 100 << 20
URL_SECONDS = 30.0  # for the whole download
_CHUNK = 1 << 16
_LIST = ".txt"


def is_url(source: str | PathLike[str]) -> bool:
    """Whether an image is read from the web."""
    return fspath(source).lower().startswith(("http://", "https://"))


def find_images(sources: Sequence[str | PathLike[str]]) -> list[str]:
    """The images that paths stand for, in order, each once.

    Args:
        sources: Image files, web addresses, folders (their images, sorted, without subfolders), globs (`**` for
            subfolders) and lists of images (.txt).

    Returns:
        Paths and addresses. A file that is missing is among them: it is reported when it is read.

    Raises:
        DataError: A folder, glob or list has no image, or a list cannot be read.
    """
    found: list[str] = []
    for source in (fspath(source) for source in sources):
        if is_url(source):
            matches = [source]
        elif os.path.isdir(source):
            matches = list_folder(source, subfolders=False)
        elif source.lower().endswith(_LIST):
            matches = read_list(source)
        elif os.path.exists(source) or not glob.has_magic(source) or "\0" in source:
            matches = [source]
        else:
            matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise DataError(f"{source:.300}: expected images, got none")
        found.extend(matches)
    return list(dict.fromkeys(found))


def open_image(source: str | PathLike[str], channels: int | None = 3, stb: bool = False) -> Image:
    """An image from a file or a web address, see `load_image`. Raises DataError."""
    name = fspath(source)
    return decode_image(read_image_file(name), channels, name, stb)


def read_image_file(name: str) -> bytes:
    """The content of an image file or web address. Raises DataError where it cannot be read."""
    return download(name) if is_url(name) else read_file(name, "image")


def download(
    url: str, max_bytes: int = MAX_URL_BYTES, seconds: float = URL_SECONDS, public_only: bool = False
) -> bytes:
    """The content of a web address.

    Args:
        url: http:// or https://.
        max_bytes: A larger file is refused.
        seconds: Time limit of the whole download.
        public_only: Whether internal addresses are refused, see `public_opener`.

    Raises:
        DataError: There is no such file, it is too large, it takes too long, or its address is internal.
    """
    result: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    end = time.monotonic() + seconds

    def run() -> None:
        try:
            result.put(_read(url, max_bytes, end, public_only))
        except Exception as error:
            result.put(error)

    # A thread: names that are not resolved and headers that trickle in know no time limit of their own.
    threading.Thread(target=run, daemon=True).start()
    try:
        content = result.get(timeout=seconds)
    except queue.Empty:
        content = TimeoutError()
    match content:
        case bytes():
            return content
        case DataError():
            raise content
        case TimeoutError() | urllib.error.URLError(reason=TimeoutError()):
            raise DataError(f"{url}: cannot download: not complete after {counted(seconds, 'second', 'g')}") from None
        case urllib.error.HTTPError():
            raise DataError(f"{url}: cannot download: {content.code} {content.reason}") from None
        case urllib.error.URLError() | OSError() | ValueError() | http.client.HTTPException():
            reason = content.reason if isinstance(content, urllib.error.URLError) else content
            raise DataError(f"{url}: cannot download: {reason or type(content).__name__}") from None
    raise content


def _read(url: str, max_bytes: int, end: float, public_only: bool) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "darknet_py"})
    open_url = public_opener().open if public_only else urllib.request.urlopen
    with open_url(request, timeout=max(end - time.monotonic(), 0.001)) as response:
        content = bytearray()
        while chunk := response.read1(_CHUNK):
            content += chunk
            if len(content) > max_bytes:
                raise DataError(f"{url}: cannot download: expected at most {counted(max_bytes, 'byte', ',')}")
            if time.monotonic() > end:
                raise TimeoutError
        expected = response.headers.get("Content-Length", "")
        if expected.isdecimal() and len(content) < int(expected):
            raise DataError(
                f"{url}: cannot download: it ended after {len(content):,} of {counted(int(expected), 'byte')}"
            )
    return bytes(content)
