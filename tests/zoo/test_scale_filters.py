"""Narrower and wider networks."""

from __future__ import annotations

import pytest
import torch

from darknet_py.errors import DarknetError
from darknet_py.graph.graph import build_graph, parse_text
from darknet_py.model.network import Network
from darknet_py.zoo import build
from darknet_py.zoo.design import Design
from darknet_py.zoo.scale_filters import scale_filters
from darknet_py.zoo.stages import Csp

# Each kind of layer whose channels depend on others, with the filters that a factor of 1/2 gives, by hand.
_PARTS = """\
[net]
width=32
height=32
channels=3
[convolutional]  # 32 -> 16
filters=32
size=3
stride=1
pad=1
[convolutional]  # depthwise: 16 filters in 16 groups
filters=32
groups=32
size=3
pad=1
[convolutional]  # 48 -> 24, in two groups
filters=48
groups=2
size=1
[route]  # half of them: 12
layers=-1
groups=2
group_id=1
[convolutional]  # 24 -> 12, the same as the slice
filters=24
size=1
[shortcut]
from=-2
activation=linear
[route]  # 12 + 24
layers=-1,-4
[maxpool]  # 36 -> 18, rounded to a multiple of 4
maxpool_depth=1
out_channels=36
size=1
stride=1
[convolutional]  # of a head: 3 anchors x (5 + 1 class), stays
filters=18
size=1
[yolo]
mask=0,1,2
anchors=4,4, 8,8, 16,16
num=3
classes=1
"""


def test_every_kind_of_layer_follows():
    graph = build_graph(scale_filters(parse_text(_PARTS), 0.5))
    assert [node.output.c for node in graph] == [16, 16, 24, 12, 12, 12, 36, 20, 18, 18]
    assert [node.spec.groups for node in graph][:4] == [1, 16, 2, 2]
    Network(graph)(torch.zeros(1, 3, 32, 32))


def test_half_of_darknet53_has_half_of_each_width():
    plain = parse_text(build("yolov3"))
    half = build_graph(scale_filters(plain, 0.5))
    for before, after in zip(plain, half, strict=True):
        feeds_head = before.type == "yolo" or plain.layers[min(before.index + 1, len(plain.layers) - 1)].type == "yolo"
        assert after.output.c == before.output.c // (1 if feeds_head else 2), before.index
    assert scale_filters(plain, 1).text == plain.text


def test_parts_of_a_sum_that_round_differently_are_refused():
    text = _PARTS.replace("filters=24\n", "filters=20\n").replace("filters=48\n", "filters=40\n")
    with pytest.raises(DarknetError, match="parts of one width for the sum in layer 5, got 16 and 14"):
        scale_filters(parse_text(text), 0.7)
    for factor in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(DarknetError, match="scale: expected a positive number"):
            scale_filters(parse_text(_PARTS), factor)


@pytest.mark.parametrize("neck", ["panet", "prn", "efm", "csp-panet"])
@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25])
def test_scaled_designs_keep_their_layers(neck: str, scale: float):
    parts = {"csp": Csp(), "neck": neck, "classes": 3}
    plain = parse_text(Design("peleenet", **parts).text(), strict=True)  # type: ignore[arg-type]
    scaled = parse_text(Design("peleenet", scale=scale, **parts).text(), strict=True)  # type: ignore[arg-type]
    assert [node.type for node in scaled] == [node.type for node in plain]
    assert [node.output[1:] for node in scaled] == [node.output[1:] for node in plain]
    # Multiplications grow by the square of the width, but for the first layer, the heads and rounding.
    assert scaled.bflops / plain.bflops == pytest.approx(scale**2, rel=0.1)
