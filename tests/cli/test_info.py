"""`info` prints tables, JSON and CSV."""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path

import pytest

from darknet_py.cli import info

CFG = Path(__file__).parents[2] / "cfg"


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    info.configure(parser)
    return parser.parse_args(words)


def test_info_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.run(arguments(str(CFG / "yolov4-tiny.cfg"), "--json", "--width", "320", "--height", "320")) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["parameters"], result["weights_bytes"], result["width"]) == (6062814, 24251276, 320)
    assert result["cio"] == sum(layer["cio"] for layer in result["layers"])
    assert result["layers"][3]["sources"] == [2]


def test_info_prints_csv(capsys: pytest.CaptureFixture[str]) -> None:
    info.run(arguments(str(CFG / "yolov4-tiny.cfg"), "--csv"))
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(lines) == 38
    assert (lines[34]["sources"], lines[34]["output"]) == ("33 23", "26x26x384")
    assert sum(int(line["parameters"]) for line in lines) == 6062814


def test_info_of_two_cfgs(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(CFG / "yolov3-tiny.cfg"), str(CFG / "yolov3-tiny-prn.cfg")]
    info.run(arguments(*paths))
    assert "-44.2%" in capsys.readouterr().out
    info.run(arguments(*paths, "--json"))
    result = json.loads(capsys.readouterr().out)
    assert [network["parameters"] for network in result["networks"]] == [8858734, 4939758]
    assert {"first": None, "second": 13, "same": False} in result["pairs"]
