"""cfg and weights to a ready network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch

from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph
from darknet_py.model.model_file import ModelFile, read_cfg
from darknet_py.model.network import Network

if TYPE_CHECKING:
    from typing_extensions import Unpack


def read_graph(cfg: str | Path, *, width: int | None = None, height: int | None = None, strict: bool = False) -> Graph:
    """As `parse`, from a cfg or from a checkpoint, which holds its cfg. Raises CfgError, DataError, WeightsError."""
    return read_cfg(cfg, width, height, strict).graph


class LoadOptions(TypedDict, total=False):
    """Options of `darknet_py.load`, which describes them."""

    width: int | None
    height: int | None
    device: str | torch.device
    names: Sequence[str]
    random_weights: bool
    ignore_rest: bool


def read_trained(cfg: str | Path | None, weights: str | Path | None = None, **options: Unpack[LoadOptions]) -> Network:
    """`darknet_py.load` without its back ends: arguments, result and errors are those of that function."""
    random_weights = options.get("random_weights", False)
    model = ModelFile.read(
        cfg,
        weights,
        width=options.get("width"),
        height=options.get("height"),
        names=options.get("names", ()),
        ignore_rest=options.get("ignore_rest", False),
    )
    if model.source and not random_weights:
        model.require_weights()
    return build(model, options.get("device", "cpu"), random_weights=random_weights)


def build(model: ModelFile, device: str | torch.device = "cpu", *, random_weights: bool = False) -> Network:
    """The network of a file in evaluation mode. Raises DarknetError where there is no such device."""
    network = Network.of(model).to(torch_device(device)).eval()
    network.random_weights = random_weights
    return network


def torch_device(name: str | torch.device) -> torch.device:
    """The device of a name. Raises DarknetError where there is no such device."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DarknetError(f"expected a device like cpu or cuda:0, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DarknetError(f"expected the device {name}, got no CUDA here")
    return device
