"""Random records for the evaluation tests."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from darknet_py.evaluation.types import GroundTruth
from darknet_py.inference.detections import Detections


def boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.concatenate([rng.uniform(0.1, 0.9, (n, 2)), rng.uniform(0.05, 0.4, (n, 2))], 1).astype(np.float32)


def truth(rng: np.random.Generator, n: int, classes: int) -> GroundTruth:
    return GroundTruth(boxes(rng, n), rng.integers(0, classes, n))


def found(rng: np.random.Generator, labels: GroundTruth, classes: int, extra: int = 5, ties: bool = True) -> Detections:
    """Boxes near the truths (several per truth), a few elsewhere; with `ties`, scores of few distinct values."""
    near = np.repeat(labels.boxes, 3, 0) * rng.uniform(0.8, 1.25, (3 * len(labels.boxes), 4))
    ids = np.repeat(labels.class_ids, 3)
    ids = np.where(rng.random(len(ids)) < 0.2, rng.integers(0, classes, len(ids)), ids)
    all_boxes = np.concatenate([near, boxes(rng, extra)]).astype(np.float32)
    all_ids = np.concatenate([ids, rng.integers(0, classes, extra)])
    scores = rng.uniform(0.01, 0.99, len(all_ids)).astype(np.float32)
    order = rng.permutation(len(all_ids))
    return Detections(all_boxes[order], all_ids[order], np.round(scores, 1 if ties else 6).astype(np.float32) + 0.005)


def dataset(
    seed: int, images: int = 8, classes: int = 4, ties: bool = True
) -> tuple[list[Detections], list[GroundTruth]]:
    rng = np.random.default_rng(seed)
    labels = [truth(rng, int(rng.integers(0, 6)), classes) for _ in range(images)]
    return [found(rng, record, classes, ties=ties) for record in labels], labels


GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluate_run.json").read_text())
CFG = """[net]
width=64
height=48
channels=3
letter_box={letter_box}

[convolutional]
filters=12
size=5
stride=4
pad=1
activation=leaky

[convolutional]
filters=18
size=1
activation=linear

[yolo]
mask=0,1
anchors=14,12, 26,22
classes=4
num=2
scale_x_y=1.1
nms_kind={nms_kind}
beta_nms=0.8
"""
WEIGHTS = 12 + 12 * 3 * 25 + 18 + 18 * 12


def small_network(folder: Path, letter_box: int, nms_kind: str) -> tuple[Path, Path]:
    """A cfg and weights for it: random, spread so that many boxes pass the thresholds."""
    cfg, weights = folder / f"small-{letter_box}-{nms_kind}.cfg", folder / "small.weights"
    cfg.write_text(CFG.format(letter_box=letter_box, nms_kind=nms_kind))
    values = np.random.default_rng(5).uniform(-1, 1, WEIGHTS).astype("<f4")
    values[:912] *= 0.35
    values[912:930] = np.tile([0, 0, 0, 0, -4, 1, 0, -1, 2], 2)
    values[930:] *= np.repeat(np.tile([1, 1, 0.3, 0.3, 6, 4, 4, 4, 4], 2), 12)
    header = np.array([0, 2, 5], "<i4").tobytes() + np.array([0], "<i8").tobytes()
    weights.write_bytes(header + values.tobytes())
    return cfg, weights


def images(folder: Path) -> list[str]:
    """Six small pictures of different shapes, as PNG, which every reader decodes alike."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(6)
    paths = []
    for i, (width, height) in enumerate([(64, 48), (80, 40), (40, 80), (64, 48), (100, 90), (31, 57)]):
        picture = rng.integers(0, 200, (5, 6, 3)).astype(np.uint8).repeat(20, 0).repeat(20, 1)[:height, :width]
        paths.append(str(folder / "images" / f"{i}.png"))
        cv2.imwrite(paths[-1], picture + rng.integers(0, 50, picture.shape).astype(np.uint8))
    return paths


def labeled(folder: Path) -> list[str]:
    """`images` with the labels that C saw."""
    paths = images(folder)
    for path, rows in zip(paths, GOLDEN["labels"], strict=True):
        Path(path).with_suffix(".txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    return paths
