"""Duplicate detection: identical files, and images that appearance alike (recompressed, resized)."""

from __future__ import annotations

from collections import defaultdict
from hashlib import blake2b
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from darknet_py.data.images import Image

_BITS, _BANDS = 64, 4
_MAX_DIFFERENT_BITS = 3  # fewer than bands, so that two near-duplicates agree in at least one band
_MAX_GRAY_DIFFERENCE = 6.0  # mean difference of the thumbnails


class ImageFingerprint(NamedTuple):
    """file: 16-byte hash of the file. appearance: 64-bit difference hash of the pixels. thumbnail: uint8 (8, 8, C)."""

    file: bytes
    appearance: int
    thumbnail: NDArray[np.uint8]


def fingerprint(content: bytes, image: Image) -> ImageFingerprint:
    """content: bytes of the file. image: its pixels, uint8 (H, W, C)."""
    small = cv2.resize(image[:, :, :3], (36, 32), interpolation=cv2.INTER_AREA)
    small = small.reshape(32, 36, -1)  # OpenCV drops a single channel
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.shape[2] == 3 else small[:, :, 0]
    cells = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])  # brighter than the cell to the left
    thumbnail = np.asarray(cv2.resize(small, (8, 8), interpolation=cv2.INTER_AREA), np.uint8).reshape(8, 8, -1)
    return ImageFingerprint(blake2b(content, digest_size=16).digest(), int.from_bytes(bits.tobytes(), "big"), thumbnail)


class DuplicateIndex:
    """Images seen so far. Time is linear in the number of images as long as they differ."""

    def __init__(self) -> None:
        self._files: dict[bytes, int] = {}
        self._leaders: list[tuple[int, ImageFingerprint]] = []  # one for each group of near-duplicates
        self._bands: dict[tuple[int, int], list[int]] = defaultdict(list)

    def same_file(self, number: int, fingerprint: ImageFingerprint) -> int | None:
        """The number of an earlier image with the same file content; None for the first one."""
        first = self._files.setdefault(fingerprint.file, number)
        return None if first == number else first

    def near_duplicate(self, number: int, fingerprint: ImageFingerprint) -> int | None:
        """The number of an earlier image that looks the same, or None."""
        width = _BITS // _BANDS
        keys = [(band, fingerprint.appearance >> (band * width) & ((1 << width) - 1)) for band in range(_BANDS)]
        for leader in sorted({leader for key in keys for leader in self._bands.get(key, ())}):
            earlier, other = self._leaders[leader]
            if (
                other.appearance ^ fingerprint.appearance
            ).bit_count() > _MAX_DIFFERENT_BITS or other.thumbnail.shape != fingerprint.thumbnail.shape:
                continue
            if np.abs(other.thumbnail.astype(np.int16) - fingerprint.thumbnail).mean() <= _MAX_GRAY_DIFFERENCE:
                return earlier
        for key in keys:
            self._bands[key].append(len(self._leaders))
        self._leaders.append((number, fingerprint))
        return None
