"""`.xml` and `.bin`: OpenVINO's IR, made of the ONNX file in floating point."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from darknet_py.errors import WeightsError
from darknet_py.export.exporter import ExportResult, Job
from darknet_py.export.onnx import to_onnx
from darknet_py.export.quantize import quantize_openvino
from darknet_py.export.verify import Runner
from darknet_py.optional import require

# OpenVINO's name for the precision in which it computes; by default it takes bf16 where the processor has it. Of int8
# the hint is for what is left in floating point.
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


class OpenvinoExporter:
    """OpenVINO IR. In fp16 the weights are stored so, and the runtime chooses in what it computes."""

    outputs = ("raw", "boxes")
    precisions = ("fp32", "fp16", "int8")

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises DarknetError where OpenVINO cannot read the network or computes something else."""
        ir = to_openvino(job)
        differences = job.compare(str(out), run_openvino(ir))
        return ExportResult({out.with_suffix(".bin"): ir.weights, out: ir.xml}, differences)


class OpenvinoIr(NamedTuple):
    """The contents of the two files of an IR."""

    xml: bytes
    weights: bytes


def to_openvino(job: Job, onnx: bytes = b"") -> OpenvinoIr:
    """The network as OpenVINO's IR, in int8 if that is asked for.

    Args:
        job: The network.
        onnx: Its ONNX file in floating point, where there is one already.

    Raises:
        MissingExtra: OpenVINO is not installed.
        WeightsError: Temporary files cannot be written.
    """
    openvino = require("openvino", "openvino", "OpenVINO")
    model = _core().read_model(onnx or to_onnx(job, quantized=False))
    if job.calibration:
        model = quantize_openvino(model, job.calibration)
    for key, text in job.metadata.items():
        model.set_rt_info(text, ["model_info", key])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        try:
            openvino.save_model(model, path, compress_to_fp16=job.options.precision == "fp16")
            return OpenvinoIr(path.read_bytes(), path.with_suffix(".bin").read_bytes())
        except (RuntimeError, OSError) as error:  # also for a full disk
            raise WeightsError(f"{folder}: cannot write: {str(error).splitlines()[0]}") from error


def run_openvino(network: Path | bytes | OpenvinoIr, precision: str = "fp32", threads: int | None = None) -> Runner:
    """Runs an IR or an ONNX file by OpenVINO on the CPU.

    Args:
        network: An .xml or .onnx file, or the content of an .onnx file or of an IR.
        precision: In what it computes, a key of `HINTS`.
        threads: CPU threads (default: one per core).

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    core = _core()
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    model = core.read_model(*network) if isinstance(network, OpenvinoIr) else core.read_model(network)
    compiled = core.compile_model(model, "CPU", config)

    def run(*x: Tensor) -> list[Tensor]:
        found = compiled([np.ascontiguousarray(part.numpy()) for part in x])
        return [torch.from_numpy(found[index]) for index in range(len(compiled.outputs))]

    return run


@cache
def _core() -> Any:
    """OpenVINO's runtime, one that lives as long as the process.

    Each one gives the thread a signal stack large enough for AMX, and puts back the one before when it ends. Where two
    end in the order in which they began, the thread is left with a stack that is unmapped: the next signal, such as
    Ctrl-C or the end of a loader process, kills the program (OpenVINO 2026.4, processors with AMX).
    """
    return require("openvino", "openvino", "OpenVINO").Core()
