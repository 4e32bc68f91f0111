"""`bench CFG`: speed and memory of a network on this machine."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch

from darknet_py.backends.runners import BACKENDS
from darknet_py.cli import benchmark
from darknet_py.cli.backend_benchmark import backend_lines, compare_backends
from darknet_py.cli.benchmark import InferenceTiming, Timing, TrainingTiming
from darknet_py.cli.common import (
    amp_argument,
    calibrate_argument,
    device_or_default,
    json_argument,
    network_arguments,
    positive,
    seconds,
    write_json,
)
from darknet_py.cli.load_network import read_model
from darknet_py.model.load import build, torch_device


def configure(parser: argparse.ArgumentParser) -> None:
    network_arguments(parser, "weights (default: random, which does not change the speed)")
    parser.add_argument("--batch", type=positive, help="images per forward pass (default: 1, in training 4)")
    parser.add_argument("--train", action="store_true", help="measure training steps as well")
    amp_argument(parser)
    parser.add_argument(
        "--backend",
        action="append",
        choices=(*BACKENDS, "all"),
        help="also compare this back end with torch, in turns, in each precision of this machine; may be repeated",
    )
    calibrate_argument(parser, "int8 is compared too")
    parser.add_argument("--compile", action="store_true", help="inference through torch.compile (with CUDA graphs)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: those of torch)")
    parser.add_argument("--seconds", type=seconds, default=5.0, help="time to measure (default: 5)")
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    model = read_model(args, needs_weights=bool(args.weights))  # random ones are as fast
    graph, device = model.graph, torch_device(device_or_default(args.device))
    result: dict[str, Any] = {
        "cfg": args.cfg,
        "weights": args.weights,
        "loaded_layers": model.loaded_layers,
        "width": graph.net.width,
        "height": graph.net.height,
        "precision": args.amp or "fp32",
        "machine": benchmark.machine_name(device),
        "torch": torch.__version__,
        "parameters": graph.parameters,
        "bflops": graph.bflops,
    }
    lines = [
        f"{Path(args.cfg).name}  {graph.input}, {result['precision']}",
        f"{result['machine']}, torch {torch.__version__}",
        f"weights: {model.source or 'random'}",
    ]
    load = partial(build, model, device)

    batch = args.batch or 1
    timing = benchmark.inference(load, batch, amp=args.amp, compiled=args.compile, seconds=args.seconds)
    result["inference"] = {"batch": batch, "compiled": args.compile, **_to_dict(timing)}
    lines += _inference_table(timing, f"inference{', compiled' if args.compile else ''}, batch {batch}", graph.bflops)
    if args.train:
        batch = args.batch or 4
        timing_of_training = benchmark.training(load, batch, amp=args.amp, seconds=args.seconds)
        result["training"] = {"batch": batch, **_to_dict(timing_of_training)}
        lines += _training_table(timing_of_training, f"training, mini-batch {batch}")
    if args.backend:
        rows = compare_backends(
            load(), args.backend, batch=args.batch or 1, seconds=args.seconds, calibrate=args.calibrate
        )
        result["backends"] = [row._asdict() | {"times": _to_dict(row.times)} for row in rows]
        lines += backend_lines(rows)
    if args.json:
        write_json(args.json, result)
    if args.json != "-":
        print("\n".join(lines))
    return 0


def _inference_table(timing: InferenceTiming, title: str, bflops: float) -> list[str]:
    rows = [("forward", timing.forward)]
    if timing.decode and timing.nms:
        rows += [("  decoding", timing.decode), ("NMS", timing.nms), ("total", timing.total)]
    speed = f"{timing.images_per_second:.1f} images/s, {timing.gflops_per_second:.1f} GFLOP/s"
    memory = f"{timing.memory / 2**20:.0f} MiB peak memory"
    return [*_table(title, rows), f"{speed} ({bflops:.3f} BFLOPs an image), {memory}, {timing.calls} calls"]


def _training_table(timing: TrainingTiming, title: str) -> list[str]:
    memory = f"{timing.memory / 2**20:.0f} MiB peak memory"
    return [
        *_table(title, [("forward, loss, backward, update", timing.step)]),
        f"{timing.images_per_second:.1f} images/s, {memory}, {timing.calls} steps",
    ]


def _table(title: str, rows: list[tuple[str, Timing]]) -> list[str]:
    head = f"{title:<34}{'median':>10}{'p90':>10}{'min':>10}  ms"
    return ["", head, *(f"  {name:<32}" + "".join(f"{value:10.2f}" for value in times) for name, times in rows)]


def _to_dict(value: object) -> Any:
    """A timing as a dict, recursively; numbers rounded to four digits."""
    if isinstance(value, (InferenceTiming, TrainingTiming, Timing)):
        return {key: _to_dict(item) for key, item in value._asdict().items()}
    return round(value, 4) if isinstance(value, float) else value
