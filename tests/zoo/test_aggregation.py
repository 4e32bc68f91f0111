"""Blocks after CSPNet: channels and connections, against published networks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from darknet_py.graph.gradient_paths import gradient_paths
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.zoo import aggregation, build
from darknet_py.zoo.cfg_writer import CfgWriter
from tests.zoo.published import fingerprint


def block(write: str, *arguments: int) -> Graph:
    cfg = CfgWriter("", {"": {"width": 8, "height": 8, "channels": 3}})
    cfg.part("")
    cfg.conv(32)
    getattr(aggregation, write)(cfg, *arguments)
    return parse_text(cfg.text(), strict=True)


def test_vovnet39_has_the_published_size():
    """Lee et al., 2019: 22.6 M parameters, 7.1 G multiply-adds at 224 x 224."""
    graph = parse_text(build("vovnet39"))
    assert graph.parameters / 1e6 == pytest.approx(22.6, abs=0.05)
    assert graph.bflops / 2 == pytest.approx(7.1, abs=0.05)


def test_elan_is_the_backbone_of_yolov7():
    """The fingerprint is that of the first 51 layers of AlexeyAB's cfg/yolov7.cfg at 224 x 224."""
    graph = parse_text(build("elan"))
    backbone = replace(graph, layers=graph.layers[:51])
    assert fingerprint(backbone) == "e10d9c94a898d6a6"


@pytest.mark.parametrize(
    ("write", "arguments", "concatenated", "out"),
    [
        ("osa", (16, 64), [16, 16, 16, 16, 16, 32], 64),
        ("elan", (16, 64), [16, 16, 16, 16], 64),
        ("gelan", (32, 8, 64), [16, 16, 8, 8], 64),
        ("gelan_elan", (32, 8, 64), [16, 16, 8, 8], 64),
        ("c3", (64, 2), [32, 32], 64),
        ("c2f", (64, 3), [32, 32, 32, 32, 32], 64),
        ("csp_stackrep", (64, 2), [32, 32], 64),
    ],
)
def test_channels_of_a_block(write: str, arguments: tuple[int, ...], concatenated: list[int], out: int):
    graph = block(write, *arguments)
    joined = [node for node in graph if node.type == "route" and len(node.sources) > 1][-1]
    assert [shape.c for shape in joined.inputs] == concatenated
    assert graph.layers[-1].output.c == out
    assert graph.layers[-1].sources == (joined.index,)


@pytest.mark.parametrize(
    ("write", "arguments", "lengths"),
    [
        # after the 3 -> 32 convolution: one step of 1x1, steps of 3x3, the last 1x1
        ("elan", (16, 64), {3: 2, 5: 1, 7: 1}),
        ("extended_elan", (16, 64), {3: 4, 5: 2, 7: 2}),
        ("osa", (16, 64), {2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1}),
        ("c2f", (64, 1), {3: 3, 5: 1}),
    ],
)
def test_paths_through_a_block(write: str, arguments: tuple[int, ...], lengths: dict[int, int]):
    found = gradient_paths(block(write, *arguments)).total.by_length
    assert {length: count for length, count in enumerate(found) if count} == lengths
