"""Reads the tensors of PyTorch files that other programs wrote, without running any code of theirs.

`torch.load(weights_only=True)` builds tensors and plain containers and refuses everything else. Checkpoints often hold
whole modules, or an optimizer's and a logger's objects beside the state dict. Each class or function that such a file
names is replaced by an empty class of our own, which only keeps what the file puts into it: nothing is imported.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from darknet_py.errors import WeightsError
from darknet_py.model.checkpoint import check_unpacked_size, is_archive
from darknet_py.untrusted import first_line, open_regular

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how `torch.save` begins before PyTorch 1.6
_LEGACY_PICKLES = 4  # magic number, protocol, system, and the object itself
_KEYS = ("ema", "model", "state_dict", "model_state_dict", "net", "module")  # of checkpoints, the preferred one first
_ADVICE = "in the program that wrote it, use torch.save(model.state_dict(), FILE)"


class Opaque:
    """Stands for any object of a class that is not imported. content: what the file says of it."""

    dump_patches = False  # torch looks at it in old files

    def __init__(self, *arguments: object):
        self.content: dict[object, object] = {}

    def __new__(cls, *arguments: object) -> Opaque:
        made = super().__new__(cls)
        made.content = {}
        return made

    def __setstate__(self, state: object) -> None:
        if isinstance(state, Mapping):
            self.content = dict(state)


class StoredTensors:
    """The tensors of a state dict, in its order.

    Attributes:
        tensors: By their names, on the CPU.
        eps: The epsilon of the batch norms whose module the file holds, by the name of the module.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.eps: dict[str, float] = {}

    def add(self, content: object, prefix: str = "") -> None:
        """Adds a state dict, or a module with those below it."""
        if isinstance(content, Tensor):
            self.tensors[prefix.rstrip(".")] = content.detach()
        elif isinstance(content, Opaque):
            for kind in ("_parameters", "_buffers", "_modules"):
                self.add(content.content.get(kind), prefix)
            eps = content.content.get("eps")
            if isinstance(eps, float):
                self.eps[prefix.rstrip(".")] = eps
        elif isinstance(content, Mapping):
            for name, value in content.items():
                if isinstance(value, Tensor | Opaque):
                    self.add(value, f"{prefix}{name}.")


def is_foreign(path: str | Path) -> bool:
    """Whether a file is one of `torch.save`, today's or that before PyTorch 1.6, but no checkpoint of ours."""
    try:
        with open_regular(path, "weights", WeightsError) as file:
            if not is_archive(file):
                return file.read(len(_LEGACY)) == _LEGACY
    except WeightsError:
        return False
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # damaged, or with objects of other classes
        return True
    return not (isinstance(content, Mapping) and content.get("format") == "darknet_py")


def read_tensors(path: str | Path) -> StoredTensors:
    """The tensors of a PyTorch file: of a state dict, of a checkpoint with one, or of a whole module.

    Args:
        path: The file.

    Returns:
        The tensors. Of a checkpoint with several networks, the averaged one (`ema`) comes first.

    Raises:
        WeightsError: The file is damaged, or holds no tensors.
    """
    try:
        with open_regular(path, "weights", WeightsError) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the sources that old files hold differ from ours
            if is_archive(file):
                check_unpacked_size(file, path)
            names = set(_named_objects(file))
            file.seek(0)
            with torch.serialization.safe_globals([(type("Opaque", (Opaque,), {}), name) for name in sorted(names)]):
                content: object = torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: cannot be read without running code that it names; {_ADVICE}") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(f"{path}: not a readable PyTorch file: {first_line(error)}") from error
    stored = StoredTensors()
    stored.add(_network(content))
    if not stored.tensors:
        raise WeightsError(f"{path}: expected a state dict or a checkpoint with one, got neither; {_ADVICE}")
    return stored


def _network(content: object) -> object:
    """The state dict or module of a checkpoint; the content itself where it is one."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _KEYS if isinstance(content.get(key), Mapping | Opaque)), None)
        if inner is None:
            break
        content = inner
    return content


def _named_objects(file: BinaryIO) -> Iterator[str]:
    """The classes and functions that a file names, as torch spells them; those that it knows come first for torch."""
    for pickled in _pickles(file):
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL" and isinstance(argument, str):
                module, _, name = argument.partition(" ")
                yield ".".join(NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))


def _pickles(file: BinaryIO) -> Iterator[bytes | BinaryIO]:
    if is_archive(file):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.namelist():
                if entry.endswith("/data.pkl"):
                    yield archive.read(entry)
    else:
        for _ in range(_LEGACY_PICKLES):
            yield file
