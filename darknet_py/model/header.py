"""The header of a `.weights` file, in the two lengths that programs write (`load_weights_upto`, `save_weights_upto`).

Three int32 (major, minor, revision), then `seen`: 64 bit when major·10 + minor >= 2, else 32 bit. All little-endian.
Other programs write the other length: PyTorch-YOLOv3 20 bytes with version 0.0, some 16 bytes with version 0.2, and
pjreddie's Darknet 16 bytes with versions above 1000. Only the length of the file tells.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from darknet_py.counted import counted
from darknet_py.errors import WeightsError
from darknet_py.untrusted import failed_download, open_regular

INSPECTED = 512  # bytes at the start of a file: enough for a header, and to recognize a web page
_WIDE, _NARROW = 20, 16  # bytes
_OTHER_FORMATS = {
    b"\x80\x02": "a pickle (an old PyTorch file)",
    b"\x89HDF": "an HDF5 file (Keras)",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
}


class Header(NamedTuple):
    """The header of a `.weights` file.

    Attributes:
        major: Version. Above 1000 (here or in `minor`) connected weights are held transposed.
        minor: Version.
        revision: Version.
        seen: Images trained on so far.
    """

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def wide(self) -> bool:
        """Whether `seen` takes 64 bits."""
        return self.major * 10 + self.minor >= 2

    @property
    def is_valid(self) -> bool:
        """Whether the numbers fit into the fields of a file."""
        versions = (self.major, self.minor, self.revision)
        return all(-(1 << 31) <= number < 1 << 31 for number in versions) and 0 <= self.seen < 1 << 64

    @property
    def transposed(self) -> bool:
        return self.major > 1000 or self.minor > 1000

    @property
    def size(self) -> int:
        """In bytes, as Darknet reads and writes it."""
        return _WIDE if self.wide else _NARROW

    @property
    def version(self) -> str:
        return f"{self.major}.{self.minor}.{self.revision}"

    def bytes(self) -> bytes:
        version = np.array([self.major, self.minor, self.revision], "<i4").tobytes()
        seen = self.seen if self.wide else self.seen % (1 << 32)
        return version + np.array([seen], "<u8" if self.wide else "<u4").tobytes()


DEFAULT_HEADER = Header()


class HeaderReading(NamedTuple):
    """How the start of a file is read.

    Attributes:
        header: The header.
        size: Its length in the file, in bytes.
        note: Says that the length is not Darknet's, or what else the file may be; may be empty.
        unclear: Whether two readings fit equally well; `note` names them.
    """

    header: Header
    size: int
    note: str = ""
    unclear: bool = False


def read_header(path: str | Path) -> Header:
    """The header of a `.weights` file, as Darknet reads it.

    Raises WeightsError when the file cannot be read or is too short.
    """
    with open_regular(path, "weights", WeightsError) as file:
        return parse_header(file.read(INSPECTED), path)


def parse_header(start: bytes, path: str | Path) -> Header:
    """The header at the start of a file, as Darknet reads it. Raises WeightsError."""
    download = failed_download(start)
    if download:
        raise WeightsError(f"{path}: cannot read the weights: {download}")
    kind = _other_format(start)
    if kind:
        raise WeightsError(f"{path}: expected a Darknet weights file, got {kind}")
    header = _versions(start) if len(start) >= _NARROW else Header()
    if len(start) < header.size:
        raise WeightsError(f"{path}: expected a weights header of {counted(header.size, 'byte')}, got {len(start)}")
    return header._replace(seen=_seen(start, header.size))


def recognize_header(
    start: bytes, path: str | Path, length: int, whole: int, fits: Callable[[int], bool]
) -> HeaderReading:
    """Reads a header whose length may be the other one.

    Darknet's reading counts where it fits. The other one is taken where it alone fits and the four bytes in question
    agree: they are the upper half of `seen`, which is zero, or the first weight, which is not.

    Args:
        start: The first bytes of the file.
        path: The file, for messages.
        length: Length of the file in bytes.
        whole: Bytes of all arrays of the network.
        fits: Whether so many bytes of arrays end one of its layers.

    Returns:
        The reading.

    Raises:
        WeightsError: The file is too short.
    """
    header = parse_header(start, path)
    other = _WIDE + _NARROW - header.size
    described = (
        f"version {header.version} with {counted(other - 12, 'byte')} of `seen`, where Darknet has {header.size - 12}"
    )
    zero = start[_NARROW:_WIDE] == bytes(_WIDE - _NARROW)
    agrees = zero == (other == _WIDE)
    other_fits = length >= other and fits(length - other)
    if fits(length - header.size):
        if length - header.size == whole or not (other_fits and agrees):
            return HeaderReading(header, header.size)
        note = f"it has the length of a partial file, and that of another if its header is {described}"
        return HeaderReading(header, header.size, note, unclear=True)
    if other_fits and agrees:
        header = header._replace(seen=_seen(start, other))
        return HeaderReading(header, other, f"its header is {described} (recognized by the file's length)")
    if other_fits and zero:
        note = f"either its last 4 bytes are missing or its header is {described}; the file does not tell which"
        return HeaderReading(header, header.size, note, unclear=True)
    if zero and other == _WIDE and header[:3] == (0, 0, 0):
        # Darknet never wrote this version: pytorch-yolo2 did, with 16 bytes, and PyTorch-YOLOv3, with 20.
        note = f"its header may be {described}; only with the cfg that it belongs to does its length tell"
        return HeaderReading(header, header.size, note, unclear=True)
    return HeaderReading(header, header.size)


def _other_format(start: bytes) -> str:
    """What a file is that cannot be a `.weights` file; empty for all others."""
    for magic, kind in _OTHER_FORMATS.items():
        if start.startswith(magic):
            return kind
    # The version of a header has zero bytes; text has none.
    is_text = len(start) >= _NARROW and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start[:_NARROW])
    return "a text file" if is_text else ""


def _versions(start: bytes) -> Header:
    return Header(*np.frombuffer(start[:12], "<i4").tolist())


def _seen(start: bytes, size: int) -> int:
    return int.from_bytes(start[12:size], "little")
