"""cfg and weights to a ready network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from darknet_py.errors import DarknetError, WeightsError
from darknet_py.graph.graph import Graph, parse, resized
from darknet_py.model import checkpoint
from darknet_py.model.network import Network
from darknet_py.model.weights import Header


def read_graph(cfg: str | Path, *, width: int | None = None, height: int | None = None, strict: bool = False) -> Graph:
    """As `parse`, from a cfg file or from a checkpoint, which holds its cfg. Raises CfgError, WeightsError."""
    if checkpoint.is_checkpoint(cfg):
        return resized(checkpoint.read(cfg).graph, width, height)
    return parse(cfg, width=width, height=height, strict=strict)


def load(
    cfg: str | Path | None,
    weights: str | Path | None = None,
    *,
    width: int | None = None,
    height: int | None = None,
    device: str | torch.device = "cpu",
    names: Sequence[str] = (),
) -> Network:
    """A network in eval mode.

    cfg: path; None when `weights` is a checkpoint (`.pt`), which holds its cfg; or that checkpoint itself. weights:
    `.weights` file or checkpoint; None leaves the weights as Darknet initializes them. width, height: another input
    size than the cfg's.
    Raises CfgError, WeightsError.
    """
    return load_with_header(cfg, weights, width=width, height=height, device=device, names=names)[0]


def load_with_header(
    cfg: str | Path | None,
    weights: str | Path | None,
    *,
    width: int | None = None,
    height: int | None = None,
    device: str | torch.device = "cpu",
    names: Sequence[str] = (),
) -> tuple[Network, Header]:
    """As `load`, with the header of the weights file."""
    if weights is None and cfg is not None and checkpoint.is_checkpoint(cfg):
        cfg, weights = None, cfg
    stored = None
    if weights is not None:
        if not Path(weights).is_file():
            raise WeightsError(f"{weights}: expected a weights file, got none")
        if checkpoint.is_checkpoint(weights):
            stored = checkpoint.read(weights)
    if cfg is not None:
        graph = read_graph(cfg, width=width, height=height)
    elif stored:
        graph = resized(stored.graph, width, height)
    else:
        raise DarknetError("expected a cfg, got none (only a .pt checkpoint holds its own)")
    net = Network(graph, names or (stored.names if stored else ()))
    header = net.load_weights(weights) if weights is not None else Header()
    return net.to(_device(device)).eval(), header


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DarknetError(f"expected a device like cpu or cuda:0, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DarknetError(f"expected the device {name}, got no CUDA here")
    return device
