"""Times `load(cfg).predict` beside its fused copies, in turns.

    python tools/bench/fuse.py [CFG …] [--rounds 15] [--threads 1]

The columns are milliseconds of processor time for one image (of wall clock with more than one thread), medians over the
rounds: as trained, batch norm folded, and with packed convolutions (what `net.detect` runs). Ratios are medians of the
rounds' ratios, so that a busy machine slows both sides. The load average before the run is printed, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch

import darknet_py
from darknet_py.inference.fuse import fuse

ROOT = Path(__file__).parents[2]
CFGS = ["yolo-fastest-1.1", "yolov4-tiny", "yolov4", "csresnext50-panet-spp"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfgs", nargs="*", default=[str(ROOT / "cfg" / f"{name}.cfg") for name in CFGS], metavar="CFG")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 as a fourth column")
    parser.add_argument("--json", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    print(f"torch {torch.__version__}, {args.threads} thread(s), load average {os.getloadavg()[0]:.1f}")
    rows = []
    for cfg in args.cfgs:
        torch.manual_seed(0)
        net = darknet_py.load(cfg)
        variants = {"as trained": net, "folded": fuse(net, pack=False), "packed": fuse(net)}
        if args.bf16:
            variants["bf16"] = fuse(net, torch.bfloat16)
        x = torch.rand(1, net.graph.net.channels, net.graph.net.height, net.graph.net.width)
        times: dict[str, list[float]] = {name: [] for name in variants}
        with torch.inference_mode():
            for turn in range(args.rounds + 2):
                for name, variant in variants.items():
                    start = clock()
                    variant.predict(x)
                    if turn >= 2:
                        times[name].append((clock() - start) * 1000)
        base = times["as trained"]
        row = {
            "cfg": Path(cfg).stem,
            "ms": {name: round(statistics.median(values), 2) for name, values in times.items()},
            "ratio": {
                name: round(statistics.median(value / one for value, one in zip(values, base, strict=True)), 3)
                for name, values in times.items()
            },
        }
        rows.append(row)
        print(row["cfg"], *(f"{name} {row['ms'][name]} ms ({row['ratio'][name]})" for name in times), sep="  ")
    if args.json:
        result = {"torch": torch.__version__, "threads": args.threads, "load": os.getloadavg(), "rows": rows}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
