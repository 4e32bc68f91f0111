"""A detector over a set of images: boxes found, boxes labeled, and what both protocols say about them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.images import from_letterbox, to_letterbox
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.loader import EvalBatch, EvalLoader
from darknet_py.errors import DarknetError, DataError
from darknet_py.evaluation import coco_ap as by_coco
from darknet_py.evaluation import darknet_map as by_darknet
from darknet_py.evaluation.classification_metrics import detection_confusion
from darknet_py.evaluation.rank_merge import all_gather, merge_ranks
from darknet_py.evaluation.types import Found, GroundTruth, Ints, match
from darknet_py.inference import nms
from darknet_py.inference.fuse import fuse
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network
from darknet_py.view.draw import Picture
from darknet_py.view.figure import render
from darknet_py.view.plots import confusion_plot, precision_recall_plot

if TYPE_CHECKING:
    from darknet_py.cfg.net import NetSpec

PROTOCOLS = ("darknet", "coco")


class CollectedBoxes(NamedTuple):
    """Everything that was compared, one entry per readable image, in the order of the list.

    sizes: (width, height) in pixels. found: per protocol, with its own thresholds. difficult: None without such a list.
    costs: Darknet's, of each mini-batch, where they were asked for.
    """

    paths: list[str]
    sizes: list[tuple[int, int]]
    truth: list[GroundTruth]
    found: dict[str, list[Found]]
    difficult: list[GroundTruth] | None
    costs: list[Tensor]

    @property
    def loss(self) -> float | None:
        """Darknet's cost per image, as a training prints it; None where it was not asked for."""
        return float(torch.stack(self.costs).sum()) / len(self.paths) if self.costs else None


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. darknet, coco: None where that protocol was not asked for.

    skipped: one line per unreadable image or wrong label. seconds: reading, network and NMS, without the scoring.
    """

    names: tuple[str, ...]
    darknet: by_darknet.DarknetResult | None
    coco: by_coco.CocoResult | None
    boxes: CollectedBoxes
    skipped: tuple[str, ...]
    seconds: float

    def curves(self) -> list[by_darknet.Curve]:
        """Precision over recall of each class, as Darknet's mAP takes them; needs that protocol."""
        if self.darknet is None:
            raise DarknetError("curves: expected an evaluation by the protocol darknet, got none")
        matched = match(self.boxes.found["darknet"], self.boxes.truth, self.darknet.iou_thresh, self.boxes.difficult)
        return by_darknet.precision_recall(matched, np.array([row.truths for row in self.darknet.classes]))

    def confusion(self, thresh: float = 0.25, iou_thresh: float = 0.5) -> Ints:
        """See `classify.detection_confusion`; of the boxes of the first protocol."""
        found = next(iter(self.boxes.found.values()))
        return detection_confusion(found, self.boxes.truth, len(self.names), thresh, iou_thresh)

    def pictures(self, matrix: Ints) -> dict[str, Picture]:
        """The confusion matrix and, where Darknet's mAP was asked for, precision over recall; by their names."""
        drawn = {"confusion": render(confusion_plot("predicted boxes", self.names, matrix))}
        if self.darknet:
            title = f"mAP@{self.darknet.iou_thresh:.2f} = {self.darknet.map:.2%}"
            curves = [(name, c.precision, c.recall) for name, c in zip(self.names, self.curves(), strict=True)]
            drawn["precision_recall"] = render(precision_recall_plot(title, curves))
        return drawn

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; the boxes themselves are left out."""
        return {
            "images": len(self.boxes.paths),
            "skipped": list(self.skipped),
            "seconds": self.seconds,
            "loss": self.boxes.loss,
            "darknet": self.darknet.to_json() if self.darknet else None,
            "coco": self.coco.to_json() if self.coco else None,
        }


def evaluate_detector(
    net: Network,
    images: DetectionDataset | Sequence[str],
    names: Sequence[str] = (),
    *,
    protocols: Sequence[str] = PROTOCOLS,
    points: int = 0,
    iou_thresh: float = 0.5,
    thresh: float = 0.25,
    difficult: Sequence[str] | None = None,
    batch: int = 8,
    workers: int | None = None,
    progress: bool = False,
    loss: bool = False,
    rank: int = 0,
    world: int = 1,
    dtype: torch.dtype | None = None,
    stb: bool = False,
) -> Evaluation:
    """Runs the network over labeled images and scores it by "darknet" (`detector map`) and/or "coco".

    net: left as it is (training mode, gradients); a fused copy runs. images: a dataset or image paths. names: class
    names (default: the network's). points, iou_thresh, thresh: of Darknet's mAP. difficult: paths, one per image, whose
    label files hold the difficult objects. batch: images per forward pass. workers: loader processes. loss: the
    network's loss too, from the same pass. rank, world: of so many processes (`torch.distributed`), each looks at a
    share of the images; all get the whole result. dtype: see `fuse`.
    stb: JPEGs of given paths are read as by C without OpenCV (`load_image`).
    An image that cannot be read is left out and reported. Raises DarknetError for a network that does not detect and
    DataError for data that cannot be used at all.
    """
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown or not protocols:
        raise DarknetError(f"protocols: expected some of {', '.join(PROTOCOLS)}, got {', '.join(unknown) or 'none'}")
    names = class_names(net, names)
    dataset = images
    if not isinstance(dataset, DetectionDataset):
        dataset = DetectionDataset(dataset, len(names), net.graph.net.channels)
        dataset.stb = stb
    if difficult is not None and len(difficult) != len(dataset):
        raise DataError(f"difficult: expected one entry per image ({len(dataset)}), got {len(difficult)}")

    start = time.perf_counter()
    boxes, skipped = collect(
        net,
        dataset,
        protocols=protocols,
        difficult=difficult,
        batch=batch,
        workers=workers,
        progress=progress,
        loss=loss,
        rank=rank,
        world=world,
        dtype=dtype,
    )
    seconds = time.perf_counter() - start
    map_result = coco_result = None
    if "darknet" in protocols:
        map_result = by_darknet.darknet_map(
            boxes.found["darknet"],
            boxes.truth,
            names,
            iou_thresh=iou_thresh,
            points=points,
            thresh=thresh,
            difficult=boxes.difficult,
        )
    if "coco" in protocols:
        coco_result = by_coco.coco_ap(boxes.found["coco"], boxes.truth, boxes.sizes, names)
    return Evaluation(tuple(names), map_result, coco_result, boxes, tuple(skipped), seconds)


def class_names(net: Network, names: Sequence[str] = ()) -> list[str]:
    """The classes that count, from `names`, the network, or else numbers: the first ones of the last detection layer.

    Raises DarknetError when there is no such layer and DataError when there are more names than it has classes.
    """
    if not net.detectors:
        raise DarknetError(f"{net.graph.path}: this network has no detection layer")
    classes: int = net.graph.layers[net.detectors[-1][0]].spec.classes  # type: ignore[attr-defined]
    names = list(names or net.names)
    if not names:
        return [str(k) for k in range(classes)]
    if len(names) > classes:
        raise DataError(f"expected at most {classes} class names (classes in {net.graph.path}), got {len(names)}")
    return names


def collect(
    net: Network,
    dataset: DetectionDataset,
    *,
    protocols: Sequence[str],
    difficult: Sequence[str] | None,
    batch: int,
    workers: int | None,
    progress: bool,
    loss: bool,
    rank: int,
    world: int,
    dtype: torch.dtype | None,
) -> tuple[CollectedBoxes, list[str]]:
    """Boxes of all readable images, and lines about what could not be used; see `evaluate_detector`.

    One forward pass per image, one NMS per protocol. Raises DataError when no image can be read.
    """
    spec = net.graph.net
    device = net.device
    net = fuse(net, dtype)
    size = spec.width, spec.height
    share: dict[str, Any] = {"batch": batch, "workers": workers, "rank": rank, "world": world, "device": device}
    loader = EvalLoader(dataset, size, letter_box=spec.letter_box, **share)
    boxes = CollectedBoxes([], [], [], {name: [] for name in protocols}, None if difficult is None else [], [])
    skipped: list[str] = []
    bar = tqdm(total=len(dataset), desc="evaluate", unit="image", disable=None if progress else True)
    for step in loader:
        skipped += step.skipped
        bar.update(len(step.indices))
        if not step.indices:
            continue
        boxes.paths.extend(dataset.paths[index] for index in step.indices)
        boxes.sizes.extend(step.sizes)
        boxes.truth.extend(_truth(step))
        if difficult is not None and boxes.difficult is not None:
            boxes.difficult.extend(_labels(difficult[index], dataset.classes) for index in step.indices)
        with torch.inference_mode():
            predictions: Predictions
            if loss:
                predictions, cost = net.forward_with_loss(step.images, _as_seen(step, spec).to(device))
                boxes.costs.append(cost.cpu())
            else:
                predictions = net(step.images)
            if spec.letter_box:
                predictions = _out_of_the_letterbox(predictions, step.sizes, size)
            for name in protocols:
                suppress = _by_darknet if name == "darknet" else _by_coco
                found = suppress(predictions, step.sizes, *net.nms_kind)
                boxes.found[name].extend(_known_classes(each, dataset.classes) for each in found)
    bar.close()
    parts = all_gather((boxes, skipped), world)
    boxes = merge_ranks([part for part, _ in parts], dataset.paths)
    skipped = [line for _, lines in parts for line in lines]
    if not boxes.paths:
        raise DataError(f"none of the {len(dataset)} images can be read, the first: {skipped[0]}")
    return boxes, skipped


def _by_darknet(predictions: Predictions, sizes: Sequence[tuple[int, int]], kind: str, beta: float) -> list[Found]:
    """As `validate_detector_map`: NMS on boxes relative to the image; rows in Darknet's order."""
    found = nms.postprocess(predictions, by_darknet.THRESH, by_darknet.NMS, kind, beta)
    return [_in_darknets_order(part, scores) for part, scores in zip(found, predictions.scores, strict=True)]


def _by_coco(predictions: Predictions, sizes: Sequence[tuple[int, int]], kind: str, beta: float) -> list[Found]:
    """As `validate_detector`: NMS on boxes in pixels of the image (greedynms and diounms depend on its shape)."""
    scale = predictions.boxes.new_tensor([size * 2 for size in sizes])
    pixels = predictions._replace(boxes=predictions.boxes * scale[:, None])
    found = nms.postprocess(pixels, by_coco.THRESH, by_coco.NMS, kind, beta)
    return [
        Found((part.boxes / part.boxes.new_tensor(size * 2)).numpy(), part.class_ids.numpy(), part.scores.numpy())
        for part, size in zip(found, sizes, strict=True)
    ]


def _in_darknets_order(found: nms.Candidates, scores: Tensor) -> Found:
    """Rows by box, then class, where boxes come in the order that Darknet's NMS leaves them in.

    `do_nms_sort` sorts the boxes by their score before NMS for one class after the other, so that they end up sorted by
    the last class, ties by the one before, and so on. At a confidence threshold the first box on a truth takes it, so
    this decides Darknet's counts. scores: (N, classes) of this image.
    """
    index, place = found.index.unique(return_inverse=True)
    table = scores[index.to(scores.device)].float().cpu().numpy()
    table = np.where(table > by_darknet.THRESH, table, 0)
    order = np.lexsort(-table[:, table.any(0)].T) if len(table) else np.zeros(0, int)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    rows = np.lexsort((found.class_ids.numpy(), rank[place.numpy()]))
    return Found(found.boxes.numpy()[rows], found.class_ids.numpy()[rows], found.scores.numpy()[rows])


def _out_of_the_letterbox(
    predictions: Predictions, sizes: Sequence[tuple[int, int]], net_size: tuple[int, int]
) -> Predictions:
    parts = [from_letterbox(boxes, size, net_size) for boxes, size in zip(predictions.boxes, sizes, strict=True)]
    return predictions._replace(boxes=torch.stack(parts))


def _as_seen(step: EvalBatch, spec: NetSpec) -> Tensor:
    """The truth rows relative to the network's input."""
    if not spec.letter_box:
        return step.truth
    inside = (
        to_letterbox(rows[:, 2:6], size, (spec.width, spec.height))
        for rows, size in zip(_by_image(step), step.sizes, strict=True)
    )
    return torch.cat([step.truth[:, :2], torch.cat(list(inside))], 1)


def _by_image(step: EvalBatch) -> Sequence[Tensor]:
    """The truth rows of each image."""
    ends = torch.searchsorted(step.truth[:, 0].contiguous(), torch.arange(1, len(step.indices)).to(step.truth))
    return step.truth.tensor_split(ends)


def _truth(step: EvalBatch) -> list[GroundTruth]:
    parts = (rows.numpy() for rows in _by_image(step))
    return [GroundTruth(part[:, 2:6], part[:, 1].astype(np.int64)) for part in parts]


def _known_classes(found: Found, classes: int) -> Found:
    """Without boxes of classes that the data does not have, as when an 80-class cfg meets a small data set."""
    keep = np.flatnonzero(found.class_ids < classes)
    if len(keep) == len(found.class_ids):
        return found
    return Found(found.boxes[keep], found.class_ids[keep], found.scores[keep])


def _labels(path: str, classes: int) -> GroundTruth:
    rows = load_labels(find_labels(path), classes).boxes
    return GroundTruth(rows[:, 1:5], rows[:, 0].astype(np.int64))
