"""Batches for training and for evaluation.

A sample depends only on (seed, number of the sample), and the input size on (seed, iteration // 10). Training can
resume at any mini-batch, and the number of worker processes has no influence.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.cfg.net import NetSpec
from darknet_py.counted import counted
from darknet_py.data.augment.augmentation import Augmentation, Size, draw_params, random_scale
from darknet_py.data.augment.mosaic import compose, images_per_sample
from darknet_py.data.dataset import DetectionDataset, Images, ImageSet, recording_copy
from darknet_py.data.images import Image, letterbox, resize
from darknet_py.data.labels import Boxes
from darknet_py.data.sampling import rank_samples, related_index, related_params
from darknet_py.data.workers import Labels, SharedBufferPool, Work, default_workers, empty_shared, run_workers
from darknet_py.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

Floats = NDArray[np.float32]

_MAX_UNREADABLE = 20  # consecutive unreadable images before an error
_NUMBERS_PER_MINI_BATCH = 1 << 20  # sample numbers reserved per mini-batch where its size varies
_RESIZE_INTERVAL = 10  # iterations between changes of the input size


class Batch(NamedTuple):
    """A mini-batch.

    images: (B, C, H, W) float32 in 0..1, RGB, channels-last in memory. truth: (N, 6) rows (image, class, cx, cy, w,
    h) relative to the network input. skipped: one line for each bad image or label seen for the first time.
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


class SampleRequest(NamedTuple):
    """What a training sample is made from: its number, the input size, and whether images are mixed in it."""

    number: int
    size: Size
    mixed: bool


class Sample(NamedTuple):
    """One augmented image: uint8 (H, W, C), boxes relative to it, and the problems of its files."""

    image: Image
    boxes: Boxes
    bad_images: list[str]
    bad_labels: list[str]


def input_size(net: NetSpec, factor: float, seed: int, iteration: int) -> Size:
    """The input size of one iteration (`train_detector` with `random`).

    factor: `random` of the head; 1 means 1.4, 0 a constant size. The size changes every ten iterations, between
    1/factor and factor. It is the largest one at the start (so that memory runs out at once or never) and in the last
    hundred iterations.
    """
    if not factor:
        return net.width, net.height
    block = iteration // _RESIZE_INTERVAL
    if block == 0 or block * _RESIZE_INTERVAL > net.max_batches - 100 > 0:
        return largest_size(net, factor)
    position, chance = np.random.default_rng([seed, 1, block]).random(2)
    scale = random_scale(1.4 if factor == 1 else factor, position, chance)
    width, height = _scaled(net, scale)
    if scale < 1 and (width > net.width or height > net.height):
        return net.width, net.height
    return width, height


def largest_size(net: NetSpec, factor: float) -> Size:
    """The largest input size with `random=factor`."""
    return _scaled(net, 1.4 if factor == 1 else factor) if factor else (net.width, net.height)


def _scaled(net: NetSpec, scale: float) -> Size:
    step = net.resize_step
    width, height = (max(math.floor(scale * side / step + 1.5) * step, step) for side in (net.width, net.height))
    return width, height


def training_sample(
    dataset: DetectionDataset,
    options: Augmentation,
    seed: int,
    number: int,
    net: Size,
    canvas: Image | None = None,
    mini_batch: int = 1,
) -> Sample:
    """Sample `number` of a training: a pure function of its arguments and the files.

    Images are drawn with replacement, as Darknet draws them. One that cannot be read is reported and replaced by the
    next draw. canvas: where to paint, uint8 (height, width, C). mini_batch: samples in one (of all processes), for
    those that depend on each other. Raises DataError after too many unreadable images.
    """
    rng = np.random.default_rng([seed, 0, number])
    bad_images: list[str] = []
    bad_labels: list[str] = []
    images, draws = [], []
    for part in range(images_per_sample(options, rng.random())):
        first = related_index(options, seed, number, part, mini_batch, len(dataset))
        index, image = read_image(dataset, rng, bad_images, first)
        labels = dataset.labels(index)
        bad_labels += labels.problems
        images.append((image, labels.boxes))
        draws.append(related_params(options, seed, number, part, mini_batch, draw_params(options, rng)))
    return Sample(*compose(options, images, draws, net, rng, canvas), bad_images, bad_labels)


class ProblemLog:
    """Collects one line for each unreadable image and each wrong or missing label."""

    def __init__(self) -> None:
        self.images: list[str] = []
        self.labels: list[str] = []
        self._known: set[str] = set()

    def new(self, images: list[str], labels: list[str]) -> list[str]:
        """Adds the lines of a batch; returns those that are new."""
        new_lines = []
        for lines, seen in ((images, self.images), (labels, self.labels)):
            unseen = [line for line in dict.fromkeys(lines) if line not in self._known]
            self._known.update(unseen)
            seen += unseen
            new_lines += unseen
        return new_lines


class BatchSource(ABC):
    """Endless mini-batches of one process.

    Attributes:
        reports: What could not be used so far.
    """

    def __init__(self) -> None:
        self.reports = ProblemLog()

    @abstractmethod
    def batches(self, start: int = 0) -> Generator[Batch, None, None]:
        """Mini-batches from number `start` on, without end; closing the generator ends its worker processes."""

    @abstractmethod
    def files(self, mini_batches: range) -> list[str]:
        """The files behind mini-batches of this process, found by making their samples again."""


class LoaderOptions(TypedDict, total=False):
    """Options of a loader for training.

    mini_batch: images per forward pass of this process. seed: of everything random. workers: processes (None: one per
    core, at most 8; 0: this process). rank, world: of `world` equal processes; sample k (of contrastive pairs, pair k)
    goes to rank k mod world, so that together they see what one process with a mini-batch `world` times as large sees.
    device: where the images are sent. cache: keep decoded images in memory, all that fit; None: if all of them take at
    most 2 GiB and a quarter of what is free.
    """

    mini_batch: int | None
    seed: int
    workers: int | None
    rank: int
    world: int
    device: torch.device | str
    cache: bool | None


class ImageLoader(BatchSource, Generic[Images]):
    """Endless training batches of images: base of the loaders for training."""

    def __init__(self, dataset: Images, net: NetSpec, **options: Unpack[LoaderOptions]):
        super().__init__()
        self.dataset = dataset
        self.net = net
        self.mini_batch = options.get("mini_batch") or net.mini_batch * net.time_steps
        self.seed = options.get("seed", 0)
        workers = options.get("workers")
        self.workers = default_workers() if workers is None else workers
        self.rank, self.world = options.get("rank", 0), options.get("world", 1)
        self.device = torch.device(options.get("device", "cpu"))
        self.cache = options.get("cache")


class TrainLoader(ImageLoader[DetectionDataset]):
    """Endless training batches of a detector. augmentation: how images are changed; the others as `LoaderOptions`."""

    def __init__(
        self, dataset: DetectionDataset, net: NetSpec, augmentation: Augmentation, **options: Unpack[LoaderOptions]
    ):
        super().__init__(dataset, net, **options)
        self.augmentation = augmentation

    def size(self, iteration: int) -> Size:
        """Width and height of the network input in this iteration."""
        return input_size(self.net, self.augmentation.random, self.seed, iteration)

    def batches(self, start: int = 0) -> Generator[Batch, None, None]:
        """Mini-batches from number `start` on (iteration · subdivisions + subdivision), without end.

        Raises DataError when images cannot be read at all or a worker process dies.
        """
        self.dataset.fill_cache(self.cache)
        work = TrainingSamples(self.dataset, self.augmentation, self.seed, self.mini_batch * self.world)
        requests = map(self.numbers, itertools.count(start))
        for images, (truth, tracks, bad_images, bad_labels) in run_workers(work, requests, self.workers, self.device):
            skipped = self.reports.new(bad_images, bad_labels)
            yield Batch(images, torch.from_numpy(truth), skipped, torch.from_numpy(tracks))

    def images(self, iteration: int) -> int:
        """Images per mini-batch of this process: with dynamic_minibatch, more where the input is smaller."""
        width, height = self.size(iteration)
        max_width, max_height = largest_size(self.net, self.augmentation.random)
        if not self.net.dynamic_minibatch or (width, height) == (max_width, max_height):
            return self.mini_batch
        images = self.mini_batch * max_width * max_height // (width * height)
        return int(images * 0.8) if int(images * 0.8) > self.mini_batch else images

    def numbers(self, mini_batch: int) -> list[SampleRequest]:
        iteration = mini_batch // self.net.subdivisions
        mixed = not self.net.mosaic_stop or iteration < self.net.mosaic_stop
        size, images = self.size(iteration), self.images(iteration)
        stride = _NUMBERS_PER_MINI_BATCH if self.net.dynamic_minibatch and self.augmentation.random else self.mini_batch
        first = mini_batch * stride * self.world
        numbers = rank_samples(first, images, self.rank, self.world, self.augmentation.contrastive)
        return [SampleRequest(number, size, mixed) for number in numbers]

    def files(self, mini_batches: range) -> list[str]:
        recorder, paths = recording_copy(self.dataset)
        for mini_batch in mini_batches:
            for number, size, mixed in self.numbers(mini_batch):
                augmentation = self.augmentation if mixed else self.augmentation.unmixed
                training_sample(recorder, augmentation, self.seed, number, size, None, self.mini_batch * self.world)
        return list(dict.fromkeys(paths))


class EvalLoaderOptions(TypedDict, total=False):
    """Options of a loader for evaluation. batch: images per forward pass. rank, world: image i goes to rank i mod
    world. workers, device: as of `LoaderOptions`."""

    batch: int
    workers: int | None
    rank: int
    world: int
    device: torch.device | str


class SequentialLoader(Generic[Images]):
    """Every image once, in order, without augmentation: base of the loaders for evaluation.

    size: the network's (width, height).
    """

    def __init__(self, dataset: Images, size: Size, **options: Unpack[EvalLoaderOptions]):
        self.dataset = dataset
        self.size = size
        workers, batch = options.get("workers"), options.get("batch", 1)
        self.workers = default_workers() if workers is None else workers
        self.device = torch.device(options.get("device", "cpu"))
        indices = range(options.get("rank", 0), len(dataset), options.get("world", 1))
        self._requests = [list(indices[first : first + batch]) for first in range(0, len(indices), batch)]

    def _run(self, work: Work[int, Labels]) -> Iterator[tuple[Tensor, Labels]]:
        return run_workers(work, self._requests, self.workers, self.device)


class EvalLoader(SequentialLoader[DetectionDataset]):
    """Images for detection, resized as by Darknet (`resize_image`) or letterboxed."""

    def __init__(
        self, dataset: DetectionDataset, size: Size, *, letter_box: bool = False, **options: Unpack[EvalLoaderOptions]
    ):
        super().__init__(dataset, size, **options)
        self.letter_box = letter_box

    def __iter__(self) -> Iterator[EvalBatch]:
        work = _EvalImages(self.dataset, self.size, self.letter_box)
        for images, labels in self._run(work):
            yield EvalBatch(images, *labels)


class TrainingSamples:
    """Work of a loader process for `TrainLoader`: whole mini-batches in shared memory."""

    def __init__(self, dataset: DetectionDataset, augmentation: Augmentation, seed: int, mini_batch: int = 1):
        self.dataset, self.augmentation, self.seed, self.mini_batch = dataset, augmentation, seed, mini_batch
        self.buffers = SharedBufferPool()

    def __getitems__(
        self, requests: list[SampleRequest], /
    ) -> tuple[Tensor, tuple[Floats, NDArray[np.int64], list[str], list[str]]] | str:
        width, height = requests[0].size
        augmentation = self.augmentation if requests[0].mixed else self.augmentation.unmixed
        images = self.buffers((len(requests), height, width, self.dataset.channels))
        try:
            samples = [
                training_sample(
                    self.dataset, augmentation, self.seed, request.number, request.size, canvas, self.mini_batch
                )
                for request, canvas in zip(requests, images.numpy(), strict=True)
            ]
        except DataError as error:
            return str(error)  # a value: torch would wrap an exception of a worker in its traceback
        truth, tracks = _truth([sample.boxes for sample in samples])
        bad_images = [line for sample in samples for line in sample.bad_images]
        bad_labels = [line for sample in samples for line in sample.bad_labels]
        # Arrays: a tensor would travel in shared memory of its own, which costs far more than these few rows.
        return images, (truth.numpy(), tracks.numpy(), bad_images, bad_labels)


class _EvalImages:
    """Work of a loader process for `EvalLoader`."""

    def __init__(self, dataset: DetectionDataset, size: Size, letter_box: bool):
        self.dataset, self.size, self.letter_box = dataset, size, letter_box

    def __getitems__(self, indices: list[int], /) -> tuple[Tensor, tuple[Tensor, list[str], list[int], list[Size]]]:
        fit = letterbox if self.letter_box else resize
        images = empty_shared((len(indices), self.size[1], self.size[0], self.dataset.channels), torch.float32)
        boxes: list[Boxes] = []
        skipped: list[str] = []
        readable: list[int] = []
        sizes: list[Size] = []
        for index in indices:
            labels = self.dataset.labels(index)
            try:
                image = self.dataset.image(index)
            except DataError as error:
                skipped += [str(error), *labels.problems]
                continue
            images[len(readable)] = torch.from_numpy(fit(image, *self.size))
            skipped += labels.problems
            boxes.append(labels.boxes)
            readable.append(index)
            sizes.append((image.shape[1], image.shape[0]))
        return images[: len(readable)], (_truth(boxes)[0], skipped, readable, sizes)


def read_image(
    dataset: ImageSet, rng: np.random.Generator, bad: list[str], first: int | None = None
) -> tuple[int, Image]:
    """Reads image `first` or draws images until one is readable; the others are added to `bad`. Raises DataError."""
    for _ in range(_MAX_UNREADABLE):
        index = int(rng.integers(len(dataset))) if first is None else first
        first = None
        try:
            return index, dataset.image(index)
        except DataError as error:
            bad.append(str(error))
    raise DataError(f"{counted(_MAX_UNREADABLE, 'consecutive image')} are unreadable; the last one: {bad[-1]}")


def _truth(boxes: Sequence[Boxes]) -> tuple[Tensor, Tensor]:
    """Per image rows (class, cx, cy, w, h, track) → truth (N, 6) and tracks (N,)."""
    rows = torch.from_numpy(np.concatenate([np.zeros((0, 6), np.float32), *boxes]))
    counts = torch.tensor([len(rows_of_image) for rows_of_image in boxes], dtype=torch.long)
    image = torch.repeat_interleave(torch.arange(len(boxes)), counts)
    return torch.cat([image[:, None].float(), rows[:, :5]], 1), rows[:, 5].long()
