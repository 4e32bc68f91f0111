"""Networks built from the names of their parts."""

from __future__ import annotations

import pytest
import torch

from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.model.network import Network
from darknet_py.zoo import build
from darknet_py.zoo.backbones import BACKBONES
from darknet_py.zoo.design import ATTENTIONS, NECKS, TOPS, Design
from darknet_py.zoo.stages import FUSIONS, SPLITS, Csp


def graph_of(*args: object, **parts: object) -> Graph:
    return parse_text(Design(*args, **parts).text(), strict=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_backbone_in_every_fusion_and_split(backbone: str, fusion: str):
    plain = graph_of(backbone, head="classifier")
    if BACKBONES[backbone].divides:
        with pytest.raises(DarknetError, match=f"the blocks of {backbone} are cross stage partial already"):
            graph_of(backbone, Csp(0.5, fusion), head="classifier")
        return
    bflops = [graph_of(backbone, Csp(gamma, fusion, "conv"), head="classifier").bflops for gamma in (0.75, 0.25)]
    groups = graph_of(backbone, Csp(0.5, fusion, "groups"), head="classifier")
    assert bflops[0] < bflops[1]
    assert max(bflops[0], groups.bflops) < plain.bflops


@pytest.mark.parametrize("neck", NECKS)
def test_every_neck_with_every_top_and_number_of_levels(neck: str):
    tops = ("", *TOPS) if neck != "csp-panet" else ("",)
    for top, levels in [(top, 3) for top in tops] + [("", 1), ("", 2)]:
        graph = graph_of("darknet-ref", Csp(), neck=neck, top=top, levels=levels, classes=3)
        heads = sorted(node.output.w for node in graph if node.type == "yolo")
        assert heads == [7, 14, 28][:levels]  # of 448 pixels: strides 64, 32 and 16


def test_neck_options_change_the_layers():
    def types(**parts: object) -> set[str]:
        return {node.type for node in graph_of("darknet53", **parts)}

    assert {"sam"} <= types(attention="sam")
    assert {"scale_channels", "avgpool"} <= types(attention="se")
    maxout = [node for node in graph_of("peleenet", neck="efm") if getattr(node.spec, "depth", False)]
    assert len(maxout) == 7
    assert {node.spec.dilation for node in graph_of("peleenet", top="rfb") if node.type == "convolutional"} == {1, 3, 5}
    assert {"reorg", "region"} <= types(head="yolov2")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.75])
def test_gamma_is_the_fraction_that_skips_the_blocks(split: str, gamma: float):
    graph = graph_of("darknet53", Csp(gamma, "last", split), head="classifier")
    block = next(node for node in graph if node.type == "shortcut" and node.output.w == 8)
    assert block.output.c == (1 - gamma) * 1024
    joined = next(
        node for node in graph if node.index > block.index and len(node.sources) == 2 and node.type == "route"
    )
    assert [shape.c for shape in joined.inputs] == [(1 - gamma) * 1024, gamma * 1024]


def test_fusions_differ_by_their_transitions():
    def transitions(fusion: str) -> list[str]:
        graph = graph_of("darknet53", Csp(0.5, fusion), head="classifier")
        last = max(node.index for node in graph if node.type == "shortcut")
        return [node.type for node in graph.layers[last + 1 :]][:3]

    assert transitions("csp") == ["convolutional", "route", "convolutional"]
    assert transitions("first") == ["route", "convolutional", "avgpool"]
    assert transitions("last") == ["convolutional", "route", "avgpool"]


@pytest.mark.parametrize(
    "parts", [{"neck": "efm"}, {"neck": "gfm", "attention": "se"}, {"head": "yolov4", "top": "rfb"}]
)
def test_design_learns(parts: dict[str, str]):
    graph = graph_of("peleenet", Csp(0.25, "last", "groups"), classes=2, size=(64, 96), **parts)
    torch.manual_seed(0)
    network = Network(graph)
    network.train()
    truth = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.3], [1, 0, 0.3, 0.6, 0.2, 0.2]])
    report = network.loss(torch.rand(2, 3, 96, 64), truth)
    report.total.backward()
    assert torch.isfinite(report.total)
    assert all(value.grad is not None for value in network.parameters())


def test_classes_and_anchors_are_as_requested():
    graph = graph_of("resnet10", classes=5, levels=2, anchors=(10, 20, 30, 40, 50.5, 60, 70, 80))
    heads = [node.spec for node in graph if node.type == "yolo"]
    assert [(head.mask, head.classes) for head in heads] == [((2, 3), 5), ((0, 1), 5)]
    assert heads[0].anchors == ((10, 20), (30, 40), (50.5, 60), (70, 80))
    region = next(
        node.spec for node in graph_of("resnet10", head="yolov2", anchors=(1, 1.5, 2, 3)) if node.type == "region"
    )
    assert region.anchors == ((1, 1.5), (2, 3))


def test_neck_attention_is_before_each_head_only():
    graph = graph_of("peleenet", Csp(split="groups"), neck="efm", neck_attention="sam")
    theirs = parse_text(build("cspeleenet-efm-sam"))
    assert [(n.type, n.sources, n.output) for n in graph] == [(n.type, n.sources, n.output) for n in theirs]
    assert sum(node.type == "sam" for node in graph) == 3
    for neck in NECKS:
        graph = graph_of("resnet10", neck=neck, neck_attention="se", levels=2)
        assert sum(node.type == "scale_channels" for node in graph) == 2, neck


@pytest.mark.parametrize(
    ("parts", "batch", "batches", "steps"),
    [
        ({"classes": 3}, 64, 6000, (4800, 5400)),
        ({"classes": 20}, 64, 40000, (32000, 36000)),
        ({}, 64, 500200, (400160, 450180)),
        ({"classes": 2, "batch": 12, "batches": 1000}, 12, 1000, (800, 900)),
        ({"head": "classifier"}, 128, 800000, None),
        ({"head": "classifier", "classes": 10}, 128, 8000, None),
    ],
)
def test_schedule_fits_the_number_of_classes(
    parts: dict[str, object], batch: int, batches: int, steps: tuple[int, int] | None
):
    """AlexeyAB's rule for detectors: 2000 iterations per class, at least 6000, steps at 80 and 90 %."""
    net = graph_of("resnet10", **parts).net
    assert (net.batch, net.max_batches) == (batch, batches)
    assert net.batch % net.subdivisions == 0 and net.burn_in < batches
    assert steps is None or tuple(net.steps) == steps


def test_pooling_on_top_of_exact_fusion_costs_little():
    plain, spp = (graph_of("peleenet", Csp(), neck="efm", top=top) for top in ("", "spp"))
    assert plain.parameters == spp.parameters
    assert plain.bflops < spp.bflops < 1.01 * plain.bflops


def test_context_enhancement_is_for_one_square_size():
    graph = graph_of("peleenet", neck="cem", levels=2, head="yolov4", size=(320, 320))
    assert {node.output.w for node in graph if node.type == "upsample"} == {20}
    assert {node.spec.random for node in graph if node.type == "yolo"} == {0}


def test_elastic_and_attention_apply_to_blocks_only():
    graph = graph_of("darknet53", Csp(), elastic=True, attention="sam")
    assert graph.net.width == 448  # 64 divides it
    assert sum(node.type == "upsample" for node in graph) == 1 + 2 + 8 + 8 + 4 + 2
    assert sum(node.type == "sam" for node in graph) == 1 + 2 + 8 + 8 + 4


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"backbone": "pelenet"}, "did you mean 'peleenet'"),
        ({"neck": "pan"}, "neck: expected one of fpn"),
        ({"neck_attention": "sam", "head": "classifier"}, "neck-attention: expected none for the head classifier"),
        ({"neck_attention": "eca"}, "neck-attention: expected one of se, sam"),
        ({"neck": "cem", "size": (320, 416)}, "size: expected a square input for the neck cem, got 320 x 416"),
        ({"batches": -1}, "batches: expected a positive number"),
        ({"head": "yolov5"}, "head: expected one of yolov2"),
        ({"attention": "cbam"}, "attention: expected one of se, sam"),
        ({"top": "aspp"}, "top: expected one of spp, rfb"),
        ({"levels": 4}, "levels: expected 1 … 3, got 4"),
        ({"classes": -1}, "classes: expected a positive number"),
        ({"anchors": (1, 2, 3)}, "anchors: expected pairs"),
        ({"anchors": (1, 2, 3, 4)}, "anchors: expected the same number for each of 3 levels, got 2"),
        ({"size": (400, 416)}, "a width and height divisible by 32, got 400 x 416"),
        ({"elastic": True}, "elastic: expected one of resnet50"),
        ({"head": "yolov2", "neck": "efm"}, "neck: expected none for the head yolov2"),
        ({"head": "classifier", "top": "spp"}, "top: expected none for classifier"),
        ({"activation": "lekay"}, "leaky"),
    ],
)
def test_incompatible_parts_are_an_error(parts: dict[str, object], message: str):
    with pytest.raises(DarknetError, match=message):
        Design(**{"backbone": "peleenet", **parts}).text()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("csp", "message"),
    [
        ({"gamma": 1.0}, "gamma: expected a number between 0 and 1, got 1"),
        ({"gamma": 0.3, "split": "groups"}, "gamma: expected 1/8 … 7/8 for a split by groups, got 0.3"),
        ({"fusion": "middle"}, "fusion: expected one of csp, first, last"),
        ({"split": "half"}, "split: expected one of conv, groups"),
    ],
)
def test_invalid_csp_options_are_an_error(csp: dict[str, object], message: str):
    with pytest.raises(DarknetError, match=message):
        Csp(**csp)  # type: ignore[arg-type]


def test_every_attention_is_listed():
    assert ATTENTIONS == ("se", "sam")
