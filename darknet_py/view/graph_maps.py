"""What each layer of a network makes of an image, as small pictures for the page."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from darknet_py.view.draw import Picture

if TYPE_CHECKING:
    from darknet_py.model.network import Network

TILES = (4, 3)  # across, down: the mean over the channels, then the channels that vary most
NOTE = (
    "First the mean of the absolute values over all channels, then the channels that vary most; "
    "dark is the lowest value of a tile, yellow its highest."
)
_TILE = 56
_GAP = 2
_QUALITY = 82


class Maps(NamedTuple):
    """pictures: layer (-1: the input) → data URI. tile: width and height of one tile in pixels."""

    pictures: dict[int, str]
    tile: tuple[int, int]


def activation_maps(net: Network, image: Tensor) -> Maps:
    """Runs the network once and draws every layer's output.

    image: (C, H, W) float in 0..1, as `model.predict.prepare` gives it. Each output is drawn when it is made, so that
    no more of them are held than the network holds.
    """
    height, width = image.shape[1:]
    tile = (_TILE, min(max(round(_TILE * height / max(width, 1)), _TILE // 2), 2 * _TILE))
    pictures = {-1: _encoded(_input(image, tile))}
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output, index=index: pictures.update(
            {index: _encoded(_output(output[0], tile))}
        ))
        for index, layer in enumerate(net.layers)
    ]  # fmt: skip
    try:
        with torch.inference_mode():
            net(image[None].to(net.device))
    finally:
        for hook in hooks:
            hook.remove()
    return Maps(pictures, tile)


def _input(image: Tensor, tile: tuple[int, int]) -> Picture:
    """The image, then its channels."""
    values = image.detach().float().cpu().numpy()
    shown = values if len(values) == 3 else values[:1].repeat(3, 0)
    colour = cv2.resize(
        (shown.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8), tile, interpolation=cv2.INTER_AREA
    )
    return _mosaic([colour, *(_coloured(channel, tile) for channel in values[: TILES[0] * TILES[1] - 1])], tile)


def _output(output: Tensor, tile: tuple[int, int]) -> Picture:
    """output: (C, H, W)."""
    if output.shape[1] * output.shape[2] == 1:
        return _bars(output.detach().float().cpu().numpy().ravel(), tile)
    values = torch.nan_to_num(output.detach().float())
    spread = values.flatten(1).std(1, correction=0)
    chosen = spread.topk(min(TILES[0] * TILES[1] - 1, len(values))).indices
    maps = [values.abs().mean(0), *values[chosen]]
    return _mosaic([_coloured(channel.cpu().numpy(), tile) for channel in maps], tile)


def _coloured(values: np.ndarray, tile: tuple[int, int]) -> Picture:
    """(H, W) → tile in colours; the lowest value is dark, the highest yellow."""
    low, high = float(values.min()), float(values.max())
    grey = ((values - low) / (high - low or 1) * 255).astype(np.uint8)
    smaller = grey.shape[1] > tile[0] or grey.shape[0] > tile[1]
    fitting = cv2.resize(grey, tile, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)
    return np.ascontiguousarray(cv2.applyColorMap(fitting, cv2.COLORMAP_VIRIDIS)[..., ::-1], np.uint8)


def _bars(values: np.ndarray, tile: tuple[int, int]) -> Picture:
    """A vector as bars over the whole picture: from zero up or down, the largest of neighbours where they are many."""
    picture = _mosaic([], tile)
    height, width = picture.shape[:2]
    values = np.nan_to_num(values)
    groups = np.array_split(values, min(width, len(values)))
    tall = np.array([group[np.abs(group).argmax()] for group in groups])
    low, high = min(tall.min(), 0.0), max(tall.max(), 0.0)
    rows = ((high - np.stack([np.minimum(tall, 0), np.maximum(tall, 0)])) / (high - low or 1) * (height - 1)).round()
    edges = np.linspace(0, width, len(tall) + 1).round().astype(int)
    for left, right, bottom, top in zip(edges, edges[1:], *rows.astype(int), strict=False):
        picture[top : bottom + 1, left : max(right - (right - left > 3), left + 1)] = (94, 201, 98)
    return picture


def _mosaic(tiles: list[Picture], tile: tuple[int, int]) -> Picture:
    across, down = TILES
    width, height = tile
    picture = np.full((down * (height + _GAP) - _GAP, across * (width + _GAP) - _GAP, 3), (30, 36, 48), np.uint8)
    for at, content in enumerate(tiles):
        top, left = at // across * (height + _GAP), at % across * (width + _GAP)
        picture[top : top + height, left : left + width] = content
    return picture


def _encoded(picture: Picture) -> str:
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
