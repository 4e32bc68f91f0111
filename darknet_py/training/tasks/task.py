"""What differs between kinds of training: the data, the truth of a mini-batch, and what is measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from torch import Tensor

from darknet_py.data.datafile import DataFile
from darknet_py.data.dataset import ImageSet
from darknet_py.data.images import Image
from darknet_py.data.loader import Batch, ProblemLog
from darknet_py.errors import TrainError

if TYPE_CHECKING:
    import torch

    from darknet_py.evaluation.types import Ints
    from darknet_py.graph.graph import Graph
    from darknet_py.model.network import Network
    from darknet_py.training.distributed import DistContext, LocalBatch
    from darknet_py.training.train_options import TrainOptions
    from darknet_py.view.draw import Picture

Images = TypeVar("Images", bound=ImageSet)

_MATRIX = 101  # rows of a confusion matrix that is kept at each measurement


class EvalScore(NamedTuple):
    """A measurement on the validation list.

    value: 0 … 1, by which NAME_best is chosen. loss: Darknet's cost per image there. figures: all, for JSON; `classes`
    has a dict for each class. draw: pictures of it, by their names. skipped: lines about what could not be used.
    """

    value: float
    loss: float
    figures: dict[str, Any]
    draw: Callable[[], dict[str, Picture]] = dict
    skipped: Sequence[str] = ()


def with_confusion(
    value: float,
    figures: dict[str, Any],
    matrix: Ints,
    draw: Callable[[Ints], dict[str, Picture]],
    skipped: Sequence[str],
) -> EvalScore:
    """figures: with a loss. matrix: goes into the figures, unless it is large, and to `draw`."""
    kept = matrix.tolist() if len(matrix) <= _MATRIX else None
    return EvalScore(value, figures["loss"], figures | {"confusion": kept}, lambda: draw(matrix), skipped)


def check_classes(graph: Graph, file: DataFile, most: int, found: int, options: TrainOptions) -> None:
    """Raises TrainError where the data has more classes than the network."""
    if found > most:
        whose = "asked for" if options.classes else f"{graph.path} has"
        raise TrainError(
            f"{file.path}: expected at most {most} classes, as {whose}, got {found}; "
            f"classes={found} (--classes {found}) rewrites the cfg for them"
        )


def notes_on_data(train: ImageSet, options: TrainOptions, most: int, found: int) -> list[str]:
    """Lines about classes that stay unused, and about images kept in memory.

    most, got: classes of the network and of the data.
    """
    lines = []
    if found < most:
        lines.append(
            f"note: the network has {most} classes, the data {found}; the others stay unused "
            f"(classes={found}, --classes {found}, rewrites the cfg)"
        )
    if options.cache:
        lines.append(train.fill_cache(True, show=not options.quiet))
    return lines


def recorded(dataset: Images) -> tuple[Images, list[str]]:
    """A copy of the data set, and a list that gets the path of each image that is asked of the copy."""
    asked: list[str] = []

    def image(index: int) -> Image:
        asked.append(dataset.paths[index])
        return dataset.image(index)

    recorder = copy.copy(dataset)
    recorder.image = image  # type: ignore[method-assign]
    return recorder, asked


class BatchSource(Protocol):
    """A loader: endless mini-batches of this process, and what could not be used."""

    reports: ProblemLog

    def batches(self, start: int = 0) -> Iterator[Batch]: ...


class Task(Protocol):
    @property
    def file(self) -> DataFile: ...

    @property
    def names(self) -> list[str]: ...

    @property
    def metric(self) -> str:
        """What is measured: its key in NAME_best.json."""
        ...

    @property
    def label(self) -> str:
        """What is measured, for people."""
        ...

    @property
    def measures(self) -> bool:
        """Whether there is a validation list to use."""
        ...

    @property
    def images(self) -> int:
        """In the training list."""
        ...

    def notes(self) -> list[str]:
        """Lines to print before training starts."""
        ...

    def loader(self, share: LocalBatch, team: DistContext, seed: int, device: torch.device) -> BatchSource: ...

    def truth(self, batch: Batch, network: Network) -> Tensor:
        """As `Network.loss` takes it; called before each mini-batch."""
        ...

    def measure(self, network: Network, team: DistContext) -> EvalScore:
        """All processes measure together and get the same."""
        ...

    def files(self, loader: BatchSource, mini_batches: range) -> list[str]:
        """The images behind mini-batches, got by making their samples once more."""
        ...
