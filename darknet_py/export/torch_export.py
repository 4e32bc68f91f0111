"""`.pt2` and `.torchscript`: the fused network as a graph that torch runs without this package."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from darknet_py.export.exporter import ExportResult, Job
from darknet_py.export.tracing import quiet, trace


class ExportedProgramExporter:
    """`torch.export.save`; `torch.export.load(path).module()(images)` runs it. The metadata are its extra files."""

    outputs = ("raw", "boxes")
    precisions = ("fp32", "fp16", "bf16")

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises DarknetError where the network cannot be traced or the file computes something else."""
        content = io.BytesIO()
        program = trace(job)
        with quiet():
            torch.export.save(program, content, extra_files=dict(job.metadata))
            content.seek(0)
            module = torch.export.load(content).module()
        return ExportResult({out: content.getvalue()}, job.compare(str(out), module))


class TorchScriptExporter:
    """`torch.jit.trace`; `torch.jit.load(path)(images)` runs it, in C++ too. The metadata are its extra files."""

    outputs = ("raw", "boxes")
    precisions = ("fp32", "fp16", "bf16")

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises DarknetError where the file computes something else, as with an open size that is computed from."""
        content = io.BytesIO()
        with quiet(), torch.no_grad():
            traced = torch.jit.trace(job.network, (job.inputs[0],), check_trace=False)
            torch.jit.save(traced, content, _extra_files=dict(job.metadata))
            content.seek(0)
            loaded = torch.jit.load(content)
        return ExportResult({out: content.getvalue()}, job.compare(str(out), loaded))
