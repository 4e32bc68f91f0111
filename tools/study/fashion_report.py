"""Writes the tables and learning curves of the study on Fashion-MNIST.

    python tools/study/fashion_report.py study/fashion.jsonl                        fashion.md, .svg and .csv beside it
    python tools/study/fashion_report.py study/fashion.jsonl again/fashion.jsonl    also beside a second run
    python tools/study/fashion_report.py docs/study/fashion.csv docs/study/fashion-again.csv

Differences are paired by seed. All comparisons of all lengths of a run are one family for Holm's correction.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from fashion import VARIANTS  # noqa: E402
from report import Row, Table, as_csv, format_interval, markdown, read_csv, read_jsonl  # noqa: E402
from stats import effect_size, holm, interval, p_value  # noqa: E402

from darknet_py.errors import DarknetError, DataError  # noqa: E402
from darknet_py.files import write_atomically  # noqa: E402
from darknet_py.view.figure import add_axes, add_text, figure_svg, new_figure, plot_style  # noqa: E402

TITLES = {variant.name: variant.title for variant in VARIANTS}
COMPARISONS = (
    *((name, "plain") for name in TITLES if name != "plain"),
    *(("last", "first"), ("csp-0.5", "first"), ("csp-0.5", "last"), ("csp-0.25", "csp-0.5"), ("csp-0.75", "csp-0.5")),
    *(("elan", "csp-0.5"), ("osa", "csp-0.5"), ("elan", "osa")),
)
# By the product of the signs and the number of runs that show a difference.
_CONCLUSIONS = {(1, 2): "same", (-1, 2): "opposite", (0, 1): "in one run only", (0, 0): "not shown in either"}


def network_table(rows: Sequence[Row]) -> Table:
    """A row per network: cost, and top-1 after each length of training."""
    table = []
    for name in (name for name in TITLES if any(row["variant"] == name for row in rows)):
        own = [row for row in rows if row["variant"] == name]
        line = {
            "network": TITLES[name],
            "parameters": f"{own[0]['parameters'] / 1e3:.1f} k",
            "BFLOPs": f"{own[0]['bflops']:.5f}",
        }
        for length in _lengths(rows):
            scores = [100 * row["score"] for row in own if row["iterations"] == length]
            line[f"{length} iterations"] = format_interval(interval(scores)) if scores else ""
        table.append(line)
    return table


class Comparison(NamedTuple):
    """Differences of two networks in points of top-1, seed by seed. p: corrected."""

    one: str
    other: str
    iterations: int
    differences: list[float]
    p: float

    @property
    def title(self) -> str:
        return f"{TITLES[self.one]} against {TITLES[self.other]}"

    @property
    def points(self) -> str:
        return format_interval(interval(self.differences), self.p)

    @property
    def sign(self) -> int:
        """1 or -1 where a difference is shown, else 0."""
        return int(math.copysign(1, math.fsum(self.differences))) if self.p < 0.05 else 0


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """All comparisons of a run with at least one seed that has both networks."""
    scores = {(row["variant"], row["iterations"], row["seed"]): 100 * row["score"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    found = []
    for length in _lengths(rows):
        for one, other in COMPARISONS:
            pairs = [(scores.get((one, length, seed)), scores.get((other, length, seed))) for seed in seeds]
            if differences := [a - b for a, b in pairs if a is not None and b is not None]:
                found.append(Comparison(one, other, length, differences, math.nan))
    corrected = holm([p_value(comparison.differences) for comparison in found])
    return [comparison._replace(p=p) for comparison, p in zip(found, corrected, strict=True)]


def comparison_table(rows: Sequence[Row]) -> Table:
    """A row per comparison and length: difference, effect size with its interval, corrected p value."""
    return [
        {
            "comparison": comparison.title,
            "iterations": str(comparison.iterations),
            "top-1, points": comparison.points,
            "effect size": format_interval(effect_size(comparison.differences)),
            "p, corrected": f"{comparison.p:.3f}",
            "seeds": str(len(comparison.differences)),
        }
        for comparison in comparisons(rows)
    ]


def repetition_table(rows: Sequence[Row], again: Sequence[Row]) -> Table:
    """A row per comparison that both runs have: both differences, and whether they lead to the same conclusion."""
    first = {comparison[:3]: comparison for comparison in comparisons(rows)}
    table = []
    for second in comparisons(again):
        if one := first.get(second[:3]):
            table.append(
                {
                    "comparison": second.title,
                    "iterations": str(second.iterations),
                    "first run": one.points,
                    "second run": second.points,
                    "conclusion": _CONCLUSIONS[one.sign * second.sign, bool(one.sign) + bool(second.sign)],
                }
            )
    return table


def curves(rows: Sequence[Row]) -> str:
    """SVG of the learning curves of the longest training: mean top-1 over the seeds, on the first test images."""
    longest = max(_lengths(rows))
    with plot_style():
        figure = new_figure(760, 420)
        add_text(figure, f"Learning curves of {longest} iterations: top-1 on test images, mean of the seeds, %", 16, 28)
        axes = add_axes(figure, 60, 48, 680, 320)
        for name, title in TITLES.items():
            points: dict[int, list[float]] = defaultdict(list)
            for row in rows:
                if (row["variant"], row["iterations"]) == (name, longest):
                    for point in row["curve"].split():
                        number, _, value = point.partition(":")
                        points[int(number)].append(100 * float(value))
            if points:
                numbers = sorted(points)
                axes.plot(numbers, [sum(points[n]) / len(points[n]) for n in numbers], marker="o", ms=3, label=title)
        axes.set_xlabel("iterations")
        axes.legend(fontsize=10)
    return figure_svg(figure)


def _lengths(rows: Sequence[Row]) -> list[int]:
    return sorted({row["iterations"] for row in rows})


def _read(path: Path) -> list[Row]:
    if not (rows := read_csv(path) if path.suffix == ".csv" else read_jsonl(path)):
        raise DataError(f"{path}: expected rows of finished trainings, got none")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if len(given) not in (1, 2):
            raise DataError("expected one or two files of rows, fashion.jsonl")
        path = Path(given[0])
        rows, *again = (_read(Path(name)) for name in given)
        tables = [network_table(rows), comparison_table(rows), *(repetition_table(rows, second) for second in again)]
        text = "\n".join(map(markdown, tables))
        for suffix, content in ((".md", text), (".svg", curves(rows)), (".csv", as_csv(rows))):
            out = path.with_suffix(suffix)
            write_atomically(out, content.encode())
            print(out)
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
