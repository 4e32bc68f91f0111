"""Conversion of plain cfgs to cross stage partial ones."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.model.network import Network
from darknet_py.zoo import build, net_sections
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.csp_transform import to_csp
from darknet_py.zoo.design import Design
from darknet_py.zoo.residual import small_resnet
from darknet_py.zoo.stages import FUSIONS, SPLITS, Csp

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def converted(tmp_path: Path):
    def make(text: str, csp: Csp | None = None) -> Graph:
        path = tmp_path / "plain.cfg"
        path.write_text(text)
        return parse_text(to_csp(path, csp or Csp()).text, strict=True)

    return make


def shapes(graph: Graph) -> list[tuple]:
    return [(node.type, node.sources, tuple(node.output), node.parameters) for node in graph]


def test_resnext50_becomes_the_published_csresnext50(converted):
    ours, published = shapes(converted(build("resnext50"))), shapes(parse_text(build("csresnext50")))
    assert ours[:-3] == published[:-3]
    assert sum(row[3] for row in ours) == sum(row[3] for row in published)


def test_resnet50_becomes_the_published_csresnet50(converted):
    # All but the order of mean and scores at the end.
    assert shapes(converted(build("resnet50")))[:-3] == shapes(parse_text(build("csresnet50")))[:-3]


def test_darknet53_becomes_csdarknet53_except_for_the_width_of_the_first_stage(converted):
    ours, published = shapes(converted(build("darknet53"))), shapes(parse_text(build("csdarknet53")))
    assert len(ours) == len(published)
    assert [row[:2] for row in ours] == [row[:2] for row in published]
    assert ours[12:] == published[12:]


@pytest.mark.parametrize(
    "name", ["resnet50", "resnet101", "resnext50", "darknet53", "densenet201", "mobilenet-v2", "yolov3"]
)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_of_plain_network_gets_cheaper(converted, name: str, fusion: str, split: str):
    plain = parse_text(build(name))
    csp = converted(build(name), Csp(0.5, fusion, split))
    assert csp.bflops < 0.96 * plain.bflops
    assert [tuple(node.output) for node in csp if node.type == "yolo"] == [
        tuple(node.output) for node in plain if node.type == "yolo"
    ]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnext50"])
def test_resnets_with_projections_can_be_converted(converted, backbone: str):
    plain = Design(backbone, head="classifier").text()
    assert converted(plain).bflops < 0.9 * parse_text(plain).bflops


def test_gamma_divides_the_channels(converted):
    graph = converted(build("darknet53"), Csp(0.25, "last"))
    joined = [node for node in graph if node.type == "route" and len(node.sources) == 2]
    assert [tuple(shape.c for shape in node.inputs) for node in joined] == [
        (3 * width // 4, width // 4) for width in (64, 128, 256, 512, 1024)
    ]


def test_later_layer_references_are_renumbered(converted):
    plain, csp = parse_text(build("yolov3")), converted(build("yolov3"))

    def laterals(graph: Graph) -> list[tuple[int, ...]]:
        return [tuple(shape.c for shape in node.inputs) for node in graph if node.type == "route"][-4:]

    assert laterals(csp) == laterals(plain)


def test_other_text_is_unchanged(converted, tmp_path: Path):
    text = (
        "# mine\n[net]\nwidth=32\nheight=32\nchannels=3\n\n# stem\n[convolutional]\nfilters=32\nsize=3\npad=1\n"
        "activation=mish\n\n[convolutional]\nbatch_normalize=1\nfilters=16\nsize=1\nactivation=mish\n\n"
        "[convolutional]\nbatch_normalize=1\nfilters=32 # wide\nsize=3\npad=1\nactivation=mish\n\n"
        "[shortcut]\nfrom=-3\nactivation=linear\n\n[convolutional]\nfilters=8\nsize=1\n# the end\n"
    )
    path = tmp_path / "small.cfg"
    path.write_text(text)
    result = to_csp(path, Csp())
    assert result.text.startswith("# mine\n[net]\n")
    assert result.text.endswith("[convolutional]\nfilters=8\nsize=1\n\n# the end\n")
    assert "filters=16\nsize=1" in result.text and "# stem" in result.text
    assert result.text.count("activation=mish") == 3 + 4  # what is put in takes the blocks' activation
    assert result.changes[0] == "layers 1-3, 1 residual block at 32 x 32: 16 of 32 channels skip them, 16 go through"
    assert result.changes[-1].startswith("parameters ")


def test_banner_comments_of_the_zoo_are_renumbered(converted, tmp_path: Path):
    path = tmp_path / "darknet53.cfg"
    path.write_text(build("darknet53"))
    text = to_csp(path, Csp()).text
    assert "# ---- Layer 0: stem" in text
    assert "# ---- Layers 1-10: stage at stride 2" in text
    assert "# ---- Layers 105-107: 1000 classes" in text


def test_converted_network_learns(converted):
    plain = Design("resnet18", head="classifier", classes=10, size=(64, 64)).text()
    network = Network(converted(plain, Csp(0.25, "last", "groups")))
    network.train()
    report = network.loss(torch.rand(2, 3, 64, 64), torch.eye(10)[[3, 5]])
    report.total.backward()
    assert torch.isfinite(report.total)


@pytest.mark.parametrize("name", ["yolov3-tiny-prn", "darknet19", "enetb0"])
def test_cfg_without_plain_stages_is_an_error(converted, name: str):
    with pytest.raises(DarknetError, match="expected stages of residual blocks of one shape or dense layers"):
        converted(build(name))


@pytest.mark.parametrize("name", ["csdarknet53", "csresnext50-omega", "cspeleenet", "yolov4", "yolov4-tiny"])
def test_csp_network_is_an_error_that_says_so(converted, name: str):
    with pytest.raises(DarknetError, match="got a network that is cross stage partial already"):
        converted(build(name))


def block(filters: int, extra: str = "") -> str:
    return (
        f"[convolutional]\n{extra}filters={filters // 2}\nactivation=leaky\n"
        f"[convolutional]\nfilters={filters}\nsize=3\npad=1\n[shortcut]\nfrom=-3\n"
    )


NET = "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=32\nsize=3\npad=1\nactivation=leaky\n"
DOWN = "[convolutional]\nfilters=64\nsize=3\nstride=2\npad=1\nactivation=leaky\n"


def test_stages_that_share_weights_stay_as_they_are(tmp_path: Path):
    """TridentNet: layer 5 has the weights of layer 1, so neither stage can get other channels."""
    path = tmp_path / "shared.cfg"
    path.write_text(NET + block(32) + "[route]\nlayers=0\n" + block(32, "share_index=1\n") + DOWN + block(64))
    result = to_csp(path, Csp())
    Network(parse_text(result.text, strict=True))
    assert result.text.count("[convolutional]") == 1 + 2 + 2 + 1 + (2 + 2 + 2)
    assert [line for line in result.changes if "share weights" in line] == [
        "layers 1-3 stay as they are: they share weights with other layers",
        "layers 5-7 stay as they are: they share weights with other layers",
    ]
    path.write_text(NET + block(32) + "[route]\nlayers=0\n" + block(32, "share_index=1\n"))
    with pytest.raises(DarknetError, match="expected stages with weights of their own, got stages that share weights"):
        to_csp(path, Csp())


def test_larger_result_is_remarked(tmp_path: Path):
    path = tmp_path / "one.cfg"
    path.write_text(NET + block(32).replace("filters=16", "filters=4"))  # little to save, two convolutions to add
    assert to_csp(path, Csp()).changes[-1] == (
        "the cross stage partial version has more parameters and BFLOPs than the plain network"
    )
    path.write_text(build("darknet53"))
    assert to_csp(path, Csp()).changes[-1].startswith("parameters ")


def test_indivisible_groups_are_an_error(converted):
    with pytest.raises(DarknetError, match="expected a multiple of 8 channels to split by groups, got 20"):
        converted(
            "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=20\n[convolutional]\nfilters=8\n"
            "[convolutional]\nfilters=20\n[shortcut]\nfrom=-3\n",
            Csp(0.125, split="groups"),
        )


def test_block_that_adds_other_sizes_is_replaced(converted):
    """The opening block of ResNet-18 as pjreddie writes it; AlexeyAB's Darknet refuses such a sum."""
    cfg = CfgWriter("", net_sections.classifier_net(1, size=64))
    small_resnet(cfg, counts=(2, 2, 2, 2))
    plain = parse_text(cfg.text())
    csp = converted(cfg.text())

    def unequal(graph: Graph) -> int:
        return sum(node.type == "shortcut" and node.inputs[0] != node.inputs[1] for node in graph)

    assert unequal(plain) == 3 and unequal(csp) == 0
    assert csp.layers[-1].output == plain.layers[-1].output
    assert csp.bflops < 0.7 * plain.bflops


def test_committed_conversions_are_read_by_c_darknet_and_up_to_date(tmp_path: Path):
    with (ROOT / "docs" / "csp_conversions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["C Darknet"] == "equal" if row["result"] == "converted" else row["remarks"], row
    known = {(row["repository"], row["cfg"], row["kind"]): row for row in rows}
    assert len(known) == len(rows)
    kinds = {kind for _, _, kind in known if kind != "all"}
    assert len(kinds) == 6
    for repository, cfg, kind in known:  # either all kinds are refused for one reason, or each has a row
        assert kind == "all" or all((repository, cfg, other) in known for other in kinds), cfg
    for name in ("darknet53", "yolov3", "resnet101"):  # of the zoo, equal to AlexeyAB's
        path = tmp_path / f"{name}.cfg"
        path.write_text(build(name))
        row = known["AlexeyAB/darknet", f"{name}.cfg", "csp, conv"]
        assert row["parameters CSP"] == str(parse_text(to_csp(path, Csp()).text).parameters), name
