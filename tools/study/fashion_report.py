"""Writes the tables and learning curves of the study on Fashion-MNIST.

    python tools/study/fashion_report.py study/fashion.jsonl       study/fashion.md and study/fashion.svg

Differences are paired by seed. All comparisons of all lengths are one family for Holm's correction.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from fashion import VARIANTS  # noqa: E402
from report import Row, Table, format_interval, markdown, read_jsonl  # noqa: E402
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


def comparison_table(rows: Sequence[Row]) -> Table:
    """A row per comparison and length: difference, effect size with its interval, corrected p value."""
    scores = {(row["variant"], row["iterations"], row["seed"]): 100 * row["score"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    keys = [(one, other, length) for length in _lengths(rows) for one, other in COMPARISONS]
    differences = [
        [
            scores[one, length, seed] - scores[other, length, seed]
            for seed in seeds
            if (one, length, seed) in scores and (other, length, seed) in scores
        ]
        for one, other, length in keys
    ]
    p_values = holm([p_value(values) for values in differences])
    return [
        {
            "comparison": f"{TITLES[one]} against {TITLES[other]}",
            "iterations": str(length),
            "top-1, points": format_interval(interval(values), p),
            "effect size": format_interval(effect_size(values)),
            "p, corrected": f"{p:.3f}",
            "seeds": str(len(values)),
        }
        for (one, other, length), values, p in zip(keys, differences, p_values, strict=True)
        if values
    ]


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


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if len(given) != 1:
            raise DataError("expected one file of rows, fashion.jsonl")
        path = Path(given[0])
        rows = read_jsonl(path)
        if not rows:
            raise DataError(f"{path}: expected rows of finished trainings, got none")
        text = f"{markdown(network_table(rows))}\n{markdown(comparison_table(rows))}"
        for out, content in ((path.with_suffix(".md"), text), (path.with_suffix(".svg"), curves(rows))):
            write_atomically(out, content.encode())
            print(out)
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
