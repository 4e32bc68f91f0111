"""From a JPEG's coefficients to pixels, in the integers that stb_image calculates with (3rdparty/stb of Darknet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]


class Plane(NamedTuple):
    """A colour component. blocks: int16 (rows of blocks, blocks, 64) in zigzag order; rows: of pixels that count.

    quantization: (64,), in zigzag order. across, down: how many pixels of the image one of its pixels covers.
    """

    blocks: NDArray[np.int16]
    quantization: Ints
    across: int
    down: int
    rows: int


def rgb_image(planes: Sequence[Plane], width: int, height: int, rgb: bool, transform: int) -> Bytes:
    """uint8 (height, width, 3). rgb: the components are colours. transform: Adobe's, which says what four of them are.

    As `load_jpeg_image` puts them together.
    """
    parts = [_full(plane, width, height) for plane in planes]
    if len(parts) == 1:
        return np.repeat(parts[0].astype(np.uint8)[:, :, None], 3, 2)
    colours = parts[:3] if rgb or (len(parts) == 4 and transform == 0) else _from_ycc(*parts[:3])
    if len(parts) == 4 and transform in (0, 2):
        colours = [_scaled(255 - part if transform else part, parts[3]) for part in colours]
    return np.stack(colours, -1).astype(np.uint8)


def gray_image(planes: Sequence[Plane], width: int, height: int, rgb: bool, transform: int) -> Bytes:
    """uint8 (height, width, 1): the brightness that the file holds, or that of its colours."""
    if len(planes) == 4 and transform == 2:
        gray = _scaled(255 - _full(planes[0], width, height), _full(planes[3], width, height))
    elif rgb or (len(planes) == 4 and transform == 0):
        r, g, b = np.moveaxis(rgb_image(planes, width, height, rgb, transform).astype(np.int32), 2, 0)
        gray = (77 * r + 150 * g + 29 * b) >> 8  # `stbi__compute_y`
    else:
        gray = _full(planes[0], width, height)
    return gray.astype(np.uint8)[:, :, None]


def _full(plane: Plane, width: int, height: int) -> Ints:
    """A component at the image's size, (height, width). Twice as large: between its pixels (`stbi__resample_row_…`)."""
    pixels = _pixels(plane)[: plane.rows, : -(-width // plane.across)]
    pair = max(plane.across, plane.down) == 2
    if not pair:  # stb_image repeats pixels for any other factor
        pixels = pixels.repeat(plane.down, 0).repeat(plane.across, 1)
        return pixels[:height, :width]
    if plane.down == 2:
        pixels = _between(pixels, 0)[:height]
    shift = 4 if plane.across == plane.down else 2
    if plane.across == 1:
        return (pixels + 2) >> 2
    last = pixels.shape[1] - 1
    result = (_between(pixels, 1) + (1 << shift - 1)) >> shift
    edge = pixels[:, [0, last]]
    result[:, [0, 2 * last + 1]] = edge if shift == 2 else (edge + 2) >> 2
    if shift == 2 and last:  # the last but one pixel has its weights exchanged
        result[:, 2 * last] = (3 * pixels[:, last - 1] + pixels[:, last] + 2) >> 2
    return result[:, :width]


def _between(pixels: Ints, axis: int) -> Ints:
    """Twice as many along an axis, times four: 3 parts of the nearest and 1 of the next; the border is repeated."""
    count = pixels.shape[axis]
    place = np.arange(2 * count)
    near = place // 2
    far = (near + np.where(place % 2, 1, -1)).clip(0, count - 1)
    return 3 * pixels.take(near, axis) + pixels.take(far, axis)


def _pixels(plane: Plane) -> Ints:
    """All blocks side by side, 0..255: dequantized, and both passes of the inverse cosine transform."""
    high, wide = plane.blocks.shape[:2]
    zigzag = (plane.blocks * plane.quantization).astype(np.int16)  # stored in 16 bits, as in C
    block = np.empty((64, high, wide), np.int32)
    block[_ZIGZAG] = zigzag.transpose(2, 0, 1)
    rows = _transform(block.reshape(8, 8, high, wide), 512, 10).clip(-0x8000, 0x7FFF).swapaxes(0, 1)
    pixels = _transform(rows, 65536 + (128 << 17), 17).clip(0, 255)
    return pixels.transpose(2, 1, 3, 0).reshape(8 * high, 8 * wide)


def _transform(s: Ints, bias: int, shift: int) -> Ints:
    """The inverse cosine transform along the first axis, of length 8, in 12-bit fractions (`STBI__IDCT_1D`)."""
    common = (s[2] + s[6]) * _fixed(0.5411961)
    t2, t3 = common + s[6] * _fixed(-1.847759065), common + s[2] * _fixed(0.765366865)
    t0, t1 = (s[0] + s[4]) << 12, (s[0] - s[4]) << 12
    even = [x + bias for x in (t0 + t3, t1 + t2, t1 - t2, t0 - t3)]
    p1, p2, p3, p4 = s[7] + s[1], s[5] + s[3], s[7] + s[3], s[5] + s[1]
    p5 = (p3 + p4) * _fixed(1.175875602)
    p1, p2 = p5 + p1 * _fixed(-0.899976223), p5 + p2 * _fixed(-2.562915447)
    p3, p4 = p3 * _fixed(-1.961570560), p4 * _fixed(-0.390180644)
    odd = [
        s[1] * _fixed(1.501321110) + p1 + p4,
        s[3] * _fixed(3.072711026) + p2 + p3,
        s[5] * _fixed(2.053119869) + p2 + p4,
        s[7] * _fixed(0.298631336) + p1 + p3,
    ]
    first = [(a + b) >> shift for a, b in zip(even, odd, strict=True)]
    second = [(a - b) >> shift for a, b in zip(even, odd, strict=True)]
    return np.stack(first + second[::-1])


def _from_ycc(y: Ints, cb: Ints, cr: Ints) -> list[Ints]:
    """YCbCr → red, green, blue (`stbi__YCbCr_to_RGB_row`); the mask on green is stb_image's own."""
    y, cb, cr = (y << 20) + (1 << 19), cb - 128, cr - 128
    red = y + cr * (_fixed(1.402) << 8)
    green = y - cr * (_fixed(0.71414) << 8) + (-cb * (_fixed(0.34414) << 8) & -0x10000)
    blue = y + cb * (_fixed(1.772) << 8)
    return [(colour >> 20).clip(0, 255) for colour in (red, green, blue)]


def _scaled(x: Ints, by: Ints) -> Ints:
    """x · by / 255, rounded (`stbi__blinn_8x8`)."""
    t = x * by + 128
    return (t + (t >> 8)) >> 8


def _fixed(x: float) -> int:
    """In 12-bit fractions; truncated towards zero, as `stbi__f2f` does."""
    return int(x * 4096 + 0.5)


def _zigzag() -> NDArray[np.intp]:
    """Row · 8 + column of each coefficient as it comes in the file: along the diagonals, to and fro."""
    cells = [(y, x) for y in range(8) for x in range(8)]
    cells.sort(key=lambda cell: (sum(cell), cell[sum(cell) % 2 == 0]))
    return np.array([8 * y + x for y, x in cells])


_ZIGZAG = _zigzag()
