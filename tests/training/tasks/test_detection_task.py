"""What a training measures on the way: the figures of `evaluate`, and nothing of the training changes by it."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.images import letterbox, load_image, resize
from darknet_py.data.labels import find_labels
from darknet_py.evaluation.detector import EvalOptions, evaluate_detector
from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
from darknet_py.training.tasks.detection_task import DetectionTask
from darknet_py.training.train_options import TrainOptions
from darknet_py.training.trainer import TrainResult
from tests.training.conftest import CFG
from tests.training.tasks.test_classification_task import CFG as CLASSIFIER
from tests.training.test_heads import HEADS, NET

OPTIONS: dict[str, Any] = {"workers": 0, "quiet": True, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> tuple[TrainResult, Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("measured")
    cfg = folder / "tiny.cfg"
    cfg.write_text(CFG.replace("random=1", "random=0").replace("policy=steps", "adam=1\npolicy=steps"))
    options = {"thresh": 0.01, "iou_thresh": 0.1, "map": 20, "learning_rate": 0.01, "max_batches": 40, **OPTIONS}
    result = darknet_py.train(cfg, shapes, out=folder / "out", **options)
    return result, cfg, json.loads((folder / "out" / "tiny_map.json").read_text())


def test_all_figures_are_those_of_evaluate(
    trained: tuple[TrainResult, Path, list[dict[str, Any]]], shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, cfg, rows = trained
    run = ["evaluate", str(cfg), "--weights", str(result.weights), "--data", str(shapes), "--json", "--loss"]
    assert main([*run, "--batch", "2", "--workers", "0", "--thresh", ".01", "--iou-thresh", ".1"]) == 0
    alone = json.loads(capsys.readouterr().out)
    last = rows[-1]
    assert last["iteration"] == 40 and last["map"] == alone["darknet"]["map"] == result.map
    assert {key: last[key] for key in alone["darknet"]} == alone["darknet"]  # per class too
    assert last["loss"] == alone["loss"]
    assert last["confusion"] == alone["confusion"]["matrix"]
    assert sum(row["tp"] for row in last["classes"]) > 0 and last["map"] > 0


def test_difficult_objects_are_not_those_of_held_out_images(shapes: Path, tmp_path: Path) -> None:
    images = DataFile.read(shapes).train_images()
    write_list(tmp_path / "train.txt", images)
    write_list(tmp_path / "difficult.txt", [find_labels(image) for image in images])
    data = tmp_path / "x.data"
    write_list(data, ["classes=6", f"train={tmp_path / 'train.txt'}", f"difficult={tmp_path / 'difficult.txt'}"])
    task = DetectionTask.open(data, parse_text(CFG), TrainOptions(map=True, quiet=True))
    assert task.difficult is not None and len(task.difficult) == task.valid_size == len(images)
    held_out = task.hold_out(0.25)
    assert held_out.difficult is None and 0 < held_out.valid_size < len(images)


def test_a_curve_has_the_area_of_its_class(trained: tuple[TrainResult, Path, list[dict[str, Any]]]) -> None:
    _, _, rows = trained
    assert [len(curve) for curve in rows[-1]["curves"]] == [101] * 6
    for curve, row in zip(rows[-1]["curves"], rows[-1]["classes"], strict=True):
        assert all(before >= after for before, after in itertools.pairwise(curve))
        assert sum(curve) / 101 == pytest.approx(row["ap"], abs=0.02)


def test_a_row_per_measurement_and_class(trained: tuple[TrainResult, Path, list[dict[str, Any]]]) -> None:
    result, _, rows = trained
    table = list(csv.DictReader((result.weights.parent / "tiny_classes.csv").read_text().splitlines()))
    assert [(row["iteration"], row["class"]) for row in table] == [(i, str(k)) for i in ("20", "40") for k in range(6)]
    for found, expected in zip(table[6:], rows[-1]["classes"], strict=True):
        assert found["name"] == expected["name"]
        assert {key: float(found[key]) for key in ("ap", "precision", "recall", "f1", "tp")} == {
            key: expected[key] for key in ("ap", "precision", "recall", "f1", "tp")
        }
    for name in ("tiny_confusion.png", "tiny_precision_recall.png", "chart_tiny.png"):
        assert cv2.imread(str(result.weights.parent / name)) is not None


@pytest.mark.parametrize("letter_box", [0, 1])
def test_validation_loss_is_the_loss_of_the_images(letter_box: int, tmp_path: Path) -> None:
    """Against `Network.loss` of the images one by one, boxes placed in the letterbox by hand."""
    text = CFG.replace("random=1", "random=1\niou_loss=mse").replace("burn_in=3", f"burn_in=3\nletter_box={letter_box}")
    torch.manual_seed(3)
    network = Network(parse_text(text)).eval()
    rows = []
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 255, (32, 64, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        (tmp_path / f"{number}.txt").write_text(f"{number} .4 .6 .3 .5\n")
        rows.append([0, number, 0.4, 0.6 * 0.5 + 0.25 if letter_box else 0.6, 0.3, 0.25 if letter_box else 0.5])
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    found = evaluate_detector(
        network, paths, options=EvalOptions(protocols=("darknet",), workers=0, batch=2, loss=True)
    )

    place = letterbox if letter_box else resize
    costs = []
    for path, row in zip(paths, rows, strict=True):
        x = torch.from_numpy(place(load_image(path, 3), 64, 64)).permute(2, 0, 1)[None]
        costs.append(float(network.loss(x, torch.tensor([row])).cost))
    assert found.boxes.loss == pytest.approx(sum(costs) / 3, rel=1e-4)


@pytest.mark.parametrize("kind", [*HEADS, "yolo", "classifier"])
def test_examining_draws_nothing_and_changes_nothing(kind: str) -> None:
    text = {"yolo": CFG, "classifier": CLASSIFIER}.get(kind) or NET.format(rate=0.001) + HEADS[kind]
    torch.manual_seed(0)
    network = Network(parse_text(text)).eval()
    size = network.graph.net.width
    x = torch.rand(2, 3, size, size)
    truth = torch.tensor([[0, 0, 0.3, 0.4, 0.3, 0.3], [1, 0, 0.7, 0.6, 0.2, 0.4]])
    truth = torch.eye(3)[:2] if kind == "classifier" else truth
    before, dice, state = [v.clone() for v in network.state_dict().values()], torch.get_rng_state(), vars(network.state)
    kept = dict(state)
    with torch.inference_mode():
        plain = network(x)
        found, cost = network.forward_with_loss(x, truth)
        assert float(network.forward_with_loss(x, truth)[1]) == float(cost) > 0
    for one, other in zip(plain, found, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), dice) and vars(network.state) == kept
    assert all(torch.equal(old, new) for old, new in zip(before, network.state_dict().values(), strict=True))
    network.state.seen = 1 << 40  # past what v1 and v2 do at first
    assert float(cost) == pytest.approx(float(network.loss(x, truth).cost) / len(network.heads), rel=1e-6)


def test_a_classifiers_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "valid"):
        for number, name in enumerate(("dark", "light")):
            (tmp_path / split / name).mkdir(parents=True)
            for each in range(4):
                picture = np.full((16, 16, 3), 40 + 170 * number + each, np.uint8)
                cv2.imwrite(str(tmp_path / split / name / f"{each}.png"), picture)
    cfg = tmp_path / "small.cfg"
    cfg.write_text(CLASSIFIER)
    out = tmp_path / "out"
    result = darknet_py.train(cfg, tmp_path, out=out, classes=2, max_batches=6, map=3, **OPTIONS)
    last = json.loads((out / "small_top1.json").read_text())[-1]
    run = ["evaluate", str(result.cfg), "--weights", str(result.weights), "--data", str(tmp_path), "--workers", "0"]
    assert main([*run, "--batch", "4", "--loss", "--json", "--out", str(tmp_path / "report")]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert {key: last[key] for key in ("top1", "top5", "loss", "classes")} == {
        key: alone[key] for key in ("top1", "top5", "loss", "classes")
    }
    assert last["confusion"] == alone["confusion"]["matrix"] and sum(map(sum, last["confusion"])) == 8
    assert [row["name"] for row in last["classes"]] == ["dark", "light"]
    assert sum(row["tp"] for row in last["classes"]) == 8 * last["top1"]
    table = list(csv.DictReader((out / "small_classes.csv").read_text().splitlines()))
    assert [row["truths"] for row in table] == ["4"] * 4
    assert {"confusion.png", "confusion.csv", "evaluation.json"} == {p.name for p in (tmp_path / "report").iterdir()}
    assert (out / "small_confusion.png").exists()
