"""Training of classifiers: one class per image, and top-1 accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from darknet_py.counted import counted
from darknet_py.data.classification import ClassifierDataset, ClassifierLoader
from darknet_py.data.datafile import write_list
from darknet_py.data.loader import Batch
from darknet_py.data.open_classification import open_classifier_data
from darknet_py.errors import TrainError
from darknet_py.evaluation.classifier import evaluate_classifier
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import HeadSpec
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, LocalBatch
from darknet_py.training.tasks.task import EvalScore, ImageTask, check_classes
from darknet_py.training.train_options import TrainOptions


@dataclass(frozen=True)
class ClassificationTask(ImageTask[ClassifierDataset]):
    """Training of a classifier.

    Attributes:
        separate: Whether the data has other images to evaluate on than to train on.
    """

    separate: bool = True

    kind: ClassVar[str] = "classifier"
    metric: ClassVar[str] = "top1"
    splits: ClassVar[bool] = True

    @classmethod
    def open(cls, data: str | Path | None, graph: Graph, options: TrainOptions) -> ClassificationTask:
        """Opens the data.

        Args:
            data: As `data.open_classification.open_classifier_data` takes it; None is the built-in set.
            graph: The network to train.
            options: Options of the run.

        Raises:
            DataError: The data cannot be used.
            TrainError: The data has more classes than the network has outputs.
        """
        if any(isinstance(node.spec, HeadSpec) and node.spec.tree for node in graph.layers):
            raise TrainError(f"{graph.path}: training a classifier on a tree of classes (tree=) is not supported")
        found = open_classifier_data(data, graph.net.channels, options.limit)
        check_classes(graph, found.file.path, graph.layers[-1].output.size, len(found.names), options)
        evaluates = found.separate if options.map is None else options.map is not False
        valid = found.valid if evaluates else None
        return cls(graph, options, found.file, found.names, data is None, found.train, valid, separate=found.separate)

    @property
    def metric_label(self) -> str:
        return "top-1" if self.measured_on == "validation" else "top-1 (training images)"

    def more_lines(self, data: Path) -> dict[str, Path]:
        labels = data.with_suffix(".labels")
        write_list(labels, [f"/{name}/" if self.train.by_folder else name for name in self.train.names])
        return {"labels": labels.absolute()}

    def list_files(self, data: Path) -> list[Path]:
        return [*super().list_files(data), data.with_suffix(".labels")] if self.split else []

    @property
    def class_limit(self) -> int:
        return self.graph.layers[-1].output.size

    def notes(self) -> list[str]:
        lines = super().notes()
        if self.valid and self.measured_on == "training":
            lines.append("note: no validation images: accuracy and loss are measured on the training images")
        if self.builtin:
            lines.insert(
                0,
                f"no data given: training on the built-in shapes, {counted(self.train_size, 'image')} "
                f"({self.file.path}); "
                f"on your own, in a folder per class: darknet-py train {self.graph.path} --data FOLDER",
            )
        return lines

    def prepare(self) -> list[str]:
        return self.fill_cache(self.train)

    def loader(self, local: LocalBatch, context: DistContext, seed: int, device: torch.device) -> ClassifierLoader:
        return ClassifierLoader(self.train, self.graph.net, **self.loader_options(local, context, seed, device))

    def truth(self, batch: Batch, network: Network) -> Tensor:
        """(B, outputs): 0 for classes that the data does not have."""
        return F.pad(batch.truth, (0, self.class_limit - batch.truth.shape[1]))

    def evaluate(self, network: Network, context: DistContext) -> EvalScore:
        assert self.valid is not None
        result = evaluate_classifier(
            network,
            self.valid,
            self.graph.net.mini_batch,
            names=self.names,
            loss=True,
            workers=self.options.workers,
            rank=context.rank,
            world=context.size,
        )
        assert result.loss is not None
        return EvalScore(
            result.top(1), result.loss, result.to_json(), result.names, result.confusion(), skipped=result.skipped
        )
