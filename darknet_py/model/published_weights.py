"""Weights that the authors of Darknet's networks publish: their addresses, and where a download of them is kept.

Addresses and sizes are those of the READMEs of AlexeyAB/darknet and pjreddie.com; the exact sizes follow from the cfgs.
The authors publish no checksums: the SHA-256 here are those that several independent projects check. Weights of which
one project or none has a checksum are checked by their size.
"""

from __future__ import annotations

import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from darknet_py.counted import counted
from darknet_py.data.builtin.store import cache_folder
from darknet_py.errors import DataError, WeightsError
from darknet_py.files import make_folder, sha256_of
from darknet_py.untrusted import reason

logger = logging.getLogger(__name__)

MIRROR_VARIABLE = "DARKNET_PY_MIRROR"
_ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download"
_PJREDDIE = "https://pjreddie.com/media/files"
_CHUNK = 1 << 18
_SECONDS = 30.0  # without a byte
_ATTEMPTS = 5  # in a row that bring nothing


class PublishedWeights(NamedTuple):
    """A file of weights. size: in bytes. sha256: empty where it is not known."""

    url: str
    size: int
    sha256: str = ""

    @property
    def file(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]

    @property
    def name(self) -> str:
        """What users call it: the file name, without .weights."""
        return self.file.removesuffix(".weights")


PUBLISHED = {
    weights.name: weights
    for weights in (
        PublishedWeights(
            f"{_ALEXEYAB}/yolov4/yolov4-tiny.weights",
            24_251_276,
            "cf9fbfd0f6d4869b35762f56100f50ed05268084078805f0e7989efe5bb8ca87",
        ),
        PublishedWeights(
            f"{_ALEXEYAB}/darknet_yolo_v3_optimal/yolov4.weights",
            257_717_640,
            "e8a4f6c62188738d86dc6898d82724ec0964d0eb9d2ae0f0a9d53d65d108d562",
        ),
        PublishedWeights(f"{_ALEXEYAB}/darknet_yolo_v4_pre/yolov4-csp.weights", 211_944_840),
        PublishedWeights(f"{_ALEXEYAB}/darknet_yolo_v4_pre/yolov4x-mish.weights", 399_388_168),
        PublishedWeights(f"{_ALEXEYAB}/darknet_yolo_v4_pre/yolov4-p5.weights", 283_669_892),
        PublishedWeights(f"{_ALEXEYAB}/darknet_yolo_v4_pre/yolov4-p6.weights", 510_868_180),
        PublishedWeights(
            f"{_PJREDDIE}/yolov3-tiny.weights",
            35_434_956,
            "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
        ),
        PublishedWeights(
            f"{_PJREDDIE}/yolov3.weights",
            248_007_048,
            "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",
        ),
        PublishedWeights(f"{_PJREDDIE}/yolov3-spp.weights", 252_209_544),
        PublishedWeights(f"{_ALEXEYAB}/darknet_yolo_v4_pre/yolov4-tiny.conv.29", 19_789_716),
        PublishedWeights(f"{_ALEXEYAB}/darknet_yolo_v3_optimal/yolov4.conv.137", 170_038_676),
        PublishedWeights(f"{_PJREDDIE}/darknet53.conv.74", 162_482_580),
    )
}


def weights_folder() -> Path:
    """Where downloads are kept: in the user's cache."""
    return cache_folder() / "weights"


def find_weights(path: str | Path) -> Path:
    """The path itself where something exists there; else the download of that bare name, if there is one.

    Args:
        path: Of the user, such as `my/net.weights`, or `yolov4-tiny.weights` or `yolov4-tiny`.

    Raises:
        WeightsError: It is a published file that was not downloaded.
    """
    published = PUBLISHED.get(os.fspath(path).removesuffix(".weights"))
    if os.path.exists(path) or published is None:
        return Path(path)
    downloaded = weights_folder() / published.file
    if not downloaded.exists():
        raise WeightsError(f"{path}: weights file not found; `darknet-py download {published.name}` gets it")
    return downloaded


def download_weights(
    weights: PublishedWeights, folder: Path, progress: Callable[[int], object] = lambda received: None
) -> Path:
    """Downloads a file of weights, unless it is there. What an earlier, interrupted call received is kept.

    Args:
        weights: The file. The environment variable `DARKNET_PY_MIRROR` names another folder of the web to take it from.
        folder: Where it is written.
        progress: Called with the number of bytes that are there, as they grow.

    Returns:
        The file, whose size and, where it is known, SHA-256 are right.

    Raises:
        DataError: The file cannot be had, or it is another one.
    """
    target = make_folder(folder) / weights.file
    if target.exists() and target.stat().st_size == weights.size:
        return target
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    url = f"{mirror}/{weights.file}" if mirror else weights.url
    part = target.with_name(f"{weights.file}.part")
    _receive(url, part, weights.size, target, progress)
    digest = sha256_of(part)
    if weights.sha256 and digest != weights.sha256:
        part.unlink()
        raise DataError(f"{url}: expected SHA-256 {weights.sha256}, got {digest}; the file was removed")
    if not weights.sha256:
        logger.info("%s: no published SHA-256 to compare; that of this file is %s", weights.file, digest)
    os.replace(part, target)
    return target


def _receive(url: str, part: Path, size: int, target: Path, progress: Callable[[int], object]) -> None:
    """Appends to `part` until it has `size` bytes; goes on after interruptions that bring something."""
    failures = 0
    while (received := part.stat().st_size if part.exists() else 0) < size:
        progress(received)
        try:
            _request(url, part, received, size, progress)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # another file than the one that was begun
                part.unlink(missing_ok=True)
            elif error.code < 500:
                raise DataError(f"{url}: cannot download: {error.code} {error.reason}; {_advice(target)}") from None
            problem: object = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            problem = error.reason if isinstance(error, urllib.error.URLError) else error
            problem = reason(problem) if isinstance(problem, OSError) else problem
        else:
            problem = "the connection ended early"
        now = part.stat().st_size if part.exists() else 0
        failures = 0 if now > received else failures + 1
        if now < size and failures >= _ATTEMPTS:
            kept = f"{counted(now, 'byte', ',')} are kept and not asked for again; " if now else ""
            raise DataError(f"{url}: cannot download: {problem}; {kept}{_advice(target)}")
    if part.stat().st_size > size:
        got = part.stat().st_size
        part.unlink()
        raise DataError(f"{url}: expected {counted(size, 'byte', ',')}, got {got:,}; the file was removed")
    progress(size)


def _request(url: str, part: Path, received: int, size: int, progress: Callable[[int], object]) -> None:
    """Appends what one request brings; a server that does not know ranges begins at the start."""
    headers = {"User-Agent": "darknet_py", **({"Range": f"bytes={received}-"} if received else {})}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as response:
        if received and response.status != 206:
            received = 0
        with open(part, "ab" if received else "wb") as file:
            while received <= size and (chunk := response.read(_CHUNK)):
                file.write(chunk)
                received += len(chunk)
                progress(min(received, size))


def _advice(target: Path) -> str:
    return f"without this address: put the file at {target}, or set {MIRROR_VARIABLE} to a web folder that has it"
