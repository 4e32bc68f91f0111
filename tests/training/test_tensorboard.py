"""What is written for TensorBoard, with and without the package."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import MissingExtra

MODULE = "torch.utils.tensorboard"
OPTIONS: dict[str, Any] = {"workers": 0, "quiet": True, "device": "cpu", "tensorboard": True, "chart": False}


class Writer:
    """Stands for SummaryWriter."""

    made: list[Writer] = []

    def __init__(self, folder: str, purge_step: int):
        self.folder, self.purge_step, self.open = folder, purge_step, True
        self.values: dict[str, dict[int, float]] = {}
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert self.open
        self.values.setdefault(name, {})[step] = value

    def flush(self) -> None:
        assert self.open

    def close(self) -> None:
        self.open = False


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    module = ModuleType(MODULE)
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)
    Writer.made = []
    return Writer.made


def test_losses_and_measurements(made: list[Writer], cfg: Path, shapes: Path, tmp_path: Path) -> None:
    result = darknet_py.train(cfg, shapes, out=tmp_path, map=2, max_batches=4, **OPTIONS)
    (writer,) = made
    assert writer.folder == str(tmp_path / "tiny_tensorboard") and writer.purge_step == 1 and not writer.open
    log = list(csv.DictReader(result.log.read_text().splitlines()))
    for name in ("loss", "average", "rate"):
        found = writer.values[f"train/{name}"]
        assert list(found) == [1, 2, 3, 4]
        assert list(found.values()) == pytest.approx([float(row[name]) for row in log], rel=1e-6)
    assert min(writer.values["train/images_per_second"].values()) > 0
    for row in json.loads((tmp_path / "tiny_map.json").read_text()):
        assert writer.values["valid/map"][row["iteration"]] == row["map"]
        assert writer.values["valid/loss"][row["iteration"]] == row["loss"]
        for each in row["classes"]:
            assert writer.values[f"ap/{each['name']}"][row["iteration"]] == each["ap"]

    darknet_py.train(cfg, shapes, out=tmp_path, map=False, max_batches=6, resume=True, **OPTIONS)
    assert made[1].purge_step == 5 and list(made[1].values["train/loss"]) == [5, 6]


def test_without_the_package(
    monkeypatch: pytest.MonkeyPatch, cfg: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(MissingExtra, match=r"--tensorboard needs .* pip install 'darknet-torch\[tensorboard\]'"):
        darknet_py.train(cfg, shapes, out=tmp_path, **OPTIONS)
    run = ["train", str(cfg), "--data", str(shapes), "--out", str(tmp_path), "--tensorboard", "--quiet"]
    assert main([*run, "--workers", "0", "--device", "cpu"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_files_that_tensorboard_reads(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    darknet_py.train(cfg, shapes, out=tmp_path, map=2, max_batches=2, **OPTIONS)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tiny_tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2]
    assert {"valid/map", "valid/loss", "train/rate"} <= set(found.Tags()["scalars"])
