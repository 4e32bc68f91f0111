"""`.safetensors`: a network's arrays, with cfg, names and header in the metadata. Nothing in it can run a program.

The arrays have the names of a checkpoint's state dict ("layers.0.weight"). The metadata are texts: cfg, cfg_name, and
as JSON names, header, thresh.
"""

from __future__ import annotations

import json
from pathlib import Path

from darknet_py.errors import WeightsError
from darknet_py.files import write_atomically
from darknet_py.graph.graph import parse_text
from darknet_py.model.checkpoint import Checkpoint, checked_thresh
from darknet_py.model.header import Header
from darknet_py.optional import require
from darknet_py.untrusted import clean_names, first_line

SUFFIX = ".safetensors"
_FORMAT = "darknet_py 1"


def read_safetensors(path: str | Path) -> Checkpoint:
    """Reads a file that `write_safetensors` wrote.

    Raises:
        MissingExtra: The package safetensors is not installed.
        WeightsError: The file is damaged or another program's.
        CfgError: Its cfg is wrong.
    """
    safetensors = require("safetensors", "safetensors", SUFFIX)
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a safetensors file: {first_line(error)}") from error
    if texts.get("darknet_format") != _FORMAT:
        raise WeightsError(f"{path}: expected a safetensors file written by darknet_py, got another one")
    try:
        graph = parse_text(texts["cfg"], texts["cfg_name"])
        names, header, thresh = (json.loads(texts[key]) for key in ("names", "header", "thresh"))
        header = Header(*map(int, header))
        if not header.is_valid:
            raise ValueError(f"header: got {header}")
        return Checkpoint(graph, clean_names(map(str, names)), header, tensors, checked_thresh(thresh, path))
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WeightsError(f"{path}: damaged metadata: {first_line(error)}") from error


def write_safetensors(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes the file in one step. Raises WeightsError when it cannot be written, MissingExtra."""
    torch_part = require("safetensors.torch", "safetensors", SUFFIX)
    texts = {
        "darknet_format": _FORMAT,
        "cfg": checkpoint.graph.sized_text,
        "cfg_name": Path(checkpoint.graph.path).name,
        "names": json.dumps(list(checkpoint.names)),
        "header": json.dumps(list(checkpoint.header)),
        "thresh": json.dumps(checkpoint.thresh),
    }
    try:
        # Copies, since arrays that are views of one file share memory, which the format has not.
        arrays = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
        content: bytes = torch_part.save(arrays, texts)
    except UnicodeEncodeError as error:
        raise WeightsError(f"{path}: the cfg or a name is not UTF-8 text, which {SUFFIX} needs") from error
    write_atomically(path, content, WeightsError)
