"""Darknet's `.weights` files (`load_weights_upto`, `save_weights_upto`).

A header (major, minor, revision as int32, then `seen`: 64 bit when major·10 + minor >= 2, else 32 bit), then float32
arrays layer by layer. All integers and floats are little-endian.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from darknet_py.errors import WeightsError
from darknet_py.files import write_atomically
from darknet_py.layers.base import LayerArray, Node

if TYPE_CHECKING:
    from darknet_py.graph.graph import Graph
    from darknet_py.model.network import Network


class Header(NamedTuple):
    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def wide(self) -> bool:
        """`seen` takes 64 bits."""
        return self.major * 10 + self.minor >= 2

    @property
    def transposed(self) -> bool:
        return self.major > 1000 or self.minor > 1000

    @property
    def size(self) -> int:
        return 20 if self.wide else 16

    def bytes(self) -> bytes:
        version = np.array([self.major, self.minor, self.revision], "<i4").tobytes()
        return version + np.array([self.seen], "<u8" if self.wide else "<u4").tobytes()


def read_header(path: str | Path) -> Header:
    """Raises WeightsError when the file cannot be read or is too short."""
    try:
        with open(path, "rb") as file:
            raw = file.read(20)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from error
    header = Header(*np.frombuffer(raw[:12], "<i4").tolist()) if len(raw) >= 16 else Header()
    if len(raw) < header.size:
        raise WeightsError(f"{path}: expected a weights header of {header.size} bytes, got {len(raw)}")
    seen = np.frombuffer(raw[12 : header.size], "<u8" if header.wide else "<u4")
    return header._replace(seen=int(seen[0]))


def arrays(graph: Graph, cutoff: int | None = None) -> Iterator[tuple[Node, LayerArray]]:
    """All arrays of layers 0 … cutoff−1 in file order."""
    for node in graph.layers[:cutoff]:
        for array in node.spec.arrays(node):
            yield node, array


def load(net: Network, path: str | Path, cutoff: int | None = None) -> Header:
    """Fills the layers before `cutoff` (default: all) from the file. Raises WeightsError as `read` does."""
    header, found = read(net.graph, path, cutoff)
    with torch.no_grad():
        for node, array, values in found:
            attrgetter(array.name)(net.layers[node.index]).copy_(values)
    return header


def read(
    graph: Graph, path: str | Path, cutoff: int | None = None
) -> tuple[Header, Iterator[tuple[Node, LayerArray, torch.Tensor]]]:
    """The arrays that the file has for the layers before `cutoff` (default: all), one after the other.

    A file that ends exactly between two layers is a partial one (`*.conv.N`) and is read up to there, as in Darknet.
    Raises WeightsError naming layer and tensor when it ends anywhere else, or when floats are left over.
    """
    header = read_header(path)
    # Byte by byte, as a file may have lost its tail within a number.
    data = (
        np.memmap(path, np.uint8, "r")[header.size :] if os.path.getsize(path) > header.size else np.zeros(0, np.uint8)
    )
    floats = data[: len(data) // 4 * 4].view("<f4")
    expected = [(node, array) for node, array in arrays(graph, cutoff) if _in_file(node, array)]
    total = sum(array.count for _, array in expected)
    _check_length(path, expected, total, len(data), cutoff)

    def found() -> Iterator[tuple[Node, LayerArray, torch.Tensor]]:
        position = 0
        for node, array in expected:
            if position >= len(floats):
                break
            values = np.array(floats[position : position + array.count])  # a copy: the map is read-only
            position += array.count
            yield node, array, _from_file(torch.from_numpy(values), array, header)

    return header, found()


def save(
    net: Network, path: str | Path, cutoff: int | None = None, seen: int = 0, header: Header | None = None
) -> None:
    """Writes the file in one step: it is complete or not there. Raises WeightsError when it cannot be written."""
    header = (header or Header())._replace(seen=seen)

    def chunks() -> Iterator[bytes]:
        yield header.bytes()
        for node, array in arrays(net.graph, cutoff):
            values = attrgetter(array.name)(net.layers[node.index]).detach()
            yield _to_file(values, array, header).cpu().float().contiguous().numpy().astype("<f4").tobytes()

    write_atomically(path, chunks(), WeightsError)


def _in_file(node: Node, array: LayerArray) -> bool:
    if node.common.dontload:
        return False
    return not (node.common.dontloadscales and array.role in ("scale", "mean", "variance"))


def _from_file(values: torch.Tensor, array: LayerArray, header: Header) -> torch.Tensor:
    if array.flipped:  # held as (fan_in, filters)
        return values.view(-1, array.shape[0]).t().reshape(array.shape)
    if array.transposable and header.transposed:
        return values.view(array.shape[::-1]).t()
    return values.view(array.shape)


def _to_file(values: torch.Tensor, array: LayerArray, header: Header) -> torch.Tensor:
    if array.flipped:
        return values.reshape(array.shape[0], -1).t()
    if array.transposable and header.transposed:
        return values.t()
    return values


def _check_length(
    path: str | Path, expected: list[tuple[Node, LayerArray]], total: int, size: int, cutoff: int | None
) -> None:
    found, odd = divmod(size, 4)
    if found == total and not odd:
        return
    if found > total or (found == total and odd):
        if cutoff is not None:
            return  # only the first layers were asked for
        raise WeightsError(
            f"{path}: expected {total} floats for this network, got {found - total} more"
            f"{f' and {odd} bytes' if odd else ''} after its last layer"
        )
    position = 0
    for k, (node, array) in enumerate(expected):
        if position == found and not odd and (k == 0 or expected[k - 1][0].index != node.index):
            return  # ends between two layers: a partial file
        if position + array.count > found:
            raise WeightsError(
                f"{path}: the file ends in layer {node.index} [{node.type}], {array.role}: "
                f"expected {total} floats in all, got {found}{f' and {odd} bytes' if odd else ''}"
            )
        position += array.count
