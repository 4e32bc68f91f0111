"""What differs between kinds of training: the data, the truth of a mini-batch, and the evaluation."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from darknet_py.counted import counted
from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.dataset import Images
from darknet_py.data.loader import Batch, BatchSource, LoaderOptions
from darknet_py.data.split import hold_out
from darknet_py.errors import TrainError
from darknet_py.evaluation.darknet_map import Curve
from darknet_py.evaluation.types import Ints
from darknet_py.evaluation.worst_images import WorstImage
from darknet_py.graph.graph import Graph
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, LocalBatch
from darknet_py.training.recipe import Photos
from darknet_py.training.train_options import TrainOptions
from darknet_py.view.contact_sheet import Tile, TileBox

if TYPE_CHECKING:
    from typing_extensions import Self

_TILES = 8  # training images that the report shows
_MATRIX_LIMIT = 101  # rows of a confusion matrix that is kept for each evaluation


@dataclass(frozen=True)
class EvalScore:
    """One evaluation of the validation list, as plain data.

    Attributes:
        value: The score by which NAME_best is chosen, 0 … 1.
        loss: Darknet's cost per image (per byte of a text).
        metrics: All numbers, ready for JSON; `classes` holds one dict per class.
        names: Class names, for the plots.
        confusion: Confusion matrix, (classes, classes) or, of a detector, (classes + 1, classes + 1) counts.
        curves: Precision over recall of each class of a detector.
        skipped: One line for each image or label that could not be used.
        worst: The images on which a detector errs most.
    """

    value: float
    loss: float
    metrics: Mapping[str, object]
    names: Sequence[str] = ()
    confusion: Ints | None = None
    curves: Sequence[Curve] = ()
    skipped: Sequence[str] = ()
    worst: Sequence[WorstImage] = ()

    def to_json(self) -> dict[str, object]:
        """The metrics, with the confusion matrix unless it is large."""
        if self.confusion is None:
            return dict(self.metrics)
        small = len(self.confusion) <= _MATRIX_LIMIT
        return {**self.metrics, "confusion": self.confusion.tolist() if small else None}


@dataclass(frozen=True)
class Task(ABC):
    """The data of a training and all that depends on the kind of network.

    Attributes:
        graph: The network that is trained.
        options: Options of the run.
        file: The data file; for other formats, what it would say.
        names: Class names in the order of the classes.
        builtin: Whether this is the built-in data set, because none was given.
    """

    graph: Graph
    options: TrainOptions
    file: DataFile
    names: list[str]
    builtin: bool

    kind: ClassVar[str]  # of network, in words
    metric: ClassVar[str]  # key of the score in NAME_best.json
    item: ClassVar[str] = "images"  # what the data consists of
    splits: ClassVar[bool] = False  # whether a recipe holds out a part of the data

    @property
    @abstractmethod
    def metric_label(self) -> str:
        """The score's name in messages and charts."""

    @property
    @abstractmethod
    def train_size(self) -> int:
        """Number of items to train on."""

    @property
    @abstractmethod
    def valid_size(self) -> int:
        """Number of items to evaluate on; 0 where no evaluation was asked for."""

    @property
    @abstractmethod
    def class_limit(self) -> int:
        """Number of classes of the network."""

    @property
    def data_digest(self) -> str:
        """What the data consists of, in a few characters that are equal where the data is."""
        return f"{self.train_size} and {self.valid_size} {self.item}"

    @property
    def photos(self) -> Photos:
        """What a recipe asks of the data."""
        return Photos(self.train_size)

    def hold_out(self, share: float, data: Path | None = None) -> Self:
        """The task with a part of the training data held out for validation, where there is no validation list.

        Args:
            share: How much to hold out.
            data: The .data file of an earlier split, which is used again.

        Returns:
            The task, or this one where nothing is held out.

        Raises:
            DataError: The images cannot be split.
            TrainError: This kind of data is not split.
        """
        if share:
            raise TrainError(f"split: expected none for a {self.kind}, got {share:g}")
        return self

    def write_lists(self, data: Path) -> None:  # noqa: B027  # most tasks have none
        """Writes the lists of what was held out, and the .data file `data` that names them. Raises DataError."""

    def list_files(self, data: Path) -> list[Path]:
        """The files that `write_lists` writes."""
        return []

    @property
    def measured_on(self) -> str:
        """What evaluations are made on, in words: `validation`, or `training` where no images were held out."""
        return "validation"

    @property
    def loss_label(self) -> str:
        """The name of the loss of an evaluation."""
        return "validation loss" if self.measured_on == "validation" else "loss (training images)"

    def with_graph(self, graph: Graph, options: TrainOptions) -> Self:
        """The same data for the network as a recipe changed it."""
        return replace(self, graph=graph, options=options)

    @property
    def evaluates(self) -> bool:
        """Whether the network is evaluated during training."""
        return self.valid_size > 0

    @abstractmethod
    def notes(self) -> list[str]:
        """Lines to log before training starts."""

    @abstractmethod
    def prepare(self) -> list[str]:
        """Work that must be done before the first batch, such as filling the image cache; lines about it."""

    @abstractmethod
    def loader(self, local: LocalBatch, context: DistContext, seed: int, device: torch.device) -> BatchSource:
        """Mini-batches of this process, numbered iteration · local.mini_batches + k."""

    @abstractmethod
    def truth(self, batch: Batch, network: Network) -> Tensor:
        """The truth as `Network.loss` takes it; called before each mini-batch."""

    def tiles(self, batch: Batch) -> list[Tile]:
        """The images of a mini-batch for a contact sheet; none of a text."""
        return []

    @abstractmethod
    def evaluate(self, network: Network, context: DistContext) -> EvalScore:
        """Score on the validation list; all processes evaluate together and get the same."""


class Split(NamedTuple):
    """A training list of which a part was held out; `words` say how."""

    train: list[str]
    valid: list[str]
    words: str


@dataclass(frozen=True)
class ImageTask(Task, Generic[Images]):
    """A task on images with classes.

    Attributes:
        train: Images to train on.
        valid: Images to evaluate on; None where the network is not evaluated.
        split: Both parts of the training list, where a part was held out.
    """

    train: Images
    valid: Images | None
    split: Split | None = None

    @property
    def train_size(self) -> int:
        return len(self.train)

    @property
    def valid_size(self) -> int:
        return len(self.valid) if self.valid else 0

    @property
    def data_digest(self) -> str:
        names = [os.path.basename(path) for images in (self.train, self.valid) if images for path in images.paths]
        content = "\n".join([*self.names, *names]).encode("utf-8", "surrogateescape")
        return f"{super().data_digest} ({blake2b(content, digest_size=8).hexdigest()})"

    @property
    @abstractmethod
    def separate(self) -> bool:
        """Whether the data has other images to evaluate on than to train on."""

    @property
    def measured_on(self) -> str:
        return "validation" if self.separate or self.split else "training"

    def hold_out(self, share: float, data: Path | None = None) -> Self:
        if self.separate:
            return self
        if data and data.is_file():
            earlier = DataFile.read(data)
            return self._with_split(Split(earlier.train_images(), earlier.valid_images(), f"as in {data}"))
        paths, seed = self.train.paths, self.options.seed
        classes = [self.train.class_ids(index) for index in range(len(paths))]
        hidden = True if self.options.quiet else None  # None: without a terminal
        with tqdm(total=len(paths), desc="split", unit="image", leave=False, disable=hidden) as bar:
            parts = hold_out(paths, classes, share, seed, bar.update)
        same = f"; {counted(parts.duplicates, 'duplicate')} stay on one side" if parts.duplicates else ""
        words = f"{share:g} of {counted(len(paths), 'image', ',')}, by content and class, seed {seed}{same}"
        return self._with_split(Split(parts.train, parts.valid, words))

    def _with_split(self, split: Split) -> Self:
        valid = self.train.subset(split.valid) if self.options.map is not False else None
        return replace(self, train=self.train.subset(split.train), valid=valid, split=split)

    def write_lists(self, data: Path) -> None:
        if self.split:
            train, valid = self.list_files(data)[:2]
            write_list(train, self.split.train)
            write_list(valid, self.split.valid)
            lines = {"classes": len(self.names), "train": train.absolute(), "valid": valid.absolute()}
            lines["names"] = (self.file.names or data.with_suffix(".names")).absolute()
            write_list(data, [f"{key} = {value}" for key, value in {**lines, **self.more_lines(data)}.items()])

    def more_lines(self, data: Path) -> dict[str, Path]:
        """Further lines of the .data file of a split."""
        return {}

    def list_files(self, data: Path) -> list[Path]:
        names = (f"{data.stem}_train.txt", f"{data.stem}_valid.txt", data.name)
        return [data.with_name(name) for name in names] if self.split else []

    def notes(self) -> list[str]:
        lines, count = [], len(self.names)
        if count != self.class_limit:
            lines.append(
                f"note: the network has {counted(self.class_limit, 'class')}, the data {count}; the others stay unused "
                f"(classes={count}, --classes {count}, rewrites the cfg)"
            )
        if self.split:
            train, valid, words = self.split
            lines.append(f"split: {counted(len(train), 'image', ',')} to train on, {len(valid):,} held out ({words})")
        return lines

    def tiles(self, batch: Batch) -> list[Tile]:
        pixels = (batch.images[:_TILES].permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return [Tile(image, self.tile_boxes(batch, number), []) for number, image in enumerate(pixels)]

    def tile_boxes(self, batch: Batch, number: int) -> list[TileBox]:
        """The labeled boxes of an image of a mini-batch; a classifier has none."""
        return []

    def fill_cache(self, images: Images) -> list[str]:
        """Fills the image cache where that was asked for, and reports it once."""
        line = images.fill_cache(True, show=not self.options.quiet) if self.options.cache else ""
        return [line] if line else []

    def loader_options(self, local: LocalBatch, context: DistContext, seed: int, device: torch.device) -> LoaderOptions:
        """The options of `loader`, as the loaders of images take them."""
        return {
            "mini_batch": local.images * self.graph.net.time_steps,
            "seed": seed,
            "workers": self.options.workers,
            "cache": self.options.cache,
            "rank": context.rank,
            "world": context.size,
            "device": device,
        }


def check_classes(graph: Graph, data: Path, limit: int, count: int, options: TrainOptions) -> None:
    """Raises TrainError where the data has more classes (`count`) than the network (`limit`)."""
    if count > limit:
        origin = "asked for" if options.classes else f"{graph.path} has"
        raise TrainError(
            f"{data}: expected at most {counted(limit, 'class')}, as {origin}, got {count}; "
            f"classes={count} (--classes {count}) rewrites the cfg for them"
        )
