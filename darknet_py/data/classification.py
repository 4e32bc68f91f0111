"""Images and classes for classifiers (Darknet's `load_data_augment`, `validate_classifier_single`)."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.cfg.net import NetSpec
from darknet_py.data.augment.augmentation import Size, color, random_scale
from darknet_py.data.dataset import ImageSet, recording_copy
from darknet_py.data.images import IMAGE_SUFFIXES, Image, center_crop
from darknet_py.data.loader import Batch, ImageLoader, SequentialLoader, read_image
from darknet_py.data.sampling import rank_samples
from darknet_py.data.workers import SharedBufferPool, empty_shared, run_workers
from darknet_py.errors import DataError

Targets = NDArray[np.float32]  # (classes,), sums to about 1

MIXUP, CUTMIX, MOSAIC, CUTMIX_OR_MOSAIC = 1, 2, 3, 4  # Darknet's codes for `mixup`
_CUTMIX_SIDES = 0.3, 0.8  # sides of a cutmix rectangle
_MIN_MOSAIC_SHARE = 0.2  # of the side, on either side of the cut


class ClassifierEvalBatch(NamedTuple):
    """Images in list order. class_ids: (B,), -1 if the path contains no class name. indices: numbers in the list."""

    images: Tensor
    class_ids: Tensor
    skipped: list[str]
    indices: list[int]


class ClassifierDataset(ImageSet):
    """Images whose paths contain the class name as a substring (Darknet's `fill_truth`).

    by_folder: the class name is the name of the folder of the image.
    """

    def __init__(self, paths: Sequence[str], labels: Sequence[str], channels: int = 3, by_folder: bool = False):
        super().__init__(paths, channels)
        if not labels:
            raise DataError("expected at least one class label, got none")
        self.names = list(labels)
        self.by_folder = by_folder

    @classmethod
    def from_folder(cls, root: str | os.PathLike[str], channels: int = 3) -> ClassifierDataset:
        """A folder with one folder of images per class; classes in alphabetical order."""
        root = Path(root)
        files = sorted(file for file in root.glob("*/*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(f"{root}: expected a folder with images in one folder per class, got none")
        return cls([str(file) for file in files], sorted({file.parent.name for file in files}), channels, True)

    @property
    def classes(self) -> int:
        return len(self.names)

    def classes_in_path(self, path: str) -> list[int]:
        """The classes whose names the path contains; exactly one in a valid data set."""
        if self.by_folder:
            folder = os.path.basename(os.path.dirname(path))
            return [number for number, name in enumerate(self.names) if name == folder]
        return [number for number, name in enumerate(self.names) if name in path]

    def class_ids(self, index: int) -> list[int]:
        return self.classes_in_path(self.paths[index])

    def problem(self, index: int) -> str | None:
        """A message if the path does not contain exactly one class name, else None."""
        matches = self.classes_in_path(self.paths[index])
        if len(matches) == 1:
            return None
        named = ", ".join(self.names[number] for number in matches) or "none"
        return f"{self.paths[index]}: expected exactly one class name in the path, got {named}"

    def target(self, index: int, smooth: float = 0.0) -> Targets:
        """1 for each class named in the path; with label smoothing 1 − smooth, and smooth / (classes − 1) elsewhere."""
        target = np.full(self.classes, smooth / max(self.classes - 1, 1), np.float32)
        target[self.classes_in_path(self.paths[index])] = 1 - smooth
        return target


class ClassifierLoader(ImageLoader[ClassifierDataset]):
    """Endless training batches; `truth` is (B, classes).

    net: angle, aspect, min_crop, max_crop, flip, hue, saturation, exposure, blur, mixup, label_smooth_eps and
    contrastive (two views of each image) are read from it.
    """

    def batches(self, start: int = 0) -> Generator[Batch, None, None]:
        """Mini-batches from number `start` on, without end. Raises DataError as `TrainLoader.batches`."""
        self.dataset.fill_cache(self.cache)
        work = _TrainingWork(self.dataset, self.net, self.seed)
        requests = map(self.numbers, itertools.count(start))
        for images, (truth, bad_images, bad_labels) in run_workers(work, requests, self.workers, self.device):
            skipped = self.reports.new(bad_images, bad_labels)
            yield Batch(images, truth, skipped, torch.zeros(0, dtype=torch.long))

    def numbers(self, mini_batch: int) -> list[int]:
        """The samples of a mini-batch of this process."""
        first = mini_batch * self.mini_batch * self.world
        return rank_samples(first, self.mini_batch, self.rank, self.world, self.net.contrastive)

    def files(self, mini_batches: range) -> list[str]:
        recorder, paths = recording_copy(self.dataset)
        for mini_batch in mini_batches:
            for number in self.numbers(mini_batch):
                classifier_sample(recorder, self.net, self.seed, number, [], [])
        return list(dict.fromkeys(paths))


class ClassifierEvalLoader(SequentialLoader[ClassifierDataset]):
    """Images for classification: the shorter side resized to the network width, then cropped at the center."""

    def __iter__(self) -> Iterator[ClassifierEvalBatch]:
        work = _EvaluationWork(self.dataset, self.size)
        for images, labels in self._run(work):
            yield ClassifierEvalBatch(images, *labels)


def augment(image: Image, net: NetSpec, rng: np.random.Generator) -> Image:
    """A random crop, rotated, stretched, flipped and with changed colors (`random_augment_image`). uint8 (H, W, C)."""
    height, width = image.shape[:2]
    size = max(net.width, net.height)
    aspect = random_scale(net.aspect or 1.0, *rng.random(2))
    shorter = min(height, int(width * aspect))
    low, high = sorted((net.min_crop, net.max_crop))
    scale = int(rng.integers(low, high + 1)) / max(shorter, 1)
    angle = math.radians((2 * rng.random() - 1) * net.angle)
    room_x, room_y = max((width * scale / aspect - size) / 2, 0), max((height * scale - size) / 2, 0)
    shift = (2 * rng.random() - 1) * room_x, (2 * rng.random() - 1) * room_y
    crop = rotate_crop(image, angle, scale, size, shift, aspect)
    if net.flip and rng.random() < 0.5:
        crop = np.ascontiguousarray(crop[:, ::-1])
    saturation, exposure = (random_scale(limit or 1.0, *rng.random(2)) for limit in (net.saturation, net.exposure))
    crop = color(crop, (2 * rng.random() - 1) * net.hue, saturation, exposure)
    if crop.shape[:2] != (net.height, net.width):
        crop = np.asarray(cv2.resize(crop, (net.width, net.height)), np.uint8).reshape(net.height, net.width, -1)
    return crop


def rotate_crop(
    image: Image, angle: float, scale: float, size: int, shift: tuple[float, float], aspect: float
) -> Image:
    """A square of `size` pixels around the image's middle plus `shift`; black beyond it (`rotate_crop_image`).

    angle: in radians. scale: output pixels per image pixel, of which x has `aspect` times as many per output pixel.
    """
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    linear = np.array([[cos * aspect, -sin], [sin * aspect, cos]])
    middle = np.array([image.shape[1] / 2, image.shape[0] / 2])
    offset = middle + linear @ (np.array(shift) - size / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(image, np.column_stack([linear, offset]), (size, size), flags=flags)
    return np.asarray(crop, np.uint8).reshape(size, size, -1)


def mix(
    kind: int, images: Sequence[Image], targets: Sequence[Targets], rng: np.random.Generator
) -> tuple[Image, Targets]:
    """Mixup or cutmix of two images, mosaic of four (`load_data_augment`); targets mix by area."""
    height, width = images[0].shape[:2]
    mixed = images[0].copy()
    if kind == MIXUP:
        mixed[:] = cv2.addWeighted(images[0], 0.5, images[1], 0.5, 0).reshape(mixed.shape)
        return mixed, (targets[0] + targets[1]) * np.float32(0.5)
    if kind == CUTMIX:
        w, h = (
            int(rng.integers(int(side * _CUTMIX_SIDES[0]), int(side * _CUTMIX_SIDES[1]) + 1))
            for side in (width, height)
        )
        x, y = int(rng.integers(0, max(width - w, 1))), int(rng.integers(0, max(height - h, 1)))
        mixed[y : y + h, x : x + w] = images[1][y : y + h, x : x + w]
        share = w * h / (width * height)
        return mixed, targets[0] * np.float32(1 - share) + targets[1] * np.float32(share)
    x, y = (
        int(rng.integers(int(side * _MIN_MOSAIC_SHARE), int(side * (1 - _MIN_MOSAIC_SHARE)) + 1))
        for side in (width, height)
    )
    target = np.zeros_like(targets[0])
    for number, (image, part) in enumerate(zip(images, targets, strict=True)):
        columns = slice(x, width) if number % 2 else slice(0, x)
        rows = slice(y, height) if number >= 2 else slice(0, y)
        mixed[rows, columns] = image[rows, columns]
        target += part * ((columns.stop - columns.start) * (rows.stop - rows.start) / (width * height))
    return mixed, target


def classifier_sample(
    dataset: ClassifierDataset, net: NetSpec, seed: int, number: int, bad_images: list[str], bad_labels: list[str]
) -> tuple[Image, Targets]:
    """Sample `number` of a training, a pure function of its arguments; see `training_sample`."""
    rng = np.random.default_rng([seed, 2, number])
    kind = net.mixup if rng.random() < 0.5 else 0  # Darknet mixes every second batch; here it is a coin per sample
    if kind == CUTMIX_OR_MOSAIC:
        kind = int(rng.integers(CUTMIX, MOSAIC + 1))
    # Contrastive training: the two views of a pair use the same generator to select the image.
    pair_rng = np.random.default_rng([seed, 3, number // 2]) if net.contrastive else rng
    images, targets = [], []
    for _ in range({0: 1, MOSAIC: 4}.get(kind, 2)):
        index, image = read_image(dataset, pair_rng, bad_images)
        images.append(augment(image, net, rng))
        if net.unsupervised:
            targets.append(np.eye(1, dataset.classes, index % dataset.classes, np.float32)[0])
        else:
            targets.append(dataset.target(index, net.label_smooth_eps))
            bad_labels += [problem for problem in [dataset.problem(index)] if problem]
    image, target = mix(kind, images, targets, rng) if kind else (images[0], targets[0])
    if net.blur and rng.random() < 0.25:
        size = 15 if net.blur == 1 else net.blur // 2 * 2 + 1
        image = np.asarray(cv2.GaussianBlur(image, (size, size), 0), np.uint8).reshape(image.shape)
    return image, target


class _TrainingWork:
    """Work of a loader process for `ClassifierLoader`."""

    def __init__(self, dataset: ClassifierDataset, net: NetSpec, seed: int):
        self.dataset, self.net, self.seed = dataset, net, seed
        self.buffers = SharedBufferPool()

    def __getitems__(self, numbers: list[int], /) -> tuple[Tensor, tuple[Tensor, list[str], list[str]]] | str:
        images = self.buffers((len(numbers), self.net.height, self.net.width, self.dataset.channels))
        truth = torch.empty(len(numbers), self.dataset.classes)
        bad_images: list[str] = []
        bad_labels: list[str] = []
        try:
            for position, number in enumerate(numbers):
                image, target = classifier_sample(self.dataset, self.net, self.seed, number, bad_images, bad_labels)
                images[position], truth[position] = torch.from_numpy(image), torch.from_numpy(target)
        except DataError as error:
            return str(error)
        return images, (truth, bad_images, bad_labels)


class _EvaluationWork:
    """Work of a loader process for `ClassifierEvalLoader`."""

    def __init__(self, dataset: ClassifierDataset, size: Size):
        self.dataset, self.size = dataset, size

    def __getitems__(self, indices: list[int], /) -> tuple[Tensor, tuple[Tensor, list[str], list[int]]]:
        images = empty_shared((len(indices), self.size[1], self.size[0], self.dataset.channels), torch.float32)
        skipped: list[str] = []
        readable: list[int] = []
        for index in indices:
            try:
                image = self.dataset.image(index)
            except DataError as error:
                skipped.append(str(error))
                continue
            images[len(readable)] = torch.from_numpy(center_crop(image, *self.size))
            readable.append(index)
        class_ids = torch.tensor(
            [next(iter(self.dataset.classes_in_path(self.dataset.paths[index])), -1) for index in readable],
            dtype=torch.long,
        )
        skipped += [problem for problem in map(self.dataset.problem, readable) if problem]
        return images[: len(readable)], (class_ids, skipped, readable)
