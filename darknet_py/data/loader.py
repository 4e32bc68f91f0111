"""Batches for training and for evaluation.

What a sample looks like depends on (seed, its number) alone, and the input size on (seed, iteration // 10): training
resumes at any mini-batch, and the number of worker processes changes nothing.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from darknet_py.cfg.net import NetSpec
from darknet_py.data.augment import Augmentation, Size, draw
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.images import Image, letterbox, resize
from darknet_py.data.labels import Boxes
from darknet_py.data.mosaic import compose, images_wanted
from darknet_py.errors import DataError

_ATTEMPTS = 20  # images that may be unreadable in a row
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


def training_sample(dataset: DetectionDataset, options: Augmentation, seed: int, number: int, net: Size) -> Sample:
    """Sample `number` of a training: a pure function of its arguments (and of the files).

    Images are drawn with replacement, as Darknet draws them. One that cannot be read is reported and replaced by the
    next draw. Raises DataError after too many of those.
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
    return Sample(*compose(options, images, draws, net, rng), bad_images, bad_labels)


class TrainLoader:
    """Endless training batches.

    seed: of everything random. workers: processes (None: one per core, at most 8; 0: this process). rank, world: of
    `world` equal processes; sample k goes to rank k mod world, so that together they see what one process with a
    mini-batch `world` times as large sees. device: where the images are sent.
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
    ):
        self.dataset = dataset
        self.net = net
        self.options = options
        self.mini_batch = mini_batch or net.mini_batch
        self.seed = seed
        self.workers = default_workers() if workers is None else workers
        self.rank, self.world = rank, world
        self.device = torch.device(device)
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
        work = _TrainingSamples(self.dataset, self.options, self.seed)
        requests = itertools.chain.from_iterable([self._numbers(number)] for number in itertools.count(start))
        for images, truth, tracks, bad_images, bad_labels in _run(work, requests, self.workers, self.device):
            skipped = [*self._new(bad_images, self.bad_images), *self._new(bad_labels, self.bad_labels)]
            yield Batch(images, truth, skipped, tracks)

    def _numbers(self, mini_batch: int) -> list[tuple[int, Size]]:
        size = self.size(mini_batch // self.net.subdivisions)
        first = mini_batch * self.mini_batch * self.world + self.rank
        return [(first + number * self.world, size) for number in range(self.mini_batch)]

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
            if indices:
                yield EvalBatch(images, truth, skipped, indices, sizes)
            else:
                empty = torch.zeros(0, self.dataset.channels, self.size[1], self.size[0], device=self.device)
                yield EvalBatch(empty, truth, skipped, indices, sizes)


def default_workers() -> int:
    """One process per core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


class _TrainingSamples:
    """What a worker does for `TrainLoader`."""

    def __init__(self, dataset: DetectionDataset, options: Augmentation, seed: int):
        self.dataset, self.options, self.seed = dataset, options, seed

    def __getitem__(self, request: tuple[int, Size]) -> Sample | DataError:
        number, size = request
        try:
            return training_sample(self.dataset, self.options, self.seed, number, size)
        except DataError as error:
            return error  # a value: torch would wrap an exception of a worker in its traceback

    def collate(self, samples: list[Sample | DataError]) -> tuple[Any, ...] | str:
        good: list[Sample] = []
        for sample in samples:
            if isinstance(sample, DataError):
                return str(sample)
            good.append(sample)
        truth, tracks = _truth([sample.boxes for sample in good])
        bad_images = [line for sample in good for line in sample.bad_images]
        bad_labels = [line for sample in good for line in sample.bad_labels]
        return _stack([sample.image for sample in good]), truth, tracks, bad_images, bad_labels


class _EvalImages:
    """What a worker does for `EvalLoader`."""

    def __init__(self, dataset: DetectionDataset, size: Size, letter_box: bool):
        self.dataset, self.size, self.letter_box = dataset, size, letter_box

    def __getitem__(self, index: int) -> tuple[int, Any, Boxes, Size, list[str]]:
        labels = self.dataset.labels(index)
        try:
            image = self.dataset.image(index)
        except DataError as error:
            return index, None, labels.boxes, (0, 0), [str(error), *labels.problems]
        place = letterbox if self.letter_box else resize
        return index, place(image, *self.size), labels.boxes, (image.shape[1], image.shape[0]), labels.problems

    def collate(self, samples: list[tuple[int, Any, Boxes, Size, list[str]]]) -> tuple[Any, ...]:
        skipped = [line for sample in samples for line in sample[4]]
        samples = [sample for sample in samples if sample[1] is not None]
        truth, _ = _truth([sample[2] for sample in samples])
        images = _stack([sample[1] for sample in samples]) if samples else torch.zeros(0)
        return images, truth, skipped, [sample[0] for sample in samples], [sample[3] for sample in samples]


def _run(work: Any, requests: Any, workers: int, device: torch.device) -> Iterator[tuple[Any, ...]]:
    """Collated answers to `requests` (lists of keys of `work`), in order; the first is sent to `device`."""
    # Forked workers start at once and share cached images; newer Pythons would spawn them by default.
    context = "fork" if sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods() else None
    batches = iter(
        DataLoader(
            work,
            batch_sampler=requests,
            num_workers=workers,
            collate_fn=work.collate,
            pin_memory=device.type == "cuda",
            multiprocessing_context=context if workers else None,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # its own, so that reading data never moves torch's global one
        )
    )
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
        del batches  # ends the workers now, not when the garbage collector comes by


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business; it ends its workers
    cv2.setNumThreads(0)


def _readable(dataset: DetectionDataset, rng: np.random.Generator, bad: list[str]) -> tuple[int, Image]:
    for _ in range(_ATTEMPTS):
        index = int(rng.integers(len(dataset)))
        try:
            return index, dataset.image(index)
        except DataError as error:
            bad.append(str(error))
    raise DataError(f"{_ATTEMPTS} images drawn in a row cannot be read, the last one: {bad[-1]}")


def _stack(images: Sequence[Any]) -> Tensor:
    """(H, W, C) arrays → (B, H, W, C), in shared memory when called in a worker."""
    first = torch.from_numpy(images[0])
    shape = (len(images), *first.shape)
    if torch.utils.data.get_worker_info() is None:
        batch = torch.empty(shape, dtype=first.dtype)
    else:  # written once, where the main process will read it
        storage = first.untyped_storage()._new_shared(math.prod(shape) * first.element_size())
        batch = torch.empty(0, dtype=first.dtype).set_(storage).view(shape)  # type: ignore[call-overload]
    for place, image in zip(batch.numpy(), images, strict=True):
        place[:] = image
    return batch


def _truth(boxes: Sequence[Boxes]) -> tuple[Tensor, Tensor]:
    """Per image rows (class, cx, cy, w, h, track) → truth (N, 6) and tracks (N,)."""
    rows = torch.from_numpy(np.concatenate([np.zeros((0, 6), np.float32), *boxes]))
    counts = torch.tensor([len(each) for each in boxes], dtype=torch.long)
    image = torch.repeat_interleave(torch.arange(len(boxes)), counts)
    return torch.cat([image[:, None].float(), rows[:, :5]], 1), rows[:, 5].long()


def _to_device(images: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, C) uint8 or float → (B, C, H, W) float in 0..1 on the device, channels-last in memory."""
    images = images.to(device, non_blocking=True)
    if images.ndim == 4:
        images = images.permute(0, 3, 1, 2)
    return torch.div(images, 255) if images.dtype == torch.uint8 else images
