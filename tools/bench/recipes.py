"""The recipe on published cfgs: whether it starts, how well it knows its time, and whether the loss falls.

    python tools/bench/recipes.py CFG … --data DATA --classes 3 [--size 128] [--batch 4] [--json FILE]

Each cfg is trained from scratch for its first 30 iterations, with the schedule that the recipe has made for the whole
training. The estimate of an iteration is compared with the mean of all but the first, and the mean loss of the first
five iterations with that of the last five. Estimate and training follow each other at once, so that other work on the
machine slows both.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from darknet_py.errors import DarknetError
from darknet_py.training import session
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.train_options import TrainOptions

_COMPARED = 5  # iterations whose mean loss is taken


def try_recipe(cfg: str, args: argparse.Namespace, out: Path) -> dict[str, object]:
    """A row of the table."""
    options = TrainOptions(out=out, classes=args.classes, workers=1, map=False, chart=False, quiet=True)
    size = {"width": args.size, "height": args.size} if args.size else {}
    overrides = {**size, **({"batch": args.batch} if args.batch else {})}
    plan = session.measured(TrainingPlan.create(cfg, args.data, options=options, overrides=overrides))
    assert plan.speed is not None
    result = session.run(replace(plan, pause=args.iterations))
    with result.log.open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows]
    seconds = [float(row["seconds"]) for row in rows]
    actual = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    return {
        "cfg": Path(cfg).name,
        "input": plan.net.width,
        "batch": f"{plan.net.subdivisions} x {plan.net.mini_batch}",
        "iterations": plan.net.max_batches,
        "estimate": round(plan.speed.iteration, 3),
        "actual": round(actual, 3),
        "ratio": round(plan.speed.iteration / actual, 2),
        "first": round(statistics.mean(losses[:_COMPARED]), 2),
        "last": round(statistics.mean(losses[-_COMPARED:]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--size", type=int, help="input size (default: the recipe's)")
    parser.add_argument("--batch", type=int, help="images per iteration (default: the recipe's)")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.getLogger("darknet_py").setLevel(logging.ERROR)
    rows: list[dict[str, object]] = []
    for cfg in args.cfg:
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append({**try_recipe(cfg, args, Path(folder)), "load": round(os.getloadavg()[0], 1)})
            except DarknetError as error:
                rows.append({"cfg": Path(cfg).name, "error": str(error)})
        print(rows[-1], flush=True)
        if args.json:
            result = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "rows": rows}
            args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
