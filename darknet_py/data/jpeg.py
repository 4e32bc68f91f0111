"""JPEG files as C Darknet reads them without OpenCV: by stb_image, to the last bit.

OpenCV's libjpeg rounds a little differently (a grey level in one pixel of twenty), which moves confidences in the
second decimal. To compare with such a Darknet, this module repeats stb_image's arithmetic (`jpeg_pixels`) on what the
file says: ITU-T T.81, Huffman-coded, sequential or progressive, 8 bits. It is Python, and far slower than OpenCV.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from darknet_py.data.jpeg_pixels import Bytes, Plane, gray_image, rgb_image
from darknet_py.errors import DataError

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_SEQUENTIAL, _PROGRESSIVE = {0xC0, 0xC1}, {0xC2}
_DHT, _EOI, _SOS, _DQT, _DRI, _ADOBE = 0xC4, 0xD9, 0xDA, 0xDB, 0xDD, 0xEE
_OTHER_FRAMES = {*range(0xC3, 0xD0)} - {_DHT, 0xC8, 0xCC}
_MOST_PIXELS = 1 << 28  # each takes about 20 bytes of memory on the way

Table = list[int]  # by the next 16 bits: length of the code << 8 | its symbol; 0 where there is no such code


class _Wrong(ValueError):
    """What is wrong with the file, in words."""


def read_stb(data: bytes, channels: int = 3, name: str = "<image>") -> Bytes:
    """A JPEG file's content → uint8 (H, W, channels), 1 gray or 3 RGB, equal to stb_image's; EXIF is not looked at.

    Raises DataError, naming the file, for what stb_image cannot read either: arithmetic coding, 12 bits, damage.
    """
    if channels not in (1, 3):
        raise DataError(f"{name}: expected {channels} channels, got a JPEG, which is read as 1 or 3")
    try:
        return _Decoder(data).image(channels)
    except _Wrong as error:
        raise DataError(f"{name}: cannot read this JPEG: {error}") from None
    except (IndexError, ValueError, OverflowError):
        raise DataError(f"{name}: cannot read this JPEG: it is damaged") from None


@dataclass
class _Component:
    """One colour component, as the frame header has it. Blocks beyond the image complete the last unit."""

    id: int
    h: int
    v: int
    table: int  # of quantization
    wide: int = 0  # blocks that the image needs
    high: int = 0
    stride: int = 0  # blocks in a row
    coefficients: array[int] = field(default_factory=lambda: array("h"))  # 64 for each block, in zigzag order
    dc: Table = field(default_factory=list)
    ac: Table = field(default_factory=list)


@dataclass
class _Scan:
    components: list[_Component]
    start: int
    end: int
    high: int
    low: int


class _Decoder:
    def __init__(self, data: bytes):
        self.quantization: dict[int, NDArray[np.int32]] = {}
        self.tables: dict[int, Table] = {}  # class << 4 | number
        self.components: list[_Component] = []
        self.size = 0, 0  # width, height
        self.progressive = False
        self.restart = 0
        self.transform = -1  # of Adobe's marker: 0 RGB or CMYK, 1 YCbCr, 2 YCCK
        self.jfif = False
        self._read(data)

    def image(self, channels: int) -> Bytes:
        h, v = self._most()
        width, height = self.size
        planes = []
        for part in self.components:
            if part.table not in self.quantization:
                raise _Wrong("a quantization table is missing")
            blocks = np.frombuffer(part.coefficients, np.int16).reshape(-1, part.stride, 64)
            rows = _units(height * part.v, v)
            planes.append(Plane(blocks, self.quantization[part.table], h // part.h, v // part.v, rows))
        ids = bytes(part.id for part in self.components)
        rgb = len(planes) == 3 and (ids == b"RGB" or (self.transform == 0 and not self.jfif))
        if channels == 1:
            return gray_image(planes, width, height, rgb, self.transform)
        return rgb_image(planes, width, height, rgb, self.transform)

    def _read(self, data: bytes) -> None:
        if not data.startswith(b"\xff\xd8"):
            raise _Wrong("it does not start as one")
        position, scans = 2, 0
        while found := _MARKER.search(data, position):
            marker, position = found[1][0], found.end()
            if marker == _EOI:
                break
            if marker in _ALONE:
                continue
            length = int.from_bytes(data[position : position + 2], "big")
            body = data[position + 2 : position + length]
            if len(body) != length - 2:
                raise _Wrong("it ends within a header")
            position += length
            if marker == _SOS:
                end = _end_of_scan(data, position)
                self._scan(self._scan_header(body), data[position:end])
                position, scans = end, scans + 1
            else:
                self._segment(marker, body)
        if not scans:
            raise _Wrong("it holds no image")

    def _segment(self, marker: int, body: bytes) -> None:
        if marker in _SEQUENTIAL | _PROGRESSIVE:
            self._frame(body, marker in _PROGRESSIVE)
        elif marker in _OTHER_FRAMES:
            raise _Wrong("expected Huffman-coded sequential or progressive, got another kind")
        elif marker == _DQT:
            self._quantization(body)
        elif marker == _DHT:
            self._huffman(body)
        elif marker == _DRI:
            self.restart = int.from_bytes(body, "big")
        elif marker == 0xE0:
            self.jfif |= body.startswith(b"JFIF\0")
        elif marker == _ADOBE and body.startswith(b"Adobe\0"):
            self.transform = body[11]

    def _quantization(self, body: bytes) -> None:
        while body:
            wide, number = body[0] >> 4, body[0] & 15
            kind = np.dtype(">u2" if wide else "u1")
            self.quantization[number] = np.frombuffer(body, kind, 64, 1).astype(np.int32)
            body = body[1 + 64 * kind.itemsize :]

    def _huffman(self, body: bytes) -> None:
        while body:
            counts, symbols = body[1:17], body[17:]
            table: Table = []
            code = taken = 0
            for length, count in enumerate(counts, 1):
                code = 2 * code + count
                if code > 1 << length:
                    raise _Wrong("a Huffman table has too many codes")
                for symbol in symbols[taken : taken + count]:
                    table += [length << 8 | symbol] * (1 << 16 - length)
                taken += count
            self.tables[body[0]] = table + [0] * ((1 << 16) - len(table))
            body = symbols[taken:]

    def _frame(self, body: bytes, progressive: bool) -> None:
        if self.components:
            raise _Wrong("expected one frame, got two")
        height, width, count = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]
        if body[0] != 8 or not width or not height or width * height > _MOST_PIXELS or count not in (1, 3, 4):
            what = f"{width} x {height} pixels, {count} components of {body[0]} bits"
            raise _Wrong(f"expected 1, 3 or 4 components of 8 bits, got {what}")
        self.size, self.progressive = (width, height), progressive
        for id_, sampling, table in zip(*(body[6 + k : 6 + 3 * count : 3] for k in range(3)), strict=True):
            self.components.append(_Component(id_, sampling >> 4, sampling & 15, table))
        h, v = self._most()
        for part in self.components:
            if not part.h or not part.v or h % part.h or v % part.v:
                raise _Wrong("its subsampling is not a whole number")
            part.wide, part.high = _units(_units(width * part.h, h), 8), _units(_units(height * part.v, v), 8)
            part.stride = _units(width, 8 * h) * part.h
            part.coefficients = array("h", bytes(128 * part.stride * _units(height, 8 * v) * part.v))

    def _most(self) -> tuple[int, int]:
        return max(part.h for part in self.components), max(part.v for part in self.components)

    def _scan_header(self, body: bytes) -> _Scan:
        known = {part.id: part for part in self.components}
        components = []
        for id_, tables in zip(body[1 : 1 + 2 * body[0] : 2], body[2 : 2 + 2 * body[0] : 2], strict=True):
            if id_ not in known:
                raise _Wrong("a scan names an unknown component")
            part = known[id_]
            part.dc, part.ac = self.tables.get(tables >> 4, []), self.tables.get(16 | tables & 15, [])
            components.append(part)
        start, end, steps = body[-3:]
        if not components or end > 63 or start > end or max(steps >> 4, steps & 15) > 13:
            raise _Wrong("a scan header is wrong")
        return _Scan(components, start, end, steps >> 4, steps & 15)

    def _scan(self, scan: _Scan, data: bytes) -> None:
        if not self.progressive:
            decode = _sequential
        elif scan.start:
            decode = _more_ac if scan.high else _first_ac
        else:
            decode = _more_dc if scan.high else _first_dc
        units = _blocks(scan.components)
        for part in _RESTART.split(data):
            bits = _Bits(part.replace(b"\xff\x00", b"\xff"))
            previous = dict.fromkeys((component.id for component in scan.components), 0)
            left = self.restart
            for unit in units:
                for component, first in unit:
                    decode(bits, component, first, scan, previous)
                left -= 1
                if not left:
                    break


def _blocks(components: Sequence[_Component]) -> Iterator[list[tuple[_Component, int]]]:
    """The blocks of a scan as they come: those of a unit together, each by the place of its first coefficient."""
    first = components[0]
    if len(components) == 1:
        for y, x in product(range(first.high), range(first.wide)):
            yield [(first, 64 * (y * first.stride + x))]
        return
    rows = len(first.coefficients) // (64 * first.stride * first.v)
    for y, x in product(range(rows), range(first.stride // first.h)):
        yield [
            (part, 64 * ((y * part.v + down) * part.stride + x * part.h + along))
            for part in components
            for down, along in product(range(part.v), range(part.h))
        ]


def _units(length: int, unit: int) -> int:
    """How many units a length takes, the last one begun."""
    return -(-length // unit)


def _end_of_scan(data: bytes, position: int) -> int:
    """Where the next marker other than a restart begins."""
    while found := _MARKER.search(data, position):
        if not 0xD0 <= found[1][0] <= 0xD7:
            return found.start()
        position = found.end()
    return len(data)


class _Bits:
    """Coded data, read from bit `at` on. window[i]: the 16 bits from bit i on.

    run: blocks that a progressive scan still passes over.
    """

    def __init__(self, data: bytes):
        padded = np.frombuffer(data + bytes(4), np.uint8).astype(np.uint32)
        three = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
        windows = three[:, None] >> np.arange(8, 0, -1, dtype=np.uint32)
        self.window: Sequence[int] = array("H", (windows & 0xFFFF).astype(np.uint16).tobytes())
        self.at = 0
        self.run = 0

    def symbol(self, table: Table) -> int:
        entry = table[self.window[self.at]]
        if not entry:
            raise _Wrong("it holds an unknown Huffman code")
        self.at += entry >> 8
        return entry & 255

    def take(self, count: int) -> int:
        value = self.window[self.at] >> 16 - count
        self.at += count
        return value

    def number(self, size: int) -> int:
        """A signed number of `size` bits (T.81, EXTEND)."""
        value = self.take(size)
        return value if not size or value >> size - 1 else value - (1 << size) + 1


def _sequential(bits: _Bits, part: _Component, first: int, scan: _Scan, previous: dict[int, int]) -> None:
    """All of a block. Written out, as most of the time is spent here."""
    size = bits.symbol(part.dc) & 15
    previous[part.id] += bits.number(size)
    coefficients, window, table, at, place = part.coefficients, bits.window, part.ac, bits.at, first + 1
    coefficients[first] = _short(previous[part.id])
    end = first + 64
    while place < end:
        entry = table[window[at]]
        at += entry >> 8
        size = entry & 15
        if size:
            place += entry >> 4 & 15
            value = window[at] >> 16 - size
            at += size
            if place >= end:
                raise _Wrong("a block is too long")
            coefficients[place] = value if value >> size - 1 else value - (1 << size) + 1
            place += 1
        elif entry & 255 == 0xF0:
            place += 16
        elif entry:
            break
        else:
            raise _Wrong("it holds an unknown Huffman code")
    bits.at = at


def _first_dc(bits: _Bits, part: _Component, first: int, scan: _Scan, previous: dict[int, int]) -> None:
    previous[part.id] += bits.number(bits.symbol(part.dc) & 15)
    part.coefficients[first] = _short(previous[part.id] << scan.low)


def _more_dc(bits: _Bits, part: _Component, first: int, scan: _Scan, previous: dict[int, int]) -> None:
    part.coefficients[first] |= bits.take(1) << scan.low


def _first_ac(bits: _Bits, part: _Component, first: int, scan: _Scan, previous: dict[int, int]) -> None:
    if bits.run:
        bits.run -= 1
        return
    place = first + scan.start
    while place <= first + scan.end:
        symbol = bits.symbol(part.ac)
        run, size = symbol >> 4, symbol & 15
        if size:
            place += run
            if place >= first + 64:
                raise _Wrong("a block is too long")
            part.coefficients[place] = _short(bits.number(size) << scan.low)
            place += 1
        elif run == 15:
            place += 16
        else:
            bits.run = (1 << run) - 1 + bits.take(run)
            break


def _more_ac(bits: _Bits, part: _Component, first: int, scan: _Scan, previous: dict[int, int]) -> None:
    """One more bit of what is there, and what appears at this precision for the first time."""
    place, end = first + scan.start, first + scan.end
    while not bits.run and place <= end:
        symbol = bits.symbol(part.ac)
        zeros, size = symbol >> 4, symbol & 15
        new = 0
        if size:
            new = (1 if bits.take(1) else -1) << scan.low
        elif zeros < 15:
            bits.run = (1 << zeros) + bits.take(zeros)
            break
        place = _refine(bits, part.coefficients, place, end, zeros, scan.low)
        if place <= end:
            part.coefficients[place] = new
        place += 1
    if bits.run:
        _refine(bits, part.coefficients, place, end, 64, scan.low)
        bits.run -= 1


def _refine(bits: _Bits, coefficients: array[int], place: int, end: int, zeros: int, low: int) -> int:
    """Refines up to the place after so many zeros, and says where that is."""
    while place <= end:
        value = coefficients[place]
        if value:
            if bits.take(1) and not value & 1 << low:
                coefficients[place] = value + (1 << low if value > 0 else -(1 << low))
        elif zeros:
            zeros -= 1
        else:
            break
        place += 1
    return place


def _short(value: int) -> int:
    """As C stores it in 16 bits."""
    return (value + 0x8000 & 0xFFFF) - 0x8000
