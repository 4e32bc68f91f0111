"""Times non-maximum suppression for few and many boxes, one and many classes, beside another version of it.

    python tools/bench/nms.py [--against FILE] [--seconds S]

FILE is another `inference/nms.py`, such as `git show REVISION:darknet_py/inference/nms.py > /tmp/nms.py`. Both run in
turn in one process, so that the load of the machine is the same for both; the ratio is that of their fastest runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions

CASES = {  # boxes, classes, minimum confidence of the scores
    "a trained detector: 60 boxes, 80 classes": (60, 80, 0.97),
    "250 boxes, 1 class": (250, 1, 0.0),
    "1000 boxes, 1 class": (1000, 1, 0.0),
    "2000 boxes, 4 classes": (2000, 4, 0.0),
    "an evaluation: 2000 boxes, 80 classes, 5000 rows": (2000, 80, 0.97),
    "an untrained network: 5000 boxes, 20 classes": (5000, 20, 0.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FILE", help="another version of inference/nms.py")
    parser.add_argument("--seconds", type=float, default=2.0, help="per case (default: 2)")
    arguments = parser.parse_args()
    versions: dict[str, Callable[..., object]] = {"now": postprocess}
    if arguments.against:
        versions["other"] = load(arguments.against)
    for name, case in CASES.items():
        given = predictions(*case)
        best = fastest(
            {key: partial(version, given, 0.001, 0.45) for key, version in versions.items()}, arguments.seconds
        )
        times = ", ".join(f"{version} {seconds * 1e3:.2f} ms" for version, seconds in best.items())
        ratio = f", ratio {best['other'] / best['now']:.2f}" if "other" in best else ""
        print(f"{name}: {times}{ratio}", flush=True)


def load(path: Path) -> Callable[..., object]:
    """The `postprocess` of another version."""
    spec = importlib.util.spec_from_file_location("other_nms", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., object] = module.postprocess
    return function


def predictions(count: int, classes: int, minimum: float) -> Predictions:
    """Random boxes; scores below `minimum` count as 0."""
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(1, count, 2, generator=generator)
    boxes = torch.cat((center, torch.rand(1, count, 2, generator=generator) * 0.2 + 0.02), -1)
    scores = torch.rand(1, count, classes, generator=generator)
    scores = torch.where(scores > minimum, scores, 0.0)
    return Predictions(boxes, torch.ones(1, count), scores)


def fastest(arms: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The shortest time of each, run in turn."""
    best = dict.fromkeys(arms, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, arm in arms.items():
            start = time.perf_counter()
            arm()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
