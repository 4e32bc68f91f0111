"""Images to detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from darknet_py.data.images import from_letterbox, letterbox, load_image, resize, to_tensor
from darknet_py.errors import DarknetError
from darknet_py.inference.nms import Candidates, postprocess

if TYPE_CHECKING:
    from darknet_py.model.network import Network

Image = str | Path | np.ndarray


class Detection(NamedTuple):
    """One class of one box. box: center x, center y, width, height relative to the image."""

    class_id: int
    name: str
    confidence: float
    box: tuple[float, float, float, float]


def find(net: Network, x: Tensor, thresh: float, nms: float) -> list[Candidates]:
    """Thresholded, suppressed candidates per image of x (B, C, H, W), as tensors; boxes relative to the input."""
    if not net.detectors:
        raise DarknetError(f"{net.graph.path}: this network has no detection layer")
    kind, beta = net.nms_kind
    with torch.inference_mode():
        return postprocess(net(x), thresh, nms, kind, beta)


def boxes(net: Network, x: Tensor, thresh: float = 0.25, nms: float = 0.45) -> list[list[Detection]]:
    """Detections per image of x (B, C, H, W) RGB in 0..1, by falling confidence; boxes relative to the input."""
    return [_detections(net, found, found.boxes) for found in find(net, x, thresh, nms)]


def detect(
    net: Network,
    images: Image | Sequence[Image],
    thresh: float = 0.25,
    nms: float = 0.45,
    batch: int = 1,
    stb: bool = False,
) -> list[list[Detection]]:
    """Detections per image by falling confidence; boxes relative to the image.

    images: one or several paths or (H, W, 3) RGB uint8 arrays, resized as C's `detector test` does (letterboxed where
    the cfg says letter_box=1). batch: images per forward pass. stb: JPEGs are read as by C without OpenCV
    (`load_image`). Raises DataError for an image that cannot be read.
    """
    if isinstance(images, (str, Path, np.ndarray)):
        images = [images]
    width, height = net.graph.net.width, net.graph.net.height
    device = net.device
    results: list[list[Detection]] = []
    for chunk in _chunks(images, batch):
        arrays = [_array(image, net.graph.net.channels, stb) for image in chunk]
        x = torch.stack([prepare(net, array) for array in arrays]).to(device)
        for array, found in zip(arrays, find(net, x, thresh, nms), strict=True):
            relative = found.boxes
            if net.graph.net.letter_box:
                relative = from_letterbox(relative, (array.shape[1], array.shape[0]), (width, height))
            results.append(_detections(net, found, relative))
    return results


def prepare(net: Network, image: np.ndarray) -> Tensor:
    """(H, W, C) RGB uint8 → (C, net height, net width) float in 0..1."""
    spec = net.graph.net
    fit = letterbox if spec.letter_box else resize
    return to_tensor(fit(image, spec.width, spec.height))


def _array(image: Image, channels: int, stb: bool) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return load_image(image, channels, stb)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
        raise DarknetError(f"expected a uint8 image (height, width, {channels}), got {image.dtype} {image.shape}")
    return image


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _detections(net: Network, found: Candidates, boxes: Tensor) -> list[Detection]:
    order = found.scores.argsort(descending=True, stable=True)
    rows = zip(found.class_ids[order].tolist(), found.scores[order].tolist(), boxes[order].tolist(), strict=True)
    names = net.names
    return [
        Detection(class_id, names[class_id] if class_id < len(names) else str(class_id), score, tuple(box))
        for class_id, score, box in rows
    ]
