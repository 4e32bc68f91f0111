"""Darknet's `.weights` files (`load_weights_upto`, `save_weights_upto`).

A header (major, minor, revision as int32, then `seen`: 64 bit when major·10 + minor >= 2, else 32 bit), then float32
arrays layer by layer. All integers and floats are little-endian.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from darknet_py.errors import WeightsError
from darknet_py.files import failed_download, write_atomically
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import LayerArray, Node


class Header(NamedTuple):
    """The header of a `.weights` file.

    Attributes:
        major: Version. Above 1000 (here or in `minor`) connected weights are held transposed.
        minor: Version.
        revision: Version.
        seen: Images trained on so far.
    """

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def wide(self) -> bool:
        """Whether `seen` takes 64 bits."""
        return self.major * 10 + self.minor >= 2

    @property
    def transposed(self) -> bool:
        return self.major > 1000 or self.minor > 1000

    @property
    def size(self) -> int:
        """In bytes."""
        return 20 if self.wide else 16

    def bytes(self) -> bytes:
        version = np.array([self.major, self.minor, self.revision], "<i4").tobytes()
        return version + np.array([self.seen], "<u8" if self.wide else "<u4").tobytes()


DEFAULT_HEADER = Header()


def read_header(path: str | Path) -> Header:
    """The header of a `.weights` file. Raises WeightsError when the file cannot be read or is too short."""
    try:
        with open(path, "rb") as file:
            return _read_header(file, path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from error


def tensor_name(node: Node, array: LayerArray) -> str:
    """Name of an array in the state dict of a `Network`."""
    return f"layers.{node.index}.{array.name}"


def arrays(graph: Graph, cutoff: int | None = None) -> Iterator[tuple[Node, LayerArray]]:
    """All arrays of layers 0 … cutoff−1 in file order."""
    for node in graph.layers[:cutoff]:
        for array in node.spec.arrays(node):
            yield node, array


def is_loaded(node: Node, array: LayerArray) -> bool:
    """Whether a `.weights` file holds it when it is read: `dontload` and `dontloadscales` leave arrays out."""
    if node.common.dontload:
        return False
    return not (node.common.dontloadscales and array.role in ("scale", "mean", "variance"))


def read_weights_file(
    file: BinaryIO, path: str | Path, graph: Graph, cutoff: int | None = None
) -> tuple[Header, dict[str, Tensor]]:
    """The arrays that a file has for the layers before `cutoff` (default: all).

    A file that ends exactly between two layers is a partial one (`*.conv.N`) and is read up to there, as in Darknet.
    The tensors are views of the file, which the system reads when they are used.

    Args:
        file: The open file, at its start.
        path: Its path, for messages.
        graph: The network whose layers the file holds.
        cutoff: Number of layers to read.

    Returns:
        The header, and the arrays by their names in the state dict.

    Raises:
        WeightsError: The file ends within a layer, or floats are left over; the message names layer and array.
    """
    header = _read_header(file, path)
    size = os.fstat(file.fileno()).st_size - header.size
    expected = [(node, array) for node, array in arrays(graph, cutoff) if is_loaded(node, array)]
    total = sum(array.count for _, array in expected)
    _check_length(path, expected, total, size, cutoff)
    count = min(size // 4, total)
    floats = torch.zeros(0)
    if count:  # copy on write: the tensors may be changed, the file is not
        floats = torch.from_numpy(np.memmap(file, "<f4", "c", header.size, (count,)))
    tensors = {}
    position = 0
    for node, array in expected:
        if position >= count:
            break
        tensors[tensor_name(node, array)] = _from_file(floats[position : position + array.count], array, header)
        position += array.count
    return header, tensors


def write_weights_file(
    path: str | Path, graph: Graph, tensors: Mapping[str, Tensor], header: Header, cutoff: int | None = None
) -> None:
    """Writes the layers before `cutoff` (default: all) in one step: the file is complete or not there.

    Args:
        path: The file to write.
        graph: The network.
        tensors: Its arrays by their names in the state dict. Arrays that `dontload` left out may be missing, and so may
            the last layers: the file then is a partial one.
        header: What the file begins with.
        cutoff: Number of layers to write.

    Raises:
        WeightsError: The file cannot be written.
    """

    def chunks() -> Iterator[bytes]:
        yield header.bytes()
        for node, array in arrays(graph, cutoff):
            values = tensors.get(tensor_name(node, array))
            if values is not None:
                plain = _to_file(values.detach(), array, header).cpu().float().contiguous().numpy()
                yield plain.astype("<f4", copy=False).tobytes()

    write_atomically(path, chunks(), WeightsError)


def _read_header(file: BinaryIO, path: str | Path) -> Header:
    start = file.read(512)
    download = failed_download(start)
    if download:
        raise WeightsError(f"{path}: cannot read the weights: {download}")
    raw = start[:20]
    header = Header(*np.frombuffer(raw[:12], "<i4").tolist()) if len(raw) >= 16 else Header()
    if len(raw) < header.size:
        raise WeightsError(f"{path}: expected a weights header of {header.size} bytes, got {len(raw)}")
    seen = np.frombuffer(raw[12 : header.size], "<u8" if header.wide else "<u4")
    return header._replace(seen=int(seen[0]))


def _from_file(values: Tensor, array: LayerArray, header: Header) -> Tensor:
    if array.flipped:  # held as (fan_in, filters)
        return values.view(-1, array.shape[0]).t().reshape(array.shape)
    if array.transposable and header.transposed:
        return values.view(array.shape[::-1]).t()
    return values.view(array.shape)


def _to_file(values: Tensor, array: LayerArray, header: Header) -> Tensor:
    if array.flipped:
        return values.reshape(array.shape[0], -1).t()
    if array.transposable and header.transposed:
        return values.t()
    return values


def _check_length(
    path: str | Path, expected: list[tuple[Node, LayerArray]], total: int, size: int, cutoff: int | None
) -> None:
    count, odd = divmod(size, 4)
    if count == total and not odd:
        return
    if count > total or (count == total and odd):
        if cutoff is not None:
            return  # only the first layers were asked for
        raise WeightsError(
            f"{path}: expected {total} floats for this network, got {count - total} more"
            f"{f' and {odd} bytes' if odd else ''} after its last layer"
        )
    position = 0
    for k, (node, array) in enumerate(expected):
        if position == count and not odd and (k == 0 or expected[k - 1][0].index != node.index):
            return  # ends between two layers: a partial file
        if position + array.count > count:
            raise WeightsError(
                f"{path}: the file ends in layer {node.index} [{node.type}], {array.role}: "
                f"expected {total} floats in all, got {count}{f' and {odd} bytes' if odd else ''}"
            )
        position += array.count
