"""Images with their labels, read on demand or kept in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from darknet_py.data.images import Image, load_image
from darknet_py.data.labels import Labels, find_labels, load_labels
from darknet_py.errors import DataError

_UNASKED = 2 << 30  # bytes of images that are kept in memory without being told to


class ImageSet:
    """A list of images. channels: what the network takes. stb: how JPEGs are read, see `load_image`."""

    stb = False

    def __init__(self, paths: Sequence[str], channels: int = 3):
        if not paths:
            raise DataError("expected at least one image, got an empty list")
        self.paths = list(paths)
        self.channels = channels
        self._cache: dict[int, Image] = {}
        self._filled = False

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image:
        """uint8 (H, W, channels); not to be written to. Raises DataError."""
        image = self._cache.get(index)
        return load_image(self.paths[index], self.channels, self.stb) if image is None else image

    def cache(self, limit: int | None = None, progress: Callable[[int, int], object] | None = None) -> int:
        """Decodes images into memory, at most `limit` bytes (half of the free memory), and says how many are there.

        Loader processes share them (they are forked). Unreadable images are left for the loader to report.
        `progress(done, total)` is called as it goes.
        """
        left = (free_memory() // 2 if limit is None else limit) - sum(image.nbytes for image in self._cache.values())
        missing = [index for index in range(len(self)) if index not in self._cache]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            for start in range(0, len(missing), 256):  # in pieces, so that the limit stops the reading
                piece = missing[start : start + 256]
                for index, image in zip(piece, pool.map(self._try, piece), strict=True):
                    if image is not None and image.nbytes <= left:
                        self._cache[index] = image
                        left -= image.nbytes
                    elif image is not None:
                        return len(self._cache)
                if progress:
                    progress(start + len(piece), len(missing))
        return len(self._cache)

    def fits(self, limit: int) -> bool:
        """Whether all images would take at most `limit` bytes, judged by the first few."""
        images = [image for image in map(self._try, range(min(len(self), 4))) if image is not None]
        return bool(images) and max(image.nbytes for image in images) * len(self) <= limit

    def fill_cache(self, expected: bool | None, show: bool = False) -> str:
        """Caches images as a training wants it, once; one line says what that took, "" where there is nothing to say.

        expected: True: all that fit in half of the free memory. None: all, if they take at most 2 GiB and a quarter of
        the free memory; else none. False: none. show: a progress bar, where there is a terminal. Processes of one
        machine that train together (`torchrun`) divide the memory.
        """
        if self._filled:
            return ""
        self._filled = True
        sharers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        limit = min(_UNASKED, free_memory() // 4) // sharers
        if expected:
            limit = free_memory() // 2 // sharers
        elif expected is False or not self.fits(limit):
            return ""
        with tqdm(total=len(self), desc="cache", unit="image", leave=False, disable=None if show else True) as bar:
            count = self.cache(limit, lambda done, _: bar.update(done - bar.n))
        taken = sum(image.nbytes for image in self._cache.values())
        rest = "" if count == len(self) else f"; the others are read each time (at most {limit / 2**20:,.0f} MiB)"
        return f"cache: {count} of {len(self)} images in memory, {taken / 2**20:,.1f} MiB{rest}"

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache: processes that are forked share it, others would get a copy each."""
        return self.__dict__ | {"_cache": {}}

    def _try(self, index: int) -> Image | None:
        with suppress(DataError):
            return self.image(index)
        return None


class DetectionDataset(ImageSet):
    """Images and boxes in Darknet's layout. classes: number of classes, to find wrong labels."""

    def __init__(self, paths: Sequence[str], classes: int, channels: int = 3):
        super().__init__(paths, channels)
        self.classes = classes
        self._labels: dict[int, Labels] = {}

    def labels(self, index: int) -> Labels:
        """Its boxes; read once."""
        labels = self._labels.get(index)
        if labels is None:
            labels = self._labels[index] = load_labels(find_labels(self.paths[index]), self.classes)
        return labels


def free_memory() -> int:
    """Bytes of memory that this process may still take; 4 GiB where the system does not say."""
    free = 4 << 30
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    with suppress(OSError, ValueError):  # the limit of a container; ValueError where there is none ("max")
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        free = min(free, limit)
    return max(free, 0)
