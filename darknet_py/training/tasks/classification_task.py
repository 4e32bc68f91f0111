"""Training of classifiers: one class per image, and the share of images whose class is found (top-1, top-5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from darknet_py.data.classification import ClassifierDataset, ClassifierLoader, classifier_sample
from darknet_py.data.datafile import DataFile
from darknet_py.data.loader import Batch
from darknet_py.data.open_classification import open_classifier_data
from darknet_py.errors import TrainError
from darknet_py.evaluation.classifier import evaluate_classifier
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import HeadSpec
from darknet_py.training.tasks.task import (
    BatchSource,
    EvalScore,
    check_classes,
    notes_on_data,
    recorded,
    with_confusion,
)
from darknet_py.training.train_options import TrainOptions

if TYPE_CHECKING:
    from darknet_py.model.network import Network
    from darknet_py.training.distributed import DistContext, LocalBatch


@dataclass(frozen=True)
class ClassificationTask:
    """outputs: values the network gives per image. valid: None where accuracy is not measured. builtin: whether it is
    the built-in set."""

    graph: Graph
    options: TrainOptions
    file: DataFile
    names: list[str]
    train: ClassifierDataset
    valid: ClassifierDataset | None
    outputs: int
    builtin: bool
    metric: str = "top1"
    label: str = "top-1"

    @classmethod
    def read(cls, path: str | Path | None, graph: Graph, options: TrainOptions) -> ClassificationTask:
        """Raises DataError, and TrainError where the data has more classes than the network."""
        if any(isinstance(node.spec, HeadSpec) and node.spec.tree for node in graph.layers):
            raise TrainError(f"{graph.path}: training a classifier on a tree of classes (tree=) is not supported")
        data = open_classifier_data(path, graph.net.channels, options.limit)
        outputs = graph.layers[-1].output.size
        check_classes(graph, data.file, outputs, len(data.names), options)
        measured = data.separate if options.map is None else options.map is not False
        valid = data.valid if measured else None
        return cls(graph, options, data.file, data.names, data.train, valid, outputs, path is None)

    @property
    def measures(self) -> bool:
        return self.valid is not None

    @property
    def images(self) -> int:
        return len(self.train)

    def notes(self) -> list[str]:
        lines = []
        if self.builtin:
            lines.append(
                f"no data given: training on the built-in shapes, {self.images} images ({self.file.path}); "
                f"on your own, in a folder per class: python -m darknet_py train {self.graph.path} --data FOLDER"
            )
        return lines + notes_on_data(self.train, self.options, self.outputs, len(self.names))

    def loader(self, share: LocalBatch, team: DistContext, seed: int, device: torch.device) -> ClassifierLoader:
        """Mini-batches of this process; their numbers are iteration · share.mini_batches + k."""
        return ClassifierLoader(
            self.train,
            self.graph.net,
            mini_batch=share.images * self.graph.net.time_steps,
            seed=seed,
            workers=self.options.workers,
            cache=self.options.cache,
            rank=team.rank,
            world=team.size,
            device=device,
        )

    def truth(self, batch: Batch, network: Network) -> Tensor:
        """(B, outputs): 0 for classes that the data does not have."""
        return torch.nn.functional.pad(batch.truth, (0, self.outputs - batch.truth.shape[1]))

    def measure(self, network: Network, team: DistContext) -> EvalScore:
        assert self.valid is not None
        share: dict[str, Any] = {"workers": self.options.workers, "rank": team.rank, "world": team.size}
        batch = self.graph.net.mini_batch
        result = evaluate_classifier(network, self.valid, batch, names=self.names, loss=True, **share)
        return with_confusion(result.top(1), result.to_json(), result.confusion(), result.pictures, result.skipped)

    def files(self, loader: BatchSource, mini_batches: range) -> list[str]:
        assert isinstance(loader, ClassifierLoader)
        recorder, asked = recorded(loader.dataset)
        for number in mini_batches:
            for sample in loader.numbers(number):
                classifier_sample(recorder, loader.net, loader.seed, sample, [], [])
        return list(dict.fromkeys(asked))
