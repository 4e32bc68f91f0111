"""Matplotlib figures in one style: sizes in pixels, the same on every machine, no global state left behind.

Matplotlib is imported when the first figure is made, so that commands that draw nothing start without it.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from darknet_py.data.images import Image
from darknet_py.errors import DataError
from darknet_py.files import write_atomically
from darknet_py.view.draw import ENDINGS, GRID, INK, Color, save_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 72  # one point is one pixel
TITLE = 16  # font size; other text has 13
# DejaVu Sans comes with matplotlib. The others have Chinese, Japanese and Korean letters, where they are installed.
_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Malgun Gothic",
)


def rgb_fraction(color: Color) -> tuple[float, float, float]:
    """A color in the range 0 … 1, as matplotlib expects it."""
    return color[0] / 255, color[1] / 255, color[2] / 255


@contextmanager
def plot_style() -> Iterator[None]:
    """Context manager: our settings on top of matplotlib's defaults, independent of the user's matplotlibrc."""
    import matplotlib.style
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    ink, grid = rgb_fraction(INK), rgb_fraction(GRID)
    settings = {
        "font.family": ["DejaVu Sans", *(font for font in _FONTS if font in installed), "sans-serif"],
        "font.size": 13,
        "text.parse_math": False,  # a class may be called $x$
        "text.color": ink,
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "axes.titlesize": TITLE,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 1,
        "legend.edgecolor": grid,
        "legend.fancybox": False,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "darknet_py",  # the same names in every file
    }
    with matplotlib.style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # it is drawn as a box
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of the given size in pixels; to be called within `plot_style`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes whose frame is at these pixels, counted from the upper left corner."""
    whole_width, whole_height = figure.bbox.width, figure.bbox.height
    bottom = whole_height - top - height
    return figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))


def add_text(figure: Figure, text: str, x: float, y: float, size: float = 13, right: bool = False) -> None:
    """Adds a text whose baseline starts (`right`: ends) at this pixel, counted from the upper left corner."""
    width, height = figure.bbox.width, figure.bbox.height
    figure.text(x / width, 1 - y / height, text, fontsize=size, ha="right" if right else "left", va="baseline")


def render_figure(figure: Figure) -> Image:
    """The figure as an image, uint8 (height, width, 3) RGB."""
    data = io.BytesIO()
    with plot_style():
        figure.savefig(data, format="rgba", dpi=DPI)
    shape = round(figure.bbox.height), round(figure.bbox.width), 4
    pixels: Image = np.frombuffer(data.getvalue(), np.uint8).reshape(shape)[:, :, :3].copy()
    return pixels


def figure_svg(figure: Figure) -> str:
    """The figure as SVG text; the same figure gives the same text."""
    text = io.StringIO()
    with plot_style():
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', text.getvalue(), count=2)  # pixels, not points


def save_figure(path: str | Path, figure: Figure) -> None:
    """Writes a figure atomically, as SVG or as an image.

    Args:
        path: The file; its extension chooses the format.
        figure: The figure.

    Raises:
        DataError: An unknown extension, or a path that cannot be written.
    """
    if Path(path).suffix.lower() == ".svg":
        write_atomically(path, figure_svg(figure).encode())
    else:
        save_image(path, render_figure(figure))


def check_plot_path(path: str | Path) -> None:
    """Raises DataError for a file extension that `save_figure` does not support, before any work is done."""
    if Path(path).suffix.lower() not in (".svg", *ENDINGS):
        raise DataError(f"{path}: expected a file name ending in .svg, .png or .jpg")
