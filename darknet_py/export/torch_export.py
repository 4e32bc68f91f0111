"""`.pt2`, `.aoti.pt2` and `.torchscript`: the fused network as a graph that torch runs without this package."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import torch

from darknet_py.errors import DarknetError
from darknet_py.export.exporter import ExportResult, Job
from darknet_py.export.tracing import quiet


class ExportedProgramExporter:
    """`torch.export.save`; `torch.export.load(path).module()(images)` runs it. The metadata are its extra files."""

    outputs = ("raw", "boxes")
    precisions = ("fp32", "fp16", "bf16")

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises DarknetError where the network cannot be traced or the file computes something else."""
        content = io.BytesIO()
        program = job.program
        with quiet():
            torch.export.save(program, content, extra_files=dict(job.metadata))
            content.seek(0)
            module = torch.export.load(content).module()
        return ExportResult({out: content.getvalue()}, job.compare(str(out), module))


class CompiledExporter:
    """AOTInductor: machine code for this processor; `torch._inductor.aoti_load_package(path)(images)` runs it."""

    outputs = ("raw", "boxes")
    precisions = ("fp32", "fp16", "bf16")

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises DarknetError where there is no C++ compiler, or the file computes something else."""
        program = job.program
        with tempfile.TemporaryDirectory() as folder, quiet():
            path = str(Path(folder) / "network.pt2")
            try:
                torch._inductor.aoti_compile_and_package(
                    program, package_path=path, inductor_configs={"aot_inductor.metadata": dict(job.metadata)}
                )
            except Exception as error:  # torch raises many kinds
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise DarknetError(
                    f"{out}: torch cannot compile this network (it needs a C++ compiler such as g++): {reason}"
                ) from error
            module = torch._inductor.aoti_load_package(path)
            differences = job.compare(str(out), lambda *x: list(module(*x)))
            return ExportResult({out: Path(path).read_bytes()}, differences)


class TorchScriptExporter:
    """`torch.jit.trace`; `torch.jit.load(path)(images)` runs it, in C++ too. The metadata are its extra files."""

    outputs = ("raw", "boxes")
    precisions = ("fp32", "fp16", "bf16")

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises DarknetError where the file computes something else, as with an open size that is computed from."""
        content = io.BytesIO()
        with quiet(), torch.no_grad():
            traced = torch.jit.trace(job.network, tuple(job.example), check_trace=False)
            torch.jit.save(traced, content, _extra_files=dict(job.metadata))
            content.seek(0)
            loaded = torch.jit.load(content)
        return ExportResult({out: content.getvalue()}, job.compare(str(out), loaded))
