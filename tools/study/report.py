"""Writes the tables and charts of the study from its rows.

    python tools/study/report.py                    docs/study/rows.csv → the tables of docs/study.md, and the charts
    python tools/study/report.py study/rows.jsonl   the same from those rows, which become docs/study/rows.csv

The values in docs/study.md are those of the scales "cpu" and, for the stages, "long".
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import plan  # noqa: E402
from chart import Line, chart  # noqa: E402
from stats import Interval, holm, interval, p_value  # noqa: E402

from darknet_py.errors import DarknetError, DataError  # noqa: E402
from darknet_py.files import write_atomically  # noqa: E402

Row = dict[str, Any]
Table = list[dict[str, str]]

ROWS = ROOT / "docs" / "study" / "rows.csv"
_NUMBERS = {"seed": int, "parameters": int, "cio": int, "iterations": int, "batch": int, "size": int}
_NUMBERS |= {"score": float, "loss": float, "bflops": float, "seconds": float}
_BASES = {"stages": "plain", "necks": "fpn", "equal_necks": "equal-fpn"}
_LABELS = {"stages": "top-1", "necks": "mAP@0.5", "equal_necks": "mAP@0.5"}


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    try:
        rows = [row for path in given for row in read_jsonl(Path(path))] or read_csv(ROWS)
        for path, text in documents(rows).items():
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, text.encode())
            print(path.relative_to(ROOT))
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def documents(rows: Sequence[Row]) -> dict[Path, str]:
    """Path → text of every file under docs/ that is generated from the rows."""
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    small, long = ([row for row in rows if row["scale"] == scale] for scale in ("cpu", "long"))
    texts = {**sections(small), "long": sections(long)["stages"], "setting": setting([*small, *long])}
    for name, text in texts.items():
        begin, end = f"<!-- {name}: tools/study/report.py -->\n", "<!-- end -->"
        if begin not in page:
            raise DataError(f"docs/study.md: expected the line {begin.strip()}, got none")
        before, _, rest = page.partition(begin)
        page = before + begin + text + end + rest.partition(end)[2]
    charts = {ROWS.parent / name: text for name, text in charts_of(small).items()}
    return {ROWS: as_csv(in_order(rows)), ROOT / "docs" / "study.md": page, **charts}


def write(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Writes report.md and charts of the finished trainings; returns their paths and that of the rows."""
    written = {folder / name: text for name, text in charts_of(rows).items()}
    body = "\n".join(f"## {name}\n\n{text}" for name, text in sections(rows).items())
    written[folder / "report.md"] = f"# Results of the study\n\n{body}"
    for path, text in written.items():
        write_atomically(path, text.encode())
    return [folder / "rows.jsonl", *written]


def sections(rows: Sequence[Row]) -> dict[str, str]:
    """Name → text of each part that has rows."""
    texts = {}
    for part, base in _BASES.items():
        chosen = checked(row for row in rows if row["part"] == part)
        if chosen:
            texts[part] = markdown(network_table(chosen, base))
            texts[f"{part}-contrasts"] = markdown(contrast_table(chosen))
    if rows:
        texts["setting"] = setting(rows)
    return {name: text for name, text in texts.items() if text}


def network_table(rows: Sequence[Row], base: str) -> Table:
    """A row per network: cost, score and difference to the network `base`."""
    costs, surviving = {row["variant"]: row for row in rows}, corrected(rows, base)
    reference, label = costs.get(base), _LABELS[rows[0]["part"]]
    table = []
    for variant in plan.variants():
        if variant.name not in costs:
            continue
        cost, scores = costs[variant.name], _scores(rows, variant.name)
        against = _difference(rows, variant.name, base) if variant.name != base else None
        p = surviving.get((variant.name, base), math.nan)
        spent = sum(row["seconds"] for row in rows if row["variant"] == variant.name)
        table.append(
            {
                "network": variant.title,
                "parameters": f"{cost['parameters'] / 1e3:.0f} k",
                "BFLOPs": f"{cost['bflops']:.4f}",
                "BFLOPs, change": f"{cost['bflops'] / reference['bflops'] - 1:+.1%}" if against and reference else "",
                f"{label}, %": format_interval(interval([100 * score for score in scores.values()])),
                f"against {plan.titles()[base]}, points": format_interval(against, p) if against else "",
                "seeds": str(len(scores)),
                "seconds": f"{spent / len(scores):.0f}",
            }
        )
    return table


def contrast_table(rows: Sequence[Row]) -> Table:
    """Fusions, γ and necks against each other, paired by seed."""
    titles, part = plan.titles(), rows[0]["part"]
    p_values = corrected(rows, _BASES[part])
    return [
        {
            "comparison": f"{titles[one]} against {titles[other]}",
            f"{_LABELS[part]}, points": format_interval(difference, p_values[one, other]),
            "p, corrected": f"{p_values[one, other]:.3f}",
        }
        for one, other in _questions(part)
        if (difference := _difference(rows, one, other))
    ]


def corrected(rows: Sequence[Row], base: str) -> dict[tuple[str, str], float]:
    """Holm's p value of each comparison of a part, all of them one family: with `base`, and those of `_questions`."""
    names = [variant.name for variant in plan.variants() if variant.name != base]
    pairs = dict.fromkeys([*((name, base) for name in names), *_questions(rows[0]["part"])])
    values = [_differences(rows, *pair) for pair in pairs]
    return dict(zip(pairs, holm([p_value(each) for each in values]), strict=True))


def _questions(part: str) -> list[tuple[str, str]]:
    if part == "necks":
        return [("gfm", "fpn"), ("efm", "fpn"), ("efm", "gfm")]
    if part == "equal_necks":
        return [("equal-efm", f"equal-{other}") for other in ("fpn", "gfm", "pan", "prn")]
    fusions = [("last-0.5", "first-0.5"), ("csp-0.5", "first-0.5"), ("csp-0.5", "last-0.5")]
    return [*fusions, ("csp-0.25", "csp-0.5"), ("csp-0.5", "csp-0.75"), ("csp-0.25", "csp-0.75")]


def _scores(rows: Sequence[Row], variant: str) -> dict[int, float]:
    return {row["seed"]: row["score"] for row in rows if row["variant"] == variant}


def _difference(rows: Sequence[Row], one: str, other: str) -> Interval | None:
    """A network's score minus another's, in points, over the seeds that both have."""
    values = _differences(rows, one, other)
    return interval(values) if values else None


def _differences(rows: Sequence[Row], one: str, other: str) -> list[float]:
    ones, others = _scores(rows, one), _scores(rows, other)
    return [100 * (ones[seed] - others[seed]) for seed in sorted(set(ones) & set(others))]


def format_interval(value: Interval, p: float | None = None) -> str:
    """Mean ± half of the interval. p: corrected, of a difference, which is bold below .05."""
    text = f"{value.mean:{'+' if p is not None else ''}.1f}"
    if value.count > 1:
        text += f" ± {value.half:.1f}"
    return f"**{text}**" if p is not None and p < 0.05 else text


def setting(rows: Sequence[Row]) -> str:
    """The setting of the trainings: a line per scale and part."""
    lines = []
    for scale, part in dict.fromkeys((row["scale"], row["part"]) for row in rows):
        chosen = [row for row in rows if (row["scale"], row["part"]) == (scale, part)]
        row, seeds = chosen[0], sorted({row["seed"] for row in chosen})
        lines.append(
            f"- {part}, scale {scale}: {len(chosen)} trainings, seeds {', '.join(map(str, seeds))}; "
            f"{row['size']} x {row['size']}, {row['iterations']} iterations of {row['batch']} images; {row['data']}; "
            f"{sum(r['seconds'] for r in chosen) / 60:.0f} minutes of one "
            f"{'core' if row['device'] == 'cpu' else row['device']}; torch {row['torch']}\n"
        )
    return "".join(lines)


def charts_of(rows: Sequence[Row]) -> dict[str, str]:
    """File name → SVG."""
    titles = {"stages": "Classifiers: top-1 accuracy", "necks": "Detectors: mAP@0.5"}
    titles["equal_necks"] = "Detectors of equal cost: mAP@0.5"
    charts = {}
    for part, title in titles.items():
        lines = [
            Line(variant.title, f"{costs[0]['bflops']:.4f} BFLOPs", [100 * row["score"] for row in costs])
            for variant in plan.variants()
            if (costs := [row for row in rows if row["part"] == part and row["variant"] == variant.name])
        ]
        if lines:
            count = max(len(line.values) for line in lines)
            charts[f"{part}.svg"] = chart(f"{title}, %. Dots: {count} seeds; bars: 95 % of their mean", lines)
    return charts


def checked(rows: Iterable[Row]) -> list[Row]:
    """The rows, in order. Raises DataError if two rows are of the same training, for example of different recipes."""
    unique: dict[tuple[str, str, int], Row] = {}
    for row in rows:
        key = row["scale"], row["variant"], row["seed"]
        if key in unique:
            raise DataError(f"rows: expected one training of {row['variant']} with seed {row['seed']}, got two")
        unique[key] = row
    return list(unique.values())


# --- files


def read_jsonl(path: Path) -> list[Row]:
    """The rows of finished trainings; a line that a crash cut off is skipped."""
    if not path.is_file():
        raise DataError(f"rows of a study not found: {path}")
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def read_csv(path: Path) -> list[Row]:
    if not path.is_file():
        raise DataError(f"rows of a study not found: {path}")
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: _NUMBERS.get(key, str)(value) for key, value in row.items()} for row in csv.DictReader(file)]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """The rows sorted by scale, by network in the order of the plan, and by seed."""
    order = [variant.name for variant in plan.variants()]
    return sorted(rows, key=lambda row: (row["scale"], order.index(row["variant"]), row["seed"]))


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, for `read_csv`."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def markdown(table: Table) -> str:
    if not table:
        return ""
    columns = list(table[0])
    lines = [columns, ["---" for _ in columns], *([row[column] for column in columns] for row in table)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
