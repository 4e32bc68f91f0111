"""Boxes drawn on images, and image files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from darknet_py.errors import DataError
from darknet_py.view import draw as view
from darknet_py.view.draw import class_color, draw, save_image

GRAY = np.full((120, 200, 3), 90, np.uint8)


class Item(NamedTuple):
    class_id: int
    name: str
    confidence: float
    box: tuple[float, float, float, float]


def test_box_is_drawn_at_its_position_on_a_copy() -> None:
    image = GRAY.copy()
    drawn = draw(image, [Item(3, "dog", 0.9, (0.5, 0.6, 0.5, 0.5))])
    assert (image == GRAY).all() and drawn.shape == image.shape and drawn.dtype == np.uint8
    edge = (drawn == class_color(3)).all(-1)
    assert edge[80, 50] and edge[80, 150] and edge[102, 100]  # left, right and bottom edge
    assert not edge[60:95, 60:140].any()  # nothing inside
    assert edge[:42].any()  # the label above


@pytest.mark.parametrize("shape", [(1, 1, 3), (16, 16, 3), (40, 2000, 3), (2000, 40, 3), (600, 800), (64, 64, 1)])
def test_any_size_of_image(shape: tuple[int, ...]) -> None:
    boxes = [
        Item(0, "a very long class name indeed", 0.5, (0.01, 0.01, 0.5, 0.5)),
        Item(1, "b", 0.4, (0.99, 0.99, 3.0, 3.0)),
    ]
    drawn = draw(np.zeros(shape, np.uint8), boxes)
    assert drawn.shape == (*shape[:2], 3) and drawn.any()


@pytest.mark.parametrize("box", [(5, 5, 0.1, 0.1), (float("nan"), 0.5, 0.1, 0.1), (0.5, 0.5, float("inf"), 0.1)])
def test_boxes_outside_or_not_finite_are_skipped(box: tuple[float, float, float, float]) -> None:
    assert (draw(GRAY, [Item(0, "x", 0.5, box)]) == GRAY).all()


def test_names_in_any_script(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["größer", "細胞", "été", ""]
    for utf8 in (True, False):
        monkeypatch.setattr(view, "_UTF8", utf8)
        for name in names:
            assert (draw(GRAY, [Item(7, name, 0.5, (0.5, 0.5, 0.4, 0.4))]) != GRAY).any()
    assert [view._printable(Item(7, name, 0.5, (0, 0, 0, 0))) for name in names] == [
        "groer",
        "class 7",
        "ete",
        "class 7",
    ]


def test_colors_of_neighboring_classes_differ() -> None:
    colors = np.array([class_color(k) for k in range(80)], int)
    assert len(np.unique(colors, axis=0)) == 80
    assert (np.abs(np.diff(colors, axis=0)).max(1) > 80).all()
    assert class_color(5) == class_color(5)


def test_first_three_of_many_channels_are_drawn() -> None:
    image = np.arange(4 * 4 * 5, dtype=np.uint8).reshape(4, 4, 5)
    assert np.array_equal(draw(image, []), image[:, :, :3])


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 4, 3), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_an_error(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected a"):
        draw(image, [])


def test_saved_image_is_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    save_image(tmp_path / "red.png", red)
    assert cv2.imread(str(tmp_path / "red.png"))[0, 0].tolist() == [0, 0, 255]
    assert os.listdir(tmp_path) == ["red.png"]


def test_save_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ending"):
        save_image(tmp_path / "image", GRAY)
    with pytest.raises(DataError, match=r"nowhere.*x\.png: cannot write: No such file"):
        save_image(tmp_path / "nowhere" / "x.png", GRAY)
    with pytest.raises(DataError, match="cannot encode this image"):
        save_image(tmp_path / "x.jpg", np.zeros((1, 70000, 3), np.uint8))
    assert os.listdir(tmp_path) == []


def test_hidden_classes_are_not_drawn() -> None:
    box = (0.5, 0.6, 0.5, 0.5)
    hidden = Item(1, "dont_show person", 0.9, box)
    assert (draw(GRAY, [hidden]) == GRAY).all()
    assert (draw(GRAY, [hidden, Item(3, "dog", 0.8, box)]) == draw(GRAY, [Item(3, "dog", 0.8, box)])).all()
    assert view.is_visible_class("dog") and not view.is_visible_class("dont_show")


def test_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "_UTF8", False)
    assert view.plain_text("café 犬.jpg") == "cafe ?.jpg"
    monkeypatch.setattr(view, "_UTF8", True)
    assert view.plain_text("café 犬.jpg") == "café 犬.jpg"
