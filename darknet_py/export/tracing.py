"""`torch.export` of a network, open in batch and size on request."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from darknet_py.errors import DarknetError
from darknet_py.export.traceable import TraceableNetwork

_MOST_IMAGES = 1 << 12
_MOST_STEPS = 1 << 9


def trace(network: TraceableNetwork, example: Sequence[Tensor], any_batch: bool, step: int) -> ExportedProgram:
    """The exported program of torch.

    Args:
        network: The network.
        example: Images to trace it with, and states of a recurrent network.
        any_batch: Whether the number of images is open.
        step: Pixels by which an open size grows; 0 where the size is fixed.

    Raises:
        DarknetError: The network cannot be traced.
    """
    batch: dict[int, Any] = {0: Dim("batch", min=1, max=_MOST_IMAGES)} if any_batch else {}
    shape = dict(batch)
    if step:
        shape |= {
            2: step * Dim("rows", min=1, max=_MOST_STEPS),
            3: step * Dim("columns", min=1, max=_MOST_STEPS),
        }
    states = [tuple(batch for _ in example[1:])] if len(example) > 1 else []  # a tuple, as they are `*states`
    with quiet(), torch.no_grad():
        try:
            return torch.export.export(
                network, tuple(example), dynamic_shapes=(shape, *states) if shape else None, strict=False
            )
        except Exception as error:  # torch raises many kinds
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DarknetError(f"{network.net.graph.path}: torch cannot trace this network: {reason}") from error


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
