"""Batches for training and for evaluation.

What a sample looks like depends on (seed, its number) alone, and the input size on (seed, iteration // 10): training
resumes at any mini-batch, and the number of worker processes changes nothing.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from darknet_py.cfg.net import NetSpec
from darknet_py.data.augment import Augmentation, Size, draw
from darknet_py.data.dataset import DetectionDataset, free_memory
from darknet_py.data.images import Image, letterbox, resize
from darknet_py.data.labels import Boxes
from darknet_py.data.mosaic import compose, images_wanted
from darknet_py.errors import DataError

_ATTEMPTS = 20  # images that may be unreadable in a row
_CACHE = 2 << 30  # bytes of images kept in memory unasked
_BLOCK = 10  # iterations between two input sizes


class Batch(NamedTuple):
    """A mini-batch.

    images: (B, C, H, W) float32 in 0..1, RGB, channels-last in memory. truth: (N, 6) rows (image, class, cx, cy, w,
    h) relative to the network input. skipped: one line for each bad image or label met for the first time.
    tracks: (N,) identity of each object (Darknet's track_id).
    """

    images: Tensor
    truth: Tensor
    skipped: list[str]
    tracks: Tensor


class EvalBatch(NamedTuple):
    """Images in list order. truth: (N, 6) rows (image in this batch, class, cx, cy, w, h) relative to the *image*.

    indices: their numbers in the list. sizes: (width, height) of the files. skipped: unreadable images and bad labels.
    """

    images: Tensor
    truth: Tensor
    skipped: list[str]
    indices: list[int]
    sizes: list[Size]


class Sample(NamedTuple):
    """One augmented image: uint8 (H, W, C), boxes relative to it, and what could not be read on the way."""

    image: Image
    boxes: Boxes
    bad_images: list[str]
    bad_labels: list[str]


def input_size(net: NetSpec, factor: float, seed: int, iteration: int) -> Size:
    """The input size of one iteration (`train_detector` with `random`).

    factor: `random` of the head; 1 means 1.4, 0 a constant size. Every ten iterations a new one, between 1/factor and
    factor; the largest at the start (so that memory runs out at once or never) and for the last hundred iterations.
    """
    if not factor:
        return net.width, net.height
    factor = 1.4 if factor == 1 else factor
    step = net.resize_step
    block = iteration // _BLOCK

    def sides(scale: float) -> Size:
        width, height = (max(math.floor(scale * side / step + 1.5) * step, step) for side in (net.width, net.height))
        return width, height

    if block == 0 or block * _BLOCK > net.max_batches - 100 > 0:
        return sides(factor)
    position, coin = np.random.default_rng([seed, 1, block]).random(2)
    scale = 1 + position * (factor - 1)
    scale = scale if coin < 0.5 else 1 / scale
    width, height = sides(scale)
    if scale < 1 and (width > net.width or height > net.height):
        return net.width, net.height
    return width, height


def training_sample(
    dataset: DetectionDataset, options: Augmentation, seed: int, number: int, net: Size, canvas: Image | None = None
) -> Sample:
    """Sample `number` of a training: a pure function of its arguments (and of the files).

    Images are drawn with replacement, as Darknet draws them. One that cannot be read is reported and replaced by the
    next draw. canvas: where to paint, uint8 (height, width, C). Raises DataError after too many unreadable images.
    """
    rng = np.random.default_rng([seed, 0, number])
    bad_images: list[str] = []
    bad_labels: list[str] = []
    images, draws = [], []
    for _ in range(images_wanted(options, rng.random())):
        index, image = _readable(dataset, rng, bad_images)
        labels = dataset.labels(index)
        bad_labels += labels.problems
        images.append((image, labels.boxes))
        draws.append(draw(options, rng))
    return Sample(*compose(options, images, draws, net, rng, canvas), bad_images, bad_labels)


class TrainLoader:
    """Endless training batches.

    seed: of everything random. workers: processes (None: one per core, at most 8; 0: this process). rank, world: of
    `world` equal processes; sample k goes to rank k mod world, so that together they see what one process with a
    mini-batch `world` times as large sees. device: where the images are sent. cache: keep decoded images in memory, all
    that fit; None: if all of them take at most 2 GiB and a quarter of what is free.
    bad_images, bad_labels: what could not be used so far, one line each.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        net: NetSpec,
        options: Augmentation,
        *,
        mini_batch: int | None = None,
        seed: int = 0,
        workers: int | None = None,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        cache: bool | None = None,
    ):
        self.dataset = dataset
        self.net = net
        self.options = options
        self.mini_batch = mini_batch or net.mini_batch
        self.seed = seed
        self.workers = default_workers() if workers is None else workers
        self.rank, self.world = rank, world
        self.device = torch.device(device)
        self.cache = cache
        self.bad_images: list[str] = []
        self.bad_labels: list[str] = []
        self._known: set[str] = set()

    def size(self, iteration: int) -> Size:
        """Width and height of the network input in this iteration."""
        return input_size(self.net, self.options.random, self.seed, iteration)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Mini-batches from number `start` on (iteration · subdivisions + subdivision), without end.

        Raises DataError when images cannot be read at all or a worker process dies.
        """
        self._fill_cache()
        work = TrainingSamples(self.dataset, self.options, self.seed)
        requests = itertools.chain.from_iterable([self._numbers(number)] for number in itertools.count(start))
        for images, truth, tracks, bad_images, bad_labels in _run(work, requests, self.workers, self.device):
            skipped = [*self._new(bad_images, self.bad_images), *self._new(bad_labels, self.bad_labels)]
            yield Batch(images, truth, skipped, tracks)

    def _numbers(self, mini_batch: int) -> list[tuple[int, Size]]:
        size = self.size(mini_batch // self.net.subdivisions)
        first = mini_batch * self.mini_batch * self.world + self.rank
        return [(first + number * self.world, size) for number in range(self.mini_batch)]

    def _fill_cache(self) -> None:
        limit = min(_CACHE, free_memory() // 4) // self.world
        if self.cache or (self.cache is None and self.dataset.fits(limit)):
            self.dataset.cache(None if self.cache else limit)

    def _new(self, lines: list[str], seen: list[str]) -> list[str]:
        new = [line for line in dict.fromkeys(lines) if line not in self._known]
        self._known.update(new)
        seen += new
        return new


class EvalLoader:
    """Every image once, in order, without augmentation: Darknet's own resize, or its letterbox.

    size: the network's (width, height). rank, world: image i goes to rank i mod world.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        size: Size,
        *,
        batch: int = 1,
        letter_box: bool = False,
        workers: int | None = None,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ):
        self.dataset = dataset
        self.size = size
        self.letter_box = letter_box
        self.workers = default_workers() if workers is None else workers
        self.device = torch.device(device)
        indices = range(rank, len(dataset), world)
        self._requests = [list(indices[first : first + batch]) for first in range(0, len(indices), batch)]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._requests)

    def __iter__(self) -> Iterator[EvalBatch]:
        work = _EvalImages(self.dataset, self.size, self.letter_box)
        for images, truth, skipped, indices, sizes in _run(work, self._requests, self.workers, self.device):
            yield EvalBatch(images, truth, skipped, indices, sizes)


def default_workers() -> int:
    """One process per core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


class TrainingSamples:
    """What a worker does for `TrainLoader`: whole mini-batches, painted where the main process will read them."""

    def __init__(self, dataset: DetectionDataset, options: Augmentation, seed: int):
        self.dataset, self.options, self.seed = dataset, options, seed

    def __getitems__(self, requests: list[tuple[int, Size]]) -> tuple[Any, ...] | str:
        width, height = requests[0][1]
        images = _room((len(requests), height, width, self.dataset.channels), torch.uint8)
        try:
            samples = [
                training_sample(self.dataset, self.options, self.seed, number, size, canvas)
                for (number, size), canvas in zip(requests, images.numpy(), strict=True)
            ]
        except DataError as error:
            return str(error)  # a value: torch would wrap an exception of a worker in its traceback
        truth, tracks = _truth([sample.boxes for sample in samples])
        bad_images = [line for sample in samples for line in sample.bad_images]
        bad_labels = [line for sample in samples for line in sample.bad_labels]
        return images, truth, tracks, bad_images, bad_labels


class _EvalImages:
    """What a worker does for `EvalLoader`."""

    def __init__(self, dataset: DetectionDataset, size: Size, letter_box: bool):
        self.dataset, self.size, self.letter_box = dataset, size, letter_box

    def __getitems__(self, indices: list[int]) -> tuple[Any, ...]:
        place = letterbox if self.letter_box else resize
        images = _room((len(indices), self.size[1], self.size[0], self.dataset.channels), torch.float32)
        boxes: list[Boxes] = []
        skipped: list[str] = []
        good: list[int] = []
        sizes: list[Size] = []
        for index in indices:
            labels = self.dataset.labels(index)
            try:
                image = self.dataset.image(index)
            except DataError as error:
                skipped += [str(error), *labels.problems]
                continue
            images[len(good)] = torch.from_numpy(place(image, *self.size))
            skipped += labels.problems
            boxes.append(labels.boxes)
            good.append(index)
            sizes.append((image.shape[1], image.shape[0]))
        return images[: len(good)], _truth(boxes)[0], skipped, good, sizes


def _run(work: Any, requests: Any, workers: int, device: torch.device) -> Iterator[tuple[Any, ...]]:
    """Collated answers to `requests` (lists of what `work` takes), in order; the first is sent to `device`."""
    # Forked workers start at once and share cached images; newer Pythons would spawn them by default.
    context = "fork" if sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods() else None
    batches = iter(
        DataLoader(
            work,
            batch_sampler=requests,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            multiprocessing_context=context if workers else None,
            worker_init_fn=start_worker,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # its own, so that reading data never moves torch's global one
        )
    )
    # Ends the workers now, not when the garbage collector comes by; at exit before Python kills them one by one.
    shutdown = getattr(batches, "_shutdown_workers", None)
    if shutdown:
        atexit.register(shutdown)
    try:
        for answer in batches:
            if isinstance(answer, str):
                raise DataError(answer)
            yield _to_device(answer[0], device), *answer[1:]
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(f"a loader process ended unexpectedly: {str(error).splitlines()[0]}") from None
    finally:
        if shutdown:
            atexit.unregister(shutdown)
            shutdown()


def start_worker(_: int = 0) -> None:
    """What a loader process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(AttributeError, OSError):
        os.setpgid(0, 0)  # Ctrl-C and `kill` of the group are for the main process, which then ends its workers
    cv2.setNumThreads(0)
    with suppress(AttributeError, OSError):
        # Keep freed memory (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc): images come and go all the time, and taking
        # their pages from the system again and again costs as much as a resize.
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 1 << 30)
        libc.mallopt(-3, 1 << 30)


def _as_it_is(answer: Any) -> Any:
    return answer


def _readable(dataset: DetectionDataset, rng: np.random.Generator, bad: list[str]) -> tuple[int, Image]:
    for _ in range(_ATTEMPTS):
        index = int(rng.integers(len(dataset)))
        try:
            return index, dataset.image(index)
        except DataError as error:
            bad.append(str(error))
    raise DataError(f"{_ATTEMPTS} images drawn in a row cannot be read, the last one: {bad[-1]}")


def _room(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """An empty tensor, in shared memory when called in a worker."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=kind)
    storage = torch.empty(0, dtype=kind).untyped_storage()._new_shared(math.prod(shape) * kind.itemsize)
    return torch.empty(0, dtype=kind).set_(storage).view(shape)  # type: ignore[call-overload]


def _truth(boxes: Sequence[Boxes]) -> tuple[Tensor, Tensor]:
    """Per image rows (class, cx, cy, w, h, track) → truth (N, 6) and tracks (N,)."""
    rows = torch.from_numpy(np.concatenate([np.zeros((0, 6), np.float32), *boxes]))
    counts = torch.tensor([len(each) for each in boxes], dtype=torch.long)
    image = torch.repeat_interleave(torch.arange(len(boxes)), counts)
    return torch.cat([image[:, None].float(), rows[:, :5]], 1), rows[:, 5].long()


def _to_device(images: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, C) uint8 or float → (B, C, H, W) float in 0..1 on the device, channels-last in memory."""
    images = images.to(device, non_blocking=True).permute(0, 3, 1, 2)
    return torch.div(images, 255) if images.dtype == torch.uint8 else images
