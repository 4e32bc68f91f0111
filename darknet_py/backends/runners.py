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
from darknet_py.errors import DarknetError
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.exporter import Job
from darknet_py.export.onnx import to_onnx
from darknet_py.export.openvino import to_openvino
from darknet_py.export.quantize import calibration_digest
from darknet_py.export.runtimes import OpenvinoIr, run_onnx, run_openvino
from darknet_py.export.verify import Runner
from darknet_py.inference.fuse import AMP, fuse
from darknet_py.layers.base import HIER_THRESH, Predictions
from darknet_py.model.network import Network

_FLOAT = ("fp32", "bf16", "fp16")
PRECISIONS = (*_FLOAT, "int8")


@dataclass(frozen=True)
class Request:
    """What a runtime shall run: batches of `batch` images in a precision.

    hier: see `Network.predict`. calibrate: images for int8, see `ExportOptions`.
    """

    net: Network
    precision: str = "fp32"
    batch: int = 1
    hier: float = HIER_THRESH
    calibrate: str | Path = ""


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
    return lambda x: _parts(fused(x, request.hier))


def _compile(request: Request) -> Runner:
    fused = fuse(request.net, AMP.get(request.precision), pack=False)
    mode = "reduce-overhead" if request.net.device.type == "cuda" else "default"  # CUDA graphs
    torch.compiler.reset()  # otherwise torch stops recompiling after several networks
    compiled = torch.compile(fused, fullgraph=True, mode=mode)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in _parts(compiled(x, request.hier)))

    return run


def _parts(output: Predictions | Tensor) -> tuple[Tensor, ...]:
    """What a runtime gives: boxes, objectness and scores, or one output."""
    return tuple(output) if isinstance(output, Predictions) else (output.float(),)


def _onnxruntime(request: Request) -> Runner:
    return run_onnx(_verified(request, "onnxruntime", to_onnx, run_onnx))


def _openvino(request: Request) -> Runner:
    threads = torch.get_num_threads()
    if request.precision == "int8":
        return run_openvino(_unpacked(_verified(request, "openvino", _packed, _run_packed)), "int8", threads)
    return run_openvino(_verified(request, "openvino", to_onnx, run_openvino), request.precision, threads)


def _packed(job: Job) -> bytes:
    """An IR in one file: the length of its .xml, its .xml and its .bin."""
    ir = to_openvino(job)
    return len(ir.xml).to_bytes(8, "little") + ir.xml + ir.weights


def _unpacked(content: bytes) -> OpenvinoIr:
    end = 8 + int.from_bytes(content[:8], "little")
    return OpenvinoIr(content[8:end], content[end:])


def _run_packed(content: bytes) -> Runner:
    return run_openvino(_unpacked(content))


def _verified(request: Request, runtime: str, export: Callable[[Job], bytes], run: Callable[[bytes], Runner]) -> bytes:
    """The network as a file, in float32 or int8, made once and compared with ours by the runtime that uses it."""
    precision = "int8" if request.precision == "int8" else "fp32"
    packages = ["onnx", "onnxscript", runtime]
    parts: list[object] = [runtime, request.batch, request.hier]
    if precision == "int8":
        packages += ["onnxruntime", "nncf"]
        parts += [precision, calibration_digest(request.calibrate)]
    parts += [version(package) for package in packages if importlib.util.find_spec(package)]

    def make() -> bytes:
        net = request.net
        options = ExportOptions("", precision, request.calibrate, request.batch, hier=request.hier)
        job = Job.of(net.model_file(), options)
        if job.reference.states:
            raise DarknetError(f"{net.graph.path} has recurrent layers; expected the back end torch, got {runtime}")
        content = export(job)
        job.compare(f"{Path(net.graph.path).name} by {runtime}", run(content))
        return content

    return cached(f"{digest(request.net, darknet_py.__version__, *parts)}.network", make)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("torch", (), _FLOAT, True, True, _torch),
        Backend("compile", (), _FLOAT, True, False, _compile),
        Backend("onnxruntime", ("onnx", "onnxscript", "onnxruntime"), ("fp32", "int8"), False, True, _onnxruntime),
        Backend("openvino", ("onnx", "onnxscript", "openvino"), PRECISIONS, False, True, _openvino),
    )
}
