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


def read_trained(
    cfg: str | Path | None,
    weights: str | Path | None = None,
    *,
    width: int | None = None,
    height: int | None = None,
    device: str | torch.device = "cpu",
    names: Sequence[str] = (),
    random_weights: bool = False,
    ignore_rest: bool = False,
) -> Network:
    """Loads a network, ready for inference.

    Args:
        cfg: A Darknet cfg, or a `.pt` checkpoint, which holds its cfg and weights; None when `weights` is a checkpoint.
        weights: A `.weights` file or a checkpoint. Without one the weights are random, as Darknet initializes them:
            such a network can be trained or examined, and detects only with `random_weights`.
        width: Input width in pixels, instead of the cfg's.
        height: Input height in pixels, instead of the cfg's.
        device: Where it runs: "cpu", "cuda", "cuda:1" …
        names: Class names. Default: a checkpoint's, or those that a training left beside its weights.
        random_weights: Whether layers may keep random weights, where `weights` is a partial file (`*.conv.N`), and
            whether a network with random weights detects.
        ignore_rest: Whether a `.weights` file may go on after the last layer, as in Darknet.

    Returns:
        The network, in evaluation mode. `loaded_layers` is its number of layers with weights from the file.

    Raises:
        CfgError: The cfg is wrong; the error lists every problem.
        DataError: The cfg cannot be read.
        WeightsError: The weights cannot be read, do not fit the cfg, are not finite, or are those of a partial file.
        DarknetError: No cfg was given, or the device does not exist.
    """
    model = ModelFile.read(cfg, weights, width=width, height=height, names=names, ignore_rest=ignore_rest)
    if model.source and not random_weights:
        model.require_weights()
    return build(model, device, random_weights=random_weights)


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
