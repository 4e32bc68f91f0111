"""Runs a classifier over a set of images and measures it (Darknet's `validate_classifier_single`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from darknet_py.data.classify import ClassifierDataset, ClassifierEvalLoader
from darknet_py.errors import DataError
from darknet_py.evaluate.classify import top_k

if TYPE_CHECKING:
    from darknet_py.model.network import Network


@dataclass(frozen=True)
class ClassifierResult:
    """scores: (B, outputs). labels: (B,). Images that cannot be read or name no class are in `skipped` only."""

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    skipped: list[str]

    def top(self, k: int) -> float:
        """Share of the images whose class is among the k best; k beyond the number of classes counts as all."""
        return top_k(self.scores, self.labels, min(k, self.scores.shape[1]))

    def to_json(self) -> dict[str, Any]:
        return {"top1": self.top(1), "top5": self.top(5), "images": len(self.labels)}


def evaluate_classifier(
    network: Network, dataset: ClassifierDataset, batch: int = 8, workers: int | None = None
) -> ClassifierResult:
    """Scores of all images in list order. The network is left in evaluation mode. Raises DataError when none counts."""
    network.eval()
    device = next(network.parameters()).device
    size = (network.graph.net.width, network.graph.net.height)
    scores, labels, skipped = [], [], []
    with torch.inference_mode():
        for images, class_ids, bad, _ in ClassifierEvalLoader(
            dataset, size, batch=batch, workers=workers, device=device
        ):
            skipped += bad
            known = class_ids >= 0
            if known.any():
                scores.append(network(images)[known.to(device)].float().flatten(1).cpu())
                labels.append(class_ids[known])
    if not labels:
        raise DataError(f"wanted images that name a class, found none{': ' + skipped[0] if skipped else ''}")
    return ClassifierResult(torch.cat(scores).numpy(), torch.cat(labels).numpy(), skipped)
