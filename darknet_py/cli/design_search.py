"""`design --search`: every combination of some parts within a budget, and the front of those that none beats."""

from __future__ import annotations

import argparse
import csv
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import numpy as np
from tqdm import tqdm

import darknet_py
from darknet_py.cfg.options import did_you_mean
from darknet_py.cli.common import device_or_default, output_folder, positive
from darknet_py.cli.compare import AXES, Entry, format_table, make_entry, measure_latency, plot_of
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.data.open_dataset import open_dataset
from darknet_py.errors import DarknetError
from darknet_py.files import make_folder, write_atomically
from darknet_py.graph.graph import parse_text
from darknet_py.zoo.backbones import BACKBONES
from darknet_py.zoo.design import NECKS, Design
from darknet_py.zoo.search import SearchSpace, non_dominated
from darknet_py.zoo.stages import Csp

logger = logging.getLogger(__name__)

_BUDGETS = {"bflops": 1.0, "parameters": 1e6, "cio": 1e6, "latency": 1.0}  # with the unit of the option
_NECKS = "fpn", "panet", "prn", "efm"
_ACCURACIES = "accuracy.csv"
_BUILT_IN = "built-in"
_BEYOND = "beyond the budget"


def search_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "search",
        "With --search, --backbone, --csp (with none for plain stages), --gamma, --neck and --scale take lists "
        "(csp,none); every combination within the budget becomes a cfg",
    )
    group.add_argument("--search", action="store_true", help="write all combinations and the front of the best ones")
    group.add_argument("--out", type=output_folder, metavar="FOLDER", help="folder of the search (default: search)")
    for key, what in (
        ("bflops", "BFLOPs"),
        ("parameters", "millions of parameters"),
        ("cio", "CIO in millions of values"),
        ("latency", "milliseconds per image on this machine, measured for the front of the others"),
    ):
        group.add_argument(f"--max-{key}", type=float, metavar="X", help=f"budget: {what}")
    group.add_argument(
        "--front",
        metavar="KEYS",
        help=f"what the front is drawn by, of {', '.join(AXES)} (default: bflops,cio,timestamps)",
    )
    group.add_argument(
        "--train",
        metavar="DATA",
        nargs="?",
        const=_BUILT_IN,
        help="train each network of the front on DATA (default: the built-in shapes), as a tie-breaker",
    )
    group.add_argument("--iterations", type=positive, metavar="N", help="with --train: iterations (default: 300)")
    group.add_argument("--seed", type=int, metavar="N", help="with --train: seed (default: 0)")


def check_no_search_options(args: argparse.Namespace) -> None:
    """Raises UsageError where options of a search stand without --search."""
    for name in ("out", "front", "train", "iterations", "seed", *(f"max_{key}" for key in _BUDGETS)):
        if vars(args)[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')}: expected --search with it")


def search(args: argparse.Namespace, base: Design, csps: Sequence[Csp | None], scales: Sequence[float]) -> int:
    """Writes candidates, table and plot. base: the options that are no lists."""
    args.iterations, args.seed = args.iterations or 300, args.seed or 0
    keys = _front_keys(args)
    out = make_folder(Path(args.out or "search"))
    if args.train and not base.classes:
        base = replace(base, classes=len(open_dataset(_data(args)).class_names()))
    without_necks = base.head in ("classifier", "yolov2")
    space = SearchSpace(
        base,
        _known("--backbone", args.backbone, BACKBONES, list(BACKBONES)),
        csps,
        [""] if without_necks else _known("--neck", args.neck, NECKS, _NECKS),
        scales,
    )
    entries, refused = _candidates(space, out, args)
    if not entries:
        raise DarknetError(_nothing(refused))
    front = _front(entries, [key for key in keys if key not in ("latency", "accuracy")])
    if "latency" in keys:
        measure_latency(front, device_or_default(None), 1, max(20.0, 2.0 * len(front)))
        front = [entry for entry in front if _within(entry, args)]
    _write_table(out / "candidates.csv", entries, front, refused)
    if not front:
        raise DarknetError(f"no candidate takes at most {args.max_latency:g} ms; all are in {out / 'candidates.csv'}")
    if args.train:
        _train(front, out, args)
    front = sorted(_front(front, keys), key=lambda entry: entry.bflops)
    _write_table(out / "candidates.csv", entries, front, refused)
    y = "accuracy" if args.train else next((key for key in keys if AXES[key][2]), "parameters")
    x = "latency" if "latency" in keys else "bflops"
    plot = plot_of(entries, x, y, named=[entry.name for entry in front])
    write_atomically(out / "front.svg", plot.encode())
    print(format_table(front))
    logger.info(
        "%s within the budget, %d on the front by %s; cfgs, candidates.csv and front.svg are in %s",
        counted(len(entries), "network"),
        len(front),
        ", ".join(keys),
        out,
    )
    return 0


def _known(option: str, text: str | None, known: Collection[str], default: Sequence[str]) -> Sequence[str]:
    names = text.split(",") if text else default
    for name in names:
        if name not in known:
            hint = did_you_mean(name, sorted(known))
            raise UsageError(f"{option}: expected some of {', '.join(known)}, got {name!r}{hint}")
    return names


def _front_keys(args: argparse.Namespace) -> list[str]:
    keys = [key.strip() for key in (args.front or "bflops,cio,timestamps").split(",")]
    for key in keys:
        if key not in AXES:
            raise UsageError(f"--front: expected some of {', '.join(AXES)}, got {key!r}")
    keys += ["latency"] if args.max_latency is not None and "latency" not in keys else []
    if "accuracy" in keys and not args.train:
        raise UsageError("--front: accuracy: expected --train with it")
    return keys + (["accuracy"] if args.train and "accuracy" not in keys else [])


def _candidates(space: SearchSpace, out: Path, args: argparse.Namespace) -> tuple[list[Entry], dict[str, str]]:
    """The networks within the budget, with their cfgs written, and why others are not among them."""
    entries, refused = [], {}
    folder = make_folder(out / "cfg")
    for name, design in tqdm(space.designs().items(), desc="designs", unit="network", disable=None):
        path = folder / f"{name}.cfg"
        try:
            text = design.text(f"`darknet-py design --search`: {name}.")
        except DarknetError as error:
            refused[name] = str(error)
            continue
        entry = make_entry(name, parse_text(text, str(path)))
        if _within(entry, args):
            write_atomically(path, text.encode())
            entries.append(entry)
        else:
            refused[name] = _BEYOND
    return entries, refused


def _within(entry: Entry, args: argparse.Namespace) -> bool:
    values = asdict(entry)
    for key, unit in _BUDGETS.items():
        most, value = vars(args)[f"max_{key}"], values[key]
        if most is not None and value is not None and value > most * unit:
            return False
    return True


def _nothing(refused: Mapping[str, str]) -> str:
    beyond = sum(why == _BEYOND for why in refused.values())
    others = [f"{name}: {why}" for name, why in refused.items() if why != _BEYOND]
    example = f"; {len(others)} cannot be built, such as {others[0]}" if others else ""
    return f"no candidate is left: {counted(beyond, 'network')} beyond the budget{example}"


def _front(entries: Sequence[Entry], keys: Sequence[str]) -> list[Entry]:
    if not keys:
        return list(entries)
    rows = [asdict(entry) for entry in entries]
    costs = [[math.inf if row[key] is None else row[key] * (-1 if AXES[key][2] else 1) for key in keys] for row in rows]
    chosen = non_dominated(np.array(costs, np.float64))
    return [entry for entry, on_front in zip(entries, chosen, strict=True) if on_front]


def _train(front: Sequence[Entry], out: Path, args: argparse.Namespace) -> None:
    """Sets the accuracy of each network by a short training. What an earlier run of this search trained is kept."""
    done = _accuracies(out / _ACCURACIES)
    for number, entry in enumerate(front, 1):
        key = (entry.name, str(args.iterations), str(args.seed), str(args.train))
        if key not in done:
            logger.info("training %d of %d: %s", number, len(front), entry.name)
            result = darknet_py.train(  # imported now, and not for every design
                entry.cfg,
                _data(args),
                recipe="scratch",
                max_batches=args.iterations,
                seed=args.seed,
                out=out / "trained" / entry.name,
                map=True,
            )
            done[key] = max(result.best_map or 0.0, result.map or 0.0)
            _write_rows(
                out / _ACCURACIES,
                ("name", "iterations", "seed", "data", "accuracy"),
                [(*what, accuracy) for what, accuracy in done.items()],
            )
        entry.accuracy = done[key]


def _data(args: argparse.Namespace) -> str | None:
    return None if args.train == _BUILT_IN else args.train


def _accuracies(path: Path) -> dict[tuple[str, str, str, str], float]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {(row["name"], row["iterations"], row["seed"], row["data"]): float(row["accuracy"]) for row in rows}


def _write_table(path: Path, entries: Sequence[Entry], front: Sequence[Entry], refused: Mapping[str, str]) -> None:
    on_front = {entry.name for entry in front}
    columns = [*asdict(entries[0]), "front", "refused"]
    rows = [(*asdict(entry).values(), int(entry.name in on_front), "") for entry in entries]
    blank = [""] * (len(columns) - 2)
    _write_rows(path, columns, [*rows, *((name, *blank, why) for name, why in refused.items())])


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def list_of(text: str, option: str) -> list[float]:
    """The numbers of a list that is separated by commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option}: expected numbers, got {text!r}") from None
