"""The runtimes that run a network: torch, torch.compile, onnxruntime and OpenVINO."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

import darknet_py
from darknet_py.backends.cache import cached, digest
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.exporter import Job
from darknet_py.export.onnx import run_onnx, to_onnx
from darknet_py.export.openvino import run_openvino
from darknet_py.export.verify import Runner
from darknet_py.inference.fuse import AMP, fuse
from darknet_py.layers.base import HIER_THRESH
from darknet_py.model.network import Network

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Request:
    """What a runtime shall run: batches of `batch` images in a precision; hier: see `Network.predict`."""

    net: Network
    precision: str = "fp32"
    batch: int = 1
    hier: float = HIER_THRESH


@dataclass(frozen=True)
class Backend:
    """A runtime.

    Attributes:
        name: Its name on the command line.
        packages: What it needs beyond this package's own requirements.
        precisions: Those that it has.
        is_torch: Whether torch runs it: on any device, with any number of images. Others run on the CPU.
        measured: Whether `auto` tries it.
        start: Makes the runner. Raises MissingExtra without a package, DarknetError for a network that it cannot run.
    """

    name: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    is_torch: bool
    measured: bool
    start: Callable[[Request], Runner]

    @property
    def is_installed(self) -> bool:
        return all(importlib.util.find_spec(package) is not None for package in self.packages)


def _torch(request: Request) -> Runner:
    fused = fuse(request.net, AMP.get(request.precision))
    return lambda x: fused.predict(x, request.hier)


def _compile(request: Request) -> Runner:
    fused = fuse(request.net, AMP.get(request.precision), pack=False)
    mode = "reduce-overhead" if request.net.device.type == "cuda" else "default"  # CUDA graphs
    torch.compiler.reset()  # otherwise torch stops recompiling after several networks
    compiled = torch.compile(fused, fullgraph=True, mode=mode)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in compiled(x, request.hier))

    return run


def _onnxruntime(request: Request) -> Runner:
    return run_onnx(_verified_onnx(request, "onnxruntime", run_onnx))


def _openvino(request: Request) -> Runner:
    content = _verified_onnx(request, "openvino", run_openvino)
    return run_openvino(content, request.precision, torch.get_num_threads())


def _verified_onnx(request: Request, runtime: str, run: Callable[[bytes], Runner]) -> bytes:
    """The network as ONNX in float32, made once and compared with ours by the runtime that uses it."""
    packages = ("onnx", "onnxscript", runtime)
    versions = [
        darknet_py.__version__,
        *(version(package) for package in packages if importlib.util.find_spec(package)),
    ]

    def make() -> bytes:
        net = request.net
        options = ExportOptions(outputs="boxes", batch=request.batch, hier=request.hier)
        job = Job.of(net.model_file(), options)
        content = to_onnx(job)
        job.compare(f"{Path(net.graph.path).name} by {runtime}", run(content))
        return content

    return cached(f"{digest(request.net, runtime, versions, request.batch, request.hier)}.onnx", make)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("torch", (), PRECISIONS, True, True, _torch),
        Backend("compile", (), PRECISIONS, True, False, _compile),
        Backend("onnxruntime", ("onnx", "onnxscript", "onnxruntime"), ("fp32",), False, True, _onnxruntime),
        Backend("openvino", ("onnx", "onnxscript", "openvino"), PRECISIONS, False, True, _openvino),
    )
}
