"""The networks of the zoo equal the published ones, layer by layer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from darknet_py.errors import CfgWarning
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.zoo import build
from tests.zoo.published import fingerprint

FINGERPRINTS = json.loads((Path(__file__).parents[1] / "golden" / "zoo_published.json").read_text())["networks"]

PUBLISHED = {
    "alexeyab__csresnext50-panet-spp": "csresnext50-panet-spp",
    "alexeyab__csresnext50-panet-spp-original-optimal": "csresnext50-panet-spp-original-optimal",
    "alexeyab__darknet19": "darknet19",
    "alexeyab__darknet53": "darknet53",
    "alexeyab__enet-coco": "enet-coco",
    "alexeyab__resnet101": "resnet101",
    "alexeyab__yolov2": "yolov2",
    "alexeyab__yolov2-tiny": "yolov2-tiny",
    "alexeyab__yolov3": "yolov3",
    "alexeyab__yolov3-spp": "yolov3-spp",
    "alexeyab__yolov3-tiny": "yolov3-tiny",
    "alexeyab__yolov3-tiny-prn": "yolov3-tiny-prn",
    "alexeyab__yolov4": "yolov4",
    "alexeyab__yolov4-csp": "yolov4-csp",
    "alexeyab__yolov4-tiny": "yolov4-tiny",
    "alexeyab__yolov4x-mish": "yolov4x-mish",
    "alexeyab__yolov7-tiny": "yolov7-tiny",
    "csp__cfg__csdarknet53": "csdarknet53",
    "csp__cfg__csdarknet53-panet-spp": "csdarknet53-panet-spp",
    "csp__cfg__csmobilenet-v2": "csmobilenet-v2",
    "csp__cfg__csresnet50": "csresnet50",
    "csp__cfg__csresnext50": "csresnext50",
    "csp__cfg__csresnext50-elastic": "csresnext50-elastic",
    "csp__cfg__res2netlite72": "res2netlite72",
    "csp__cfg__resnet50": "resnet50",
    "fastest__yolo-fastest-1.1_coco__yolo-fastest-1.1": "yolo-fastest-1.1",
    "prn__yolov3-tiny-prn": "yolov3-tiny-prn",
    "ptyolov4__yolov4-pacsp": "yolov4-pacsp",
}
# These are published as they are tested, one image at a time; how they are trained stands in a comment.
TESTED_ONE_BY_ONE = {
    "alexeyab__darknet53",
    "alexeyab__yolov2",
    "alexeyab__yolov2-tiny",
    "alexeyab__yolov3",
    "alexeyab__yolov3-spp",
    "alexeyab__yolov3-tiny",
    "prn__yolov3-tiny-prn",
}

pytestmark = pytest.mark.filterwarnings(f"ignore::{CfgWarning.__module__}.CfgWarning")


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_layers_equal_the_published_file(name: str):
    """tools/zoo/originals.py writes the fingerprints and compares every option of every layer."""
    entry = FINGERPRINTS[name]
    assert fingerprint(parse_text(build(name, entry.get("classes")))) == entry["layers"], entry["file"]


def training_settings(text: str) -> str:
    """A published cfg with its commented-out training batch and subdivisions instead of batch=1."""
    without = re.sub(r"^(batch|subdivisions)=1$", "", text, flags=re.MULTILINE)
    return re.sub(r"^#\s*(batch|subdivisions)=", r"\1=", without, flags=re.MULTILINE)


def assert_same(ours: Graph, theirs: Graph) -> None:
    assert ours.net == theirs.net
    assert len(ours.layers) == len(theirs.layers)
    for mine, other in zip(ours, theirs, strict=True):
        # Specs hold every option as the layer understands it, with defaults filled in and absolute layer numbers.
        assert (mine.index, mine.type, mine.spec) == (other.index, other.type, other.spec)
        assert (mine.common, mine.sources, mine.output) == (other.common, other.sources, other.output)


@pytest.mark.reference
@pytest.mark.parametrize("published", PUBLISHED)
def test_every_option_has_the_same_meaning(reference: Path, published: str):
    text = (reference / "forward" / "cfg" / f"{published}.cfg").read_text()
    if published in TESTED_ONE_BY_ONE:
        text = training_settings(text)
    assert_same(parse_text(build(PUBLISHED[published])), parse_text(text))


@pytest.mark.reference
def test_fine_tuning_cfg_equals_c_darknet(reference: Path):
    text = (reference / "bccd" / "yolo-fastest-bccd.cfg").read_text()
    assert_same(parse_text(build("yolo-fastest-1.1-bccd")), parse_text(text))


@pytest.mark.reference
@pytest.mark.parametrize("published", PUBLISHED)
def test_shape_and_cost_of_every_layer_equal_c_darknet(reference: Path, published: str):
    entries = json.loads((reference / "forward" / "manifest.json").read_text())
    entry = next(entry for entry in entries if entry["name"] == published)
    graph = parse_text(build(PUBLISHED[published]), width=entry["width"], height=entry["height"])
    assert graph.parameters == entry["parameters"]
    for node, layer in zip(graph, entry["layers"], strict=True):
        assert node.output.size == layer["outputs"], node.index
        if any(layer["out"]):  # all zero where Darknet keeps no width and height
            assert list(node.output) == layer["out"], node.index
        if entry["reference"] == "alexeyab":  # pjreddie's Darknet counts no operations
            assert node.type == layer["section"]
            assert node.bflops == pytest.approx(layer["bflops"], rel=1e-6), node.index
