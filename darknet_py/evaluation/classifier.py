"""Runs a classifier over a set of images and measures it (Darknet's `validate_classifier_single`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from darknet_py.data.classification import ClassifierDataset, ClassifierEvalLoader
from darknet_py.errors import DataError
from darknet_py.evaluation.classification_metrics import class_counts, confusion_matrix, top_k
from darknet_py.evaluation.rank_merge import all_gather
from darknet_py.evaluation.types import Ints
from darknet_py.view.draw import Picture
from darknet_py.view.figure import render
from darknet_py.view.plots import confusion_plot

if TYPE_CHECKING:
    from darknet_py.model.network import Network


@dataclass(frozen=True)
class ClassifierResult:
    """scores: (B, outputs). labels: (B,). Images that cannot be read or name no class are in `skipped` only.

    names: of the outputs. loss: Darknet's cost per image, as a training prints it; None where it was not asked for.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    skipped: list[str]
    names: list[str]
    loss: float | None

    def top(self, k: int) -> float:
        """Share of the images whose class is among the k best; k beyond the number of classes counts as all."""
        return top_k(self.scores, self.labels, min(k, self.scores.shape[1]))

    def confusion(self) -> Ints:
        """(outputs, outputs) images; row = label, column = the class that was given most."""
        return confusion_matrix(self.scores.argmax(1), self.labels, len(self.names))

    def pictures(self, matrix: Ints) -> dict[str, Picture]:
        """The confusion matrix, by its name."""
        return {"confusion": render(confusion_plot(f"top-1 {self.top(1):.2%}", self.names, matrix))}

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; `classes` one dict per output."""
        classes = [row._asdict() for row in class_counts(self.confusion(), self.names)]
        figures = {"top1": self.top(1), "top5": self.top(5), "images": len(self.labels)}
        return figures | {"loss": self.loss, "classes": classes}


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
    """Scores of all images in list order. The network is left in evaluation mode.

    names: of the classes, to show (default: the data's). loss: the network's loss too, from the same pass. rank,
    world: of so many processes (`torch.distributed`), each looks at a share of the images; all get the whole result.
    Raises DataError when no image counts.
    """
    network.eval()
    device = network.device
    size = (network.graph.net.width, network.graph.net.height)
    outputs = network.graph.layers[-1].output.size
    scores, labels, numbers, skipped, costs = [], [], [], [], []
    share: dict[str, Any] = {"batch": batch, "workers": workers, "rank": rank, "world": world, "device": device}
    with torch.inference_mode():
        for images, class_ids, bad, indices in ClassifierEvalLoader(dataset, size, **share):
            skipped += bad
            known = class_ids >= 0
            numbers += [index for index, counts in zip(indices, known.tolist(), strict=True) if counts]
            if not known.any():
                continue
            if not known.all():
                images, class_ids = images[known.to(device)], class_ids[known]
            if loss:
                truth = torch.nn.functional.one_hot(class_ids, outputs).float()
                found, cost = network.forward_with_loss(images, truth.to(device))
                costs.append(cost.cpu())
            else:
                found = network(images)
            scores.append(found.float().flatten(1).cpu())
            labels.append(class_ids)
    own: tuple[list[Any], ...] = (scores, labels, numbers, skipped, costs)
    every = zip(*all_gather(own, world), strict=True)
    scores, labels, numbers, skipped, costs = ([row for rows in lists for row in rows] for lists in every)
    if not labels:
        raise DataError(f"expected images that name a class, got none{': ' + skipped[0] if skipped else ''}")
    mean = float(torch.stack(costs).sum()) / sum(map(len, labels)) if costs else None
    names = list(names or dataset.names)
    names += [str(k) for k in range(len(names), outputs)]
    order = np.argsort(numbers)
    found, expected = torch.cat(scores).numpy()[order], torch.cat(labels).numpy()[order]
    return ClassifierResult(found, expected, skipped, names[:outputs], mean)
