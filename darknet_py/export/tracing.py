"""`torch.export` of a network, open in batch and size on request."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import Dim

from darknet_py.errors import DarknetError
from darknet_py.export.exporter import Job

_MOST_IMAGES = 1 << 12
_MOST_STEPS = 1 << 9


def trace(job: Job) -> torch.export.ExportedProgram:
    """The exported program of torch, open in batch and size where that is asked for.

    Raises DarknetError for a network that cannot be traced.
    """
    shape: dict[int, Any] = {}
    if job.options.any_batch:
        shape[0] = Dim("batch", min=1, max=_MOST_IMAGES)
    if job.options.any_size:
        shape |= {
            2: job.step * Dim("rows", min=1, max=_MOST_STEPS),
            3: job.step * Dim("columns", min=1, max=_MOST_STEPS),
        }
    with quiet(), torch.no_grad():
        try:
            return torch.export.export(
                job.network, (job.example,), dynamic_shapes=(shape,) if shape else None, strict=False
            )
        except Exception as error:  # torch raises many kinds
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DarknetError(f"{job.network.net.graph.path}: torch cannot trace this network: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters print about themselves."""
    log = logging.getLogger("torch.onnx")
    before, log.level = log.level, logging.ERROR
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.level = before
