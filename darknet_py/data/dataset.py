"""Images with their labels, read on demand or kept in memory."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from darknet_py.counted import counted
from darknet_py.data.images import Image, load_image
from darknet_py.data.labels import Labels, find_labels, load_labels
from darknet_py.errors import DataError

_DEFAULT_CACHE_LIMIT = 2 << 30  # bytes; larger sets are cached only on request


Images = TypeVar("Images", bound="ImageSet")


class ImageSet(ABC):
    """A list of images. channels: of the network input. stb: how JPEGs are decoded, see `load_image`."""

    def __init__(self, paths: Sequence[str], channels: int = 3, stb: bool = False):
        if not paths:
            raise DataError("expected at least one image, got an empty list")
        self.paths = list(paths)
        self.channels = channels
        self.stb = stb
        self._cache: dict[int, Image] = {}
        self._filled = False

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image:
        """uint8 (H, W, channels), read-only by convention. Raises DataError."""
        image = self._cache.get(index)
        return load_image(self.paths[index], self.channels, self.stb) if image is None else image

    def with_stb(self: Images) -> Images:
        """The same images, JPEGs decoded by stb_image (see `load_image`); nothing is cached."""
        other = self.subset(self.paths)
        other.stb = True
        return other

    def subset(self: Images, paths: Sequence[str]) -> Images:
        """Some of the images, in this order; nothing is cached."""
        other = copy.copy(self)
        other.paths, other._cache, other._filled = list(paths), {}, False
        return other

    @abstractmethod
    def class_ids(self, index: int) -> list[int]:
        """The classes of an image, or of the objects on it."""

    def cache(self, limit: int | None = None, progress: Callable[[int, int], object] | None = None) -> int:
        """Decodes images into memory, at most `limit` bytes (half of the free memory); returns how many are cached.

        Loader processes share them (they are forked). The loader reports unreadable images.
        `progress(done, total)` is called as it goes.
        """
        left = (free_memory() // 2 if limit is None else limit) - sum(image.nbytes for image in self._cache.values())
        missing = [index for index in range(len(self)) if index not in self._cache]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            for start in range(0, len(missing), 256):  # in chunks, so that reading stops at the limit
                chunk = missing[start : start + 256]
                for index, image in zip(chunk, pool.map(self._image_or_none, chunk), strict=True):
                    if image is not None and image.nbytes <= left:
                        self._cache[index] = image
                        left -= image.nbytes
                    elif image is not None:
                        return len(self._cache)
                if progress:
                    progress(start + len(chunk), len(missing))
        return len(self._cache)

    def fits(self, limit: int) -> bool:
        """Whether all images would take at most `limit` bytes, estimated from the first few."""
        images = [image for image in map(self._image_or_none, range(min(len(self), 4))) if image is not None]
        return bool(images) and max(image.nbytes for image in images) * len(self) <= limit

    def fill_cache(self, enabled: bool | None, show: bool = False) -> str:
        """Caches images for a training, once; returns a line that reports it, or "".

        enabled: True: all that fit in half of the free memory. None: all, if they take at most 2 GiB and a quarter of
        the free memory; else none. False: none. show: a progress bar on a terminal. The processes of one machine
        (`torchrun`) divide the memory.
        """
        if self._filled:
            return ""
        self._filled = True
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        limit = min(_DEFAULT_CACHE_LIMIT, free_memory() // 4) // processes
        if enabled:
            limit = free_memory() // 2 // processes
        elif enabled is False or not self.fits(limit):
            return ""
        with tqdm(total=len(self), desc="cache", unit="image", leave=False, disable=None if show else True) as bar:
            count = self.cache(limit, lambda done, _: bar.update(done - bar.n))
        used = sum(image.nbytes for image in self._cache.values())
        rest = "" if count == len(self) else f"; the others are read on demand (limit {limit / 2**20:,.0f} MiB)"
        return f"cache: {count} of {counted(len(self), 'image')} in memory, {used / 2**20:,.1f} MiB{rest}"

    def __getstate__(self) -> dict[str, object]:
        """Without the cache: forked processes share it, others would each get a copy."""
        return self.__dict__ | {"_cache": {}}

    def _image_or_none(self, index: int) -> Image | None:
        with suppress(DataError):
            return self.image(index)
        return None


class DetectionDataset(ImageSet):
    """Images and boxes in Darknet's layout. classes: number of classes; labels of others are reported."""

    def __init__(self, paths: Sequence[str], classes: int, channels: int = 3, stb: bool = False):
        super().__init__(paths, channels, stb)
        self.classes = classes
        self._labels: dict[int, Labels] = {}

    def subset(self, paths: Sequence[str]) -> DetectionDataset:
        other = super().subset(paths)
        other._labels = {}
        return other

    def class_ids(self, index: int) -> list[int]:
        return [int(number) for number in self.labels(index).boxes[:, 0]]

    def labels(self, index: int) -> Labels:
        """Its boxes; read once."""
        labels = self._labels.get(index)
        if labels is None:
            labels = load_labels(find_labels(self.paths[index]), self.classes)
            if labels.missing and not os.path.exists(self.paths[index]):
                labels.problems.clear()  # the image is what is missing, which is reported when it is read
            self._labels[index] = labels
        return labels


def recording_copy(images: Images) -> tuple[Images, list[str]]:
    """A copy of an image set, and a list that gets the path of every image read from the copy."""
    paths: list[str] = []

    def image(index: int) -> Image:
        paths.append(images.paths[index])
        return images.image(index)

    recorder = copy.copy(images)
    recorder.image = image  # type: ignore[method-assign]
    return recorder, paths


def free_memory() -> int:
    """Bytes of memory available to this process; 4 GiB where the system does not tell."""
    free = 4 << 30
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    with suppress(OSError, ValueError):  # the limit of a container; ValueError where there is none ("max")
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        free = min(free, limit)
    return max(free, 0)
