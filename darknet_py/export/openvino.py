"""`.xml` and `.bin`: OpenVINO's IR, made of the ONNX file in floating point."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from darknet_py.errors import WeightsError
from darknet_py.export.exporter import ExportResult, Job
from darknet_py.export.onnx import to_onnx
from darknet_py.export.quantize import quantize_openvino
from darknet_py.export.runtimes import OpenvinoIr, openvino_core, run_openvino
from darknet_py.optional import require
from darknet_py.untrusted import first_line


class OpenvinoExporter:
    """OpenVINO IR. In fp16 the weights are stored so, and the runtime chooses in what it computes."""

    outputs = ("raw", "boxes")
    precisions = ("fp32", "fp16", "int8")

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises DarknetError where OpenVINO cannot read the network or computes something else."""
        ir = to_openvino(job)
        differences = job.compare(str(out), run_openvino(ir))
        return ExportResult({out.with_suffix(".bin"): ir.weights, out: ir.xml}, differences)


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
    core: Any = openvino_core()
    model = core.read_model(onnx or to_onnx(job, quantized=False))
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
            raise WeightsError(f"{folder}: cannot write: {first_line(error)}") from error
