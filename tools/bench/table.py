"""Measures the speed of inference and training of several networks.

    python tools/bench/table.py [CFG …] [--device cuda] [--batch 1 16] [--seconds 3] [--compile] [--json FILE]

On a GPU inference runs in fp16 and training in fp32 (TF32 where torch allows it) and bf16; on a CPU all in fp32. Random
weights and images at the size in the cfg; NMS included. Every row is printed and written at once, so that an
interrupted run keeps its rows.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from darknet_py.cli import benchmark
from darknet_py.model.load import read_trained

ROOT = Path(__file__).resolve().parents[2]
CFGS = [str(ROOT / "cfg" / f"{name}.cfg") for name in ("yolov4-tiny", "yolov4", "csresnext50-panet-spp")]
MINI_BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfgs", nargs="*", default=CFGS, metavar="CFG")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="of inference (default: 1 16)")
    parser.add_argument("--mini-batch", type=int, default=MINI_BATCH, help=f"of training (default: {MINI_BATCH})")
    parser.add_argument("--seconds", type=float, default=3.0, help="per row (default: 3)")
    parser.add_argument("--compile", action="store_true", help="inference through torch.compile too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": benchmark.machine_name(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
        "rows": [],
    }
    print(f"{report['machine']}, torch {torch.__version__}")
    for what, run in jobs(arguments, device):
        try:
            row = what | run()
        except (RuntimeError, ImportError) as error:  # such as out of memory or no compiler: other rows follow
            row = what | {"failed": str(error).strip().splitlines()[0]}
        report["rows"].append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def jobs(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """Description and measuring function of each row; slow rows and rows that may fail come last."""
    half = "fp16" if device.type == "cuda" else None
    precisions = (None, "bf16") if device.type == "cuda" else (None,)
    for cfg in arguments.cfgs:
        for batch in arguments.batch:
            yield describe(cfg, "inference", batch, half), partial(inference, cfg, batch, half, False, arguments)
        for amp in precisions:
            what = describe(cfg, "training", arguments.mini_batch, amp)
            yield what, partial(training, cfg, arguments.mini_batch, amp, arguments)
    for cfg in arguments.cfgs if arguments.compile else ():
        for batch in arguments.batch:
            what = describe(cfg, "inference, compiled", batch, half)
            yield what, partial(inference, cfg, batch, half, True, arguments)


def describe(cfg: str, what: str, batch: int, amp: str | None) -> dict[str, Any]:
    return {"cfg": Path(cfg).stem, "what": what, "batch": batch, "precision": amp or "fp32"}


def inference(cfg: str, batch: int, amp: str | None, compiled: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    make = partial(read_trained, cfg, device=arguments.device)
    timing = benchmark.inference(make, batch, amp=amp, compiled=compiled, seconds=arguments.seconds)
    return {
        "images/s": round(timing.images_per_second, 1),
        "ms": round(timing.total.median, 3),
        "of which forward": round(timing.forward.median, 3),
        "nms": round(timing.nms.median, 3) if timing.nms else None,
        "GFLOP/s": round(timing.gflops_per_second, 1),
        "MiB": timing.memory >> 20,
    }


def training(cfg: str, batch: int, amp: str | None, arguments: argparse.Namespace) -> dict[str, Any]:
    timing = benchmark.training(
        partial(read_trained, cfg, device=arguments.device), batch, amp=amp, seconds=arguments.seconds
    )
    step = timing.step.median
    return {"images/s": round(timing.images_per_second, 1), "ms": round(step, 3), "MiB": timing.memory >> 20}


if __name__ == "__main__":
    main()
