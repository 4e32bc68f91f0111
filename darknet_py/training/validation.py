"""mAP during training: Darknet's cadence, and its figure as `evaluate` gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from darknet_py.evaluate.darknet import DarknetResult, darknet_map
from darknet_py.evaluate.run import collect

if TYPE_CHECKING:
    from darknet_py.cfg.net import NetSpec
    from darknet_py.data.dataset import DetectionDataset
    from darknet_py.model.network import Network


def next_measurement(net: NetSpec, last: int, images: int, batch: int, every: bool | int, epochs: int) -> int:
    """The iteration at which mAP is measured next (`train_detector`).

    last: iteration of the last measurement, or where training began. images: of the training list. every: iterations,
    or True for Darknet's: `epochs` epochs, at least 100 iterations, not before burn_in. It is also due at max_batches.
    """
    if every is not True:
        return min((last // every + 1) * every, net.max_batches)
    return min(max(last + max(epochs * images // batch, 100), net.burn_in), net.max_batches)


def mean_average_precision(
    network: Network,
    dataset: DetectionDataset,
    names: Sequence[str],
    *,
    iou_thresh: float,
    points: int,
    thresh: float,
    difficult: Sequence[str] | None,
    batch: int,
    workers: int | None,
) -> DarknetResult:
    """Darknet's mAP over the classes that the data has; a network with more outputs is scored on these."""
    boxes, _ = collect(network, dataset, ("darknet",), difficult, batch, workers)
    found = boxes.found["darknet"]
    return darknet_map(
        found, boxes.truth, names, iou_thresh=iou_thresh, points=points, thresh=thresh, difficult=boxes.difficult
    )
