"""`bench CFG`: how fast a network is here, and how much memory it takes."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darknet_py.cli.common import amp_argument, network_arguments, positive

if TYPE_CHECKING:
    from darknet_py.cli.benchmark import InferenceTiming, Timing, TrainingTiming

HELP = "measure latency, images per second, GFLOP/s and memory; no images needed"


def configure(parser: argparse.ArgumentParser) -> None:
    network_arguments(parser, "weights (default: random ones, which are as fast)")
    parser.add_argument("--batch", type=positive, help="images at once (default: 1, in training 4)")
    parser.add_argument("--train", action="store_true", help="measure training steps too")
    amp_argument(parser)
    parser.add_argument("--compile", action="store_true", help="inference through torch.compile (with CUDA graphs)")
    parser.add_argument("--threads", type=positive, help="of the CPU (default: as torch chooses)")
    parser.add_argument("--seconds", type=_seconds, default=5.0, help="to measure for (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    import torch

    from darknet_py.cli import benchmark as measure
    from darknet_py.cli.common import load_network

    if args.threads:
        torch.set_num_threads(args.threads)
    net = load_network(args)
    graph, device = net.graph, net.device
    result: dict[str, Any] = {
        "cfg": args.cfg,
        "weights": args.weights,
        "width": graph.net.width,
        "height": graph.net.height,
        "precision": args.amp or "fp32",
        "machine": measure.machine(device),
        "torch": torch.__version__,
        "parameters": graph.parameters,
        "bflops": graph.bflops,
    }
    lines = [
        f"{Path(args.cfg).name}  {graph.input}, {result['precision']}",
        f"{result['machine']}, torch {torch.__version__}",
    ]
    del net  # its memory is measured
    load = partial(load_network, args)

    batch = args.batch or 1
    found = measure.inference(load, batch, amp=args.amp, compiled=args.compile, seconds=args.seconds)
    result["inference"] = {"batch": batch, "compiled": args.compile, **_plain(found)}
    lines += _inference_table(found, f"inference{', compiled' if args.compile else ''}, batch {batch}", graph.bflops)
    if args.train:
        batch = args.batch or 4
        trained = measure.training(load, batch, amp=args.amp, seconds=args.seconds)
        result["training"] = {"batch": batch, **_plain(trained)}
        lines += _training_table(trained, f"training, mini-batch {batch}")
    print(json.dumps(result, indent=1) if args.json else "\n".join(lines))
    return 0


def _inference_table(found: InferenceTiming, title: str, bflops: float) -> list[str]:
    rows = [("forward", found.forward)]
    if found.decode and found.nms:
        rows += [("  of which decoding", found.decode), ("NMS", found.nms), ("together", found.total)]
    speed = f"{found.images_per_second:.1f} images/s, {found.gflops_per_second:.1f} GFLOP/s"
    memory = f"{found.memory / 2**20:.0f} MiB of memory at the peak"
    return [*_table(title, rows), f"{speed} ({bflops:.3f} BFLOPs an image), {memory}, {found.calls} calls"]


def _training_table(found: TrainingTiming, title: str) -> list[str]:
    memory = f"{found.memory / 2**20:.0f} MiB of memory at the peak"
    return [
        *_table(title, [("forward, loss, backward, update", found.step)]),
        f"{found.images_per_second:.1f} images/s, {memory}, {found.calls} steps",
    ]


def _table(title: str, rows: list[tuple[str, Timing]]) -> list[str]:
    head = f"{title:<34}{'median':>10}{'p90':>10}{'min':>10}  ms"
    return ["", head, *(f"  {name:<32}" + "".join(f"{value:10.2f}" for value in times) for name, times in rows)]


def _plain(value: Any) -> Any:
    """NamedTuples to dicts, all the way down; four digits after the point."""
    if hasattr(value, "_asdict"):
        return {key: _plain(item) for key, item in value._asdict().items()}
    return round(value, 4) if isinstance(value, float) else value


def _seconds(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


_seconds.__name__ = "number"  # which argparse prints when a text does not convert at all
