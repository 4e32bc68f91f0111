"""Images to detections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.data.images import from_letterbox, letterbox, load_image, resize, to_tensor
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph
from darknet_py.inference.detections import Detections
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import HIER_THRESH, Predictions


class ArrayImage(Protocol):
    """An image that NumPy can read, such as PIL's."""

    @property
    def __array_interface__(self) -> Mapping[str, object]: ...


ImageLike: TypeAlias = str | PathLike[str] | NDArray[np.uint8] | ArrayImage


class DetectionNetwork(Protocol):
    """What detection needs of a network; `Network` has it."""

    @property
    def graph(self) -> Graph: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def nms_kind(self) -> tuple[str, float]: ...

    def predict(self, x: Tensor, hier: float = HIER_THRESH) -> Predictions: ...


@dataclass(frozen=True)
class DetectOptions:
    """What counts as detected, and how images are read.

    Attributes:
        thresh: Confidence threshold.
        nms: IoU threshold for non-maximum suppression; 0 suppresses nothing.
        letter_box: Whether an image keeps its aspect ratio in the network's input; None: as the cfg's `letter_box`.
        hier: Class trees (YOLO9000) only: the most specific class with a probability above it is reported.
        stb: Whether JPEGs are decoded as by a C Darknet without OpenCV, see `load_image`.
        batch: Images per forward pass.
    """

    thresh: float = 0.25
    nms: float = 0.45
    letter_box: bool | None = None
    hier: float = HIER_THRESH
    stb: bool = False
    batch: int = 1


def detect(
    net: DetectionNetwork, images: ImageLike | Sequence[ImageLike], options: DetectOptions | None = None
) -> list[Detections]:
    """Detects objects in images, which are resized as C's `detector test` does.

    Args:
        net: A network with detection layers.
        images: One or several: paths, uint8 arrays (H, W, C) in RGB, or PIL images.
        options: Thresholds and the like.

    Returns:
        The detections of each image; boxes are relative to the image.

    Raises:
        DataError: An image cannot be read.
        DarknetError: An array has another shape, or the network has no detection layer.
    """
    options = options or DetectOptions()
    channels = net.graph.net.channels
    results: list[Detections] = []
    for chunk in _chunks(_as_sequence(images), options.batch):
        arrays = [as_array(image, channels, options.stb) for image in chunk]
        x = torch.stack([prepare(net, array, options.letter_box) for array in arrays]).to(net.device)
        for array, found in zip(arrays, detect_tensor(net, x, options), strict=True):
            results.append(_on_image(found, net, (array.shape[1], array.shape[0]), options.letter_box))
    return results


def detect_tensor(net: DetectionNetwork, x: Tensor, options: DetectOptions | None = None) -> list[Detections]:
    """Detects objects in a ready input tensor.

    Args:
        net: A network with detection layers.
        x: (B, C, H, W) RGB in 0..1.
        options: Thresholds; what concerns the reading of images does not count.

    Returns:
        The detections of each image; boxes are relative to the input.

    Raises:
        DarknetError: The network has no detection layer.
    """
    options = options or DetectOptions()
    kind, beta = net.nms_kind
    with torch.inference_mode():
        per_image = postprocess(net.predict(x, options.hier), options.thresh, options.nms, kind, beta)
    size = (x.shape[-1], x.shape[-2])
    return [replace(found, class_names=net.names, image_size=size) for found in per_image]


def as_array(image: ImageLike, channels: int, stb: bool = False) -> NDArray[np.uint8]:
    """An image as a uint8 array (H, W, channels), from a file or from what already is an image.

    Raises DataError for a file that cannot be read, DarknetError for an array of another type or shape.
    """
    if isinstance(image, (str, PathLike)):
        return load_image(image, channels, stb)
    array = np.asarray(image)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
        raise DarknetError(f"expected a uint8 image (height, width, {channels}), got {array.dtype} {array.shape}")
    return array


def prepare(net: DetectionNetwork, image: NDArray[np.uint8], letter_box: bool | None = None) -> Tensor:
    """(H, W, C) RGB uint8 → (C, height, width) float in 0..1 at the network's input size."""
    spec = net.graph.net
    fit = letterbox if uses_letter_box(net, letter_box) else resize
    return to_tensor(fit(image, spec.width, spec.height))


def uses_letter_box(net: DetectionNetwork, letter_box: bool | None) -> bool:
    """The option, or where it is None what the cfg says."""
    return net.graph.net.letter_box if letter_box is None else letter_box


def _on_image(found: Detections, net: DetectionNetwork, size: tuple[int, int], letter_box: bool | None) -> Detections:
    """Boxes relative to the network's input → relative to the image of this (width, height)."""
    boxes = found.boxes
    if uses_letter_box(net, letter_box):
        boxes = from_letterbox(torch.from_numpy(boxes), size, (net.graph.net.width, net.graph.net.height)).numpy()
    return replace(found, boxes=boxes, image_size=size)


def _as_sequence(images: ImageLike | Sequence[ImageLike]) -> Sequence[ImageLike]:
    if isinstance(images, Sequence) and not isinstance(images, str):
        return images
    return [images]


def _chunks(items: Sequence[ImageLike], size: int) -> Iterator[Sequence[ImageLike]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
