"""Samples made of several images: mosaic and mixup for detection (Darknet's `load_data_detection`)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from darknet_py.data.augment.augmentation import (
    MOSAIC,
    Augmentation,
    AugmentationParams,
    Placement,
    Size,
    blur_and_noise,
    clamp_margins,
    margins,
    paint,
    place_boxes,
    place_image,
)
from darknet_py.data.images import Image
from darknet_py.data.labels import Boxes

_MIN_SHARE = 0.2  # of the canvas, on either side of the cut


def cut_point(net: Size, rng: np.random.Generator) -> Size:
    """Where the four tiles of a mosaic meet."""
    x, y = (int(rng.integers(int(side * _MIN_SHARE), int(side * (1 - _MIN_SHARE)) + 1)) for side in net)
    return x, y


def compose(
    options: Augmentation,
    images: Sequence[tuple[Image, Boxes]],
    draws: Sequence[AugmentationParams],
    net: Size,
    rng: np.random.Generator,
    canvas: Image | None = None,
) -> tuple[Image, Boxes]:
    """One training sample of one image, of two (mixup) or of four (mosaic).

    images: (H, W, C) with their boxes, relative to them. Returns the canvas (net height, net width, C), painted all
    over, and its boxes, relative to it, at most `max_boxes`.
    """
    if canvas is None:
        canvas = np.empty((net[1], net[0], images[0][0].shape[2]), np.uint8)
    boxes_by_image: list[Boxes] = []
    cut = cut_point(net, rng) if len(images) > 2 else (0, 0)
    for index, ((image, boxes), params) in enumerate(zip(images, draws, strict=True)):
        size = image.shape[1], image.shape[0]
        sides = margins(options, params, size, net)
        if len(images) > 2:
            corner = bool(rng.integers(2))
            placement = tile(index, cut, sides, params.flip, corner, size, net, options.mosaic_bound)
        else:
            placement = place_image(sides, params.flip, size, net)
        boxes = place_boxes(boxes[rng.permutation(len(boxes))], placement, size, net)
        if index and len(images) == 2:
            other = np.empty_like(canvas)
            blur_and_noise(paint(image, placement, other, params), params, boxes, placement, net)
            canvas[:] = cv2.addWeighted(canvas, 0.5, other, 0.5, 0).reshape(canvas.shape)
        else:
            blur_and_noise(paint(image, placement, canvas, params), params, boxes, placement, net)
        boxes_by_image.append(boxes)
    return canvas, np.concatenate(boxes_by_image)[: options.max_boxes]


def images_per_sample(options: Augmentation, chance: float) -> int:
    """Number of images that make up a sample: 1, 2 (mixup) or 4 (mosaic)."""
    if not options.mixup or chance >= options.mixing_share:
        return 1
    return 4 if options.mixup == MOSAIC else 2


def tile(
    index: int,
    cut: Size,
    sides: tuple[int, int, int, int],
    flip: bool,
    corner: bool,
    image: Size,
    net: Size,
    bound: bool,
) -> Placement:
    """Where one of four images goes (0 left top, 1 right top, 2 left bottom, 3 right bottom).

    Darknet stretches each cropped image over the whole input and copies a window of it; here only the window is
    made. Its source is rounded to whole pixels, and the boxes follow the rounded one. `corner` moves the crop so that
    the image's own border meets the canvas border. With `bound`, boxes end at their tile (`mosaic_bound`), else at
    the border of the stretched image.
    """
    left, right, top, bottom = sides
    at_right, at_bottom = bool(index % 2), index >= 2
    if corner:
        left, right = (0, left + right) if at_right == flip else (left + right, 0)
        top, bottom = (top + bottom, 0) if at_bottom else (0, top + bottom)
    left, right, top, bottom = clamp_margins((left, right, top, bottom), image)
    before, after = (right, left) if flip else (left, right)
    x = _span(at_right, cut[0], before, after, image[0], net[0])
    y = _span(at_bottom, cut[1], top, bottom, image[1], net[1])
    source_x, source_width = _source(x, left, image[0] - left - right, net[0], flip)
    source_y, source_height = _source(y, top, image[1] - top - bottom, net[1], False)
    target = (x[0], y[0], x[1], y[1])
    stretched = (max(-x[2], 0), max(-y[2], 0), min(net[0] - x[2], net[0]), min(net[1] - y[2], net[1]))
    return Placement((source_x, source_y, source_width, source_height), target, target if bound else stretched, flip)


def _span(second_half: bool, cut: int, before: int, after: int, image: int, net: int) -> tuple[int, int, int]:
    """Along one axis: first and last canvas pixel of the tile, and the stretched image's pixel at canvas pixel 0.

    Padding at the inner side is shifted out of sight as second_half as the tile allows (left_shift … bot_shift).
    """
    if second_half:
        return cut, net, min(cut, max(0, -before * net // image)) - cut
    return 0, cut, net - cut - min(net - cut, max(0, -after * net // image))


def _source(span: tuple[int, int, int], first: int, length: int, net: int, flip: bool) -> tuple[int, int]:
    """The image pixels behind a span: first and number, at least one."""
    low, high = span[0] + span[2], span[1] + span[2]
    if flip:
        low, high = net - high, net - low
    start = round(first + low * length / net)
    return start, max(round(first + high * length / net) - start, 1)
