"""The command `evaluate`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from darknet_py.cli import evaluate
from darknet_py.errors import CfgWarning, DarknetError, DataError
from tests.evaluation import make


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    evaluate.configure(parser)
    return evaluate.run(parser.parse_args([*words, "--workers", "0"]))


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """CFG --weights W --data D of the small network."""
    cfg, weights = make.small_network(tmp_path, 0, "default")
    (tmp_path / "valid.txt").write_text("\n".join(make.labeled(tmp_path)))
    (tmp_path / "s.names").write_text("ant\nbee\ncat, or so\nd\n")
    (tmp_path / "s.data").write_text("classes=4\nvalid=valid.txt\nnames=s.names\n")
    return [str(cfg), "--weights", str(weights), "--data", str(tmp_path / "s.data")]


def test_tables_say_their_protocol(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--points", "11", "--iou-thresh", "0.4", "--thresh", "0.2") == 0
    text = capsys.readouterr().out
    assert (
        "Darknet `detector map`: mAP@0.40, 11 recall points, thresh 0.005, NMS 0.45; counts at confidence 0.2" in text
    )
    assert "COCO (pycocotools): AP over IoU .50 to .95, thresh 0.001, NMS 0.6" in text
    assert "6 images, 30 objects" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("ant"))
    assert row[3:5] == ["8", "257"]  # TP and FP: C's figures
    assert "nan" not in text and "None" not in text


def test_json_on_stdout_is_only_json(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--json", "--protocol", "darknet") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["coco"] is None and report["darknet"]["truths"] == 30
    assert report["names"][2] == "cat, or so" and (report["width"], report["height"]) == (64, 48)
    assert sum(map(sum, report["confusion"]["matrix"][:-1])) == 30


def test_files(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out"
    assert run(*command, "--out", str(out), "--json", str(tmp_path / "r.json")) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "comp4_det_test_ant.txt",
        "comp4_det_test_bee.txt",
        "comp4_det_test_cat, or so.txt",
        "comp4_det_test_d.txt",
        "confusion.csv",
        "confusion.png",
        "evaluation.json",
        "precision_recall.png",
    ]
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads((out / "evaluation.json").read_text())
    assert (out / "confusion.csv").read_text().splitlines()[3].startswith('"cat, or so",')
    assert str(out) in capsys.readouterr().out

    data = tmp_path / "s.data"
    data.write_text(data.read_text() + "eval=coco\n")
    assert run(*command, "--out", str(tmp_path / "coco"), "--protocol", "coco") == 0
    assert len(json.loads((tmp_path / "coco" / "coco_results.json").read_text())) > 1000
    assert not (tmp_path / "coco" / "precision_recall.png").exists()


def test_another_list_and_size(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.txt").write_text("\n".join(str(tmp_path / "images" / f"{i}.png") for i in (0, 1)))
    assert run(*command, "--images", str(tmp_path / "two.txt"), "--width", "128", "--height", "96") == 0
    assert "at 128x96: 2 images, 12 objects" in capsys.readouterr().out
    assert run(*command[:3], "--images", str(tmp_path / "images"), "--names", str(tmp_path / "s.names")) == 0
    assert "6 images, 30 objects" in capsys.readouterr().out


def test_bad_files_are_listed_shortly(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images" / "0.txt").write_text("99 .5 .5 .1 .1\n" * 30)
    (tmp_path / "images" / "1.png").write_bytes(b"\xff\xd8 cut off")
    assert run(*command) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert any("got 99" in line for line in warnings)
    assert "warning: … and 21 more like these" in warnings


def test_faults(command: list[str], tmp_path: Path) -> None:
    with pytest.raises(DarknetError, match="expected trained weights"):
        run(command[0], *command[3:])
    (tmp_path / "s.names").write_text("one\n")  # the other classes keep their numbers
    with pytest.warns(CfgWarning, match="s.names: expected 4 names, got 1"):
        assert run(*command) == 0
    (tmp_path / "s.names").write_text("a\nb\nc\nd\n")
    (tmp_path / "valid.txt").write_text("\n")
    with pytest.raises(DataError, match="got none"):
        run(*command)
    with pytest.raises(SystemExit):
        run(*command, "--points", "7")


def test_options_for_detectors_are_refused_for_others(tmp_path: Path) -> None:
    cfg = tmp_path / "c.cfg"
    cfg.write_text("[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=3\nsize=1\n[avgpool]\n[softmax]\n")
    for option in ("--images", "--names"):
        with pytest.raises(DarknetError, match=f"{option}: .*c.cfg is no detector; expected its data by --data"):
            run(str(cfg), "--weights", "w", option, str(tmp_path))


@pytest.mark.slow
def test_processes_of_torchrun_give_the_result_of_one(command: list[str], tmp_path: Path) -> None:
    assert run(*command, "--json", str(tmp_path / "one.json")) == 0
    words = ["evaluate", *command, "--workers", "0", "--device", "cpu", "--json", str(tmp_path / "two.json")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = subprocess.run(
        [*torchrun, "-m", "darknet_py", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("6 images, 30 objects") == 1  # one process talks
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    for report in (one, two):
        del report["seconds"]
    assert one == two
