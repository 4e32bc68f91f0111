"""PyTorch checkpoints of a network: state dict, cfg text and class names in one file.

The file is a plain `torch.save` of a dict that `torch.load(path, weights_only=True)` reads:

    format       "darknet_py"
    version      1
    cfg          the cfg text            cfg_name   its file name
    names        class names (may be empty)
    thresh       confidence threshold of the best F1, or None (may be missing)
    header       (major, minor, revision, seen) of the `.weights` file, so that the way back is byte-identical
    state_dict   "layers.INDEX.weight" and so on
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar
from zipfile import ZipFile

import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.errors import WeightsError
from darknet_py.files import write_atomically
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.model.header import Header
from darknet_py.untrusted import clean_names, first_line

Item = TypeVar("Item")
_VERSION = 1
_KEYS = ("cfg", "cfg_name", "names", "header", "state_dict")
_FOLDER = 0x10  # attribute of MS-DOS
_ZIP = b"PK\x03\x04"


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    graph: Graph
    names: Sequence[str]
    header: Header
    tensors: Mapping[str, Tensor]
    thresh: float | None


def is_archive(file: BinaryIO) -> bool:
    """Whether an open file, at its start, is a torch archive (a zip); cfgs and `.weights` files never are."""
    magic = file.read(len(_ZIP))
    file.seek(0)
    return magic == _ZIP


def read_checkpoint(file: BinaryIO, path: str | Path) -> Checkpoint:
    """Reads an open checkpoint. Raises WeightsError when it is damaged or not one of ours, CfgError for its cfg."""
    try:
        check_unpacked_size(file, path)
        content: object = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message advises to load it all the same
        raise WeightsError(f"{path}: not a checkpoint: it holds other objects than tensors, or is damaged") from error
    except WeightsError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(f"{path}: not a PyTorch checkpoint: {first_line(error)}") from error
    ours = isinstance(content, dict) and (content.get("format"), content.get("version")) == ("darknet_py", _VERSION)
    if not ours or not isinstance(content, dict) or not content.keys() >= set(_KEYS):
        raise WeightsError(
            f"{path}: expected a checkpoint written by darknet_py, got another PyTorch file; "
            "`convert CFG FILE OUT.weights` reads those"
        )
    _check_intact(file, path)
    names, header = _list_of(str, content["names"]), _list_of(int, content["header"])
    texts = _list_of(str, [content["cfg"], content["cfg_name"]])
    fits = header is not None and len(header) == len(Header._fields) and Header(*header).is_valid
    if names is None or header is None or texts is None or not fits:
        raise WeightsError(f"{path}: damaged checkpoint: cfg, names or header are not what darknet_py writes")
    tensors = _arrays(content["state_dict"], path)
    return Checkpoint(
        parse_text(*texts), clean_names(names), Header(*header), tensors, checked_thresh(content.get("thresh"), path)
    )


def checked_thresh(value: object, path: str | Path) -> float | None:
    """The confidence threshold of a file, None where it has none. Raises WeightsError for what cannot be one."""
    if value is None or (isinstance(value, float) and 0 <= value <= 1):
        return value
    raise WeightsError(f"{path}: damaged checkpoint: thresh: expected a number from 0 to 1, got {value!r:.100}")


def _check_intact(file: BinaryIO, path: str | Path) -> None:
    """Raises WeightsError where an archive is not what its checksums say, which torch does not compare."""
    try:
        with ZipFile(file) as archive:
            # A bit says that an entry is a folder, for which torch reads nothing.
            damaged = next((entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER), None)
            damaged = damaged or archive.testzip()
    except Exception as error:  # zipfile raises many kinds for damaged headers
        raise WeightsError(f"{path}: damaged checkpoint: {first_line(error)}") from error
    if damaged:
        raise WeightsError(f"{path}: damaged checkpoint: {damaged} is not what was written")


def check_unpacked_size(file: BinaryIO, path: str | Path) -> None:
    """Raises WeightsError where an archive unpacks to more than it has: `torch.save` does not compress."""
    with ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if unpacked > size:
        raise WeightsError(f"{path}: not a checkpoint: {counted(size, 'byte', ',')} that unpack to {unpacked:,}")


def _list_of(kind: type[Item], value: object) -> list[Item] | None:
    """The items of a list; None where it is none, or has an item of another type."""
    if not isinstance(value, (list, tuple)):
        return None
    items = [item for item in value if isinstance(item, kind)]
    return items if len(items) == len(value) else None


def _arrays(content: object, path: str | Path) -> dict[str, Tensor]:
    """The arrays of a state dict: floats of any precision. Raises WeightsError."""
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: damaged checkpoint: expected a state dict, got {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
            kind = f"{value.dtype} ({value.layout})" if isinstance(value, Tensor) else type(value).__name__
            raise WeightsError(f"{path}: {name}: expected an array of floats, got {kind}")
    return {str(name): value for name, value in content.items()}


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in one step. Raises WeightsError when it cannot be written."""
    content = {
        "format": "darknet_py",
        "version": _VERSION,
        "cfg": checkpoint.graph.sized_text,
        "cfg_name": Path(checkpoint.graph.path).name,
        "names": list(checkpoint.names),
        "thresh": checkpoint.thresh,
        "header": list(checkpoint.header),
        "state_dict": {name: _own(tensor.detach().cpu()) for name, tensor in checkpoint.tensors.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue(), WeightsError)


def _own(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own: `torch.save` would write all of the file that a view is of."""
    shared = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    return tensor.contiguous().clone() if shared else tensor
