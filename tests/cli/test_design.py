"""`design`: cfgs from parts, and plain cfgs made cross stage partial."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from darknet_py.cli import main
from darknet_py.graph.graph import parse, parse_text

ROOT = Path(__file__).resolve().parents[2]


def test_a_design_is_printed_and_says_how_it_was_made(capsys: pytest.CaptureFixture[str]):
    command = "--backbone peleenet --csp fusion-last --gamma 0.5 --neck efm --classes 20"
    assert main(["design", *command.split()]) == 0
    text = capsys.readouterr().out
    graph = parse_text(text, strict=True)
    assert [node.spec.classes for node in graph if node.type == "yolo"] == [20] * 3
    assert f"`darknet-py design {command}`" in text
    assert text.startswith("# CSPPeleeNet, gamma 0.5, fusion last, split by conv, efm, yolov3.\n")


def test_every_option_reaches_the_network(tmp_path: Path):
    out = tmp_path / "my.cfg"
    options = "--csp --split groups --top rfb --head yolov4 --classes 2 --levels 2 --width 128 --height 64"
    style = "--activation mish --attention se --elastic"
    assert main(["design", "--backbone", "resnet50", *f"{options} {style}".split(), "--write", str(out)]) == 0
    graph = parse(out, strict=True)
    assert (graph.net.width, graph.net.height) == (128, 64)
    types = [node.type for node in graph]
    assert types.count("yolo") == 2
    assert {"scale_channels", "upsample"} <= set(types)
    assert {node.spec.iou_loss for node in graph if node.type == "yolo"} == {"ciou"}
    activations = {getattr(node.spec, "activation", "") for node in graph}
    assert "mish" in activations and "leaky" not in activations


def test_anchors_as_darknet_writes_them(capsys: pytest.CaptureFixture[str]):
    assert main(["design", "--backbone", "resnet10", "--levels", "1", "--anchors", "10,14,  23,27"]) == 0
    graph = parse_text(capsys.readouterr().out)
    assert next(node.spec.anchors for node in graph if node.type == "yolo") == ((10, 14), (23, 27))


def test_a_plain_cfg_is_crossed_and_the_changes_are_said(capsys: pytest.CaptureFixture[str]):
    plain = str(ROOT / "cfg" / "resnext50.cfg")
    assert main(["design", "--csp", "csp", plain]) == 0
    output = capsys.readouterr()
    assert parse_text(output.out, strict=True).parameters == parse(ROOT / "cfg" / "csresnext50.cfg").parameters
    assert output.err.count("residual blocks") == 4
    assert "parameters 22312872 -> 20614824 (-7.6%), BFLOPs 10.119 -> 7.933 (-21.6%)" in output.err
    assert main(["design", "--csp", plain]) == 0  # a bare --csp
    assert capsys.readouterr().out.splitlines()[1:] == output.out.splitlines()[1:]


def test_what_there_is_is_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["design", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(
        name in listed for name in ("peleenet", "efficientnet-b0", "gfm, efm", "spp, rfb", "classifier", "se, sam")
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "expected --backbone, or a cfg and --csp"),
        ("--backbone darknet35", "did you mean 'darknet53'?"),
        ("--backbone darknet53 --csp fusion-middle", "--csp: expected one of fusion-first, fusion-last, csp"),
        ("--backbone darknet53 --gamma 0.25", "--gamma: expected --csp with it"),
        ("--backbone darknet53 --csp --gamma 2", "gamma: expected a number between 0 and 1, got 2"),
        ("--backbone darknet53 --anchors 1,x", "--anchors: expected numbers, got '1,x'"),
        ("cfg/resnet50.cfg", "expected --csp with a cfg"),
        ("--csp csp cfg/resnet50.cfg --neck efm", "--neck: not allowed with a cfg"),
        ("--csp csp cfg/csresnet50.cfg", "expected plain stages, got a network that is cross stage partial already"),
        ("--csp csp cfg/darknet19.cfg", "expected stages of residual blocks of one shape or dense layers"),
        ("--csp csp cfg/resnet50.cfg --neck-attention sam", "--neck-attention: not allowed with a cfg"),
        ("--csp csp cfg/none.cfg", "cfg not found: cfg/none.cfg"),
    ],
)
def test_faults_are_one_line(
    command: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    expected = 1 if ".cfg: " in message or "stages" in message or "not found" in message else 2
    assert main(["design", *command.split()]) == expected
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err and len([line for line in output.err.splitlines() if "darknet-py: " in line]) == 1


_SEARCH = (
    "design --search --backbone peleenet,gelan-t --csp none,csp --gamma 0.5 --neck prn,efm --classes 3 --scale 0.5"
)


def _rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_a_search_writes_what_is_within_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "found"
    assert main([*_SEARCH.split(), "--max-bflops", "1", "--out", str(out)]) == 0
    rows = _rows(out / "candidates.csv")
    assert len(rows) == 6  # two necks of PeleeNet, of CSPPeleeNet and of GELAN
    cfgs = {path.stem: parse(path, strict=True) for path in (out / "cfg").iterdir()}
    assert {name for name, row in rows.items() if not row["refused"]} == cfgs.keys()
    for name, graph in cfgs.items():
        assert float(rows[name]["bflops"]) == pytest.approx(graph.bflops) and graph.bflops <= 1
    assert {row["refused"] for name, row in rows.items() if name not in cfgs} == {"beyond the budget"}
    front = {name for name, row in rows.items() if row["front"] == "1"}
    cheapest = min(cfgs, key=lambda name: cfgs[name].bflops)
    assert cheapest in front
    printed = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in printed[1:]} == front
    assert "<svg" in (out / "front.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--backbone pelenet", "--backbone: expected some of"),
        ("--backbone peleenet --neck pannet", "did you mean 'panet'"),
        ("--backbone peleenet --csp both", "--csp: expected some of none"),
        ("--backbone peleenet --gamma x", "--gamma: expected numbers"),
        ("--backbone peleenet --front speed", "--front: expected some of"),
        ("--backbone peleenet --front accuracy", "expected --train with it"),
        ("--backbone peleenet my.cfg", "expected neither a cfg nor --write"),
    ],
)
def test_a_search_of_unknown_parts(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["design", "--search", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_options_of_a_search_without_it(capsys: pytest.CaptureFixture[str]):
    assert main(["design", "--backbone", "resnet10", "--max-bflops", "3"]) == 2
    assert "--max-bflops: expected --search with it" in capsys.readouterr().err


def test_a_search_that_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*_SEARCH.split(), "--max-parameters", "0.001", "--out", str(tmp_path)]) == 1
    assert "no candidate is left: 6 networks beyond the budget" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_with_a_short_training(tmp_path: Path):
    options = "--backbone darknet-ref --csp none --neck prn --scale 0.25,0.125 --width 64 --levels 1 --batch 2"
    command = ["design", "--search", *options.split(), "--train", "--iterations", "2", "--out", str(tmp_path)]
    assert main(command) == 0
    rows = _rows(tmp_path / "candidates.csv")
    trained = _rows(tmp_path / "accuracy.csv")
    assert {name for name, row in rows.items() if row["accuracy"]} == trained.keys()
    for name, row in trained.items():
        assert 0 <= float(row["accuracy"]) <= 1
        assert list((tmp_path / "trained" / name).glob("*_final.weights"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*_final.weights")}
    assert main(command) == 0  # keeps what is trained
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*_final.weights")} == before
