"""Images to detections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from os import PathLike, fspath
from typing import Any, Protocol, TypeAlias, TypedDict, cast, runtime_checkable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.data.image_sources import find_images, open_image
from darknet_py.data.images import Image, Pixels, decode_image, from_letterbox, letterbox, resize
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph
from darknet_py.inference.detections import Detections, class_number
from darknet_py.inference.nms import postprocess
from darknet_py.inference.tiles import merge_tiles, tile_corners
from darknet_py.layers.base import HIER_THRESH, Predictions


class ArrayImage(Protocol):
    """An image that NumPy can read, such as PIL's."""

    @property
    def __array_interface__(self) -> Mapping[str, object]: ...


@runtime_checkable
class PilImage(Protocol):
    """What is used of a PIL image."""

    @property
    def mode(self) -> str: ...

    def convert(self, mode: str) -> ArrayImage: ...


ImageLike: TypeAlias = str | PathLike[str] | bytes | NDArray[np.uint8] | Tensor | ArrayImage
_SINGLE = (str, bytes, bytearray, memoryview, np.ndarray, Tensor)  # iterable, but one image, or a batch
_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CONVERSIONS = {  # by number of channels, as for files
    (1, 3): cv2.COLOR_GRAY2RGB,
    (4, 3): cv2.COLOR_RGBA2RGB,
    (3, 1): cv2.COLOR_RGB2GRAY,
    (4, 1): cv2.COLOR_RGBA2GRAY,
}


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


class DetectArguments(TypedDict, total=False):
    """The arguments of `Network.detect` besides images, thresh and nms, whose meanings and defaults it has."""

    bgr: bool
    letter_box: bool | None
    hier: float
    stb: bool
    batch: int
    agnostic: bool
    class_thresh: Mapping[int | str, float] | None
    tiles: int
    overlap: float


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
        bgr: Whether arrays have their channels in OpenCV's order, as `cv2.imread` gives them. Files, bytes and PIL
            images know their own order.
        agnostic: Whether suppression looks at all classes together; a box then has one class.
        class_thresh: Confidence thresholds of single classes by their numbers, instead of `thresh`.
        tiles: Side of square tiles in pixels, in which images that are larger are searched, see `inference.tiles`;
            0: images are searched as a whole only.
        overlap: Share of a tile that its neighbor has too.
    """

    thresh: float = 0.25
    nms: float = 0.45
    letter_box: bool | None = None
    hier: float = HIER_THRESH
    stb: bool = False
    batch: int = 1
    bgr: bool = False
    agnostic: bool = False
    class_thresh: Mapping[int, float] = field(default_factory=dict)
    tiles: int = 0
    overlap: float = 0.2

    @classmethod
    def of(cls, thresh: float, nms: float, names: Sequence[str], arguments: DetectArguments) -> DetectOptions:
        """The options that the arguments of `Network.detect` describe; names: of the network's classes."""
        by_name = arguments.get("class_thresh") or {}
        numbers = {class_number(name, names): value for name, value in by_name.items()}
        others = {name: value for name, value in arguments.items() if name != "class_thresh"}
        return replace(cls(thresh, nms, class_thresh=numbers), **cast("dict[str, Any]", others))

    def __post_init__(self) -> None:
        if self.tiles < 0 or not 0 <= self.overlap < 1:
            raise DarknetError(
                f"expected tiles of at least 0 pixels and an overlap from 0 to 1, got {self.tiles} and {self.overlap}"
            )


def detect(
    net: DetectionNetwork, images: ImageLike | Iterable[ImageLike], options: DetectOptions | None = None
) -> list[Detections]:
    """The results of `detect_each`, as a list."""
    return list(detect_each(net, images, options))


def detect_each(
    net: DetectionNetwork, images: ImageLike | Iterable[ImageLike], options: DetectOptions | None = None
) -> Iterator[Detections]:
    """Detects objects in images, which are resized as C's `detector test` does.

    Args:
        net: A network with detection layers.
        images: One or several, as `Network.detect` takes them. Of an iterator `options.batch` images are taken at once.
        options: Thresholds and the like.

    Yields:
        The detections of each image; boxes are relative to the image.

    Raises:
        DataError: An image cannot be read.
        DarknetError: An array has another shape, or the network has no detection layer.
    """
    options = options or DetectOptions()
    channels = net.graph.net.channels
    sources = _expanded(images)
    while chunk := list(islice(sources, options.batch)):
        arrays = [as_array(image, channels, options.stb, options.bgr) for image in chunk]
        for image, found in zip(chunk, detect_arrays(net, arrays, options), strict=True):
            yield replace(found, path=fspath(image)) if isinstance(image, (str, PathLike)) else found


def detect_arrays(
    net: DetectionNetwork, images: Sequence[Pixels | NDArray[np.uint8]], options: DetectOptions
) -> list[Detections]:
    """As `detect`, in images as `as_array` gives them, in one forward pass (with tiles in several)."""
    return list(_in_tiles(net, images, options) if options.tiles else _detect_in(net, images, options))


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
    options = replace(options or DetectOptions(), letter_box=False)
    return _detect_on(net, x, [(x.shape[-1], x.shape[-2])] * len(x), options)


def as_array(image: ImageLike, channels: int, stb: bool = False, bgr: bool = False) -> Pixels | NDArray[np.uint8]:
    """An image as an array (H, W, channels), from a file, a web address, or what already is an image.

    It is uint8; of a tensor of floats float32.

    Gray images and those with an alpha channel are converted where the network takes RGB or gray, as files are.

    Args:
        image: A path, an http(s) address, the bytes of an image file, an array (H, W, C) or (H, W), a tensor (C, H, W),
            or a PIL image.
        channels: Channels of the network.
        stb: See `load_image`.
        bgr: Whether an array's channels are in OpenCV's order.

    Raises:
        DataError: A file cannot be read.
        DarknetError: An array has another type or shape.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), channels, "<bytes>", stb)
    if isinstance(image, (str, PathLike)):
        return open_image(image, channels, stb)
    if isinstance(image, Tensor):
        return _of_tensor(image, channels)
    if isinstance(image, PilImage):
        bgr = False
        if image.mode.startswith("I;16"):  # of which the upper 8 bits count, as in files
            image = (np.asarray(image) >> 8).astype(np.uint8)
        elif image.mode != _PIL_MODES.get(channels, image.mode):
            image = image.convert(_PIL_MODES[channels])
    array: Image = np.asarray(image)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.dtype == np.uint8 and array.ndim == 3 and array.size:
        if bgr and array.shape[2] in (3, 4):
            array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
        conversion = _CONVERSIONS.get((array.shape[2], channels))
        if conversion is not None:
            converted = cv2.cvtColor(np.ascontiguousarray(array), conversion)
            array = np.asarray(converted, np.uint8).reshape(*array.shape[:2], channels)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels or not array.size:
        got = f"{array.dtype} {array.shape}" if array.ndim else type(image).__name__
        raise DarknetError(f"expected a uint8 image (height, width, {channels}), got {got}")
    return array


def _of_tensor(image: Tensor, channels: int) -> Pixels | NDArray[np.uint8]:
    """(C, H, W) → (H, W, C): uint8, or float32 in 0..1 as it is."""
    if image.dim() != 3 or image.shape[0] != channels or not image.numel():
        raise DarknetError(
            f"expected a tensor ({channels}, height, width), or a batch of such, got {tuple(image.shape)}"
        )
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise DarknetError(f"expected a tensor of uint8, or of floats in 0..1, got {image.dtype}")
    pixels = image if image.dtype == torch.uint8 else image.float()
    return np.ascontiguousarray(pixels.detach().permute(1, 2, 0).cpu().numpy())


def prepare(graph: Graph, image: Pixels | NDArray[np.uint8], letter_box: bool | None = None) -> Tensor:
    """(H, W, C) RGB, uint8 or float32 in 0..1 → (C, height, width) float in 0..1 at the network's input size."""
    return prepare_batch(graph, [image], letter_box)[0]


def prepare_batch(graph: Graph, images: Sequence[Pixels | NDArray[np.uint8]], letter_box: bool | None = None) -> Tensor:
    """As `prepare`, several images: (B, C, height, width), channels-last in memory."""
    fit = letterbox if uses_letter_box(graph, letter_box) else resize
    width, height = graph.net.width, graph.net.height
    batch = np.empty((len(images), height, width, graph.net.channels), np.float32)
    for image, place in zip(images, batch, strict=True):
        fit(image, width, height, place)
    return torch.from_numpy(batch).permute(0, 3, 1, 2)


def uses_letter_box(graph: Graph, letter_box: bool | None) -> bool:
    """The option, or where it is None what the cfg says."""
    return graph.net.letter_box if letter_box is None else letter_box


def _detect_in(
    net: DetectionNetwork, images: Sequence[Pixels | NDArray[np.uint8]], options: DetectOptions
) -> list[Detections]:
    """Detections on images, all of them in one forward pass."""
    x = prepare_batch(net.graph, images, options.letter_box).to(net.device)
    return _detect_on(net, x, [(image.shape[1], image.shape[0]) for image in images], options)


def _in_tiles(
    net: DetectionNetwork, images: Sequence[Pixels | NDArray[np.uint8]], options: DetectOptions
) -> Iterator[Detections]:
    """Detections on images, each in overlapping tiles and as a whole; one that fits into a tile as a whole only."""
    for image in images:
        size = image.shape[1], image.shape[0]
        regions = tile_corners(size, options.tiles, options.overlap)
        parts: list[Detections] = []
        for first in range(0, len(regions), options.batch):
            chunk = regions[first : first + options.batch]
            tiles = [image[top:bottom, left:right] for left, top, right, bottom in chunk]
            parts += _detect_in(net, tiles, options)
        yield merge_tiles(parts, regions, size, options.nms, net.nms_kind, options.agnostic) if parts[1:] else parts[0]


def _thresholds(options: DetectOptions, scores: Tensor) -> float | Tensor:
    """The threshold, or one for each class where some have their own. scores: (B, N, classes)."""
    if not options.class_thresh:
        return options.thresh
    classes = scores.shape[-1]
    thresholds = scores.new_full((classes,), options.thresh)
    for class_id, thresh in options.class_thresh.items():
        if not 0 <= class_id < classes:
            raise DarknetError(f"class_thresh: expected classes from 0 to {classes - 1}, got {class_id}")
        thresholds[class_id] = thresh
    return thresholds


def detect_prepared(
    net: DetectionNetwork, x: Tensor, sizes: Sequence[tuple[int, int]], options: Sequence[DetectOptions]
) -> list[Detections]:
    """Detects objects in prepared images, each with its own thresholds, in one forward pass.

    Args:
        net: A network with detection layers.
        x: (B, C, H, W) on the network's device, see `prepare`.
        sizes: (width, height) of each image.
        options: Those of each image. `letter_box` and `hier` of the first count for all.

    Returns:
        The detections of each image; boxes are relative to the image.

    Raises:
        DarknetError: The network has no detection layer.
    """
    with torch.inference_mode():
        predictions = _predict_on(net, x, sizes, options[0])
        results: list[Detections] = []
        for number, (size, own) in enumerate(zip(sizes, options, strict=True)):
            part = Predictions(*(tensor[number : number + 1] for tensor in predictions))
            results += _suppressed(net, part, [size], own)
    return results


def _detect_on(
    net: DetectionNetwork, x: Tensor, sizes: Sequence[tuple[int, int]], options: DetectOptions
) -> list[Detections]:
    """Detections on images of these (width, height), of which x is the input."""
    with torch.inference_mode():
        return _suppressed(net, _predict_on(net, x, sizes, options), sizes, options)


def _predict_on(
    net: DetectionNetwork, x: Tensor, sizes: Sequence[tuple[int, int]], options: DetectOptions
) -> Predictions:
    """The network's candidates, boxes relative to the images.

    Boxes of a letterbox become relative to the image before others are suppressed, as in C: greedynms and diounms
    measure distances, which depend on the shape.
    """
    predictions = net.predict(x, options.hier)
    if not uses_letter_box(net.graph, options.letter_box):
        return predictions
    net_size = (net.graph.net.width, net.graph.net.height)
    boxes = [from_letterbox(part, size, net_size) for part, size in zip(predictions.boxes, sizes, strict=True)]
    return predictions._replace(boxes=torch.stack(boxes))


def _suppressed(
    net: DetectionNetwork, predictions: Predictions, sizes: Sequence[tuple[int, int]], options: DetectOptions
) -> list[Detections]:
    """What is left of candidates after thresholds and non-maximum suppression."""
    thresh = _thresholds(options, predictions.scores)
    per_image = postprocess(predictions, thresh, options.nms, *net.nms_kind, options.agnostic)
    return [
        replace(found, class_names=net.names, image_size=size) for found, size in zip(per_image, sizes, strict=True)
    ]


def _expanded(images: ImageLike | Iterable[ImageLike]) -> Iterator[ImageLike]:
    """The images, with each folder, glob and list replaced by the images that it stands for."""
    several = isinstance(images, Iterable) and not isinstance(images, _SINGLE)
    for image in cast(Iterable[ImageLike], images) if several else [cast(ImageLike, images)]:
        if isinstance(image, (str, PathLike)):
            yield from find_images([image])
        elif isinstance(image, Tensor) and image.dim() == 4:
            yield from image
        else:
            yield image
