"""tools/study/fashion.py: networks of equal cost, IDX files, paired images, resuming, tables."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.graph.profile import network_profile
from tests.conftest import tool


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    return SimpleNamespace(**{name: tool(f"study/{name}") for name in ("fashion", "fashion_report", "stats")})


def write_images(folder: Path, train: int = 80, test: int = 30) -> None:
    """IDX files as Fashion-MNIST's, one packed and one not; images of class k have a bright line k."""
    dice = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = dice.integers(0, 40, (count, 28, 28), dtype=np.uint8)
        images[np.arange(count), 2 * labels + 4] = 250
        header = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes()
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        header = b"\0\0\x08\x01" + np.array(labels.shape, ">u4").tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_networks_have_the_same_cost(study: SimpleNamespace):
    scale = study.fashion.SCALES["cpu"]
    costs = {}
    for variant in study.fashion.VARIANTS:
        text = study.fashion.cfg_text(variant, study.fashion.growths(variant, scale), scale, 30)
        costs[variant.name] = network_profile(darknet_py.parse_text(text, strict=True)).bflops
    assert list(costs) == ["plain", "first", "last", "csp-0.25", "csp-0.5", "csp-0.75", "elan", "osa"]
    assert all(abs(cost / scale.bflops - 1) < 0.01 for cost in costs.values()), costs


def test_every_seed_has_every_network_and_length(study: SimpleNamespace):
    scale = replace(study.fashion.SCALES["cpu"], iterations=(15, 30))
    runs = list(study.fashion.runs(scale, 2))
    assert len(runs) == len({run.digest for run in runs}) == 2 * 2 * 8
    assert [run.seed for run in runs] == [0] * 16 + [1] * 16


def test_images_are_the_same_for_a_seed(study: SimpleNamespace, tmp_path: Path):
    write_images(tmp_path)
    data = study.fashion.read_images(tmp_path, "train")
    assert data.images.shape == (80, 1, 28, 28) and data.images.max() == pytest.approx(250 / 255)
    one, same, other = (list(study.fashion.batches(data, 32, 4, seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(one, same, strict=True))
    assert not torch.equal(one[0][0], other[0][0])
    assert int(sum(truth.sum(0) for _, truth in one[:2]).min()) >= 4  # 64 of 80 images, none twice


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "expected an IDX file"), (b"\0\0\x08\x01\0\0\0\x09abc", "expected 9 bytes, got 3")],
)
def test_damaged_files_are_one_line(study: SimpleNamespace, tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(darknet_py.DarknetError, match=message):
        study.fashion.read_idx(path)
    with pytest.raises(darknet_py.DarknetError, match="not found or damaged"):
        study.fashion.read_idx(tmp_path / "other")


def test_study_is_resumed_and_reported(
    study: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write_images(tmp_path)
    scale = replace(study.fashion.SCALES["cpu"], iterations=(15,), batch=16, bflops=0.0009, seeds=1)
    monkeypatch.setitem(study.fashion.SCALES, "cpu", scale)
    base = ["--images", str(tmp_path), "--out", str(tmp_path / "out")]
    assert study.fashion.main([*base, "--runs", "2"]) == 0
    path = tmp_path / "out" / "fashion.jsonl"
    first = path.read_text()
    assert study.fashion.main([*base, "--runs", "1"]) == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert path.read_text().startswith(first) and [row["variant"] for row in rows] == ["plain", "first", "last"]
    assert all(0 <= row["score"] <= 1 and row["curve"].startswith("2:") for row in rows)
    assert study.fashion_report.main([str(path)]) == 0
    text = (tmp_path / "out" / "fashion.md").read_text()
    assert study.fashion_report.main([str(path.with_suffix(".csv"))]) == 0  # the same from the committed form
    assert (tmp_path / "out" / "fashion.md").read_text() == text
    assert "| fusion first, γ = 0.5 against plain | 15 |" in text and "| nan |" in text  # one seed decides nothing
    assert study.fashion.main([*base, "--length", "16"]) == 1
    assert "--length: expected one of (15,), got 16" in capsys.readouterr().err
    assert study.fashion.main(["--images", str(tmp_path / "none")]) == 1
    assert "apt install dataset-fashion-mnist" in capsys.readouterr().err


def test_paired_tests_equal_published_values(study: SimpleNamespace):
    """Student's sleep data (1908): t = -4.0621 with 9 degrees of freedom, p = .002833 (R's help page of t.test)."""
    differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert study.stats.p_value(differences) == pytest.approx(0.002833, abs=5e-7)
    size = study.stats.effect_size(differences)  # mean 1.58, deviation 1.23: d = 1.2845, times 1 - 3 / 35
    assert size.mean == pytest.approx(1.2845 * 32 / 35, abs=1e-3)
    assert size.half == pytest.approx(1.96 * (0.1 + size.mean**2 / 20) ** 0.5, abs=1e-3)
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert study.stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert study.stats.holm([0.5, float("nan"), 0.6])[::2] == [1.0, 1.0]


def test_conclusions_of_two_runs_are_compared(study: SimpleNamespace):
    def rows(gains: dict[str, float], first_seed: int) -> list[dict[str, object]]:
        return [
            {"variant": name, "iterations": 15, "seed": seed, "score": 0.5 + gain + 0.001 * (seed % 3) * (1 + index)}
            for index, (name, gain) in enumerate(gains.items())
            for seed in range(first_seed, first_seed + 6)
        ]

    one = rows({"plain": 0, "first": 0.1, "last": 0.1, "csp-0.5": -0.1, "osa": 0}, 0)
    two = rows({"plain": 0, "first": 0.1, "last": -0.1, "csp-0.5": 0, "osa": 0}, 10)
    table = study.fashion_report.repetition_table(one, two)
    conclusions = {row["comparison"]: row["conclusion"] for row in table}
    assert conclusions["fusion first, γ = 0.5 against plain"] == "same"
    assert conclusions["fusion last, γ = 0.5 against plain"] == "opposite"
    assert conclusions["CSP, γ = 0.5 against plain"] == "in one run only"
    assert conclusions["OSA against plain"] == "not shown in either"
    assert not study.fashion_report.repetition_table(one, [{**row, "iterations": 30} for row in two])
