"""Figures: sizes in pixels, SVG, unchanged text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.errors import DataError
from darknet_py.view.figure import (
    add_axes,
    add_text,
    check_plot_path,
    figure_svg,
    new_figure,
    plot_style,
    render_figure,
    save_figure,
)


def figure_with(text: str):
    with plot_style():
        figure = new_figure(200, 100)
        add_axes(figure, 40, 20, 120, 50)
        add_text(figure, text, 10, 15)
    return figure


def test_sizes_and_places_are_pixels() -> None:
    image = render_figure(figure_with(""))
    assert image.shape == (100, 200, 3) and image.dtype == np.uint8
    dark = image[..., 0] < 150
    assert dark[:, 40:160].sum(1).argmax() in (19, 20) and dark[20:70].sum(0).argmax() in (39, 40)


def test_text_is_taken_literally(tmp_path: Path) -> None:
    text = "$x_1$ & <b> 汽车"
    render_figure(figure_with(text))  # no mathematics, no warning about missing letters
    assert "$x_1$ &amp; &lt;b&gt; 汽车" in figure_svg(figure_with(text))


def test_svg_is_deterministic() -> None:
    assert figure_svg(figure_with("a")) == figure_svg(figure_with("a"))
    assert 'width="200" height="100" viewBox="0 0 200 100"' in figure_svg(figure_with("a"))


def test_saved_by_the_ending(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.svg"):
        check_plot_path(tmp_path / name)
        save_figure(tmp_path / name, figure_with("a"))
    assert cv2.imread(str(tmp_path / "a.png")).shape == (100, 200, 3)
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<?xml")
    with pytest.raises(DataError, match=r"a\.gif: expected a file name ending in \.svg, \.png or \.jpg"):
        check_plot_path(tmp_path / "a.gif")


def test_matplotlib_is_imported_when_the_first_figure_is_made_and_pyplot_never() -> None:
    script = (
        "import sys\nimport darknet_py.view.plots, darknet_py.view.class_histogram\n"
        "from darknet_py.view.loss_chart import LossChart\n"
        "loaded = lambda name: any(module.startswith(name) for module in sys.modules)\n"
        "before = loaded('matplotlib')\nLossChart('a', 10).draw()\n"
        "print(before, loaded('matplotlib.figure'), loaded('matplotlib.pyplot'))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False True False"
