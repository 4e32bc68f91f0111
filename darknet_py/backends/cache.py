"""Files that are made once per network: exported graphs, and which back end was fastest."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import torch

from darknet_py.data.builtin.store import cache_folder
from darknet_py.errors import DarknetError
from darknet_py.files import make_folder, write_atomically
from darknet_py.model.network import Network

logger = logging.getLogger(__name__)

_FOLDER = "networks"


def digest(net: Network, *more: object) -> str:
    """A name for what a file is made of: the cfg at its size, all arrays, and what else it depends on."""
    state = hashlib.blake2b(digest_size=16)
    for value in (net.graph.text, net.graph.net.width, net.graph.net.height, torch.__version__, *more):
        state.update(f"{value!r}\n".encode("utf-8", "surrogateescape"))
    for name, tensor in net.state_dict().items():
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def cached(name: str, make: Callable[[], bytes]) -> bytes:
    """The content of a file of the cache, which is made where it is not there yet.

    A cache that cannot be written costs the time to make the content again, and a warning.
    """
    path = cache_folder() / _FOLDER / name
    try:
        return path.read_bytes()
    except OSError:
        content = make()
    try:
        make_folder(path.parent)
        write_atomically(path, content)
    except DarknetError as error:
        logger.warning("%s; it is made again next time", error)
    return content
