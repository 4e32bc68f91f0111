"""Plans of trainings: what they decide, what they refuse, how they are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.errors import TrainError
from darknet_py.training.distributed import DistContext
from darknet_py.training.plan import TrainingPlan, pick_device
from darknet_py.training.train_options import TrainOptions
from darknet_py.training.trainer import Trainer, TrainResult


def train(cfg: Path, data: Path, out: Path, **overrides: Any) -> TrainResult:
    return darknet_py.train(cfg, data, out=out, workers=0, quiet=True, device="cpu", **overrides)


@pytest.mark.parametrize(
    ("edit", "overrides", "message"),
    [
        (("[yolo]", "[yolo]"), {"bacth": 3}, "did you mean 'batch'"),
        (("[yolo]", "[yolo]"), {"map": False, "patience": 3}, "patience: expected a validation list"),
        (("[yolo]", "[yolo]"), {"classes": "6"}, "classes: expected an integer of at least 1, got '6'"),
        (("[yolo]", "[yolo]"), {"seed": -1}, "seed: expected an integer of at least 0"),
        (("max_batches=12", "#"), {}, "expected max_batches"),
        (("learning_rate=0.001", "learning_rate=0,001"), {}, "above 0 in .net., got 0 .line .*did you mean '0.001'"),
        (("max_batches=12", "max_batches=1,200"), {}, "burn_in=3, got max_batches=1 .line .*did you mean '1200'"),
        (("batch=4\nsubdivisions=2", "batch=1"), {}, "batch=1 is for testing"),
        (("[yolo]", "[yolo]"), {"amp": "int8"}, "expected bf16 or fp16"),
        (("[yolo]", "[yolo]"), {"limit": 0}, "expected an integer of at least 1"),
        (("[yolo]", "[yolo]"), {"momentum": "x"}, "momentum: expected a number"),
        (("[yolo]", "[yolo]"), {"max_batches": "x"}, "max_batches: expected an integer"),
        (("classes=6", "classes=2"), {}, "expected"),
    ],
)
@pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")
def test_what_cannot_be_trained_is_one_line(
    edit: tuple[str, str], overrides: dict[str, Any], message: str, cfg: Path, shapes: Path, tmp_path: Path
) -> None:
    cfg.write_text(cfg.read_text().replace(*edit))
    with pytest.raises(darknet_py.DarknetError, match=message) as caught:
        train(cfg, shapes, tmp_path / "out", **overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "tiny_last.state").exists()


def test_more_classes_than_outputs_is_an_error_and_fewer_a_note(
    cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    text = cfg.read_text()
    cfg.write_text(text.replace("classes=6", "classes=2").replace("filters=33", "filters=21"))
    with pytest.raises(TrainError, match="expected at most 2 classes"):
        train(cfg, shapes, tmp_path / "out")
    cfg.write_text(text.replace("classes=6", "classes=9").replace("filters=33", "filters=42"))
    result = darknet_py.train(cfg, shapes, out=tmp_path / "out", workers=0, max_batches=2)
    assert "9 classes, the data 6" in "\n".join(log.messages)
    assert result.map is not None


def test_weights_that_are_done_want_clear(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    result = train(cfg, shapes, tmp_path / "done", map=False)
    with pytest.raises(TrainError, match="--clear"):
        train(cfg, shapes, tmp_path, weights=result.weights)
    assert train(cfg, shapes, tmp_path, weights=result.weights, clear=True, max_batches=1, map=False).iterations == 1
    assert train(cfg, shapes, tmp_path, weights=result.weights, cutoff=2, max_batches=1, map=False).iterations == 1


def test_a_plan_holds_all_decisions_and_writes_nothing(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    text = cfg.read_text()
    cfg.write_text(text.replace("classes=6", "classes=9").replace("filters=33", "filters=42"))
    options = TrainOptions(out=tmp_path / "out", classes=6, recipe="darknet", map=4, device="cpu", amp="bf16")
    plan = TrainingPlan.create(cfg, shapes, options=options, overrides={"max_batches": 4, "batch": 8})
    edits = [(edit.section, edit.key, edit.value, edit.reason) for edit in plan.graph.document.edits]
    assert edits == [
        (5, "classes", "6", "classes=6"),
        (4, "filters", "33", "classes=6"),
        (0, "max_batches", "4", ""),
        (0, "batch", "8", ""),
        (0, "steps", "3", "max_batches=4"),
        (0, "burn_in", "1", "max_batches=4"),
    ]
    assert (plan.source, plan.cfg) == (cfg, tmp_path / "out" / "tiny.cfg")
    assert (plan.task.train_size, plan.task.valid_size, plan.task.names[0]) == (16, 4, plan.task.names[0])
    assert (plan.first_iteration, plan.weights, plan.state, plan.resumes) == (0, None, None, False)
    assert plan.local_batch == (2, 4) and plan.device == torch.device("cpu")
    names = {path.name for path in plan.output_files}
    assert {"tiny.cfg", "tiny_final.weights", "tiny_best.weights", "tiny_map.json", "chart_tiny.png"} <= names
    printed = str(plan)
    assert "change: [yolo] #4 classes=6 (classes=6)" in printed
    assert "change: [net] steps=3 (max_batches=4)" in printed
    assert f"data: {shapes}, 16 images to train on, 4 to evaluate on (mAP@0.50)" in printed
    assert json.loads(json.dumps(plan.to_json()))["changes"][0] == {
        "section": "[yolo] #4",
        "key": "classes",
        "value": "6",
        "reason": "classes=6",
    }
    assert not (tmp_path / "out").exists()


def test_the_files_of_a_plan_are_written(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    options = TrainOptions(out=tmp_path / "out", map=2, device="cpu", workers=0, quiet=True)
    plan = TrainingPlan.create(cfg, shapes, options=options, overrides={"max_batches": 2, "ema_alpha": 0.5})
    Trainer(plan).run()
    assert [path for path in plan.output_files if not path.exists()] == []


def test_a_plan_says_where_it_resumes(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    result = train(cfg, shapes, tmp_path, max_batches=2, map=False, seed=5)
    options = TrainOptions(out=tmp_path, resume=True, clear=True, device="cpu")
    plan = TrainingPlan.create(cfg, shapes, result.weights, options)
    assert (plan.first_iteration, plan.seed, plan.resumes, plan.weights) == (2, 5, True, None)
    assert plan.notes == (
        "resuming at iteration 2 of 12",
        "note: --weights, --clear and --seed are ignored with --resume",
    )
    result.state.unlink()
    plan = TrainingPlan.create(cfg, shapes, options=options)
    assert (plan.first_iteration, plan.resumes) == (2, True)
    assert plan.notes == (
        f"{result.state} not found: continuing from {tmp_path}/tiny_last.weights with a new optimizer",
    )


def test_several_processes_share_the_batch(cfg: Path, shapes: Path) -> None:
    context = DistContext(rank=1, size=2, local_rank=1)
    plan = TrainingPlan.create(cfg, shapes, options=TrainOptions(device="cpu"), context=context)
    assert plan.local_batch == (1, 2)
    assert plan.to_json()["processes"] == 2
    assert "2 processes" in str(plan)


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:99"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(TrainError, match="expected"):
        pick_device(name, DistContext())
