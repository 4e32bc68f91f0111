"""How many labeled boxes have a proposal, whatever its class: Darknet's `detector recall`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from darknet_py.evaluation.types import GroundTruth, iou_matrix
from darknet_py.inference.detections import Detections

THRESH = 0.001  # objectness of a proposal
NMS = 0.4
_IOU_THRESH = 0.5


class RecallRow(NamedTuple):
    """The counts up to and including an image.

    Attributes:
        found: Labeled boxes with a proposal.
        truths: Labeled boxes.
        proposals: Proposals.
        iou_sum: Sum over the labeled boxes of the IoU with their best proposal.
    """

    found: int
    truths: int
    proposals: int
    iou_sum: float


@dataclass(frozen=True)
class RecallResult:
    """Recall of proposals (`validate_detector_recall`): boxes of objectness above 0.001 after NMS at an IoU of 0.4.

    Attributes:
        rows: A row per image; the last one has the counts of all images.
    """

    rows: tuple[RecallRow, ...]

    @property
    def recall(self) -> float:
        """Share of the labeled boxes with a proposal at an IoU above 0.5, 0 to 1; 0 without labels."""
        return self.rows[-1].found / self.rows[-1].truths if self.rows[-1].truths else 0.0

    @property
    def average_iou(self) -> float:
        """Mean IoU of the labeled boxes with their best proposal, 0 to 1; 0 without labels."""
        return self.rows[-1].iou_sum / self.rows[-1].truths if self.rows[-1].truths else 0.0

    @property
    def proposals_per_image(self) -> float:
        """Mean number of proposals."""
        return self.rows[-1].proposals / len(self.rows)

    def to_json(self) -> dict[str, object]:
        """Plain numbers and strings."""
        ratios = {"recall": self.recall, "average_iou": self.average_iou}
        return {**self.rows[-1]._asdict(), **ratios, "proposals_per_image": self.proposals_per_image}


def proposal_recall(found: Sequence[Detections], truth: Sequence[GroundTruth]) -> RecallResult:
    """Recall of proposals.

    Args:
        found: The proposals of each image, one or more.
        truth: The labeled boxes of each image.
    """
    rows = []
    hits = truths = proposals = 0
    iou_sum = np.float32(0)  # summed in float32, as in C
    for detections, labels in zip(found, truth, strict=True):
        proposals += len(detections)
        truths += len(labels.boxes)
        if len(detections):
            best = iou_matrix(detections.boxes, labels.boxes).max(0)
            hits += int((best > _IOU_THRESH).sum())
            for value in best:
                iou_sum += value
        rows.append(RecallRow(hits, truths, proposals, float(iou_sum)))
    return RecallResult(tuple(rows))
