"""Training of classifiers: data, accuracy, files, resuming."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.data import open_classification as classifier_data
from darknet_py.data.builtin import shape_classes
from darknet_py.errors import DataError, TrainError
from darknet_py.training.tasks.classification_task import ClassificationTask
from darknet_py.training.tasks.task import EvalScore
from darknet_py.training.trainer import TrainResult

CFG = """
[net]
batch=8
subdivisions=2
width=16
height=16
channels=3
min_crop=16
max_crop=18
learning_rate=0.02
policy=constant
max_batches=40

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=3
size=1
activation=linear

[avgpool]

[softmax]
groups=1
"""
COLORS = {"red": (0, 0, 220), "green": (0, 220, 0), "blue": (220, 0, 0)}


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    path = tmp_path / "small.cfg"
    path.write_text(CFG)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and valid/ with one folder of plain images per color, and a .data file of the same images."""
    root = tmp_path_factory.mktemp("colors")
    dice = np.random.default_rng(0)
    for split, count in (("train", 6), ("valid", 3)):
        images = []
        for name, color in COLORS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                noise = dice.integers(0, 60, (20, 24, 3))
                path = root / split / name / f"{number}.png"
                cv2.imwrite(str(path), np.clip(noise + np.array(color) - 30, 0, 255).astype(np.uint8))
                images.append(str(path))
        (root / f"{split}.txt").write_text("\n".join(images))
    (root / "labels.txt").write_text("".join(f"/{name}/\n" for name in COLORS))
    (root / "names.txt").write_text("".join(f"{name} ones\n" for name in COLORS))
    (root / "colors.data").write_text(
        "classes = 3\ntrain = train.txt\nvalid = valid.txt\nlabels = labels.txt\nnames = names.txt\n"
    )
    return root


def train(cfg: Path, data: Path, out: Path, **overrides: Any) -> TrainResult:
    return darknet_py.train(cfg, data, out=out, workers=0, quiet=True, device="cpu", **overrides)


def test_it_learns_and_keeps_the_best_by_top_1(cfg: Path, folder: Path, tmp_path: Path) -> None:
    result = train(cfg, folder, tmp_path / "out", map=20)
    assert result.map == result.best_map == 1.0
    names = {path.name for path in result.weights.parent.iterdir()}
    assert {"small_best.weights", "small_final.weights", "small_top1.json", "chart_small.png"} <= names
    rows = json.loads((tmp_path / "out" / "small_top1.json").read_text())
    assert [row["iteration"] for row in rows] == [20, 40]
    assert rows[-1]["top1"] == rows[-1]["top5"] == 1.0 and rows[-1]["images"] == 9
    assert rows[-1]["confusion"] == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert json.loads((tmp_path / "out" / "small_best.json").read_text())["top1"] == 1.0
    losses = [float(row["loss"]) for row in csv.DictReader(result.log.read_text().splitlines())]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("lists", [True, False])
def test_a_part_is_held_out(
    cfg: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lists: bool
) -> None:
    data, out = folder / "train", tmp_path / "out"
    if lists:
        data = tmp_path / "one.data"
        data.write_text(f"classes=3\ntrain={folder / 'train.txt'}\nlabels={folder / 'labels.txt'}\n")
    result = train(cfg, data, out, split=0.34, map=20)
    assert result.label == "top-1" and result.map == 1.0
    held_out = (out / "small_valid.txt").read_text().split()
    assert sorted(Path(path).parent.name for path in held_out) == sorted([*COLORS] * 2)
    assert len({*held_out, *(out / "small_train.txt").read_text().split()}) == 18
    assert main(["evaluate", str(cfg), "--weights", str(result.best), "--data", str(out / "small.data")]) == 0
    assert "6 images" in capsys.readouterr().out
    again = train(cfg, data, out, split=0.34, map=20, max_batches=41, resume=True)
    assert again.map == 1.0 and (out / "small_valid.txt").read_text().split() == held_out


def test_resumed_it_ends_with_the_same_bits(cfg: Path, folder: Path, tmp_path: Path) -> None:
    whole = train(cfg, folder / "colors.data", tmp_path / "a", max_batches=6, map=False)
    train(cfg, folder / "colors.data", tmp_path / "b", max_batches=3, map=False)
    resumed = train(cfg, folder / "colors.data", tmp_path / "b", max_batches=6, map=False, resume=True)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


def test_the_folder_and_the_list_are_one_data_set(cfg: Path, folder: Path, tmp_path: Path) -> None:
    results = [
        train(cfg, data, tmp_path / name, max_batches=2, map=2)
        for name, data in (("list", folder / "colors.data"), ("folder", folder))
    ]
    assert all(result.map is not None for result in results)


def test_fewer_classes_than_outputs_train_and_more_are_refused(cfg: Path, folder: Path, tmp_path: Path) -> None:
    cfg.write_text(CFG.replace("filters=3", "filters=5"))
    assert train(cfg, folder, tmp_path / "out", max_batches=2).best_map is not None
    cfg.write_text(CFG.replace("filters=3", "filters=2"))
    with pytest.raises(TrainError, match=r"expected at most 2 classes, .* got 3"):
        train(cfg, folder, tmp_path / "out")


def test_what_is_missing_is_told(cfg: Path, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "x.data"
    data.write_text(f"classes = 3\ntrain = {folder / 'train.txt'}\n")
    with pytest.raises(DataError, match="expected a line labels="):
        train(cfg, data, tmp_path)
    cfg.write_text(CFG.replace("[softmax]\ngroups=1\n", "[upsample]\nstride=2\n"))
    with pytest.raises(TrainError, match="expected a detection layer"):
        train(cfg, folder, tmp_path)


def test_without_data_it_trains_on_the_built_in_set(
    cfg: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = partial(shape_classes.ensure_shape_classes, tmp_path / "set", train=12, valid=6)
    monkeypatch.setattr(classifier_data, "ensure_shape_classes", few)
    with pytest.raises(TrainError, match=r"set: expected at most 3 classes, .* got 6"):
        darknet_py.train(cfg, out=tmp_path)
    cfg.write_text(CFG.replace("filters=3", "filters=6"))
    result = darknet_py.train(cfg, out=tmp_path / "out", workers=0, device="cpu", max_batches=2, map=2)
    assert result.map is not None
    said = "\n".join(log.messages)
    assert f"training on the built-in shapes, 12 images ({tmp_path / 'set'}); on your own" in said
    assert f"darknet-py train {cfg} --data FOLDER" in said
    assert main(["evaluate", str(cfg), "--weights", str(result.weights), "--workers", "0"]) == 0
    assert capsys.readouterr().out.startswith("6 images: top-1 ")


def test_a_cost_layer_and_two_views_per_image_train(cfg: Path, folder: Path, tmp_path: Path) -> None:
    cfg.write_text(CFG + "\n[cost]\ntype=sse\n")
    assert train(cfg, folder, tmp_path / "cost", max_batches=3).iterations == 3
    assert train(cfg, folder, tmp_path / "mixed", max_batches=3, contrastive=1, mosaic=1).iterations == 3


def test_classify_names_images_and_measures(
    cfg: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = train(cfg, folder / "colors.data", tmp_path / "out", map=False).weights
    network = ["classify", str(cfg), "--weights", str(weights), "--data", str(folder / "colors.data")]
    assert main([*network, str(folder / "valid" / "red" / "0.png"), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1].endswith("%  red ones")
    assert main([*network, str(folder / "valid" / "blue"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["classes"][0]["name"] for row in found] == ["blue ones"] * 3
    assert sum(each["confidence"] for each in found[0]["classes"]) == pytest.approx(1, abs=1e-4)
    assert main(["evaluate", *network[1:], "--workers", "0"]) == 0
    assert capsys.readouterr().out == "9 images: top-1 100.00%, top-5 100.00%\n"
    assert main([*network, str(tmp_path / "none.png")]) == 1


def test_patience_ends_a_training_that_gets_no_better(
    cfg: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.6, 0.6, 0.5, 0.4, 0.9])
    monkeypatch.setattr(ClassificationTask, "evaluate", lambda self, network, context: EvalScore(next(scores), 0.0, {}))
    result = train(cfg, folder, tmp_path / "out", map=2, patience=2)
    assert (result.iterations, result.map, result.best_map) == (10, 0.4, 0.6)
    assert result.weights.exists()


def test_a_batch_that_failed_is_kept(cfg: Path, folder: Path, tmp_path: Path) -> None:
    cfg.write_text(CFG.replace("learning_rate=0.02", "learning_rate=1e30"))
    with pytest.raises(TrainError, match="the loss is nan") as caught:
        train(cfg, folder, tmp_path / "out", map=False)
    kept = torch.load(tmp_path / "out" / "small_nonfinite.pt", weights_only=True)
    assert [part.shape for part in kept["images"]] == [(4, 3, 16, 16)] * 2
    assert [part.shape for part in kept["truth"]] == [(4, 3)] * 2
    assert all(f"    {name}" in str(caught.value).splitlines() for name in kept["files"])


def test_self_adversarial_training_of_few_classes(cfg: Path, folder: Path, tmp_path: Path) -> None:
    result = train(cfg, folder, tmp_path / "out", max_batches=12, adversarial_lr=0.1, map=False)
    assert result.iterations == 12 and result.loss > 0
