"""Size, bit depth and EXIF orientation of an image, read from its header without decoding it."""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress
from typing import NamedTuple

_FIRST = 1 << 14  # bytes that hold the header of nearly all files


class ImageHeader(NamedTuple):
    """width, height: as stored. bits: per channel. orientation: of EXIF; 5 to 8 turn the image by 90 degrees."""

    width: int
    height: int
    bits: int = 8
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the image as it is shown."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def image_header(data: bytes) -> ImageHeader | None:
    """The header of a JPEG, PNG, GIF, BMP, WebP, TIFF, JPEG 2000 or Netpbm file; None for others and damaged ones."""
    with suppress(struct.error, IndexError, ValueError):
        for start, parse in _FORMATS.items():
            if data.startswith(start):
                return parse(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    return None


def image_file_header(path: str | os.PathLike[str]) -> ImageHeader | None:
    """`image_header` of a file, of which only the start is read; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(_FIRST)
            return image_header(data) or (image_header(data + file.read()) if len(data) == _FIRST else None)
    except (OSError, ValueError):
        return None


def _jpeg(data: bytes) -> ImageHeader | None:
    position, orientation = 2, 1
    while position < len(data) - 9:
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # fill bytes and markers without content
            position += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0" and orientation == 1:
            orientation = _tags(data[position + 10 : position + 2 + length]).get(0x0112, 1)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", data, position + 4)
            return ImageHeader(width, height, bits, orientation if 1 <= orientation <= 8 else 1)
        position += 2 + length
    return None


def _png(data: bytes) -> ImageHeader:
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    return ImageHeader(width, height, bits)


def _gif(data: bytes) -> ImageHeader:
    return ImageHeader(*struct.unpack_from("<HH", data, 6))


def _bmp(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader(abs(width), abs(height))


def _webp(data: bytes) -> ImageHeader | None:
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
        return ImageHeader(width, height)
    if data[12:16] == b"VP8L":
        packed = struct.unpack_from("<I", data, 21)[0]
        return ImageHeader((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1)
    width, height = struct.unpack_from("<HH", data, 26)
    return ImageHeader(width & 0x3FFF, height & 0x3FFF)


def _tiff(data: bytes) -> ImageHeader | None:
    tags = _tags(data)
    if 256 not in tags or 257 not in tags:
        return None
    return ImageHeader(tags[256], tags[257], tags.get(258, 8))


def _tags(data: bytes) -> dict[int, int]:
    """The first value of each numeric tag of the first directory of a TIFF or of EXIF data."""
    order = "<" if data[:2] == b"II" else ">"
    tags = {}
    with suppress(struct.error):
        start = struct.unpack_from(f"{order}I", data, 4)[0]
        for number in range(struct.unpack_from(f"{order}H", data, start)[0]):
            tag, kind, count = struct.unpack_from(f"{order}HHI", data, start + 2 + 12 * number)
            if kind not in (3, 4):
                continue
            place, size = start + 10 + 12 * number, 2 if kind == 3 else 4
            if count * size > 4:
                place = struct.unpack_from(f"{order}I", data, place)[0]
            tags[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, place)[0]
    return tags


def _jpeg2000(data: bytes) -> ImageHeader:
    place = data.index(b"\xff\x4f\xff\x51") if b"\xff\x4f\xff\x51" in data else -1
    if place < 0:
        raise ValueError
    right, bottom, left, top = struct.unpack_from(">IIII", data, place + 8)
    return ImageHeader(right - left, bottom - top, (data[place + 42] & 0x7F) + 1)


def _netpbm(data: bytes) -> ImageHeader | None:
    words = re.sub(rb"#[^\n]*", b"", data[2:400]).split()[:3]
    width, height = int(words[0]), int(words[1])
    return ImageHeader(width, height, 16 if data[1:2] in b"2356" and int(words[2]) > 255 else 8)


_FORMATS = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"\0\0\0\x0cjP  ": _jpeg2000,
    b"\xff\x4f\xff\x51": _jpeg2000,
    **{f"P{kind}".encode(): _netpbm for kind in range(1, 7)},
}
