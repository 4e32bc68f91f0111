"""Boxes on images and pictures to files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from darknet_py.errors import DataError
from darknet_py.view import draw as view
from darknet_py.view.draw import color, draw, save_picture

GRAY = np.full((120, 200, 3), 90, np.uint8)


class Found(NamedTuple):
    class_id: int
    name: str
    confidence: float
    box: tuple[float, float, float, float]


def test_box_lies_where_it_should_and_the_input_is_untouched() -> None:
    image = GRAY.copy()
    picture = draw(image, [Found(3, "dog", 0.9, (0.5, 0.6, 0.5, 0.5))])
    assert (image == GRAY).all() and picture.shape == image.shape and picture.dtype == np.uint8
    edge = (picture == color(3)).all(-1)
    assert edge[80, 50] and edge[80, 150] and edge[102, 100]  # left, right and bottom edge
    assert not edge[60:95, 60:140].any()  # nothing inside
    assert edge[:42].any()  # the label above


@pytest.mark.parametrize("shape", [(1, 1, 3), (16, 16, 3), (40, 2000, 3), (2000, 40, 3), (600, 800), (64, 64, 1)])
def test_any_size_of_image(shape: tuple[int, ...]) -> None:
    boxes = [
        Found(0, "a very long class name indeed", 0.5, (0.01, 0.01, 0.5, 0.5)),
        Found(1, "b", 0.4, (0.99, 0.99, 3.0, 3.0)),
    ]
    picture = draw(np.zeros(shape, np.uint8), boxes)
    assert picture.shape == (*shape[:2], 3) and picture.any()


@pytest.mark.parametrize("box", [(5, 5, 0.1, 0.1), (float("nan"), 0.5, 0.1, 0.1), (0.5, 0.5, float("inf"), 0.1)])
def test_boxes_outside_or_not_finite_are_left_out(box: tuple[float, float, float, float]) -> None:
    assert (draw(GRAY, [Found(0, "x", 0.5, box)]) == GRAY).all()


def test_names_in_any_script(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["größer", "細胞", "été", ""]
    for utf8 in (True, False):
        monkeypatch.setattr(view, "_UTF8", utf8)
        for name in names:
            assert (draw(GRAY, [Found(7, name, 0.5, (0.5, 0.5, 0.4, 0.4))]) != GRAY).any()
    assert [view._printable(Found(7, name, 0.5, (0, 0, 0, 0))) for name in names] == [
        "groer",
        "class 7",
        "ete",
        "class 7",
    ]


def test_colors_of_neighboring_classes_differ() -> None:
    colors = np.array([color(k) for k in range(80)], int)
    assert len(np.unique(colors, axis=0)) == 80
    assert (np.abs(np.diff(colors, axis=0)).max(1) > 80).all()
    assert color(5) == color(5)


def test_of_many_channels_the_first_three_are_drawn() -> None:
    image = np.arange(4 * 4 * 5, dtype=np.uint8).reshape(4, 4, 5)
    assert np.array_equal(draw(image, []), image[:, :, :3])


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 4, 3), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_not_a_picture(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected a"):
        draw(image, [])


def test_save_is_rgb_and_complete(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    save_picture(tmp_path / "red.png", red)
    assert cv2.imread(str(tmp_path / "red.png"))[0, 0].tolist() == [0, 0, 255]
    assert os.listdir(tmp_path) == ["red.png"]


def test_save_says_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ending"):
        save_picture(tmp_path / "picture", GRAY)
    with pytest.raises(DataError, match=r"nowhere.*x\.png: cannot write: No such file"):
        save_picture(tmp_path / "nowhere" / "x.png", GRAY)
    with pytest.raises(DataError, match="cannot be encoded"):
        save_picture(tmp_path / "x.jpg", np.zeros((1, 70000, 3), np.uint8))
    assert os.listdir(tmp_path) == []


def test_classes_that_are_not_to_be_shown() -> None:
    box = (0.5, 0.6, 0.5, 0.5)
    hidden = Found(1, "dont_show person", 0.9, box)
    assert (draw(GRAY, [hidden]) == GRAY).all()
    assert (draw(GRAY, [hidden, Found(3, "dog", 0.8, box)]) == draw(GRAY, [Found(3, "dog", 0.8, box)])).all()
    assert view.is_visible_class("dog") and not view.is_visible_class("dont_show")


def test_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "_UTF8", False)
    assert view.plain_text("café 犬.jpg") == "cafe ?.jpg"
    monkeypatch.setattr(view, "_UTF8", True)
    assert view.plain_text("café 犬.jpg") == "café 犬.jpg"
