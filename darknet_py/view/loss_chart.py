"""The training chart `chart_NAME.png` (Darknet's `draw_train_chart`, `draw_train_loss`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from darknet_py.data.images import Image
from darknet_py.view.draw import INK, save_image
from darknet_py.view.figure import TITLE, add_axes, add_text, new_figure, plot_style, render_figure, rgb_fraction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]

LOSS, AVERAGE, VALIDATION, MAP, RATE = "#a5c3f0", "#1955c8", "#148c6e", "#cd2828", "#b4b9c3"
LEFT, RIGHT, TOP, BOTTOM = 76, 76, 74, 62  # pixels around the plot area
_COLUMNS = 1000  # of a longer curve, the minimum and the maximum of each of 1000 parts are drawn


@dataclass
class LossChart:
    """Loss, mAP and learning rate over the iterations. Values that are not finite leave a gap.

    Attributes:
        name: The title.
        max_iterations: The iteration at which the horizontal axis ends.
        max_loss: The loss axis ends here at the latest (the cfg's max_chart_loss), earlier when the average is lower.
        map_label: What `maps` holds, such as mAP@0.50.
        loss_label: What `validation` holds.
        losses: (iteration, loss) of each iteration.
        averages: (iteration, running average of the loss).
        maps: (iteration, mAP from 0 to 1).
        validation: (iteration, loss on the validation list).
        rates: (iteration, learning rate).
    """

    name: str
    max_iterations: int
    max_loss: float = 20.0
    map_label: str = "mAP@0.50"
    loss_label: str = "validation loss"
    losses: Points = field(default_factory=list)
    averages: Points = field(default_factory=list)
    maps: Points = field(default_factory=list)
    validation: Points = field(default_factory=list)
    rates: Points = field(default_factory=list)

    def draw(self, width: int = 1200, height: int = 800) -> Image:
        """Draws the chart.

        Args:
            width: Width of the image in pixels.
            height: Height of the image in pixels.

        Returns:
            uint8 (height, width, 3) RGB. The time grows only slightly with the number of points.
        """
        with plot_style():
            figure = new_figure(width, height)
            axes = add_axes(figure, LEFT, TOP, width - LEFT - RIGHT, height - TOP - BOTTOM)
            limit = self._loss_limit()
            self._axes(axes, limit)
            if self.rates:  # its own scale: the maximum is nearly as high as the axis
                peak = _maximum(self.rates)
                scaled = _finite(self.rates) * (1, 0.98 * limit / (peak or 1))
                _curve(axes, scaled, RATE, f"learning rate (maximum {peak:.3g})", 1.2, limit, style="--")
            _curve(axes, self.losses, LOSS, "loss", 1.0, limit)
            _curve(axes, self.averages, AVERAGE, "average loss", 2.2, limit)
            if self.validation:
                _curve(axes, self.validation, VALIDATION, self.loss_label, 1.6, limit, dots=True)
            if self.maps:
                self._draw_maps(axes)
            add_text(figure, self.name, LEFT, 28, TITLE)
            add_text(figure, self._state(), width - RIGHT, 28, right=True)
            handles = [line for ax in figure.axes for line in ax.lines if not str(line.get_label()).startswith("_")]
            legend = axes.legend(
                handles=handles,
                loc="lower right",
                bbox_to_anchor=(1.0, 1.0),
                borderaxespad=0.3,
                ncols=max(len(handles), 1),
                frameon=False,
                handlelength=1.6,
                columnspacing=1.4,
            )
            for line in legend.get_lines():
                line.set_linewidth(2.4)
        return render_figure(figure)

    def save(self, path: str | Path) -> None:
        """Writes the chart to an image file.

        Args:
            path: The file.

        Raises:
            DataError: The file cannot be written.
        """
        save_image(path, self.draw())

    def _axes(self, axes: Axes, limit: float) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        last = max((points[-1][0] for points in (self.losses, self.averages, self.maps) if points), default=0)
        axes.set(xlim=(0, max(self.max_iterations, last, 1)), ylim=(0, limit), xlabel="iteration", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 10000 else f"{x:g}"))

    def _draw_maps(self, axes: Axes) -> None:
        from matplotlib.ticker import MultipleLocator, PercentFormatter

        right = axes.twinx()
        right.set(ylim=(0, 1))
        right.set_ylabel(self.map_label, color=MAP)
        right.tick_params(colors=MAP)
        right.spines.right.set_color(rgb_fraction(INK))
        right.yaxis.set_major_locator(MultipleLocator(0.1))
        right.yaxis.set_major_formatter(PercentFormatter(1.0, 0))
        right.grid(False)
        _curve(right, self.maps, MAP, self.map_label, 2.2, 1.0, dots=True)
        finite = [point for point in self.maps if math.isfinite(point[1])]
        if finite:
            best = max(finite, key=lambda point: point[1])
            far_right = best[0] > 0.96 * axes.get_xlim()[1]
            right.annotate(
                f"{best[1]:.1%}",
                best,
                (-8 if far_right else 0, 12 if best[1] < 0.95 else -24),
                textcoords="offset points",
                ha="right" if far_right else "center",
                color=MAP,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            )

    def _loss_limit(self) -> float:
        return _round_up(min(_maximum(self.averages or self.losses, 1.0) * 1.05, self.max_loss))

    def _state(self) -> str:
        parts = []
        if self.averages:
            iteration, average = self.averages[-1]
            parts = [f"iteration {iteration} of {self.max_iterations}", f"average loss {average:.4g}"]
        if self.rates:
            parts.append(f"rate {self.rates[-1][1]:.3g}")
        if self.maps:
            best = max(y for _, y in self.maps)
            parts.append(f"{self.map_label} {self.maps[-1][1]:.2%} (best {best:.2%})")
        return "    ".join(parts)


def _curve(
    axes: Axes,
    points: Points | NDArray[np.float64],
    color: str,
    label: str,
    width: float,
    limit: float = math.inf,
    dots: bool = False,
    style: str = "-",
) -> None:
    """Draws a line through the points with gaps for non-finite values; values are clipped to 0 … limit.

    dots: whether every point gets a dot; otherwise only points between two gaps.
    """
    values = _thinned(_finite(points))
    values[:, 1] = values[:, 1].clip(0, limit)
    gap = np.isnan(np.pad(values[:, 1], 1, constant_values=np.nan))
    alone = values if dots else values[~gap[1:-1] & gap[:-2] & gap[2:]]
    axes.plot(*values.T, color=color, ls=style, lw=width, label=label, clip_on=False)
    axes.plot(*alone.T, "o", color=color, markersize=6.8, markeredgewidth=0, clip_on=False)


def _finite(points: Points | NDArray[np.float64]) -> NDArray[np.float64]:
    """The points as (N, 2); points with a non-finite value become nan."""
    values = np.array(points, float).reshape(-1, 2)
    values[~np.isfinite(values).all(1)] = np.nan
    return values


def _maximum(points: Points, default: float = 0.0) -> float:
    """The largest finite y."""
    y = _finite(points)[:, 1]
    return float(np.nanmax(y)) if np.isfinite(y).any() else default


def _thinned(points: NDArray[np.float64], columns: int = _COLUMNS) -> NDArray[np.float64]:
    """Thins a curve to the minimum and the maximum of each of `columns` parts, so that peaks stay visible."""
    run = math.ceil(len(points) / columns)
    if run <= 2:
        return points
    starts = np.arange(0, len(points), run)
    x = np.fmin.reduceat(points[:, 0], starts)
    low, high = np.fmin.reduceat(points[:, 1], starts), np.fmax.reduceat(points[:, 1], starts)
    return np.stack([np.stack([x, low], 1), np.stack([x, high], 1)], 1).reshape(-1, 2)


def _round_up(value: float) -> float:
    """Rounds up to 1, 1.5, 2, 3, 4, 5, 6, 8 or 10 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))
