"""Activation maps: the output of each layer for an image, as small images for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.view.data_uri import data_uri
from darknet_py.view.graph_values import ValuesView, values_view

if TYPE_CHECKING:
    from darknet_py.model.network import Network

TILES = (4, 3)  # across, down: the mean over the channels, then the channels that vary most
NOTE = (
    "First the mean of the absolute values over all channels, then the channels that vary most; "
    "dark is the lowest value of a tile, yellow its highest."
)
Pixels = NDArray[np.uint8]  # (height, width, 3) RGB
_TILE = 56
_GAP = 2
_QUALITY = 82


class Maps(NamedTuple):
    """What the layers gave for an image, by their numbers (-1: the input).

    images: data URIs. tile: width and height of one tile in pixels. values: histograms. note: what the images show.
    """

    images: Mapping[int, str]
    tile: tuple[int, int]
    values: Mapping[int, ValuesView]
    note: str = NOTE


def activation_maps(net: Network, image: Tensor) -> Maps:
    """Runs the network once and draws every layer's output.

    Each output is drawn as soon as it is computed, so that no more of them are held than the network holds.

    Args:
        net: The network, in eval mode.
        image: (C, H, W) float in 0..1, as `inference.detect.prepare` gives it.

    Returns:
        An image of each layer's output and of the input.
    """
    height, width = image.shape[1:]
    tile = (_TILE, min(max(round(_TILE * height / max(width, 1)), _TILE // 2), 2 * _TILE))
    images = {-1: _encoded(_input(image, tile))}
    values = {-1: values_view("input", image)}

    def draw(index: int, output: Tensor) -> None:
        images[index] = _encoded(_output(output, tile))
        values[index] = values_view("activations", output)

    hooks = [
        layer.register_forward_hook(lambda module, inputs, output, index=index: draw(index, output[0]))
        for index, layer in enumerate(net.layers)
    ]
    try:
        with torch.inference_mode():
            net(image[None].to(net.device))
    finally:
        for hook in hooks:
            hook.remove()
    return Maps(images, tile, values)


def _input(image: Tensor, tile: tuple[int, int]) -> Pixels:
    """The image, then its channels."""
    values = image.detach().float().cpu().numpy()
    shown = values if len(values) == 3 else values[:1].repeat(3, 0)
    color = cv2.resize((shown.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8), tile, interpolation=cv2.INTER_AREA)
    return _mosaic([color, *(_colored(channel, tile) for channel in values[: TILES[0] * TILES[1] - 1])], tile)


def _output(output: Tensor, tile: tuple[int, int]) -> Pixels:
    """output: (C, H, W)."""
    if output.shape[1] * output.shape[2] == 1:
        return _bars(output.detach().float().cpu().numpy().ravel(), tile)
    values = torch.nan_to_num(output.detach().float())
    spread = values.flatten(1).std(1, correction=0)
    chosen = spread.topk(min(TILES[0] * TILES[1] - 1, len(values))).indices
    maps = [values.abs().mean(0), *values[chosen]]
    return _mosaic([_colored(channel.cpu().numpy(), tile) for channel in maps], tile)


def _colored(values: np.ndarray, tile: tuple[int, int]) -> Pixels:
    """(H, W) → tile in colors; the lowest value is dark, the highest yellow."""
    low, high = float(values.min()), float(values.max())
    gray = ((values - low) / (high - low or 1) * 255).astype(np.uint8)
    smaller = gray.shape[1] > tile[0] or gray.shape[0] > tile[1]
    fitting = cv2.resize(gray, tile, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)
    return np.ascontiguousarray(cv2.applyColorMap(fitting, cv2.COLORMAP_VIRIDIS)[..., ::-1], np.uint8)


def _bars(values: np.ndarray, tile: tuple[int, int]) -> Pixels:
    """A vector as bars over the whole image: from zero up or down, the largest of neighbors where they are many."""
    mosaic = _mosaic([], tile)
    height, width = mosaic.shape[:2]
    values = np.nan_to_num(values)
    groups = np.array_split(values, min(width, len(values)))
    tall = np.array([group[np.abs(group).argmax()] for group in groups])
    low, high = min(tall.min(), 0.0), max(tall.max(), 0.0)
    rows = ((high - np.stack([np.minimum(tall, 0), np.maximum(tall, 0)])) / (high - low or 1) * (height - 1)).round()
    edges = np.linspace(0, width, len(tall) + 1).round().astype(int)
    for left, right, bottom, top in zip(edges, edges[1:], *rows.astype(int), strict=False):
        mosaic[top : bottom + 1, left : max(right - (right - left > 3), left + 1)] = (94, 201, 98)
    return mosaic


def _mosaic(tiles: list[Pixels], tile: tuple[int, int]) -> Pixels:
    across, down = TILES
    width, height = tile
    mosaic = np.full((down * (height + _GAP) - _GAP, across * (width + _GAP) - _GAP, 3), (30, 36, 48), np.uint8)
    for at, content in enumerate(tiles):
        top, left = at // across * (height + _GAP), at % across * (width + _GAP)
        mosaic[top : top + height, left : left + width] = content
    return mosaic


def _encoded(mosaic: Pixels) -> str:
    _, data = cv2.imencode(".jpg", mosaic[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data_uri(data.tobytes(), "image/jpeg")
