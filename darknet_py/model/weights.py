"""Darknet's `.weights` files: a header, then float32 arrays layer by layer (`load_weights_upto`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from darknet_py.errors import WeightsError
from darknet_py.files import remove_checksum, write_atomically
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import LayerArray, Node
from darknet_py.model.header import INSPECTED, Header, recognize_header
from darknet_py.model.layout import arrays, stored_arrays, tensor_name
from darknet_py.model.length_mismatch import length_mismatch

logger = logging.getLogger(__name__)


def read_weights_file(
    file: BinaryIO, path: str | Path, graph: Graph, cutoff: int | None = None, ignore_rest: bool = False
) -> tuple[Header, dict[str, Tensor]]:
    """The arrays that a file has for the layers before `cutoff` (default: all).

    A file that ends exactly between two layers is a partial one (`*.conv.N`) and is read up to there, as in Darknet.
    The tensors are views of the file, which the system reads when they are used.

    Args:
        file: The open file, at its start.
        path: Its path, for messages.
        graph: The network whose layers the file holds.
        cutoff: Number of layers to read.
        ignore_rest: Whether the file may go on after the last layer, as in Darknet.

    Returns:
        The header, and the arrays by their names in the state dict.

    Raises:
        WeightsError: The file ends within a layer, or floats are left over; the message names layer and array, and the
            likely cause.
    """
    stored = stored_arrays(graph)
    ends = _layer_ends(stored)
    length = os.fstat(file.fileno()).st_size
    reading = recognize_header(
        file.read(INSPECTED), path, length, 4 * ends[-1], lambda size: not size % 4 and size // 4 in ends
    )
    if reading.unclear:
        raise WeightsError(f"{path}: {reading.note}")
    expected = [(node, array) for node, array in stored if cutoff is None or node.index < cutoff]
    total = sum(array.count for _, array in expected)
    floats_in_file, odd = divmod(length - reading.size, 4)
    rest = length - reading.size - 4 * total
    ends_within_layer = rest < 0 and (odd or floats_in_file not in ends)
    if ends_within_layer or (rest > 0 and cutoff is None and not ignore_rest):
        raise WeightsError(f"{path}: {length_mismatch(graph, floats_in_file, odd)}")
    if reading.note:
        logger.warning("%s: %s", path, reading.note)
    if rest > 0 and ignore_rest:
        logger.warning("%s: %d bytes after the last layer are ignored", path, rest)
    count = min(floats_in_file, total)
    floats = torch.zeros(0)
    if count:  # copy on write: the tensors may be changed, the file is not
        floats = torch.from_numpy(np.memmap(file, "<f4", "c", reading.size, (count,)))
    tensors = {}
    position = 0
    for node, array in expected:
        if position >= count:
            break
        tensors[tensor_name(node, array)] = _from_file(floats[position : position + array.count], array, reading.header)
        position += array.count
    return reading.header, tensors


def _layer_ends(stored: list[tuple[Node, LayerArray]]) -> list[int]:
    """Floats before the first layer and up to the end of each."""
    ends = [0]
    for k, (node, array) in enumerate(stored):
        if k and stored[k - 1][0].index == node.index:
            ends[-1] += array.count
        else:
            ends.append(ends[-1] + array.count)
    return ends


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

    remove_checksum(path)
    write_atomically(path, chunks(), WeightsError)


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
