"""`compare`: figures side by side, accuracies from where they come, the plot."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from darknet_py.cli import compare
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import parse
from darknet_py.graph.profile import network_profile

CFG = Path(__file__).parents[2] / "cfg"
SVG = "{http://www.w3.org/2000/svg}"
TINY, PRN = str(CFG / "yolov3-tiny.cfg"), str(CFG / "yolov3-tiny-prn.cfg")


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    compare.configure(parser)
    return compare.run(parser.parse_args(words))


def test_the_table_gives_figures_and_differences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(TINY, PRN) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["network", "input", "layers", "parameters"]
    assert "8858734 " in first and "%" not in first
    assert "4939758 (-44.2%)" in second and "3.467 (-37.8%)" in second


def test_json_and_csv_are_the_account(capsys: pytest.CaptureFixture[str]) -> None:
    run(TINY, f"{TINY}@320x256", "--json")
    plain = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in plain] == ["yolov3-tiny", "yolov3-tiny@320x256"]
    for line, graph in zip(plain, (parse(TINY), parse(TINY, width=320, height=256)), strict=True):
        total = network_profile(graph)
        assert (line["width"], line["height"]) == (graph.net.width, graph.net.height)
        assert (line["parameters"], line["bflops"], line["cio"]) == (total.parameters, total.bflops, total.cio)
        assert (line["memory"], line["receptive_field"]) == (total.peak_bytes, total.receptive_field)
        assert line["latency"] is None
    run(TINY, f"{TINY}@320", "--csv")
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["width"] for line in lines] == ["416", "320"]


def test_a_file_whose_name_has_an_at_sign_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "net@64"
    path.write_text((CFG / "yolov3-tiny.cfg").read_text())
    name, graph = compare.read_network(str(path))
    assert (name, graph.net.width) == ("net@64", 416)


def test_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "ap.csv"
    table.write_text("model,cfg,AP\nTiny,yolov3-tiny.cfg,33.1\nPRN,cfg/yolov3-tiny-prn.cfg,33.0\nOther,other,\n")
    run(
        TINY,
        f"{TINY}@320",
        PRN,
        "--accuracy",
        str(table),
        "--column",
        "AP",
        "--accuracy",
        "yolov3-tiny@320=29",
        "--json",
    )
    assert [line["accuracy"] for line in json.loads(capsys.readouterr().out)] == [33.1, 29.0, 33.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("yolov3-tini=3", "expected one of the networks, got 'yolov3-tini'; did you mean 'yolov3-tiny'?"),
        ("yolov3-tiny=good", "expected a number, got 'good'"),
        ("yolov3-tiny=nan", "expected a number, got 'nan'"),
        ("missing.csv", "missing.csv: cannot read accuracies"),
    ],
)
def test_bad_accuracies(given: str, message: str) -> None:
    with pytest.raises(DarknetError, match=re.escape(message)):
        run(TINY, "--accuracy", given)


def test_a_csv_without_the_column_says_which_there_are(tmp_path: Path) -> None:
    path = tmp_path / "ap.csv"
    path.write_text("name,AP50\nyolov3-tiny,33.1\n")
    with pytest.raises(DarknetError, match="expected a column 'accuracy', got name, AP50"):
        run(TINY, "--accuracy", str(path))


def test_latencies_are_measured_in_turn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def canned(networks: dict[str, Any], device: torch.device, seconds: float) -> dict[str, list[float]]:
        assert (device.type, seconds) == ("cpu", 3.0)
        assert [network().boxes.shape[:2] for network in networks.values()] == [(2, 15), (2, 60)]  # every network ran
        # A machine that slows down by itself: the ratio within a round does not see it.
        return {"0": [0.1, 0.2, 0.4, 0.8, 1.6], "1": [0.2, 0.4, 0.8, 1.6, 3.3]}

    monkeypatch.setattr(compare, "time_in_turns", canned)
    words = [f"{TINY}@32", f"{TINY}@64", "--measure", "--seconds", "3", "--batch", "2"]
    run(*words, "--json")
    small, large = json.loads(capsys.readouterr().out)
    assert small["ratio"] == small["ratio_low"] == small["ratio_high"] == 1
    assert (small["latency"], large["latency"]) == (pytest.approx(200), pytest.approx(400))  # ms per image
    assert (large["ratio"], large["ratio_low"], large["ratio_high"]) == pytest.approx((2, 2, 2.0625))
    run(*words)
    assert "2.000 (2.000…2.062)" in capsys.readouterr().out


def test_latencies_of_real_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{TINY}@32", "--measure", "--seconds", "0")
    assert re.search(r"\d+\.\d\d +1\.000 \(1\.000…1\.000\)", capsys.readouterr().out)


def test_the_interval_holds_the_median_nineteen_times_in_twenty() -> None:
    draw = random.Random(3)
    inside = 0
    for _ in range(400):
        _, low, high = compare._median_interval([draw.expovariate(math.log(2)) for _ in range(30)])
        inside += low <= 1 <= high
    assert inside >= 0.94 * 400


def test_the_plot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "darknet_py")
    out = tmp_path / "plot.svg"
    run(
        TINY,
        PRN,
        f"{TINY}@320",
        "--accuracy",
        "yolov3-tiny=33.1",
        "--accuracy",
        "yolov3-tiny-prn=33.1",
        "--plot",
        str(out),
    )
    assert caplog.messages == [f"wrote {out}"]
    root = ElementTree.fromstring(out.read_text())
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"BFLOPs", "accuracy", "yolov3-tiny", "yolov3-tiny@320", "yolov3-tiny-prn"} <= set(texts)
    points = [group for group in root.iter(f"{SVG}g") if group.get("id", "").startswith("point-")]
    assert [point.findtext(f"{SVG}title", "").split(":")[0] for point in points] == [
        "yolov3-tiny",
        "yolov3-tiny-prn",
        "yolov3-tiny@320",
    ]
    run(TINY, PRN, "--plot", str(out), "--x", "cio", "--y", "memory")
    assert "activation memory (MiB) over memory traffic" in out.read_text()
    with pytest.raises(DarknetError, match="no network has both latency and parameters: add --measure"):
        run(TINY, "--plot", str(out), "--x", "latency")
    with pytest.raises(DarknetError, match="add --accuracy"):
        run(TINY, "--plot", str(out), "--y", "accuracy")
