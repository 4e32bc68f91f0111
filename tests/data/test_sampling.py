"""Samples that belong together: timelines and contrastive pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from darknet_py.cfg.net import NetSpec
from darknet_py.data.augment.augmentation import Augmentation, draw_params
from darknet_py.data.classification import ClassifierDataset, ClassifierLoader
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.loader import TrainLoader
from darknet_py.data.sampling import rank_samples, related_index, related_params

COLORS = Augmentation(jitter=0.3, flip=True, hue=0.1, saturation=1.5, exposure=1.5)


def indices(options: Augmentation, images: int, batch: int, turn: int = 0, count: int = 1000) -> list[int]:
    first = batch * images
    return [related_index(options, 7, first + k, turn, images, count) or 0 for k in range(images)]


@pytest.mark.parametrize("speed", [1, 3])
def test_timelines_run_side_by_side(speed: int) -> None:
    options = Augmentation(track=True, time_steps=4, augment_speed=speed)
    speeds = set()
    for batch in range(30):
        lines = np.reshape(indices(options, 12, batch), (4, 3))  # time step, timeline
        steps = np.diff(lines, axis=0) % 1000
        assert len(np.unique(steps)) == 1 and 1 <= steps[0, 0] <= speed
        speeds.add(int(steps[0, 0]))
        assert len(set(lines[0])) > 1
        assert indices(options, 12, batch, turn=1) != lines.ravel().tolist()
    assert speeds == set(range(1, speed + 1))


def test_pairs_show_the_same_image() -> None:
    pairs = np.reshape(indices(Augmentation(contrastive=True), 8, 3), (4, 2))
    assert (pairs[:, 0] == pairs[:, 1]).all() and len(set(pairs[:, 0])) > 1
    lines = np.reshape(indices(Augmentation(contrastive=True, track=True, time_steps=2), 8, 0), (2, 4))
    assert (lines[:, ::2] == lines[:, 1::2]).all()
    assert related_index(Augmentation(), 0, 5, 0, 8, 9) is None


def test_what_related_samples_share() -> None:
    def draws(**changes: bool) -> list:
        options = Augmentation(**{**COLORS.__dict__, **changes})
        return [
            related_params(options, 7, number, 0, 8, draw_params(options, np.random.default_rng(number)))
            for number in (4, 5, 6)
        ]

    alone = draws()
    assert len({each.sides for each in alone}) == len({each.hue for each in alone}) == 3
    a, b, c = draws(contrastive=True)
    assert (a.sides, a.flip, a.hue) == (b.sides, b.flip, b.hue) and a.zoom != b.zoom and a.sides != c.sides
    a, b, c = draws(contrastive=True, contrastive_jit_flip=True)
    assert a.sides != b.sides and a.hue == b.hue
    a, b, c = draws(contrastive=True, contrastive_color=True)
    assert a.sides == b.sides and a.hue != b.hue
    a, b, c = draws(track=True)
    assert a == b == c


def test_a_video_through_the_loader(tmp_path: Path) -> None:
    for number in range(20):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), np.full((16, 16, 3), number * 10, np.uint8))
        (tmp_path / f"{number:02}.txt").write_text("0 .5 .5 .5 .5\n")
    net = NetSpec(width=16, height=16, channels=3, batch=4, subdivisions=2, time_steps=3, track=True, augment_speed=1)
    data = DetectionDataset([str(path) for path in sorted(tmp_path.glob("*.png"))], 1)
    batch = next(TrainLoader(data, net, Augmentation.of(net), workers=0).batches())
    assert len(batch.images) == 6 and len(batch.tracks) == 6
    shown = (batch.images[:, 0, 8, 8] * 25.5).round().int().reshape(3, 2)
    assert (shown.diff(dim=0) % 20 == 1).all()


def test_processes_share_samples_but_not_pairs() -> None:
    assert [rank_samples(8, 4, rank, 2, False) for rank in (0, 1)] == [[8, 10, 12, 14], [9, 11, 13, 15]]
    assert [rank_samples(8, 4, rank, 2, True) for rank in (0, 1)] == [[8, 9, 12, 13], [10, 11, 14, 15]]


def test_each_process_gets_both_views_of_an_image(tmp_path: Path) -> None:
    for number in range(20):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), np.full((16, 16, 3), number * 10, np.uint8))
    net = NetSpec(width=16, height=16, channels=3, batch=16, contrastive=True, max_crop=16, min_crop=16)
    paths = [str(path) for path in sorted(tmp_path.glob("*.png"))]
    for rank in (0, 1):
        share: dict[str, Any] = {"mini_batch": 8, "workers": 0, "rank": rank, "world": 2}
        loaders = (
            TrainLoader(DetectionDataset(paths, 1), net, Augmentation.of(net), **share),
            ClassifierLoader(ClassifierDataset(paths, ["png"]), net, **share),
        )
        for loader in loaders:
            first, second = (next(loader.batches()).images[view::2].mean((1, 2, 3)) for view in (0, 1))
            assert first.tolist() == second.tolist() and len(set(first.tolist())) > 1
