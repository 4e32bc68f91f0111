"""The files of a training: names, numbers, damaged and incomplete ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.errors import TrainError
from darknet_py.model.weights import read_header
from darknet_py.training.checkpoint_dir import CheckpointDir, is_numbered_checkpoint
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.train_options import TrainOptions


def test_numbers_of_weights_are_darknets() -> None:
    assert [i for i in range(1, 30001) if is_numbered_checkpoint(i)] == [*range(1000, 10001, 1000), 20000, 30000]


def test_a_damaged_state_or_one_of_another_cfg_is_one_line(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"out": tmp_path, "workers": 0, "quiet": True, "device": "cpu"}
    result = darknet_py.train(cfg, shapes, max_batches=1, map=False, **options)
    raw = result.state.read_bytes()
    result.state.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(TrainError, match="cannot read this training state"):
        darknet_py.train(cfg, shapes, resume=True, **options)
    result.state.write_bytes(raw)
    cfg.write_text(cfg.read_text().replace("activation=leaky", "activation=mish"))
    with pytest.raises(TrainError, match="saved with other layers"):
        darknet_py.train(cfg, shapes, resume=True, **options)


def test_the_best_score_belongs_to_the_best_weights(tmp_path: Path) -> None:
    files = CheckpointDir(tmp_path, "net", "top1")
    assert files.best_score() == -1
    (tmp_path / "net_best.json").write_text('{"top1": 0.5, "iteration": 3}')
    assert files.best_score() == -1  # no weights
    (tmp_path / "net_best.weights").touch()
    assert files.best_score() == 0.5
    assert CheckpointDir(tmp_path, "net", "map").best_score() == -1  # of another metric
    (tmp_path / "net_best.json").write_text("{")
    assert files.best_score() == -1


def test_paths_and_weights(cfg: Path, tmp_path: Path) -> None:
    files = CheckpointDir(tmp_path / "a" / "b", "tiny")
    files.prepare()
    assert list(files.folder.iterdir()) == []
    assert (files.cfg.name, files.chart.name) == ("tiny.cfg", "chart_tiny.png")
    network = darknet_py.load(cfg)
    network.state.seen = 8
    assert read_header(files.save_weights(network, "final")).seen == 8
    files.save_best(network, 0.25, 2, {"loss": 1.0, "best_thresh": 0.4, "best_f1": None})
    assert json.loads(files.path("best.json").read_text()) == {"map": 0.25, "iteration": 2, "best_thresh": 0.4}
    files.save_cfg(network.graph)
    assert files.cfg.read_text() == cfg.read_text()
    files.save_list("bad.list", ["x", "y", "x"])
    assert (files.folder / "bad.list").read_text() == "x\ny\n"
    files.save_list("none.list", [])
    assert not (files.folder / "none.list").exists()


def test_a_batch_is_kept_for_torch_load(tmp_path: Path) -> None:
    batch = [(torch.ones(1, 3, 2, 2), torch.zeros(0, 6)), (torch.zeros(1, 3, 2, 2), torch.ones(1, 6))]
    path = CheckpointDir(tmp_path, "net").save_batch(1, 7, 0.5, ["a.jpg"], batch)
    assert path.name == "net_nonfinite_1.pt"  # of the second process
    content = torch.load(path, weights_only=True)
    assert (content["iteration"], content["loss"], content["files"]) == (7, 0.5, ["a.jpg"])
    assert [len(part) for part in content["truth"]] == [0, 1]


def test_the_files_of_an_earlier_training_are_kept(
    cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"out": tmp_path / "out", "workers": 0, "device": "cpu", "map": 2, "max_batches": 2}
    first = darknet_py.train(cfg, shapes, **options)
    assert first.best is not None
    (first.best.parent / "tiny_1000.weights").write_bytes(b"1000")
    (first.best.parent / "tiny_of_mine.weights").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in first.best.parent.iterdir()}
    assert {"tiny_best.weights", "tiny_best.json", "tiny_final.weights", "tiny_last.state"} <= before.keys()

    plan = TrainingPlan.create(cfg, shapes, options=TrainOptions(out=tmp_path / "out"))
    assert f"moved to {tmp_path / 'out' / 'tiny_run1'}" in str(plan)
    for number in (1, 2):
        log.clear()
        darknet_py.train(cfg, shapes, **options, seed=number)
        assert [line for line in log.messages if "earlier" in line] == [
            f"files of an earlier training moved to {tmp_path / 'out' / f'tiny_run{number}'}"
        ]
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out" / "tiny_run1").iterdir()}
    assert kept == {name: content for name, content in before.items() if name != "tiny_of_mine.weights"}
    again = (tmp_path / "out" / "tiny_run2" / "tiny_final.weights").read_bytes()
    assert again not in (kept["tiny_final.weights"], first.weights.read_bytes())
    assert (tmp_path / "out" / "tiny_of_mine.weights").exists()


def test_what_continues_a_training_moves_nothing(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"out": tmp_path, "workers": 0, "quiet": True, "map": False, "burn_in": 0, "steps": 9}
    result = darknet_py.train(cfg, shapes, max_batches=2, **options)
    darknet_py.train(cfg, shapes, max_batches=4, resume=True, **options)
    darknet_py.train(cfg, shapes, result.weights, max_batches=6, **options)  # as with Darknet
    assert not (tmp_path / "tiny_run1").exists()
    elsewhere = tmp_path / "pretrained.weights"
    elsewhere.write_bytes(result.weights.read_bytes())
    darknet_py.train(cfg, shapes, elsewhere, max_batches=8, **options)
    assert (tmp_path / "tiny_run1" / "tiny_final.weights").exists()


def test_the_cfg_for_other_classes_stays_with_its_weights(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"out": out, "workers": 0, "quiet": True, "map": False, "max_batches": 1}
    darknet_py.train(cfg, shapes, classes=7, **options)
    darknet_py.train(cfg, shapes, classes=8, **options)
    for folder, classes in ((out / "tiny_run1", 7), (out, 8)):
        network = darknet_py.load(folder / "tiny.cfg", folder / "tiny_final.weights")
        assert network.graph.detection_specs[0].classes == classes


def test_names_are_written_and_a_file_of_the_user_is_kept(tmp_path: Path) -> None:
    files = CheckpointDir(tmp_path, "net")
    assert files.save_names(["0", "1"]) == "" and not files.names.exists()
    files.names.write_text("mine\n")
    note = files.save_names(["red cell", "platelet\n"])
    assert files.names.read_text() == "red cell\nplatelet\n"
    assert note.endswith(f"what it was is {tmp_path / 'net.names.old'}")
    assert (tmp_path / "net.names.old").read_text() == "mine\n"
    assert files.save_names(["red cell", "platelet"]) == ""
