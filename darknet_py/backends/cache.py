"""Files that are made once per network: exported graphs, and which back end was fastest."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from darknet_py.data.builtin.store import cache_folder
from darknet_py.errors import DarknetError
from darknet_py.files import make_folder, write_atomically
from darknet_py.model.network import Network

logger = logging.getLogger(__name__)

_FOLDER = "networks"
_CHECKSUM_BYTES = 16  # at the beginning of each file


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
    """The content of a file of the cache, which is made where it is not there yet, or damaged.

    Processes that need the same file at the same time each make it; the last one's stays. A cache that cannot be
    written costs the time to make the content again, and a warning.
    """
    path = cache_folder() / _FOLDER / name
    content = _read(path)
    if content is not None:
        return content
    content = make()
    try:
        make_folder(path.parent)
        write_atomically(path, [_checksum(content), content])
    except DarknetError as error:
        logger.warning("%s; it is made again next time", error)
    return content


def _read(path: Path) -> bytes | None:
    """The content of a file that begins with its checksum; None where it cannot be read or is not what was written."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    content = stored[_CHECKSUM_BYTES:]
    if stored[:_CHECKSUM_BYTES] == _checksum(content):
        return content
    logger.warning("%s: damaged; it is made again", path)
    return None


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()
