"""Everything that is to be measured on a GPU, in one command; with --device cpu its paths run without one.

    python tools/bench/gpu.py [CFG …] [--device cuda] [--batch 16] [--seconds 5] [--width N --height N] [--json FILE]

For each network: how far its candidates are from those of the CPU in float32 (`box_difference`), latency with one image
and images per second with a batch, with decoding and NMS, in float32, TF32, bfloat16 and float16, eager and by
torch.compile with CUDA graphs, and a training step. GFLOP/s use Darknet's count of operations. They stand beside those
of a large matrix product in the same precision, which is what the device gives at most.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from darknet_py.backends.choose import box_difference
from darknet_py.cli import benchmark
from darknet_py.graph.graph import parse
from darknet_py.inference.fuse import AMP, fuse
from darknet_py.model.network import Network

ROOT = Path(__file__).resolve().parents[2]
CFGS = ["yolo-fastest-1.1", "yolov4-tiny", "yolov4", "csresnext50-panet-spp"]
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfgs", nargs="*", default=[str(ROOT / "cfg" / f"{name}.cfg") for name in CFGS], metavar="CFG")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=16, help="of the throughput; training steps have a quarter of it")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    report: dict[str, object] = {
        "machine": benchmark.machine_name(device),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    for precision in args.precisions:
        with tensor_cores(precision):
            report[f"matrix product, {precision}"] = {"GFLOP/s": round(matrix_product(precision, device, args.seconds))}
    rows = report["rows"] = []
    for cfg in args.cfgs:
        for row in network_rows(cfg, device, args):
            rows.append(row)
            print(*(f"{key} {value}" for key, value in row.items()), sep="  ", flush=True)
    print(*(f"{key}: {value}" for key, value in report.items() if key != "rows"), sep="\n")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def network_rows(cfg: str, device: torch.device, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """What is measured of one network."""
    graph = parse(cfg, width=args.width, height=args.height)
    torch.manual_seed(0)
    reference = Network(graph).eval()
    x = benchmark.random_images(reference, 2, torch.device("cpu"))
    with torch.inference_mode():
        expected = reference.predict(x)

    def load() -> Network:
        net = Network(graph).to(device).eval()
        net.load_state_dict(reference.state_dict())
        return net

    for precision in args.precisions:
        amp = precision if precision in AMP else None
        with tensor_cores(precision):
            with torch.inference_mode():
                found = fuse(load(), AMP.get(precision)).predict(x.to(device))
            difference = box_difference(expected, type(found)(*(part.float().cpu() for part in found)))
            for compiled in (False,) if args.no_compile else (False, True):
                row: dict[str, object] = {
                    "cfg": Path(cfg).stem,
                    "precision": precision,
                    "compiled": compiled,
                    "difference from the CPU": str(difference),
                }
                for name, batch in (("latency", 1), ("throughput", args.batch)):
                    timing = benchmark.inference(load, batch, amp=amp, compiled=compiled, seconds=args.seconds)
                    row[f"{name} ms"] = round(timing.total.median, 3)
                    row[f"{name} images/s"] = round(timing.images_per_second, 1)
                    row[f"{name} GFLOP/s"] = round(timing.gflops_per_second)
                    row[f"{name} MB"] = round(timing.memory / 1e6)
                yield row
            batch = max(args.batch // 4, 1)
            step = benchmark.training(load, batch, amp=amp, seconds=args.seconds)
            yield {
                "cfg": Path(cfg).stem,
                "precision": precision,
                "training step ms": round(step.step.median, 2),
                "mini-batch": batch,
                "images/s": round(step.images_per_second, 1),
                "MB": round(step.memory / 1e6),
            }


@contextmanager
def tensor_cores(precision: str) -> Iterator[None]:
    """Whether products of float32 may be computed in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def matrix_product(precision: str, device: torch.device, seconds: float) -> float:
    """GFLOP/s of a large matrix product: the roof over the network's convolutions."""
    size = 8192 if device.type == "cuda" else 1024
    factors = torch.rand(2, size, size, dtype=AMP.get(precision, torch.float32), device=device)
    count, start = 0, 0.0
    for repeat in range(-2, 1000):
        if repeat == 0:
            start = benchmark.now(device)
        factors[0] @ factors[1]
        if repeat >= 0:
            count += 1
            if benchmark.now(device) - start > min(seconds, 1.0):
                break
    return 2 * size**3 * count / (benchmark.now(device) - start) / 1e9


if __name__ == "__main__":
    main()
