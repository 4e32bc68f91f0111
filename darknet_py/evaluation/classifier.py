"""Evaluates a classifier on a set of images (Darknet's `validate_classifier_single`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.data.classification import ClassifierDataset, ClassifierEvalLoader
from darknet_py.errors import DarknetError, DataError
from darknet_py.evaluation.classification_metrics import class_counts, confusion_matrix, top_k
from darknet_py.evaluation.rank_merge import all_gather
from darknet_py.evaluation.types import Ints
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network


@dataclass(frozen=True)
class ClassifierResult:
    """The result of evaluating a classifier.

    Attributes:
        scores: (B, outputs) of the images with a label, in list order.
        labels: (B,) classes.
        skipped: One line per image that cannot be read or names no class.
        names: Names of the outputs.
        loss: Darknet's cost per image, as a training prints it; None where it was not asked for.
    """

    scores: NDArray[np.float32]
    labels: Ints
    skipped: list[str]
    names: list[str]
    loss: float | None

    def top(self, k: int) -> float:
        """Share of the images whose class is among the k best; k beyond the number of classes counts as all."""
        return top_k(self.scores, self.labels, min(k, self.scores.shape[1]))

    def confusion(self) -> Ints:
        """(outputs, outputs) images; row = label, column = predicted class."""
        return confusion_matrix(self.scores.argmax(1), self.labels, len(self.names))

    def to_json(self) -> dict[str, object]:
        """Plain numbers, strings, lists and dicts; `classes` one dict per output."""
        return {
            "top1": self.top(1),
            "top5": self.top(5),
            "images": len(self.labels),
            "loss": self.loss,
            "classes": [row._asdict() for row in class_counts(self.confusion(), self.names)],
        }


@dataclass
class _Scores:
    """What one process collects. indices: positions of the images in the list."""

    scores: list[Tensor]
    labels: list[Tensor]
    indices: list[int]
    skipped: list[str]
    costs: list[Tensor]


def is_classifier(graph: Graph) -> bool:
    """Whether it gives one vector per image, and no boxes."""
    return bool(graph.net.channels) and graph.layers[-1].spec.vector and not graph.detection_specs


def evaluate_classifier(
    network: Network,
    dataset: ClassifierDataset,
    batch: int = 8,
    workers: int | None = None,
    names: Sequence[str] = (),
    loss: bool = False,
    rank: int = 0,
    world: int = 1,
) -> ClassifierResult:
    """Runs a classifier on all images. The network is left in evaluation mode.

    Args:
        network: A network whose last layer gives one value per class.
        dataset: The images.
        batch: Images per forward pass.
        workers: Processes that read images (None: one per core, at most 8).
        names: Class names (default: those of the data).
        loss: Whether the network's loss is computed too, in the same pass.
        rank: Number of this process among `world`.
        world: Number of processes (`torch.distributed`); each takes a share of the images, all get the whole result.

    Returns:
        Scores and labels.

    Raises:
        DataError: No image has a label.
        DarknetError: The network is a detector.
    """
    network.eval()
    device = network.device
    size = (network.graph.net.width, network.graph.net.height)
    outputs = network.graph.layers[-1].output.size
    own = _Scores([], [], [], [], [])
    loader = ClassifierEvalLoader(dataset, size, batch=batch, workers=workers, rank=rank, world=world, device=device)
    with torch.inference_mode():
        for images, class_ids, skipped, indices in loader:
            own.skipped += skipped
            labeled = class_ids >= 0
            own.indices += [index for index, counts in zip(indices, labeled.tolist(), strict=True) if counts]
            if not labeled.any():
                continue
            if not labeled.all():
                images, class_ids = images[labeled.to(device)], class_ids[labeled]
            if loss:
                truth = torch.nn.functional.one_hot(class_ids, outputs).float()
                scores, cost = network.forward_with_loss(images, truth.to(device))
                own.costs.append(cost.cpu())
            else:
                scores = network(images)
            if isinstance(scores, Predictions):
                raise DarknetError(f"{network.graph.path}: expected a classifier, got a detector")
            own.scores.append(scores.float().flatten(1).cpu())
            own.labels.append(class_ids)
    parts = all_gather(own, world)
    labels = [labels for part in parts for labels in part.labels]
    skipped = [line for part in parts for line in part.skipped]
    if not labels:
        raise DataError(f"expected images that name a class, got none{': ' + skipped[0] if skipped else ''}")
    costs = [cost for part in parts for cost in part.costs]
    mean = float(torch.stack(costs).sum()) / sum(map(len, labels)) if costs else None
    names = list(names or dataset.names)
    names += [str(k) for k in range(len(names), outputs)]
    order = np.argsort([index for part in parts for index in part.indices])
    all_scores = torch.cat([scores for part in parts for scores in part.scores]).numpy()[order]
    return ClassifierResult(all_scores, torch.cat(labels).numpy()[order], skipped, names[:outputs], mean)
