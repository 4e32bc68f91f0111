"""PyTorch checkpoints of a network: state dict, cfg text and class names in one file.

The file is a plain `torch.save` of a dict that `torch.load(path, weights_only=True)` reads:

    format       "darknet_py"
    version      1
    cfg          the cfg text            cfg_name   its file name
    names        class names (may be empty)
    header       (major, minor, revision, seen) of the `.weights` file, so that the way back is byte-identical
    state_dict   "layers.INDEX.weight" and so on
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from darknet_py.errors import WeightsError
from darknet_py.files import write_atomically
from darknet_py.graph.graph import parse_text
from darknet_py.model.weights import Header, arrays

if TYPE_CHECKING:
    from darknet_py.graph.graph import Graph
    from darknet_py.model.network import Network


_VERSION = 1
_KEYS = {"cfg", "cfg_name", "names", "header", "state_dict"}


class Checkpoint(NamedTuple):
    graph: Graph
    names: list[str]
    header: Header
    state: dict[str, torch.Tensor]


def is_checkpoint(path: str | Path) -> bool:
    """Whether the file is a torch archive (a zip); `.weights` files never are."""
    return zipfile.is_zipfile(path)


def read(path: str | Path) -> Checkpoint:
    """Raises WeightsError when the file is not one of ours."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(f"{path}: not a PyTorch checkpoint: {str(error).splitlines()[0]}") from error
    ours = isinstance(content, dict) and (content.get("format"), content.get("version")) == ("darknet_py", _VERSION)
    if not ours or not content.keys() >= _KEYS:
        raise WeightsError(f"{path}: expected a checkpoint written by darknet_py, got another PyTorch file")
    graph = parse_text(content["cfg"], content["cfg_name"])
    return Checkpoint(graph, list(content["names"]), Header(*content["header"]), content["state_dict"])


def write(net: Network, path: str | Path, header: Header | None = None) -> None:
    """Writes the checkpoint in one step. Raises WeightsError when it cannot be written."""
    content = {
        "format": "darknet_py",
        "version": _VERSION,
        "cfg": net.graph.text,
        "cfg_name": Path(net.graph.path).name,
        "names": list(net.names),
        "header": list(header or Header(seen=net.state.seen)),
        "state_dict": {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue(), WeightsError)


def load(net: Network, path: str | Path, cutoff: int | None = None) -> Header:
    """Fills the layers before `cutoff` from a checkpoint, as `weights.load` does from a `.weights` file.

    Raises WeightsError naming the layer and tensor that is missing or has another shape.
    """
    checkpoint = read(path)
    state = net.state_dict()
    expected = {f"layers.{node.index}.{array.name}": node for node, array in arrays(net.graph, cutoff)}
    for name, node in expected.items():
        found = checkpoint.state.get(name)
        if found is None or found.shape != state[name].shape:
            have = "none" if found is None else str(tuple(found.shape))
            raise WeightsError(
                f"{path}: layer {node.index} [{node.type}], {name}: expected {tuple(state[name].shape)}, got {have}"
            )
    extra = sorted(set(checkpoint.state) - set(state))
    if extra and cutoff is None:
        raise WeightsError(f"{path}: expected nothing beyond this network's tensors, got {extra[0]} and others")
    with torch.no_grad():
        for name in expected:
            state[name].copy_(checkpoint.state[name])
    return checkpoint.header
