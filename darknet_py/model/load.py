"""cfg and weights to a ready network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph
from darknet_py.model.model_file import ModelFile, read_cfg
from darknet_py.model.network import Network


def read_graph(cfg: str | Path, *, width: int | None = None, height: int | None = None, strict: bool = False) -> Graph:
    """As `parse`, from a cfg or from a checkpoint, which holds its cfg. Raises CfgError, DataError, WeightsError."""
    return read_cfg(cfg, width, height, strict).graph


def load(
    cfg: str | Path | None,
    weights: str | Path | None = None,
    *,
    width: int | None = None,
    height: int | None = None,
    device: str | torch.device = "cpu",
    names: Sequence[str] = (),
) -> Network:
    """Loads a network, ready for inference.

    Args:
        cfg: A Darknet cfg, or a `.pt` checkpoint, which holds its cfg and weights; None when `weights` is a checkpoint.
        weights: A `.weights` file or a checkpoint. Without one the weights are initialized as Darknet does.
        width: Input width in pixels, instead of the cfg's.
        height: Input height in pixels, instead of the cfg's.
        device: Where it runs: "cpu", "cuda", "cuda:1" …
        names: Class names. Default: a checkpoint's, or those that a training left beside its weights.

    Returns:
        The network, in evaluation mode.

    Raises:
        CfgError: The cfg is wrong; the error lists every problem.
        DataError: The cfg cannot be read.
        WeightsError: The weights cannot be read or do not fit the cfg.
        DarknetError: No cfg was given, or the device does not exist.
    """
    return build(ModelFile.read(cfg, weights, width=width, height=height, names=names), device)


def build(model: ModelFile, device: str | torch.device = "cpu") -> Network:
    """The network of a file in evaluation mode. Raises DarknetError where there is no such device."""
    return Network.of(model).to(_device(device)).eval()


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DarknetError(f"expected a device like cpu or cuda:0, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DarknetError(f"expected the device {name}, got no CUDA here")
    return device
