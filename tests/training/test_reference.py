"""Training step by step against C Darknet's figures (reference/train)."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from darknet_py.graph.graph import parse_text
from darknet_py.model.layout import arrays
from darknet_py.model.network import Network
from darknet_py.training.train_step import TrainStep
from tests.training.cpu_build import cpu_build

RUNS = ("yolo_mse_nobn", "yolo_v4_nobn", "yolo_v4_bn", "yolo_frozen", "classifier_softmax", "region_v2")


def detector_truth(boxes: np.ndarray) -> torch.Tensor:
    """(B, max · 6) rows cx, cy, w, h, class, track that end at a zero row → our (N, 6)."""
    rows = []
    for image, each in enumerate(boxes.reshape(len(boxes), -1, 6)):
        ends = np.flatnonzero(each[:, 0] == 0)
        each = each[: ends[0]] if len(ends) else each
        rows += [np.column_stack([np.full(len(each), image), each[:, 4], each[:, :4]])]
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))


@pytest.mark.reference
@pytest.mark.parametrize("name", RUNS)
def test_costs_rates_and_weights_are_those_of_c(name: str, reference: Path, probe: ModuleType, tmp_path: Path) -> None:
    case = json.loads((reference / "train" / "train.json").read_text())[name]
    figures = np.load(reference / "train" / "train.npz")
    network = Network(parse_text(case["cfg"], name))
    layout = [(array.role, array.count, array.fan_in) for _, array in arrays(network.graph)]
    start = probe.weights(layout, case["seed"], case["gain"])
    path = tmp_path / "x.weights"
    path.write_bytes(probe.header() + start.astype("<f4").tobytes())
    network.load_weights(path)

    batch, steps = case["batch"], case["steps"]
    images = torch.from_numpy(probe.image(case["seed"], (steps, batch, *network.graph.input)))
    truth = figures[f"{name}/truth"].reshape(steps, batch, -1)
    convert = detector_truth if case["kind"] == "yolo" else torch.from_numpy
    learner = TrainStep(network)
    with cpu_build():
        done = [learner.step([(x, convert(t))]) for x, t in zip(images, truth, strict=True)]
    # C's figure is the mean over the heads before it is divided by the batch.
    assert [step.loss.item() * batch for step in done] == pytest.approx(case["cost"], rel=1e-3)
    assert [step.rate for step in done] == pytest.approx(case["lr"], rel=1e-6)

    network.save_weights(path)
    positions, expected = figures[f"{name}/positions"], figures[f"{name}/weights"]
    found = np.fromfile(path, "<f4", offset=20)[positions]
    moved = np.linalg.norm(expected - start[positions])
    assert np.linalg.norm(found - expected) < (1e-2 if name == "yolo_v4_bn" else 1e-3) * moved
