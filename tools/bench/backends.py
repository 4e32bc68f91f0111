"""Times the back ends beside onnxruntime and OpenVINO driven by hand, in turns, with decoding and suppression.

    python tools/bench/backends.py --out docs/bench/backends.json [CFG …] [--rounds 9] [--threads 2]

By hand means: the ONNX file that `convert` writes, in a session of onnxruntime or a compiled model of OpenVINO without
any code of ours. Ratios are medians of the rounds' ratios, so that a busy machine slows both sides:

    auto fp32       / the faster of onnxruntime and OpenVINO (f32)
    auto auto       / OpenVINO as it is by default (bf16 where the processor has it)
    int8            / OpenVINO (f32); our int8, run by OpenVINO

Weights are random, which does not change the speed. The load average before each network is kept with the result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from networks import SIZES
from torch import Tensor

import darknet_py
from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.backends.choose import open_backend
from darknet_py.cli.benchmark import machine_name, random_images, threshold
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.exporter import Job
from darknet_py.export.onnx import to_onnx
from darknet_py.export.quantize import quantize_openvino
from darknet_py.export.verify import Runner
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network
from darknet_py.timing import SETTLING, time_in_turns

ROOT = Path(__file__).parents[2]
RATIOS = {
    "auto fp32": ("onnxruntime by hand", "OpenVINO f32 by hand"),
    "auto auto": ("OpenVINO by hand",),
    "int8": ("OpenVINO f32 by hand",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfgs", nargs="*", default=[str(ROOT / "cfg" / f"{name}.cfg") for name in SIZES], metavar="CFG")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    versions = {module.__name__: module.__version__ for module in (torch, onnxruntime, openvino)}
    result: dict[str, Any] = {"machine": machine_name(torch.device("cpu")), "threads": arguments.threads, **versions}
    result["networks"] = []
    for cfg in arguments.cfgs:
        row = measure(Path(cfg), arguments.rounds, arguments.threads)
        result["networks"].append(row)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{row['cfg']} {row['size']}, load {row['load']}: " + ", ".join(f"{k} {v}" for k, v in row["ms"].items()))
        print("  ratios: " + ", ".join(f"{k} {v}" for k, v in row["ratios"].items()))
    print(f"results in {arguments.out}")


def measure(cfg: Path, rounds: int, threads: int) -> dict[str, Any]:
    """The medians and ratios of one network."""
    size = SIZES.get(cfg.stem)
    net = darknet_py.load(cfg, width=size, height=size, random_weights=True)
    x = random_images(net, 1, net.device)
    with tempfile.TemporaryDirectory() as cache, torch.inference_mode():
        os.environ["XDG_CACHE_HOME"] = cache  # nothing measured earlier decides
        variants = {**by_hand(net, x, threads), **ours(net)}
        chosen = {
            name: f"{run.backend} {run.precision}" for name, run in variants.items() if isinstance(run, BackendNetwork)
        }
        found = variants["OpenVINO f32 by hand"](x)
        limits = (threshold(Predictions(*found)), 0.45, *net.nms_kind) if net.detectors else None
        calls: dict[str, Callable[[], object]] = {
            name: partial(finish, run, x, limits) for name, run in variants.items()
        }
        load = os.getloadavg()[0]
        times = time_in_turns(calls, x.device, 0, (rounds, rounds), SETTLING)
    ratios = {
        name: statistics.median(
            own / min(others) for own, *others in zip(times[name], *(times[k] for k in beside), strict=True)
        )
        for name, beside in RATIOS.items()
    }
    return {
        "cfg": cfg.stem,
        "size": f"{net.graph.net.width}x{net.graph.net.height}",
        "load": round(load, 1),
        "chosen": chosen,
        "ms": {name: round(1e3 * statistics.median(values), 2) for name, values in times.items()},
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
    }


def by_hand(net: Network, x: Tensor, threads: int) -> dict[str, Runner]:
    """Runners without our code around the runtimes, and our int8."""
    content = to_onnx(Job.of(net.model_file(), ExportOptions()))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    latency = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    exact = core.compile_model(core.read_model(content), "CPU", {**latency, "INFERENCE_PRECISION_HINT": "f32"})
    default = core.compile_model(core.read_model(content), "CPU", latency)
    quantized = quantize_openvino(core.read_model(content), [x] * 4)
    integers = core.compile_model(quantized, "CPU", {**latency, "INFERENCE_PRECISION_HINT": "f32"})
    return {
        "onnxruntime by hand": lambda x: tensors(session.run(None, {"images": x.numpy()})),
        "OpenVINO f32 by hand": lambda x: tensors(exact(x.numpy()).values()),
        "OpenVINO by hand": lambda x: tensors(default(x.numpy()).values()),
        "int8": lambda x: tensors(integers(x.numpy()).values()),
    }


def ours(net: Network) -> dict[str, BackendNetwork]:
    """The back ends as commands open them."""
    return {
        "torch fp32": open_backend(net, "torch"),
        "auto fp32": open_backend(net, "auto"),
        "auto auto": open_backend(net, "auto", "auto"),
    }


def tensors(outputs: Any) -> list[Tensor]:
    return [torch.from_numpy(np.asarray(output)) for output in outputs]


def finish(run: Callable[[Tensor], Sequence[Tensor]], x: Tensor, limits: tuple[Any, ...] | None) -> None:
    """One image from input to detections."""
    outputs = run(x)
    if limits is not None:
        postprocess(Predictions(*outputs), *limits)


if __name__ == "__main__":
    main()
