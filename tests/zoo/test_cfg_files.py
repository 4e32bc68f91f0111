"""The files of cfg/ are what the zoo writes, and have the layers, parameters and BFLOPs of C Darknet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from darknet_py.errors import DarknetError
from darknet_py.graph.graph import parse_text
from darknet_py.zoo import ZOO, build
from darknet_py.zoo.__main__ import main
from tests.conftest import tool

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "zoo.json").read_text())


def test_every_network_has_one_file():
    assert {path.stem for path in (ROOT / "cfg").glob("*.cfg")} == set(ZOO) == set(GOLDEN["networks"])


@pytest.mark.parametrize("name", ZOO)
def test_file_is_up_to_date(name: str):
    assert (ROOT / "cfg" / f"{name}.cfg").read_text() == build(name), "python -m darknet_py.zoo --write cfg"


@pytest.mark.parametrize("name", ZOO)
def test_values_equal_c_darknet(name: str):
    values = GOLDEN["networks"][name]
    size = {} if values.get("own_size") else {"width": GOLDEN["width"], "height": GOLDEN["height"]}
    graph = parse_text(build(name), strict=True, **size)
    assert len(graph.layers) == values["layers"]
    assert graph.parameters == values["parameters"]
    # C prints three digits per layer; the golden value is their sum.
    assert graph.bflops == pytest.approx(values["bflops"], abs=0.0005 * len(graph.layers))


def test_c_darknet_rejects_only_the_published_resnets():
    refused = {name for name, values in GOLDEN["networks"].items() if values.get("asserts")}
    assert refused == {"resnet10", "resnet50", "resnet101", "resnext50"}


@pytest.mark.parametrize(
    "name", ["yolov3", "yolov4-csp", "yolo-fastest-1.1", "yolov2", "darknet53", "yolov4-tiny-3l", "cspeleenet-efm"]
)
def test_number_of_classes_can_be_changed(name: str):
    graph = parse_text(build(name, classes=7), strict=True)
    boxes = {"region": 5, "softmax": 1}
    for node in graph.layers:
        if node.type in ("yolo", "region", "softmax"):
            entries = 7 if node.type == "softmax" else 12
            assert node.inputs[0].c == boxes.get(node.type, 3) * entries


def test_unknown_name_suggests_a_similar_one(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(DarknetError, match="got 'yolov44'; did you mean 'yolov4'"):
        build("yolov44")
    assert main(["yolov44"]) == 1
    assert "yolov44" in capsys.readouterr().err
    assert main(["yolov4-tiny", "--classes", "0"]) == 1
    assert capsys.readouterr().err == "classes: expected at least 1, got 0\n"


def test_command_lists_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    assert capsys.readouterr().out.split() == list(ZOO)
    assert main(["yolov4-tiny", "--classes", "3"]) == 0
    assert capsys.readouterr().out.rstrip() == build("yolov4-tiny", 3).rstrip()
    assert main(["--write", str(tmp_path / "new")]) == 0
    assert {path.stem for path in (tmp_path / "new").iterdir()} == set(ZOO)
    (tmp_path / "file").touch()
    assert main(["--write", str(tmp_path / "file")]) == 1


def test_committed_checks_are_of_the_cfgs_and_found_no_fault():
    checks = tool("zoo/check_networks")
    rows = checks.read(checks.OUT)
    assert rows, "python tools/zoo/check_networks.py"
    for row in rows:
        assert checks.problems(row) == [], row
        assert row["digest"] == checks.digest(ROOT / "cfg" / f"{row['cfg']}.cfg"), row["cfg"]
        assert int(row["parameters"]) == parse_text(build(row["cfg"])).parameters, row["cfg"]
