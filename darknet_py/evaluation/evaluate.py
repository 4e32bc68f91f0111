"""`darknet_py.evaluate`: a network on labeled data, whatever the kind of network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from darknet_py.data.builtin.synthetic_text import ensure_synthetic_text
from darknet_py.data.class_count import count_classes
from darknet_py.data.datafile import DataFile, read_list
from darknet_py.data.open_classification import open_classifier_data
from darknet_py.data.open_dataset import open_dataset
from darknet_py.data.text_streams import read_bytes
from darknet_py.errors import DataError
from darknet_py.evaluation.classifier import ClassifierResult, evaluate_classifier, is_classifier
from darknet_py.evaluation.detector import PROTOCOLS, EvalOptions, Evaluation, evaluate_detector
from darknet_py.evaluation.text import TextResult, evaluate_text
from darknet_py.inference.fuse import AMP, fuse
from darknet_py.inference.generate import check_text_network
from darknet_py.model.load import build
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

logger = logging.getLogger(__name__)


def evaluate(
    cfg: str | Path | Network,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    *,
    images: str | Path | Sequence[str] | None = None,
    names: Sequence[str] = (),
    protocols: Sequence[str] = PROTOCOLS,
    iou_thresh: float = 0.5,
    points: int = 0,
    thresh: float = 0.25,
    batch: int = 8,
    workers: int | None = None,
    letter_box: bool | None = None,
    stb: bool = False,
    amp: Literal["bf16", "fp16"] | None = None,
    loss: bool = False,
    width: int | None = None,
    height: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    random_weights: bool = False,
    ignore_rest: bool = False,
) -> Evaluation | ClassifierResult | TextResult:
    """Evaluates a trained network: mAP and AP of a detector, accuracy of a classifier, bits per byte of a text model.

    Args:
        cfg: A Darknet cfg, a `.pt` checkpoint, or a network.
        data: The data set whose `valid` images are used, as `open_dataset` takes it, or a text; None is built-in data.
        weights: A `.weights` file or a checkpoint.
        images: Detectors: a list of images, a folder or paths, instead of the `valid` images.
        names: Detectors: class names, instead of those of the data set.
        protocols: Detectors: "darknet" (`detector map`), "coco" (pycocotools) and/or "recall" (`detector recall`).
        iou_thresh: IoU threshold of Darknet's mAP.
        points: Recall points of Darknet's mAP; 0 is the area under the curve.
        thresh: Minimum confidence of the detections that Darknet's mAP counts.
        batch: Images per forward pass.
        workers: Processes that read images (None: one per core, at most 8).
        letter_box: Whether an image keeps its aspect ratio in the input; None: as the cfg's `letter_box`.
        stb: Whether JPEGs are decoded as by a C Darknet without OpenCV.
        amp: Mixed precision: "bf16" or "fp16".
        loss: Whether the network's loss is computed too.
        width: Input width in pixels, instead of the cfg's.
        height: Input height in pixels, instead of the cfg's.
        device: Where it runs.
        progress: Whether a progress bar is shown.
        random_weights: Whether layers may have random weights: no weights at all, or a partial file (`*.conv.N`).
        ignore_rest: Whether a `.weights` file may go on after the last layer, as in Darknet.

    Returns:
        The result for the kind of network; `to_json()` gives its values.

    Raises:
        CfgError: The cfg is wrong.
        WeightsError: The weights do not fit the cfg, are not finite, or there are none for a layer.
        DataError: The data cannot be used.
        DarknetError: An option is out of range.
    """
    source = (
        cfg
        if isinstance(cfg, Network)
        else ModelFile.read(cfg, weights, width=width, height=height, ignore_rest=ignore_rest)
    )
    if not random_weights:
        source.require_weights()
    network = source if isinstance(source, Network) else build(source, device)
    graph, dtype = network.graph, AMP[amp] if amp else None
    if graph.reads_text:
        check_text_network(network)
        return evaluate_text(network, read_bytes(data or str(ensure_synthetic_text().valid), graph.input.size))
    if is_classifier(graph):
        sets = open_classifier_data(data, graph.net.channels, trains=False)
        if not sets.separate:
            warn_of_training_images(sets.file.path)
        valid = sets.valid.with_stb() if stb else sets.valid
        return evaluate_classifier(fuse(network, dtype) if amp else network, valid, batch, workers, sets.names, loss)
    options = EvalOptions(protocols, iou_thresh, points, thresh, batch, workers, letter_box, stb, dtype, loss, progress)
    return evaluate_on(network, data, images, names, options)[0]


def evaluate_on(
    network: Network,
    data: str | Path | None,
    images: str | Path | Sequence[str] | None,
    names: Sequence[str],
    options: EvalOptions,
    *,
    rank: int = 0,
    world: int = 1,
) -> tuple[Evaluation, DataFile | None]:
    """`evaluate` of a detector, with the data set that was opened; None where only images were given.

    rank, world: as of `evaluate_detector`.
    """
    source = None if images and not data else open_dataset(data, names=names)
    difficult = None
    if images is None:
        paths = source.valid_images() if source else []
        if source and are_training_images(source, paths):
            warn_of_training_images(source.path)
        difficult = read_list(source.difficult) if source and source.difficult else None
    else:
        paths = read_list(images) if isinstance(images, (str, Path)) else list(images)
    heads = network.graph.detection_specs
    if source and heads:
        source = count_classes(source, heads[-1].classes, network.graph.path, paths)
    if not names and source and source.names:
        names = source.class_names()
    return evaluate_detector(network, paths, names, options, difficult=difficult, rank=rank, world=world), source


def are_training_images(data: DataFile, images: Sequence[str]) -> bool:
    """Whether all of the images are in the training list, whatever list they come from."""
    if not data.separate:
        return True
    try:
        return data.train is not None and set(images) <= set(data.train_images())
    except DataError:  # the training list is not needed here, and need not be there
        return False


def warn_of_training_images(data: Path) -> None:
    """Says that a result is not what new images would give."""
    logger.warning(
        "%s: no validation list of its own; evaluating on the training images: new ones give lower values",
        data,
    )
