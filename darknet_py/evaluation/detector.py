"""A detector over a set of labeled images: detections, and what Darknet's and COCO's protocols say about them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from darknet_py.counted import counted
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.images import from_letterbox, to_letterbox
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.loader import EvalBatch, EvalLoader
from darknet_py.errors import DarknetError, DataError
from darknet_py.evaluation import coco_ap as by_coco
from darknet_py.evaluation import darknet_map as by_darknet
from darknet_py.evaluation import recall as by_recall
from darknet_py.evaluation.classification_metrics import detection_confusion
from darknet_py.evaluation.rank_merge import all_gather, merge_ranks
from darknet_py.evaluation.types import CollectedBoxes, Floats, GroundTruth, Ints, match
from darknet_py.inference.detect import DetectionNetwork, uses_letter_box
from darknet_py.inference.detections import Detections
from darknet_py.inference.fuse import fuse
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network

PROTOCOLS = ("darknet", "coco")  # those of an evaluation that names none
Size = tuple[int, int]


@dataclass(frozen=True)
class EvalOptions:
    """How a detector is evaluated.

    Attributes:
        protocols: "darknet" (`detector map`), "coco" (pycocotools on what `detector valid` writes) and/or "recall"
            (`detector recall`).
        iou_thresh: IoU above which a detection matches a truth, for Darknet's mAP.
        points: Recall points of Darknet's mAP; 0 is the area under the curve.
        thresh: Confidence threshold at which Darknet's mAP counts detections.
        batch: Images per forward pass.
        workers: Processes that read images (None: one per core, at most 8).
        letter_box: Whether an image keeps its aspect ratio in the network's input; None: as the cfg's `letter_box`.
        stb: Whether JPEGs are decoded as by a C Darknet without OpenCV, see `load_image`.
        dtype: Of all layers but the heads, see `fuse`.
        loss: Whether the network's loss is computed too, in the same pass.
        predictor: What runs in place of a fused copy of the network, such as another back end; it has no loss.
        progress: Whether a progress bar is shown.
    """

    protocols: Sequence[str] = PROTOCOLS
    iou_thresh: float = 0.5
    points: int = 0
    thresh: float = 0.25
    batch: int = 8
    workers: int | None = None
    letter_box: bool | None = None
    stb: bool = False
    dtype: torch.dtype | None = None
    loss: bool = False
    progress: bool = False
    predictor: DetectionNetwork | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a detector.

    Attributes:
        names: Class names.
        darknet: Darknet's mAP; None where that protocol was not asked for.
        coco: COCO's metrics; None where that protocol was not asked for.
        recall: Recall of proposals, whatever their class; None where that protocol was not asked for.
        boxes: The detections and labels that were compared.
        skipped: One line per unreadable image or wrong label.
        seconds: Time for reading, network and NMS, without the metrics.
    """

    names: tuple[str, ...]
    darknet: by_darknet.DarknetResult | None
    coco: by_coco.CocoResult | None
    recall: by_recall.RecallResult | None
    boxes: CollectedBoxes
    skipped: tuple[str, ...]
    seconds: float

    def curves(self) -> list[by_darknet.Curve]:
        """Precision over recall of each class, for Darknet's mAP. Raises DarknetError without that protocol."""
        if self.darknet is None:
            raise DarknetError("curves: expected an evaluation by the protocol darknet, got none")
        matched = match(self.boxes.found["darknet"], self.boxes.truth, self.darknet.iou_thresh, self.boxes.difficult)
        return by_darknet.precision_recall(matched, np.array([row.truths for row in self.darknet.classes]))

    def confusion(self, thresh: float = 0.25, iou_thresh: float = 0.5) -> Ints:
        """The confusion matrix of the first protocol's detections, see `detection_confusion`."""
        found = next(iter(self.boxes.found.values()))
        return detection_confusion(found, self.boxes.truth, len(self.names), thresh, iou_thresh)

    def to_json(self) -> dict[str, object]:
        """Plain numbers, strings, lists and dicts; the boxes themselves are left out."""
        return {
            "images": len(self.boxes.paths),
            "skipped": list(self.skipped),
            "seconds": self.seconds,
            "loss": self.boxes.loss,
            "darknet": self.darknet.to_json() if self.darknet else None,
            "coco": self.coco.to_json() if self.coco else None,
            "recall": self.recall.to_json() if self.recall else None,
        }


def evaluate_detector(
    net: Network,
    images: DetectionDataset | Sequence[str],
    names: Sequence[str] = (),
    options: EvalOptions | None = None,
    *,
    difficult: Sequence[str] | None = None,
    rank: int = 0,
    world: int = 1,
) -> Evaluation:
    """Runs a detector over labeled images and compares its detections with the labels.

    Args:
        net: The network. It stays as it is (training mode, gradients): a fused copy runs.
        images: A dataset, or image paths, whose labels are looked up as in Darknet.
        names: Class names (default: the network's).
        options: Protocols, thresholds and the like.
        difficult: Paths, one per image, whose label files hold the difficult objects.
        rank: Number of this process among `world`.
        world: Number of processes (`torch.distributed`); each takes a share of the images, all get the whole result.

    Returns:
        The result. An unreadable image is left out and reported in `skipped`.

    Raises:
        DarknetError: The network has no detection layer, or a protocol is unknown.
        DataError: The data cannot be used at all.
    """
    options = options or EvalOptions()
    unknown = [name for name in options.protocols if name not in _SUPPRESS]
    if unknown or not options.protocols:
        raise DarknetError(f"protocols: expected some of {', '.join(_SUPPRESS)}, got {', '.join(unknown) or 'none'}")
    names = class_names(net, names)
    dataset = images
    if not isinstance(dataset, DetectionDataset):
        dataset = DetectionDataset(dataset, len(names), net.graph.net.channels, options.stb)
    if difficult is not None and len(difficult) != len(dataset):
        raise DataError(f"difficult: expected one entry per image ({len(dataset)}), got {len(difficult)}")

    start = time.perf_counter()
    boxes, skipped = _collect(net, dataset, options, difficult, rank, world)
    seconds = time.perf_counter() - start
    map_result = coco_result = recall = None
    if "darknet" in options.protocols:
        map_result = by_darknet.darknet_map(
            boxes.found["darknet"],
            boxes.truth,
            names,
            iou_thresh=options.iou_thresh,
            points=options.points,
            thresh=options.thresh,
            difficult=boxes.difficult,
        )
    if "coco" in options.protocols:
        coco_result = by_coco.coco_ap(boxes.found["coco"], boxes.truth, boxes.sizes, names)
    if "recall" in options.protocols:
        recall = by_recall.proposal_recall(boxes.found["recall"], boxes.truth)
    return Evaluation(tuple(names), map_result, coco_result, recall, boxes, tuple(skipped), seconds)


def class_names(net: Network, names: Sequence[str] = ()) -> list[str]:
    """The classes that are evaluated: `names`, else the network's, else numbers.

    Raises DarknetError where the network has no detection layer and DataError for more names than it has classes.
    """
    if not net.detectors:
        raise DarknetError(f"{net.graph.path}: this network has no detection layer")
    classes: int = net.graph.detection_specs[-1].classes
    names = list(names or net.names)
    if not names:
        return [str(k) for k in range(classes)]
    if len(names) > classes:
        raise DataError(
            f"expected at most {counted(classes, 'class name')} (classes in {net.graph.path}), got {len(names)}"
        )
    return names


def _collect(
    net: Network,
    dataset: DetectionDataset,
    options: EvalOptions,
    difficult: Sequence[str] | None,
    rank: int,
    world: int,
) -> tuple[CollectedBoxes, list[str]]:
    """Boxes of all readable images, and lines about what could not be used; see `evaluate_detector`.

    One forward pass per image, one NMS per protocol. Raises DataError when no image can be read.
    """
    predictor = options.predictor
    if predictor is None:
        net = predictor = fuse(net, options.dtype)
    elif options.loss:
        raise DarknetError("loss: expected torch without another back end, which has no loss")
    size = net.graph.net.width, net.graph.net.height
    letter_box = uses_letter_box(net.graph, options.letter_box)
    loader = EvalLoader(
        dataset,
        size,
        letter_box=letter_box,
        batch=options.batch,
        workers=options.workers,
        rank=rank,
        world=world,
        device=net.device,
    )
    boxes = CollectedBoxes([], [], [], {name: [] for name in options.protocols}, None if difficult is None else [], [])
    skipped: list[str] = []
    bar = tqdm(total=len(dataset), desc="evaluate", unit="image", disable=None if options.progress else True)
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
            if options.loss:
                truth = _relative_to_input(step, size) if letter_box else step.truth
                output, cost = net.forward_with_loss(step.images, truth.to(net.device))
                assert isinstance(output, Predictions)  # a detector: `class_names` has checked it
                predictions = output
                boxes.costs.append(cost.cpu())
            else:
                predictions = predictor.predict(step.images)
            if letter_box:
                predictions = _relative_to_images(predictions, step.sizes, size)
            for name in options.protocols:
                found = _SUPPRESS[name](predictions, step.sizes, *net.nms_kind)
                # Without classes that the data does not have, as when an 80-class cfg meets a small data set.
                boxes.found[name].extend(detections[detections.class_ids < dataset.classes] for detections in found)
    bar.close()
    parts = all_gather((boxes, skipped), world)
    boxes = merge_ranks([part for part, _ in parts], dataset.paths)
    skipped = [line for _, lines in parts for line in lines]
    if not boxes.paths:
        raise DataError(f"none of the {len(dataset)} images can be read, the first: {skipped[0]}")
    return boxes, skipped


def _by_darknet(predictions: Predictions, sizes: Sequence[Size], kind: str, beta: float) -> list[Detections]:
    """As `validate_detector_map`: NMS on boxes relative to the image; rows in Darknet's order."""
    found = postprocess(predictions, by_darknet.THRESH, by_darknet.NMS, kind, beta)
    rows = zip(found, predictions.scores, sizes, strict=True)
    return [replace(_in_darknets_order(detections, scores), image_size=size) for detections, scores, size in rows]


def _by_coco(predictions: Predictions, sizes: Sequence[Size], kind: str, beta: float) -> list[Detections]:
    """As `validate_detector`: NMS on boxes in pixels of the image (greedynms and diounms depend on its shape)."""
    scale = predictions.boxes.new_tensor([size * 2 for size in sizes])
    pixels = predictions._replace(boxes=predictions.boxes * scale[:, None])
    found = postprocess(pixels, by_coco.THRESH, by_coco.NMS, kind, beta)
    relative = []
    for detections, size in zip(found, sizes, strict=True):
        image_scale: Floats = np.array(size * 2, np.float32)
        relative.append(replace(detections, boxes=detections.boxes / image_scale, image_size=size))
    return relative


def _by_recall(predictions: Predictions, sizes: Sequence[Size], kind: str, beta: float) -> list[Detections]:
    """As `validate_detector_recall`: NMS by objectness (`do_nms_obj`), IoU whatever the cfg's kind; class 0 for all."""
    proposals = predictions._replace(scores=predictions.objectness[..., None])
    found = postprocess(proposals, by_recall.THRESH, by_recall.NMS)
    return [replace(detections, image_size=size) for detections, size in zip(found, sizes, strict=True)]


_SUPPRESS = {"darknet": _by_darknet, "coco": _by_coco, "recall": _by_recall}


def _in_darknets_order(found: Detections, scores: Tensor) -> Detections:
    """Rows by box, then class, where boxes come in the order that Darknet's NMS leaves them in.

    `do_nms_sort` sorts the boxes by their score before NMS for one class after the other, so that they end up sorted by
    the last class, ties by the one before, and so on. At a confidence threshold the first box on a truth takes it, so
    this decides Darknet's counts. scores: (N, classes) of this image.
    """
    index, position = np.unique(found.candidate_ids, return_inverse=True)
    table = scores[torch.from_numpy(index).to(scores.device)].float().cpu().numpy()
    table = np.where(table > by_darknet.THRESH, table, 0)
    order = np.lexsort(-table[:, table.any(0)].T) if len(table) else np.zeros(0, int)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    return found[np.lexsort((found.class_ids, rank[position]))]


def _relative_to_images(predictions: Predictions, sizes: Sequence[Size], net_size: Size) -> Predictions:
    """Boxes of letterboxed inputs → boxes relative to the images."""
    parts = [from_letterbox(boxes, size, net_size) for boxes, size in zip(predictions.boxes, sizes, strict=True)]
    return predictions._replace(boxes=torch.stack(parts))


def _relative_to_input(step: EvalBatch, net_size: Size) -> Tensor:
    """The truth rows relative to the network's letterboxed input."""
    inside = (
        to_letterbox(rows[:, 2:6], size, net_size) for rows, size in zip(_by_image(step), step.sizes, strict=True)
    )
    return torch.cat([step.truth[:, :2], torch.cat(list(inside))], 1)


def _by_image(step: EvalBatch) -> Sequence[Tensor]:
    """The truth rows of each image."""
    ends = torch.searchsorted(step.truth[:, 0].contiguous(), torch.arange(1, len(step.indices)).to(step.truth))
    return step.truth.tensor_split(ends)


def _truth(step: EvalBatch) -> list[GroundTruth]:
    parts = (rows.numpy() for rows in _by_image(step))
    return [GroundTruth(part[:, 2:6], part[:, 1].astype(np.int64)) for part in parts]


def _labels(path: str, classes: int) -> GroundTruth:
    rows = load_labels(find_labels(path), classes).boxes
    return GroundTruth(rows[:, 1:5], rows[:, 0].astype(np.int64))
