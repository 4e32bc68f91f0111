"""The trainer end to end: files, resuming bit by bit, interruption, and everything that can go wrong."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.data.datafile import DataFile
from darknet_py.errors import TrainError
from darknet_py.evaluation.detector import EvalOptions, evaluate_detector
from darknet_py.model.header import read_header
from darknet_py.training.train_step import TrainStep
from darknet_py.training.trainer import TrainResult
from tests.training.conftest import CFG

FILES = {
    *("tiny_best.json", "tiny_best.weights", "tiny_final.weights"),
    *("tiny_last.state", "tiny_last.weights", "tiny_previous.state"),
    *(f"tiny_{kind}.weights.sha256" for kind in ("best", "final", "last")),
}


def train(cfg: Path, data: Path, out: Path, **overrides: Any) -> TrainResult:
    return darknet_py.train(cfg, data, out=out, workers=0, quiet=True, device="cpu", **overrides)


def start(cfg: Path, data: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, with as many threads as here."""
    code = "import logging, sys; from darknet_py.cli import train as t; import argparse; p = argparse.ArgumentParser();"
    code += "logging.basicConfig(level='INFO'); t.configure(p); sys.exit(t.run(p.parse_args()))"
    argv = [sys.executable, "-c", code, str(cfg), "--data", str(data), "--out", str(out), "--workers", "0"]
    threads = str(torch.get_num_threads())
    return subprocess.Popen(
        [*argv, "--device", "cpu", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        cwd=Path(darknet_py.__file__).parents[1],
        start_new_session=True,
    )


def wait_for_rows(log: Path, rows: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") <= rows:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> tuple[TrainResult, Path]:
    """A training that nobody stopped, and its cfg."""
    folder = tmp_path_factory.mktemp("whole")
    cfg = folder / "tiny.cfg"
    cfg.write_text(CFG)
    return train(cfg, shapes, folder / "out", map=6, save_every=4), cfg


def test_it_leaves_the_files_it_promises(whole: tuple[TrainResult, Path]) -> None:
    result, _ = whole
    folder = result.weights.parent
    names = {path.name for path in folder.iterdir()}
    images = {"chart_tiny.png", "tiny_confusion.png", "tiny_precision_recall.png", "tiny_loss_parts.png"}
    images |= {"tiny_report.html", "tiny_samples.jpg", "tiny_worst.jpg"}
    assert names == FILES | images | {"tiny_log.csv", "tiny_map.json", "tiny_classes.csv", "tiny.names"}
    assert read_header(result.weights).seen == 48
    assert result.weights.read_bytes() == (folder / "tiny_last.weights").read_bytes()
    rows = list(csv.DictReader(result.log.read_text().splitlines()))
    assert [int(row["iteration"]) for row in rows] == list(range(1, 13))
    assert float(rows[-1]["loss"]) == pytest.approx(result.loss, rel=1e-6)
    average = float(rows[0]["loss"])
    for row in rows:
        average = 0.9 * average + 0.1 * float(row["loss"])
        assert float(row["average"]) == pytest.approx(average, rel=1e-6)
    assert float(rows[0]["rate"]) == pytest.approx(0.001 / 3**4)
    assert [row["iteration"] for row in json.loads((folder / "tiny_map.json").read_text())] == [6, 12]
    assert json.loads((folder / "tiny_best.json").read_text())["map"] == result.best_map
    state = torch.load(result.state, weights_only=True)
    assert state["learner"]["iteration"] == 12


def test_it_learns(whole: tuple[TrainResult, Path]) -> None:
    rows = list(csv.DictReader(whole[0].log.read_text().splitlines()))
    assert sum(float(row["loss"]) for row in rows[-3:]) < 0.8 * sum(float(row["loss"]) for row in rows[:3])


def test_map_while_training_is_the_stand_alone_one(shapes: Path, tmp_path: Path) -> None:
    """Of a network that detects something: 40 iterations of Adam at a fixed input size, a low IoU threshold."""
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(CFG.replace("random=1", "random=0"))
    options: dict[str, Any] = {"iou_thresh": 0.1, "map": 20, "adam": True, "learning_rate": 0.01, "max_batches": 40}
    result = train(cfg, shapes, tmp_path / "out", **options)
    data = DataFile.read(shapes)
    network = darknet_py.load(cfg, result.weights)
    assert network.names == data.class_names()
    evaluation = EvalOptions(protocols=("darknet",), workers=0, iou_thresh=0.1)
    alone = evaluate_detector(network, data.valid_images(), options=evaluation)
    assert alone.darknet is not None
    assert result.map is not None and result.map > 0.01
    assert alone.darknet.map == result.map
    assert result.best_map is not None and result.best_map >= result.map

    best = evaluate_detector(result.load(), data.valid_images(), options=evaluation).darknet
    stored = json.loads((tmp_path / "out" / "tiny_best.json").read_text())
    assert best is not None and best.best_thresh is not None
    assert [stored[key] for key in ("map", "best_thresh", "best_f1")] == [best.map, best.best_thresh, best.best_f1]
    assert result.load().threshold("auto") == best.best_thresh


def test_seed_decides_everything(whole: tuple[TrainResult, Path], shapes: Path, tmp_path: Path) -> None:
    result, cfg = whole
    again = train(cfg, shapes, tmp_path / "again", map=False)
    other = train(cfg, shapes, tmp_path / "other", map=False, seed=1, max_batches=2)
    assert again.weights.read_bytes() == result.weights.read_bytes()
    assert other.weights.read_bytes() != result.weights.read_bytes()
    assert again.map is None and again.best is None


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_anywhere_and_resumed_it_ends_with_the_same_bits(
    seed: int, whole: tuple[TrainResult, Path], shapes: Path, tmp_path: Path
) -> None:
    result, cfg = whole
    dice = random.Random(seed)
    out = tmp_path / "out"
    options = ("--map", "6", "--save-every", "2")
    process = start(cfg, shapes, out, *options)
    wait_for_rows(out / "tiny_log.csv", dice.randint(1, 10), process)
    time.sleep(dice.random() * 0.02)
    process.kill()
    process.communicate()
    resumed = train(cfg, shapes, out, map=6, save_every=2, resume=True)
    assert resumed.weights.read_bytes() == result.weights.read_bytes()
    assert (out / "tiny_last.weights").read_bytes() == result.weights.read_bytes()
    rows, expected = (list(csv.reader(log.read_text().splitlines())) for log in (resumed.log, result.log))
    assert [row[:5] for row in rows] == [row[:5] for row in expected]
    assert resumed.best_map == result.best_map


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_saves_and_goes_on_later(
    number: int, whole: tuple[TrainResult, Path], shapes: Path, tmp_path: Path
) -> None:
    result, cfg = whole
    out = tmp_path / "out"
    process = start(cfg, shapes, out, "--map", "off", "--workers", "1")
    wait_for_rows(out / "tiny_log.csv", 2, process)
    os.killpg(process.pid, number)  # as a terminal or a job scheduler does: to the loader process as well
    _, printed = process.communicate(timeout=60)
    assert b"--resume" in printed and b"KeyboardInterrupt" in printed  # the command line makes 130 of it
    state = torch.load(out / "tiny_last.state", weights_only=True)
    assert 2 <= state["learner"]["iteration"] < 12
    assert read_header(out / "tiny_last.weights").seen == 4 * state["learner"]["iteration"]
    assert train(cfg, shapes, out, map=False, resume=True).weights.read_bytes() == result.weights.read_bytes()


def test_a_crash_between_state_and_weights_is_put_right(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(cfg, shapes, out, map=False, max_batches=2)
    good = (out / "tiny_last.weights").read_bytes()
    train(cfg, shapes, tmp_path / "other", map=False, max_batches=1)
    (out / "tiny_last.weights").write_bytes((tmp_path / "other" / "tiny_last.weights").read_bytes())
    train(cfg, shapes, out, map=False, max_batches=2, resume=True)
    assert (out / "tiny_last.weights").read_bytes() == good


def test_resuming_keeps_a_better_best(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(cfg, shapes, out, map=2, max_batches=2, burn_in=0, steps=9)
    (out / "tiny_best.json").write_text('{"map": 0.99, "iteration": 1}')
    (out / "tiny_best.weights").write_bytes(b"better")
    result = train(cfg, shapes, out, map=2, max_batches=4, burn_in=0, steps=9, resume=True)
    assert (out / "tiny_best.weights").read_bytes() == b"better"
    assert result.best_map == 0.99
    result = train(cfg, shapes, out, weights=out / "tiny_final.weights", map=2, max_batches=6, burn_in=0, steps=9)
    assert result.best_map == 0.99  # Darknet's way of going on: from weights that have seen images
    result = train(cfg, shapes, out, map=2, max_batches=2, burn_in=0, steps=9)
    assert result.best_map is not None and result.best_map < 0.99  # from scratch


def test_resuming_from_darknets_own_weights_or_from_nothing(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = train(cfg, shapes, out, map=False, max_batches=2, steps=9, burn_in=3, resume=True)
    assert result.iterations == 2
    result.state.unlink()
    result = train(cfg, shapes, out, map=False, max_batches=3, steps=9, burn_in=3, resume=True)
    assert [int(row["iteration"]) for row in csv.DictReader(result.log.read_text().splitlines())] == [3]


def test_numbered_weights_follow_the_data_file(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    data = tmp_path / "x.data"
    data.write_text(shapes.read_text() + f"saveweights = 2\nsavelast = 3\nbackup = {tmp_path / 'b'}\n")
    darknet_py.train(cfg, data, workers=0, quiet=True, map=False, max_batches=4)
    assert {"tiny_2.weights", "tiny_4.weights"} <= {path.name for path in (tmp_path / "b").iterdir()}


def test_momentum_of_the_running_statistics(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    ours, same, other = (
        train(cfg, shapes, tmp_path / name, map=False, max_batches=2, bn_momentum=momentum).weights.read_bytes()
        for name, momentum in (("a", None), ("b", 0.1), ("c", 0.01))
    )
    assert ours == same != other
    with pytest.raises(TrainError, match="bn_momentum"):
        train(cfg, shapes, tmp_path, bn_momentum=0)


def test_ema_weights_are_the_averages_and_replace_the_weights(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    """With 12 iterations the averages start at 6 and replace the weights at 9."""
    data = tmp_path / "x.data"
    data.write_text(shapes.read_text() + "saveweights = 1\n")
    train(cfg, data, tmp_path / "plain", map=False)
    train(cfg, data, tmp_path / "ema", map=False, ema=0.75, save_every=8)

    def arrays(folder: str, kind: str) -> dict[str, torch.Tensor]:
        return dict(darknet_py.load(cfg, tmp_path / folder / f"tiny_{kind}.weights").named_parameters())

    weights = {number: arrays("plain", str(number)) for number in (6, 7, 8, 9)}
    averaged, applied, written = arrays("ema", "8"), arrays("ema", "9"), arrays("ema", "ema")
    for name, first in weights[6].items():
        average = 0.75 * (0.75 * first + 0.25 * weights[7][name]) + 0.25 * weights[8][name]
        torch.testing.assert_close(averaged[name], weights[8][name], rtol=0, atol=0)  # not yet replaced
        torch.testing.assert_close(applied[name], average, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(written[name], average, rtol=1e-6, atol=1e-7)
        assert not torch.equal(average, weights[9][name])


def test_a_bad_image_is_listed_and_skipped(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    images = [*DataFile.read(shapes).train_images()[:3], str(broken), str(tmp_path / "missing.jpg")]
    (tmp_path / "list.txt").write_text("\n".join(images))
    data = tmp_path / "x.data"
    data.write_text(f"classes = 6\ntrain = {tmp_path / 'list.txt'}\n")
    assert train(cfg, data, tmp_path / "out").iterations == 12
    listed = (tmp_path / "out" / "bad.list").read_text()
    assert "broken.jpg" in listed and "missing.jpg" in listed


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_loss_that_is_not_finite_stops_and_the_batch_is_named_and_kept(
    log_every: int, cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, fed = TrainStep.step, []

    def poisoned(self: TrainStep, mini_batches: Any) -> Any:
        fed.append([(images.clone(), truth.clone()) for images, truth in mini_batches])
        done = step(self, fed[-1])
        return done._replace(loss=done.loss * float("nan")) if done.iteration == 3 else done

    monkeypatch.setattr(TrainStep, "step", poisoned)
    with pytest.raises(TrainError) as caught:
        train(cfg, shapes, tmp_path, map=False, save_every=2, log_every=log_every)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("iteration 3: the loss is nan")
    assert any("mini-batch 1, layer 4" in line for line in lines)
    assert f"  the batch: {tmp_path / 'tiny_nonfinite.pt'}" in lines
    kept = torch.load(tmp_path / "tiny_nonfinite.pt", weights_only=True)
    assert kept["iteration"] == 3 and kept["loss"] != kept["loss"]
    assert [f"    {name}" for name in kept["files"]] == lines[-len(kept["files"]) :]
    assert 1 <= len(kept["files"]) <= 4 and all(Path(name).exists() for name in kept["files"])
    for (images, truth), own_images, own_truth in zip(fed[2], kept["images"], kept["truth"], strict=True):
        assert torch.equal(images, own_images) and torch.equal(truth, own_truth)
    assert torch.load(tmp_path / "tiny_last.state", weights_only=True)["learner"]["iteration"] == 2


def test_weights_that_are_not_finite_are_never_saved(
    cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainStep.step

    def spoiled(self: TrainStep, mini_batches: Any) -> Any:
        done = step(self, mini_batches)
        if done.iteration == 7:
            self.network.layers[0].variance[0] = float("inf")  # the loss stays finite: heads leave such values out
        return done

    monkeypatch.setattr(TrainStep, "step", spoiled)
    with pytest.raises(TrainError, match=r"iteration 8: non-finite weights in layers\.0\.variance"):
        train(cfg, shapes, tmp_path, map=False, save_every=4)
    assert torch.load(tmp_path / "tiny_last.state", weights_only=True)["learner"]["iteration"] == 4
    assert not (tmp_path / "tiny_final.weights").exists()


def test_what_the_validation_list_cannot_give_is_told_and_listed(
    cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    images = [*DataFile.read(shapes).train_images()[:3], str(tmp_path / "missing.jpg")]
    (tmp_path / "list.txt").write_text("\n".join(images))
    (tmp_path / "x.data").write_text(f"classes=6\ntrain={DataFile.read(shapes).train}\nvalid={tmp_path}/list.txt\n")
    darknet_py.train(cfg, tmp_path / "x.data", out=tmp_path, workers=0, map=6, device="cpu")
    warned = [each.getMessage() for each in log.records if each.levelname == "WARNING"]
    assert sum(message.startswith(f"{tmp_path}/missing.jpg") for message in warned) == 1
    assert "missing.jpg" in (tmp_path / "bad_label.list").read_text()


def test_a_checkpoint_is_begun_with(whole: tuple[TrainResult, Path], shapes: Path, tmp_path: Path) -> None:
    result, cfg = whole
    darknet_py.convert(cfg, result.weights, tmp_path / "tiny.pt")
    options: dict[str, Any] = {"clear": True, "max_batches": 1, "map": False}
    given = train(cfg, shapes, tmp_path / "a", weights=result.weights, **options)
    own = train(tmp_path / "tiny.pt", shapes, tmp_path / "b", **options)
    assert given.weights.read_bytes() == own.weights.read_bytes()


def test_a_folder_that_cannot_be_written_is_told_before_training(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match="file/out"):
        train(cfg, shapes, tmp_path / "file" / "out")


def test_lines_without_a_terminal_are_darknets(
    cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    darknet_py.train(cfg, shapes, out=tmp_path, workers=0, max_batches=4, map=4, log_every=2)
    lines = log.messages
    assert lines[0] == "max_batches=4, so steps=3 and burn_in=1"
    assert [line.split(":")[0] for line in lines if "avg loss" in line] == [" 2", " 4"]
    assert any(line.startswith(" 4: mAP@0.50 = ") for line in lines)


def test_without_data_it_trains_on_the_shapes_and_says_so(
    cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darknet_py.training.tasks.detection_task.open_dataset", lambda path: DataFile.read(shapes))
    darknet_py.train(cfg, out=tmp_path, workers=0, max_batches=1, map=False)
    line = log.messages[1]
    assert "built-in shapes" in line and f"train {cfg} --data data/coco.data" in line
