"""Size, bit depth and EXIF orientation of an image, read from its header without decoding it."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from darknet_py.errors import DataError
from darknet_py.untrusted import open_regular

PNG = b"\x89PNG\r\n\x1a\n"  # the start of such a file
_FIRST = 1 << 14  # bytes that hold the header of nearly all files
_MAX_TILE = 1 << 26  # pixels of a tile of a TIFF file, which libtiff allocates; usual ones have 256 x 256
_TAG_TYPES = {3: "H", 4: "I", 16: "Q"}


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
    """The header of a file of any format that OpenCV reads; None for others and for damaged ones."""
    with suppress(struct.error, IndexError, ValueError, OverflowError):
        for start, parse in _FORMATS.items():
            if data.startswith(start):
                return parse(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[4:8] == b"ftyp":
            return _avif(data)
    return None


def image_file_header(path: str | os.PathLike[str]) -> ImageHeader | None:
    """`image_header` of a file, of which only the start is read; None where it cannot be read."""
    with suppress(OSError, DataError), open_regular(path, "image") as file:
        data = file.read(_FIRST)
        return image_header(data) or (image_header(data + file.read()) if len(data) == _FIRST else None)
    return None


def _jpeg(data: bytes) -> ImageHeader | None:
    position, orientation = 2, 1
    while position < len(data) - 9:
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0:  # bytes between segments are skipped, as libjpeg does
            position = data.index(b"\xff", position + 1)
            continue
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


def png_chunks_fit(data: bytes) -> bool:
    """Whether no part of a PNG file claims more bytes than there are: OpenCV allocates what it claims, up to 4 GB."""
    position = len(PNG)
    while position + 8 <= len(data):
        is_end = data[position + 4 : position + 8] == b"IEND"
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        if is_end:
            break
    return position <= len(data)


def _gif(data: bytes) -> ImageHeader:
    return ImageHeader(*struct.unpack_from("<HH", data, 6))


def _bmp(data: bytes) -> ImageHeader:
    # Headers of OS/2 have 12 bytes and sides of 16 bits.
    width, height = struct.unpack_from("<HH" if data[14] == 12 else "<ii", data, 18)
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
    if 256 not in tags or 257 not in tags or tags.get(322, 0) * tags.get(323, 0) > _MAX_TILE:
        return None
    return ImageHeader(tags[256], tags[257], tags.get(258, 8))


def _tags(data: bytes) -> dict[int, int]:
    """The first value of each numeric tag of the first directory of a TIFF or BigTIFF, or of EXIF data."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    offset, count_type, offset_size = ("Q", "Q", 8) if big else ("I", "H", 4)
    entry = 4 + 2 * offset_size  # tag, type, count and value
    tags: dict[int, int] = {}
    with suppress(struct.error, OverflowError):
        start = struct.unpack_from(order + offset, data, offset_size)[0]  # it stands there, too
        entries = struct.unpack_from(order + count_type, data, start)[0]
        for number in range(min(entries, len(data) // entry)):
            at = start + struct.calcsize(order + count_type) + entry * number
            tag, kind, count = struct.unpack_from(f"{order}HH{offset}", data, at)
            if kind not in _TAG_TYPES:
                continue
            value = order + _TAG_TYPES[kind]
            place = at + 4 + offset_size
            if count * struct.calcsize(value) > offset_size:
                place = struct.unpack_from(order + offset, data, place)[0]
            tags.setdefault(tag, struct.unpack_from(value, data, place)[0])  # the first of two counts in libtiff
    return tags


def _jpeg2000(data: bytes) -> ImageHeader:
    def size(place: int) -> ImageHeader:
        right, bottom, left, top = struct.unpack_from(">IIII", data, place + 8)
        return ImageHeader(right - left, bottom - top, (data[place + 42] & 0x7F) + 1)

    # Bytes before the code stream can look like its start. The largest size counts.
    return _largest(size(match.start()) for match in re.finditer(rb"\xff\x4f\xff\x51", data))


def _avif(data: bytes) -> ImageHeader:
    """Of its image and of auxiliary ones, such as the alpha channel, which are not larger."""
    sizes = (struct.unpack_from(">II", data, match.end() + 4) for match in re.finditer(b"ispe", data))
    return _largest(ImageHeader(*size) for size in sizes)


def _largest(headers: Iterable[ImageHeader]) -> ImageHeader:
    """Raises ValueError where there is none."""
    return max(headers, key=lambda header: header.width * header.height)


def _netpbm(data: bytes) -> ImageHeader | None:
    words = re.sub(rb"#[^\n]*", b"", data[2:_FIRST]).split(maxsplit=3)
    width, height = int(words[0]), int(words[1])
    return ImageHeader(width, height, 16 if data[1:2] in b"2356" and int(words[2]) > 255 else 8)


def _pam(data: bytes) -> ImageHeader:
    found: list[tuple[bytes, bytes]] = re.findall(rb"^(WIDTH|HEIGHT|MAXVAL) +(\d+)", data[:_FIRST], re.MULTILINE)
    values = {key: int(value) for key, value in found}
    return ImageHeader(values.get(b"WIDTH", 0), values.get(b"HEIGHT", 0), 16 if values.get(b"MAXVAL", 0) > 255 else 8)


def _float_map(data: bytes) -> ImageHeader:
    width, height = data[2:_FIRST].split(maxsplit=2)[:2]
    return ImageHeader(int(width), int(height), 32)


def _radiance(data: bytes) -> ImageHeader | None:
    match = re.search(rb"\n[-+]([XY]) (\d+) [-+][XY] (\d+)\n", data[:_FIRST])
    if match is None:
        return None
    sides = int(match[2]), int(match[3])
    return ImageHeader(*(sides if match[1] == b"X" else sides[::-1]), 32)


def _sun_raster(data: bytes) -> ImageHeader:
    return ImageHeader(*struct.unpack_from(">II", data, 4))


_FORMATS = {
    b"\xff\xd8": _jpeg,
    PNG: _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
    b"\0\0\0\x0cjP  ": _jpeg2000,
    b"\xff\x4f\xff\x51": _jpeg2000,
    **{f"P{kind}".encode(): _netpbm for kind in range(1, 7)},
    b"P7": _pam,
    b"PF": _float_map,
    b"Pf": _float_map,
    b"#?RADIANCE": _radiance,
    b"#?RGBE": _radiance,
    b"\x59\xa6\x6a\x95": _sun_raster,
}
