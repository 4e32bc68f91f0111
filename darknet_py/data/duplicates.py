"""Finding images that show the same: equal files, and files that look alike (saved anew, resized)."""

from __future__ import annotations

from collections import defaultdict
from hashlib import blake2b
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from darknet_py.data.images import Image

_BITS, _BANDS = 64, 4
_APART = 3  # bits that may differ; fewer than bands, so that two alike agree in one band at least
_GRAY_LEVELS = 6.0  # mean difference of the thumbnails


class ImageFingerprint(NamedTuple):
    """What is remembered of an image: 16 bytes of a hash of the file, 64 bits of its look, a thumbnail (8, 8, 3)."""

    file: bytes
    look: int
    thumbnail: NDArray[np.uint8]


def fingerprint(content: bytes, image: Image) -> ImageFingerprint:
    """content: the file. image: what it holds, uint8 (H, W, C)."""
    small = cv2.resize(image[:, :, :3], (36, 32), interpolation=cv2.INTER_AREA)
    small = small.reshape(32, 36, -1)  # OpenCV drops a single channel
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.shape[2] == 3 else small[:, :, 0]
    cells = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])  # whether it gets brighter to the right
    thumbnail = np.asarray(cv2.resize(small, (8, 8), interpolation=cv2.INTER_AREA), np.uint8).reshape(8, 8, -1)
    return ImageFingerprint(blake2b(content, digest_size=16).digest(), int.from_bytes(bits.tobytes(), "big"), thumbnail)


class DuplicateIndex:
    """Images seen so far. Time grows linearly with them as long as they differ."""

    def __init__(self) -> None:
        self._files: dict[bytes, int] = {}
        self._leaders: list[tuple[int, ImageFingerprint]] = []  # one for all that look alike
        self._bands: dict[tuple[int, int], list[int]] = defaultdict(list)

    def same_file(self, number: int, mark: ImageFingerprint) -> int | None:
        """The number of an earlier image with the same file content; None where this is the first."""
        first = self._files.setdefault(mark.file, number)
        return None if first == number else first

    def alike(self, number: int, mark: ImageFingerprint) -> int | None:
        """The number of an earlier image that looks the same."""
        width = _BITS // _BANDS
        keys = [(band, mark.look >> (band * width) & ((1 << width) - 1)) for band in range(_BANDS)]
        for place in sorted({place for key in keys for place in self._bands.get(key, ())}):
            earlier, other = self._leaders[place]
            if (other.look ^ mark.look).bit_count() > _APART or other.thumbnail.shape != mark.thumbnail.shape:
                continue
            if np.abs(other.thumbnail.astype(np.int16) - mark.thumbnail).mean() <= _GRAY_LEVELS:
                return earlier
        for key in keys:
            self._bands[key].append(len(self._leaders))
        self._leaders.append((number, mark))
        return None
