"""The runtimes that exported files are run by: onnxruntime and OpenVINO, on the CPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from darknet_py.errors import DarknetError
from darknet_py.export.verify import Runner
from darknet_py.optional import require
from darknet_py.untrusted import first_line

# OpenVINO's name for the precision in which it computes; by default it takes bf16 where the processor has it. Of int8
# the hint is for what is left in floating point.
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


class OpenvinoIr(NamedTuple):
    """The contents of the two files of an IR."""

    xml: bytes
    weights: bytes


def run_onnx(content: bytes) -> Runner:
    """Runs an ONNX file by onnxruntime on the CPU. Raises MissingExtra, DarknetError."""
    runtime = require("onnxruntime", "onnx", "running ONNX")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    # Without a number it pins threads to all processors, those that a container or taskset withholds too.
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise DarknetError(f"onnxruntime cannot run this network: {first_line(error)}") from error

    names = [value.name for value in session.get_inputs()]

    def run(*x: Tensor) -> list[Tensor]:
        try:
            values = session.run(None, {name: part.numpy() for name, part in zip(names, x, strict=True)})
        except Exception as error:
            reason = first_line(error)
            raise DarknetError(f"onnxruntime cannot run this network on {tuple(x[0].shape)}: {reason}") from error
        return [torch.from_numpy(value) for value in values]

    return run


def run_openvino(network: Path | bytes | OpenvinoIr, precision: str = "fp32", threads: int | None = None) -> Runner:
    """Runs an IR or an ONNX file by OpenVINO on the CPU.

    Args:
        network: An .xml or .onnx file, or the content of an .onnx file or of an IR.
        precision: In what it computes, a key of `HINTS`.
        threads: CPU threads (default: one per core).

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    core: Any = openvino_core()
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    model = core.read_model(*network) if isinstance(network, OpenvinoIr) else core.read_model(network)
    compiled = core.compile_model(model, "CPU", config)

    def run(*x: Tensor) -> list[Tensor]:
        # It copies what is not contiguous, into memory that it keeps; a list of one costs 0.1 ms more.
        found = compiled(x[0].numpy() if len(x) == 1 else [part.numpy() for part in x])
        return [torch.from_numpy(value) for value in found.values()]

    return run


@cache
def openvino_core() -> object:
    """OpenVINO's runtime, one that lives as long as the process.

    Each one gives the thread a signal stack large enough for AMX, and puts back the one before when it ends. Where two
    end in the order in which they began, the thread is left with a stack that is unmapped: the next signal, such as
    Ctrl-C or the end of a loader process, kills the program (OpenVINO 2026.4, processors with AMX).
    """
    core: object = require("openvino", "openvino", "OpenVINO").Core()
    return core
