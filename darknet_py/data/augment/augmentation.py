"""Augmentation of one image with its boxes (Darknet's `load_data_detection`, `image_data_augmentation`).

Everything random is params first (`draw`) from an explicit generator; the rest are functions of that draw. Images are
uint8 (H, W, C). Boxes are rows (class, cx, cy, w, h, track), relative to the image before and to the network input
after. Crop and resize come before color, so that color works on as few pixels as possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from darknet_py.data.images import Image
from darknet_py.data.labels import Boxes
from darknet_py.errors import DataError
from darknet_py.layers.base import DetectionHeadSpec

if TYPE_CHECKING:
    from darknet_py.cfg.net import NetSpec

Size = tuple[int, int]  # width, height in pixels

PLAIN, MIXUP, MOSAIC = 0, 1, 3  # Darknet's codes


@dataclass(frozen=True)
class Augmentation:
    """What `[net]` and the last detection head say about augmentation, under Darknet's names."""

    jitter: float = 0.0
    resize: float = 1.0
    flip: bool = False
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    blur: int = 0
    gaussian_noise: int = 0
    mixup: int = PLAIN
    mosaic_bound: bool = False
    letter_box: bool = False
    random: float = 0.0
    max_boxes: int = 200
    track: bool = False
    augment_speed: int = 2
    time_steps: int = 1
    contrastive: bool = False
    contrastive_jit_flip: bool = False
    contrastive_color: bool = False
    mixing_share: float = 0.5  # Darknet mixes every second batch; here each sample is mixed with this probability

    @classmethod
    def of(cls, net: NetSpec, head: DetectionHeadSpec | None = None) -> Augmentation:
        """From the cfg. `head`: the spec of the last yolo or region section, as Darknet takes it.

        cutmix is for classifiers only and left out, as in Darknet. Raises DataError for mosaic with letter_box,
        which Darknet refuses too.
        """
        mixup = {2: PLAIN, 4: MOSAIC}.get(net.mixup, net.mixup)
        if mixup == MOSAIC and net.letter_box:
            raise DataError("[net]: mosaic=1 and letter_box=1 cannot be used together, expected only one of them")
        head = head or DetectionHeadSpec()
        return cls(
            jitter=head.jitter,
            resize=head.resize,
            hue=net.hue,
            saturation=net.saturation or 1.0,
            exposure=net.exposure or 1.0,
            mixup=mixup,
            random=head.random,
            max_boxes=head.max_boxes,
            **{name: getattr(net, name) for name in _NET_KEYS},
        )

    @property
    def unmixed(self) -> Augmentation:
        """The same without mixup and mosaic."""
        return replace(self, mixup=PLAIN)


_NET_KEYS: tuple[str, ...] = ("flip", "blur", "gaussian_noise", "mosaic_bound", "letter_box")  # the same name in [net]
_NET_KEYS += ("track", "augment_speed", "time_steps", "contrastive", "contrastive_jit_flip", "contrastive_color")


class AugmentationParams(NamedTuple):
    """The random numbers behind one augmented image."""

    sides: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.5)  # of the jitter: left, right, top, bottom
    zoom: tuple[float, float] = (0.5, 0.5)
    flip: bool = False
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    blur: int = 0  # 0 none, 1 the background, else the kernel of the whole image
    noise: int = 0
    noise_seed: int = 0


class Placement(NamedTuple):
    """Which part of an image goes where on the canvas."""

    source: tuple[int, int, int, int]  # left, top, width, height in the image; may reach beyond it
    target: tuple[int, int, int, int]  # x0, y0, x1, y1 on the canvas
    bounds: tuple[float, float, float, float]  # boxes are clipped to it
    flip: bool


_NO_CHANGE = AugmentationParams()
_PIXEL = 1 - 1e-4  # one pixel, give or take float32
_TO_HSV = cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB
_TO_HSV_BACKWARDS = cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR


def draw_params(options: Augmentation, rng: np.random.Generator) -> AugmentationParams:
    """Draws one image's augmentation."""
    u = rng.random(14)
    return AugmentationParams(
        sides=(u[0], u[1], u[2], u[3]),
        zoom=(u[4], u[5]),
        flip=options.flip and u[6] < 0.5,
        hue=(2 * u[7] - 1) * options.hue,
        saturation=random_scale(options.saturation, u[8], u[9]),
        exposure=random_scale(options.exposure, u[10], u[11]),
        blur=(0, 1, options.blur)[int(u[12] * 3)] if options.blur else 0,
        noise=options.gaussian_noise if u[13] < 0.5 else 0,
        noise_seed=int(rng.integers(1 << 32)),
    )


def margins(options: Augmentation, params: AugmentationParams, image: Size, net: Size) -> tuple[int, int, int, int]:
    """Pixels cut off the image's left, right, top and bottom; negative ones are added. Integers as C truncates."""
    (left, right), (top, bottom) = (
        _axis_margins(options, length, params.sides[2 * axis : 2 * axis + 2], params.zoom)
        for axis, length in enumerate(image)
    )
    if options.letter_box:
        wide = (image[0] / image[1]) / (net[0] / net[1])
        if wide > 1:
            extra = (image[0] * net[1] / net[0] - image[1]) / 2
            top, bottom = int(top - extra), int(bottom - extra)
        else:
            extra = (image[1] * net[0] / net[1] - image[0]) / 2
            left, right = int(left - extra), int(right - extra)
    return left, right, top, bottom


def place_image(cut: tuple[int, int, int, int], flip: bool, image: Size, net: Size) -> Placement:
    """The cropped image on all of the canvas."""
    left, right, top, bottom = clamp_margins(cut, image)
    source = (left, top, image[0] - left - right, image[1] - top - bottom)
    return Placement(source, (0, 0, *net), (0, 0, *net), flip)


def clamp_margins(cut: tuple[int, int, int, int], image: Size) -> tuple[int, int, int, int]:
    """`cut`, or no cut at all where nothing of the image would be left."""
    left, right, top, bottom = cut
    width, height = image
    if left + right >= width or top + bottom >= height or left >= width or top >= height:
        return 0, 0, 0, 0
    return cut


def place_boxes(boxes: Boxes, placement: Placement, image: Size, net: Size) -> Boxes:
    """Moves boxes along with their image, clips them and drops what is left with a side below one pixel."""
    left, top, width, height = placement.source
    x0, y0, x1, y1 = placement.target
    x_scale, y_scale = (x1 - x0) / width, (y1 - y0) / height
    side = image[0] * x_scale, image[1] * y_scale
    scale, half_scale, start, corner, low, high, share = np.array(
        [
            side,
            (side[0] / 2, side[1] / 2),
            (left * x_scale, top * y_scale),
            (x0, y0),
            placement.bounds[:2],
            placement.bounds[2:],
            (1 / net[0], 1 / net[1]),
        ],
        np.float32,
    )
    center, half = boxes[:, 1:3] * scale - start, boxes[:, 3:5] * half_scale
    if placement.flip:
        center[:, 0] = (x1 - x0) - center[:, 0]
    center += corner
    first, last = np.maximum(center - half, low), np.minimum(center + half, high)
    moved = boxes.copy()
    moved[:, 1:3] = (first + last) * (share / 2)
    moved[:, 3:5] = (last - first) * share
    visible: Boxes = moved[(moved[:, 3] * net[0] >= _PIXEL) & (moved[:, 4] * net[1] >= _PIXEL)]
    return visible


def paint(image: Image, placement: Placement, canvas: Image, params: AugmentationParams = _NO_CHANGE) -> Image:
    """Draws the part of the image on the canvas, in the params colors; outside the image its mean color.

    Returns the painted view.
    """
    x0, y0, x1, y1 = placement.target
    view = canvas[y0:y1, x0:x1]
    part = _crop(image, *placement.source)
    colors = params.hue, params.saturation, params.exposure
    enlarged = part.size < view.size
    if enlarged:  # on the smaller of both
        part = color(part, *colors)
    resized = part.shape[:2] != view.shape[:2]
    size = x1 - x0, y1 - y0
    if not placement.flip and not resized:
        view[:] = part
    elif view.shape[2] == 1:  # OpenCV drops the last axis of gray images
        gray = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) if resized else part[:, :, 0]
        view[:, :, 0] = cv2.flip(gray, 1) if placement.flip else gray
    elif not placement.flip:
        cv2.resize(part, size, dst=view, interpolation=cv2.INTER_LINEAR)
    elif resized:
        cv2.flip(cv2.resize(part, size, dst=view, interpolation=cv2.INTER_LINEAR), 1, dst=view)
    else:
        cv2.flip(part, 1, dst=view)
    return view if enlarged else color(view, *colors, out=view)


def color(image: Image, hue: float, saturation: float, exposure: float, out: Image | None = None) -> Image:
    """Shifts hue and scales saturation and value; the result is `out` (which may be `image`) or a new array.

    hue is a share of the full circle, at most .42 either way. It wraps around, as in Darknet's `distort_image`; its
    OpenCV variant stops at red because its array cannot hold a negative hue. Other than 3 channels: value only.
    """
    if hue == 0 and saturation == 1 and exposure == 1:
        return image
    out = np.empty_like(image) if out is None else out
    if image.shape[2] != 3:
        out[:] = cv2.convertScaleAbs(image, alpha=exposure).reshape(image.shape)
        return out
    # Taken for BGR, the circle of hues runs backwards: a shift down is a shift up there. OpenCV reads hues above 180
    # as going round again, so that a shift up needs no modulo.
    to, back = _TO_HSV if hue >= 0 else _TO_HSV_BACKWARDS
    hsv = cv2.cvtColor(image, to)
    changes = np.array([[1, 0, 0, 179 * abs(hue)], [0, saturation, 0, 0], [0, 0, exposure, 0]], np.float32)
    cv2.cvtColor(cv2.transform(hsv, changes, dst=hsv), back, dst=out)
    return out


def blur(image: Image, kernel: int, boxes: Boxes, placement: Placement, net: Size) -> None:
    """Gaussian blur in place: kernel 1 blurs around the boxes with 17 x 17 pixels, others the whole image.

    boxes: those of this image on the canvas. The kernel never exceeds an eighth of the smallest object.
    """
    sides = boxes[:, 3:5] * net
    kernel = min(kernel, int(sides.min(initial=np.inf) if len(sides) else 0) // 8) if kernel > 1 else kernel
    if kernel < 1:
        return
    size = 17 if kernel == 1 else kernel // 2 * 2 + 1
    blurred = cv2.GaussianBlur(image, (size, size), 0).reshape(image.shape)
    if kernel == 1:
        corner = (boxes[:, 1:3] - boxes[:, 3:5] / 2) * net - placement.target[:2]
        for (x, y), (w, h) in zip(corner.astype(int).clip(0), sides.astype(int), strict=True):
            blurred[y : y + h, x : x + w] = image[y : y + h, x : x + w]
    image[:] = blurred


def noise(image: Image, deviation: int, rng: np.random.Generator) -> None:
    """Adds Gaussian noise in place. (Darknet's noise array is unsigned, so that its noise only brightens.)"""
    values = rng.standard_normal(image.shape, np.float32)
    values *= min(max(deviation, 0), 127)
    values += image
    np.clip(np.rint(values, out=values), 0, 255, out=values)
    image[:] = values


def blur_and_noise(view: Image, params: AugmentationParams, boxes: Boxes, placement: Placement, net: Size) -> None:
    """Blur and noise of one painted image, in place."""
    if params.blur:
        blur(view, params.blur, boxes, placement, net)
    if params.noise:
        noise(view, params.noise, np.random.default_rng(params.noise_seed))


def _axis_margins(
    options: Augmentation, length: int, sides: tuple[float, ...], zoom: tuple[float, float]
) -> tuple[int, int]:
    """Both cuts along one axis: jitter, then `resize` (a zoom that the two cuts share)."""
    jitter = int(length * options.jitter)
    factor = options.resize or 1.0
    out = int(length * (1 - max(factor, 1 / factor)) / 2)  # negative: pixels are added
    into = 0 if factor < 1 else int(length * (1 - min(factor, 1 / factor)) / 2)
    first, second = (
        int(int(side * 2 * jitter - jitter) + part * (into - out) + out) for side, part in zip(sides, zoom, strict=True)
    )
    return first, second


def random_scale(limit: float, position: float, chance: float) -> float:
    """Darknet's `rand_scale`: uniform in 1..limit, or one over that."""
    scale = 1 + position * (limit - 1)
    return scale if chance < 0.5 or math.isclose(scale, 0) else 1 / scale


def _crop(image: Image, left: int, top: int, width: int, height: int) -> Image:
    """A rectangle of the image, padded with its mean color where it reaches beyond."""
    x0, y0 = min(max(left, 0), image.shape[1]), min(max(top, 0), image.shape[0])
    x1, y1 = max(min(left + width, image.shape[1]), x0), max(min(top + height, image.shape[0]), y0)
    inner = image[y0:y1, x0:x1]
    if inner.shape[:2] == (height, width):
        return inner
    mean = cv2.mean(image)[: image.shape[2]] if image.shape[2] <= 4 else image.mean((0, 1))
    if not inner.size or image.shape[2] > 4:
        part = np.empty((height, width, image.shape[2]), np.uint8)
        part[:] = np.rint(mean).astype(np.uint8)
        part[y0 - top : y1 - top, x0 - left : x1 - left] = inner
        return part
    right, bottom = left + width - x1, top + height - y1
    padded = cv2.copyMakeBorder(inner, y0 - top, bottom, x0 - left, right, cv2.BORDER_CONSTANT, value=mean)
    return np.asarray(padded, np.uint8).reshape(height, width, -1)
