"""The files of a training: names, numbers, damaged and incomplete ones."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.data.datafile import DataFile
from darknet_py.errors import TrainError
from darknet_py.model.header import read_header
from darknet_py.training.checkpoint_dir import CheckpointDir, is_numbered_checkpoint
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.state import DamagedState, OtherNetwork, pack_state, unpack_state
from darknet_py.training.train_options import TrainOptions
from darknet_py.training.train_step import TrainStep


def test_numbers_of_weights_are_darknets() -> None:
    assert [i for i in range(1, 30001) if is_numbered_checkpoint(i)] == [*range(1000, 10001, 1000), 20000, 30000]


def test_a_damaged_state_or_one_of_another_cfg_is_one_line(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"out": tmp_path, "workers": 0, "quiet": True, "device": "cpu"}
    result = darknet_py.train(cfg, shapes, max_batches=1, map=False, **options)
    raw = result.state.read_bytes()
    result.state.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(
        TrainError, match=r"damaged \(.*\); --weights .*tiny_last.weights instead of --resume continues"
    ):
        darknet_py.train(cfg, shapes, resume=True, **options)
    result.state.write_bytes(raw)
    cfg.write_text(cfg.read_text().replace("activation=leaky", "activation=mish"))
    with pytest.raises(TrainError, match="saved with other layers"):
        darknet_py.train(cfg, shapes, resume=True, **options)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing"])
def test_resuming_falls_back_to_the_state_before(
    damage: str, cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"workers": 0, "device": "cpu", "map": False, "save_every": 2}
    whole = darknet_py.train(cfg, shapes, out=tmp_path / "whole", **options)
    out = tmp_path / "out"
    files = CheckpointDir(out, "tiny")
    first = darknet_py.train(cfg, shapes, out=out, max_batches=6, burn_in=3, steps=9, **options)
    raw = bytearray(first.state.read_bytes())
    raw[len(raw) // 3] ^= 4
    contents = {"flipped": bytes(raw), "truncated": bytes(raw[:-1]), "empty": b""}
    first.state.unlink() if damage == "missing" else first.state.write_bytes(contents[damage])
    before = files.path("previous.state").read_bytes()

    log.clear()
    plan = TrainingPlan.create(cfg, shapes, options=TrainOptions(out=out, resume=True))
    assert plan.first_iteration == 4 and plan.falls_back
    resumed = darknet_py.train(cfg, shapes, out=out, resume=True, max_batches=5, burn_in=3, steps=9, **options)
    said = [line for line in log.messages if "previous" in line]
    assert len(said) == 1 and f"resuming from the state before, {out / 'tiny_previous.state'}" in said[0]
    assert files.path("previous.state").read_bytes() == before  # the damaged one did not take its place
    resumed = darknet_py.train(cfg, shapes, out=out, resume=True, **options)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert files.path("previous.state").read_bytes() != before


def test_no_flipped_bit_is_accepted(cfg: Path) -> None:
    """In every byte of the zip's structure and of the pickle, and in some of the arrays."""
    step = TrainStep(darknet_py.load(cfg))
    state: Any = {"learner": step.state_dict(), "journal": {"rows": torch.zeros(0, 6), "maps": []}, "best": -1.0}
    state["journal"]["rows"] = torch.zeros(1, 6, dtype=torch.float64)
    content = pack_state({**state, "measured": 0}, step.network.graph)
    assert unpack_state(content, step.network.graph)["learner"]["iteration"] == 0
    random.seed(0)
    places = [*range(40), *range(len(content) - 120, len(content)), *random.sample(range(len(content)), 300)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.randrange(8)
        with pytest.raises(DamagedState):
            unpack_state(bytes(damaged), step.network.graph)


def older(state: dict[str, Any]) -> bytes:
    """A file of version 2, without a checksum."""
    buffer = io.BytesIO()
    torch.save({**state, "version": 2}, buffer)
    return buffer.getvalue()


def test_a_state_of_version_2_resumes(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"workers": 0, "device": "cpu", "map": False, "quiet": True}
    whole = darknet_py.train(cfg, shapes, out=tmp_path / "whole", **options)
    first = darknet_py.train(cfg, shapes, out=tmp_path / "out", max_batches=6, burn_in=3, steps=9, **options)
    state = torch.load(first.state, weights_only=True)
    del state["weights"], state["problems"], state["learner"]["rate_factor"]
    first.state.write_bytes(older(state))
    resumed = darknet_py.train(cfg, shapes, out=tmp_path / "out", resume=True, **options)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


def test_types_and_shapes_are_checked(cfg: Path) -> None:
    """Without a checksum too: no value of another type or shape gets through, and none ends in a traceback."""
    step = TrainStep(darknet_py.load(cfg), amp="fp16")
    step.step([(torch.rand(2, 3, 64, 64), torch.tensor([[0.0, 0, 0.5, 0.5, 0.4, 0.4]]))] * 2)
    journal = {"rows": torch.ones(1, 6, dtype=torch.float64), "maps": [{"iteration": 1, "map": 0.5, "loss": 1.0}]}
    good: dict[str, Any] = {"learner": step.state_dict(), "journal": journal, "best": 0.5, "measured": 1}
    graph = step.network.graph
    good["cfg"] = graph.layers_hash
    assert unpack_state(older(good), graph)["measured"] == 1

    def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(found for key, part in items for found in paths(part, (*path, key)))]

    optional = {"rate_factor", "parts", "map", "loss"}
    for path in paths(good)[1:]:
        for other in (None, "x", b"x", [None], {"x": 1}, torch.zeros(1, 1, dtype=torch.int8), float("nan"), ...):
            state = copy.deepcopy(good)
            place = state
            for key in path[:-1]:
                place = place[key]
            if other is ...:
                if path[-1] in optional or isinstance(place, list) or path[1:3] == ("optimizer", "state"):
                    continue
                del place[path[-1]]
            elif isinstance(other, float) and isinstance(place[path[-1]], float):
                continue  # a number for a number
            else:
                place[path[-1]] = other
            with pytest.raises((DamagedState, OtherNetwork)):
                unpack_state(older(state), graph)
                pytest.fail(f"{path}: {other!r} was accepted")


def test_changed_weights_are_noticed_and_written_again(
    cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"out": tmp_path, "workers": 0, "device": "cpu", "map": False, "max_batches": 2}
    darknet_py.train(cfg, shapes, **options, ema=0.9)
    files = ("tiny_last.weights", "tiny_ema.weights", "chart_tiny.png")
    good = {name: (tmp_path / name).read_bytes() for name in files}
    flipped = bytearray(good["tiny_last.weights"])
    flipped[100] ^= 1
    (tmp_path / "tiny_last.weights").write_bytes(flipped)
    (tmp_path / "tiny_ema.weights").unlink()
    (tmp_path / "chart_tiny.png").unlink()
    log.clear()
    darknet_py.train(cfg, shapes, **options, ema=0.9, resume=True)
    assert sum("is not what was saved with the state" in line for line in log.messages) == 1
    assert {name: (tmp_path / name).read_bytes() for name in files} == good
    log.clear()
    darknet_py.train(cfg, shapes, **options, ema=0.9, resume=True)
    assert not any("is not what" in line for line in log.messages)


def test_what_is_reported_survives_a_resumption(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    images = [*DataFile.read(shapes).train_images()[:3], str(tmp_path / "missing.jpg")]
    (tmp_path / "list.txt").write_text("\n".join(images))
    (tmp_path / "x.data").write_text(f"classes = 6\ntrain = {tmp_path / 'list.txt'}\n")
    options: dict[str, Any] = {"out": tmp_path / "out", "workers": 0, "quiet": True, "map": False}
    darknet_py.train(cfg, tmp_path / "x.data", max_batches=4, **options)
    listed = (tmp_path / "out" / "bad.list").read_text()
    assert "missing.jpg" in listed
    (tmp_path / "out" / "bad.list").unlink()
    darknet_py.train(cfg, tmp_path / "x.data", max_batches=4, resume=True, **options)
    assert (tmp_path / "out" / "bad.list").read_text() == listed


def test_unfinished_files_of_killed_trainings_are_removed(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    removed = [f".{name}.{ended.pid}.tmp" for name in ("tiny_last.state", "chart_tiny.png", "tiny.names", "bad.list")]
    kept = [f".tiny_last.state.{os.getppid()}.tmp", f".other_last.state.{ended.pid}.tmp", ".tiny_last.tmp"]
    for name in (*removed, *kept):
        (tmp_path / name).touch()
    darknet_py.train(cfg, shapes, out=tmp_path, workers=0, quiet=True, map=False, max_batches=1)
    assert sorted(path.name for path in tmp_path.glob(".*")) == sorted(kept)


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
    assert len(files.save_weights(network, "final")) == 64
    assert read_header(files.path("final.weights")).seen == 8
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
        assert [line for line in log.messages if line.startswith("files of an earlier")] == [
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
