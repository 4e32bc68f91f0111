"""Trainings by a recipe from plan to files: split, time, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.data.builtin.shapes import ensure_shapes
from darknet_py.data.datafile import DataFile
from darknet_py.errors import TrainError
from darknet_py.training import plan as plan_module
from darknet_py.training import session, trainer
from darknet_py.training.distributed import DistContext
from darknet_py.training.estimate import Estimate, Speed
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.speed import measure_speed
from darknet_py.training.tasks.detection_task import DetectionTask
from darknet_py.training.tasks.task import EvalScore
from darknet_py.training.train_options import TrainOptions
from darknet_py.training.train_step import TrainStep
from darknet_py.training.trainer import build_network

OPTIONS: dict[str, Any] = {"device": "cpu", "workers": 0, "quiet": True, "chart": False}


@pytest.fixture(scope="session")
def unsplit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.data` file with 20 images and no validation list."""
    folder = tmp_path_factory.mktemp("unsplit")
    data = ensure_shapes(folder / "shapes", train=20, valid=1)
    path = folder / "all.data"
    path.write_text(f"classes = 6\ntrain = {data.train}\nnames = {data.names}\n")
    return path


def plan_of(cfg: Path, data: Path, out: Path, overrides: dict[str, Any] | None = None, **options: Any) -> TrainingPlan:
    return TrainingPlan.create(cfg, data, options=TrainOptions(out=out, **OPTIONS, **options), overrides=overrides)


def test_a_recipe_holds_a_tenth_out_and_lists_it(cfg: Path, unsplit: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    overrides = {"max_batches": 2, "batch": 4}
    plan = plan_of(cfg, unsplit, out, overrides, recipe="scratch")
    assert (plan.task.train_size, plan.task.valid_size, plan.task.metric_label) == (18, 2, "mAP@0.50")
    assert any(note.startswith("split: 18 images to train on, 2 held out (0.1 of 20 images") for note in plan.notes)
    assert not out.exists()
    result = session.run(plan)
    assert [path for path in plan.output_files if path.suffix != ".png" and not path.exists()] == []
    data = DataFile.read(out / "tiny.data")
    assert len(data.train_images()) == 18 and len(set(data.valid_images()) - set(data.train_images())) == 2
    assert data.class_names() == plan.task.names and result.map is not None
    # the cfg beside the weights is the one that was trained: trained by it as it is, the weights are the same
    again = tmp_path / "again"
    same = darknet_py.train(result.cfg, out / "tiny.data", out=again, map=False, seed=0, **OPTIONS)
    assert same.weights.read_bytes() == result.weights.read_bytes()


def test_none_is_held_out_on_request_or_by_the_cfg(cfg: Path, unsplit: Path, shapes: Path, tmp_path: Path) -> None:
    for options in ({"recipe": "scratch", "split": "none"}, {}):
        plan = plan_of(cfg, unsplit, tmp_path / "out", map=True, **options)
        assert (plan.task.train_size, plan.task.valid_size) == (20, 20)
        assert plan.task.metric_label == "mAP@0.50 (training images)"
        assert "note: no validation list: mAP and loss are measured on the training images" in plan.notes
    assert plan_of(cfg, unsplit, tmp_path / "out", recipe="scratch", split="none").task.valid_size == 0
    half = plan_of(cfg, unsplit, tmp_path / "out", split=0.5)
    assert half.task.train_size + half.task.valid_size == 20 and half.recipe.name == "darknet"
    assert 8 <= half.task.valid_size <= 12  # by class, not to the image
    listed = plan_of(cfg, shapes, tmp_path / "out", split=0.5)  # a validation list of one's own counts
    assert (listed.task.train_size, listed.task.valid_size) == (16, 4)


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        ({"recipe": "best"}, {}, "recipe: expected finetune, scratch, darknet, got 'best'"),
        ({"time": "soon"}, {}, "time: expected a duration such as 20m, 1h30m or 90s, got 'soon'"),
        ({"time": -5}, {}, "time: expected more than 0 seconds, got -5"),
        ({"split": 1.0}, {}, "split: expected none or a number above 0 and below 1, got 1.0"),
        ({"split": "half"}, {}, "split: expected none or a number above 0 and below 1, got 'half'"),
        ({"epochs": 3}, {"max_batches": 4}, "expected one of epochs, time and max_batches, got epochs and max_batches"),
        ({"epochs": 3, "time": 9}, {}, "expected epochs or time, got both"),
        ({"freeze": 0}, {}, "freeze: expected an integer of at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: dict[str, Any], overrides: dict[str, Any], message: str, cfg: Path, shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=f"^{message}$"):
        plan_of(cfg, shapes, tmp_path / "out", overrides, **options)
    context = DistContext(0, 2)
    with pytest.raises(TrainError, match="time: expected one process, got 2"):
        TrainingPlan.create(cfg, shapes, options=TrainOptions(time=9), context=context)


class Clock:
    """Time that passes by iterations only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float):
        self.now = 0.0
        self.iterations = 0
        step = TrainStep.step

        def timed_step(train_step: TrainStep, batches: Any) -> Any:
            self.now += seconds
            self.iterations += 1
            return step(train_step, batches)

        monkeypatch.setattr(TrainStep, "step", timed_step)
        for module in (session, plan_module, trainer):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.mark.parametrize("real", [0.5, 1.0, 2.0])
def test_a_time_holds_though_the_speed_was_measured_wrong(
    real: float, cfg: Path, unsplit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, real)
    monkeypatch.setattr(session, "measure_speed", lambda plan: Speed(1.0, 0.0, 0.0))
    plan = session.measured(
        plan_of(cfg, unsplit, tmp_path / "out", {"batch": 4}, recipe="scratch", time="1m", map=False)
    )
    assert plan.net.max_batches == 58  # 60 seconds without the reserve for the end
    result = session.run(plan)
    assert 54 <= clock.now <= 60 and clock.iterations == result.iterations == pytest.approx(58 / real, abs=3)
    written = darknet_py.parse(tmp_path / "out" / "tiny.cfg").net
    assert (written.max_batches, written.sgdr_cycle) == (result.iterations, result.iterations)
    assert result.weights.exists() and len(result.log.read_text().splitlines()) == result.iterations + 1


def test_a_training_that_slows_down_ends_before_its_time_is_over(
    cfg: Path, unsplit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From iteration 50 on an iteration takes 4 seconds; the evaluations, whose time counts too, take 3."""
    clock = Clock(monkeypatch, 1.0)
    monkeypatch.setattr(session, "measure_speed", lambda plan: Speed(1.0, 3.0, 0.0))
    evaluate, due = DetectionTask.evaluate, trainer.Trainer._due

    def slow_evaluation(*args: Any) -> EvalScore:
        clock.now += 3
        return evaluate(*args)

    def slower(made: trainer.Trainer, iteration: int) -> Any:
        clock.now += 3 if iteration >= 50 else 0
        return due(made, iteration)

    monkeypatch.setattr(DetectionTask, "evaluate", slow_evaluation)
    monkeypatch.setattr(trainer.Trainer, "_due", slower)
    plan = session.measured(plan_of(cfg, unsplit, tmp_path / "out", {"batch": 4}, recipe="scratch", time="90s"))
    result = session.run(plan)
    assert 75 <= clock.now <= 90 and result.iterations == clock.iterations < 65
    assert result.weights.exists() and result.map is not None  # evaluated at the end


def test_a_time_that_is_too_short(cfg: Path, unsplit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "measure_speed", lambda plan: Speed(90.0, 0.0, 4.0))
    with pytest.raises(TrainError, match=r"time: expected more than 1 min: an iteration takes 1 min 30 s after 4 s of"):
        session.measured(plan_of(cfg, unsplit, tmp_path / "out", time=60))


def test_a_resumed_training_keeps_the_schedule_and_the_split(cfg: Path, unsplit: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": "scratch", "split": 0.3, "map": False}
    plan = plan_of(cfg, unsplit, tmp_path / "out", {"batch": 4}, epochs=2, **options)
    assert plan.net.max_batches == 7  # 14 images
    session.run(replace(plan, pause=3))
    (tmp_path / "out" / "tiny_train.txt").write_text("\n".join(plan.task.train.paths[:5]))  # type: ignore[attr-defined]
    again = plan_of(cfg, unsplit, tmp_path / "out", resume=True, time="2h", seed=9, **options)
    assert (again.first_iteration, again.net.max_batches, again.task.train_size) == (3, 7, 5)
    assert again.graph.document.content == (tmp_path / "out" / "tiny.cfg").read_bytes()
    assert any("recipe: scratch, as written in" in note and "--time" in note for note in again.notes)
    assert session.run(session.measured(again)).iterations == 7


def test_measuring_leaves_the_training_as_it_is(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    plan = plan_of(cfg, shapes, tmp_path / "a", {"max_batches": 2})
    before = build_network(plan).state_dict()
    speed = measure_speed(plan)
    assert speed.iteration > 0 and 0 < speed.evaluation < speed.iteration
    assert all(torch.equal(before[name], tensor) for name, tensor in build_network(plan).state_dict().items())
    first, second = (session.run(made).weights.read_bytes() for made in (plan, session.measured(plan)))
    assert first == second


def test_an_estimate_in_words() -> None:
    estimate = Estimate(100, 4, Speed(2.0, 10.0, 5.0))
    assert estimate.seconds == 245
    assert str(estimate) == "about 4 min 5 s: 100 iterations of 2 s, 4 evaluations of 10 s"


def test_a_training_of_days_names_ways_out(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "measure_speed", lambda plan: Speed(1000.0))
    plan = session.measured(plan_of(Path("csresnext50-panet-spp.cfg"), shapes, tmp_path, {"max_batches": 1000}))
    (warning,) = plan.warnings
    # 1e6 seconds; (320 / 512)^2 = 0.39; 6.9 and 0.25 of 71.3 BFLOPs
    ways = [
        "--time 8h (a schedule that ends by then)",
        "--width 320 --height 320 (about 0.39 of the time)",
        "yolov4-tiny.cfg instead of csresnext50-panet-spp.cfg (about 0.1 of the time)",
        "yolo-fastest-1.1.cfg instead of csresnext50-panet-spp.cfg (about 0.004 of the time)",
    ]
    assert warning == f"this takes about 11 days 14 h; less with {', or '.join(ways)}"
    assert plan.notes[-1].startswith("time: about 11 days 14 h: 1,000 iterations of 16 min 40 s, 10 evaluations")


@pytest.mark.parametrize(("recipe", "averaged"), [("scratch", True), ("darknet", False)])
def test_averaged_weights_can_be_the_best(
    recipe: str, averaged: bool, cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 iterations the averages follow those from 4 on and replace the weights after 6: only at 5 there are both."""
    scores = iter([0.1, 0.9, 0.2])
    monkeypatch.setattr(DetectionTask, "evaluate", lambda *_: EvalScore(next(scores), 1.0, {}))
    overrides = {"max_batches": 8, "batch": 4, "ema_alpha": 0.9, "learning_rate": 0.1, "burn_in": 0}
    plan = plan_of(cfg, shapes, tmp_path / "out", overrides, recipe=recipe, map=5, save_every=5)
    session.run(replace(plan, pause=5))
    best, ema, last = (
        darknet_py.load(cfg, plan.files.path(f"{kind}.weights")).layers[0].weight for kind in ("best", "ema", "last")
    )
    assert torch.equal(best, ema if averaged else last) and not torch.equal(ema, last)
    assert next(scores) == (0.2 if averaged else 0.9)


def test_timing_takes_no_single_image(unsplit: Path, tmp_path: Path) -> None:
    """Batch norm of a 1 x 1 map cannot be trained with one image; yolov4-tiny at 32 x 32 ends in such maps."""
    text = "[net]\nwidth=8\nheight=8\nchannels=3\nbatch=2\nsubdivisions=1\nlearning_rate=0.001\nmax_batches=2\n"
    text += "[convolutional]\nbatch_normalize=1\nfilters=33\nsize=3\nstride=8\npad=1\nactivation=leaky\n"
    text += "[yolo]\nmask=0,1,2\nanchors=4,4,8,8,16,16\nclasses=6\nnum=3\n"
    small = tmp_path / "small.cfg"
    small.write_text(text)
    assert measure_speed(plan_of(small, unsplit, tmp_path / "out", map=False)).iteration > 0
