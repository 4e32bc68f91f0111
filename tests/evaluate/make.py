"""Random records for the evaluation tests."""

from __future__ import annotations

import numpy as np

from darknet_py.evaluate.records import Found, Truth


def boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.concatenate([rng.uniform(0.1, 0.9, (n, 2)), rng.uniform(0.05, 0.4, (n, 2))], 1).astype(np.float32)


def truth(rng: np.random.Generator, n: int, classes: int) -> Truth:
    return Truth(boxes(rng, n), rng.integers(0, classes, n))


def found(rng: np.random.Generator, labels: Truth, classes: int, extra: int = 5, ties: bool = True) -> Found:
    """Boxes near the truths (several per truth), a few elsewhere; with `ties`, scores of few distinct values."""
    near = np.repeat(labels.boxes, 3, 0) * rng.uniform(0.8, 1.25, (3 * len(labels.boxes), 4))
    ids = np.repeat(labels.class_ids, 3)
    ids = np.where(rng.random(len(ids)) < 0.2, rng.integers(0, classes, len(ids)), ids)
    all_boxes = np.concatenate([near, boxes(rng, extra)]).astype(np.float32)
    all_ids = np.concatenate([ids, rng.integers(0, classes, extra)])
    scores = rng.uniform(0.01, 0.99, len(all_ids)).astype(np.float32)
    order = rng.permutation(len(all_ids))
    return Found(all_boxes[order], all_ids[order], np.round(scores, 1 if ties else 6).astype(np.float32) + 0.005)


def dataset(seed: int, images: int = 8, classes: int = 4, ties: bool = True) -> tuple[list[Found], list[Truth]]:
    rng = np.random.default_rng(seed)
    labels = [truth(rng, int(rng.integers(0, 6)), classes) for _ in range(images)]
    return [found(rng, record, classes, ties=ties) for record in labels], labels
