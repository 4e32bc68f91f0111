"""INT8 by NNCF: scales from calibration images, integer convolutions, decoding in float32."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from darknet_py.data.image_sources import find_images
from darknet_py.data.images import load_image
from darknet_py.errors import DataError
from darknet_py.graph.graph import Graph
from darknet_py.inference.detect import prepare
from darknet_py.optional import require

# More images hardly move the scales. They are taken at equal distances from the list.
MOST_CALIBRATION_IMAGES = 300
_PRODUCTS = {"Conv", "Gemm", "MatMul", "Convolution", "GroupConvolution"}  # ONNX's and OpenVINO's names


def calibration_inputs(graph: Graph, source: str | Path, batch: int) -> list[Tensor]:
    """The network's inputs for calibration, read and resized as for detection.

    Args:
        graph: The network.
        source: A folder, glob or list of images.
        batch: Images per tensor.

    Returns:
        Tensors (batch, C, height, width) in 0..1. The last one is filled up with the first images.

    Raises:
        DataError: There are no images, or one cannot be read.
    """
    inputs = [prepare(graph, load_image(path, graph.net.channels)) for path in _paths(source)]
    inputs += [inputs[k % len(inputs)] for k in range(-len(inputs) % batch)]
    return [torch.stack(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]


def calibration_digest(source: str | Path) -> str:
    """A fingerprint of the images that `calibration_inputs` reads. Raises DataError."""
    state = hashlib.blake2b(digest_size=16)
    for path in _paths(source):
        try:
            state.update(hashlib.blake2b(Path(path).read_bytes()).digest())
        except OSError as error:
            raise DataError(f"{path}: cannot read this image: {error.strerror}") from error
    return state.hexdigest()


def _paths(source: str | Path) -> list[str]:
    paths = find_images([source])
    return paths[:: -(-len(paths) // MOST_CALIBRATION_IMAGES)]


def quantize_onnx(content: bytes, batches: Sequence[Tensor]) -> bytes:
    """An ONNX file with convolutions and products in int8 (QDQ: each keeps its scales in the graph).

    Args:
        content: An ONNX file in float32.
        batches: Inputs that are like those it will get.

    Raises:
        MissingExtra: NNCF or onnxruntime is not installed.
    """
    onnx = require("onnx", "onnx", "ONNX")
    require("onnxruntime", "onnx", "INT8")
    model = onnx.load_model_from_string(content)
    name = model.graph.input[0].name
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node.name)
    shapes = {array.name: tuple(array.dims) for array in model.graph.initializer}
    nodes = [
        _Node(
            node.name,
            node.op_type in _PRODUCTS,
            _is_depthwise_conv(node, shapes),
            [reader for tensor in node.output for reader in readers.get(tensor, [])],
        )
        for node in model.graph.node
    ]
    quantized = _quantize(model, batches, lambda batch: {name: batch.numpy()}, nodes)
    _store_as_integers(onnx, quantized.graph)
    result: bytes = quantized.SerializeToString()
    return result


def quantize_openvino(model: object, batches: Sequence[Tensor]) -> object:
    """As `quantize_onnx`, of an `openvino.Model`."""
    operations: Any = model
    nodes = [
        _Node(
            operation.get_friendly_name(),
            operation.get_type_name() in _PRODUCTS,
            # (groups, filters of a group, channels of a group, height, width)
            operation.get_type_name() == "GroupConvolution" and list(operation.get_input_shape(1))[1:3] == [1, 1],
            [
                reader.get_node().get_friendly_name()
                for output in operation.outputs()
                for reader in output.get_target_inputs()
            ],
        )
        for operation in operations.get_ordered_ops()
        if operation.get_type_name() not in ("Parameter", "Constant", "Result")
    ]
    return _quantize(model, batches, lambda batch: batch.numpy(), nodes)


class _Node(NamedTuple):
    """An operation: whether it multiplies by weights, also those of a depthwise convolution, and who reads it."""

    name: str
    is_product: bool
    is_depthwise: bool
    readers: Sequence[str]


def _quantize(model: Any, batches: Sequence[Tensor], feed: Callable[[Tensor], object], nodes: Sequence[_Node]) -> Any:
    """The model in int8 by NNCF.

    Weights have a scale for each filter, activations a scale and a zero; biases correct the mean error. The
    convolutions that the detection heads read, and everything behind them, stay in float32: decoding takes the
    exponential of their values. So do depthwise convolutions, which compute little and are slower in int8: with them
    yolo-fastest takes 1.5 times as long in OpenVINO.
    """
    os.environ.setdefault("NNCF_CI", "1")  # otherwise it reports each use to its authors
    nncf = require("nncf", "int8", "INT8")
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nncf.quantize(
            model,
            nncf.Dataset(batches, feed),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(
                names=[*_decoding(nodes), *(node.name for node in nodes if node.is_depthwise)], validate=False
            ),
        )


def _is_depthwise_conv(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether an ONNX node is a convolution with a group for each channel. shapes: of the weights, by name."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "Conv" and groups > 1 and shapes.get(node.input[1], ())[:2] == (groups, 1)


def _store_as_integers(onnx: ModuleType, graph: Any) -> None:
    """Replaces weights that the graph rounds at each start by their integers, a quarter of the size."""
    arrays = {array.name: array for array in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "QuantizeLinear" and len(node.input) == 3 and arrays.keys() >= set(node.input):
            weights, scale, zero = (onnx.numpy_helper.to_array(arrays[name]) for name in node.input)
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            shape = [-1 if k == axis and scale.ndim else 1 for k in range(weights.ndim)]
            limits = np.iinfo(zero.dtype)
            rounded = np.rint(weights / scale.reshape(shape)) + zero.reshape(shape)
            integers = rounded.clip(limits.min, limits.max).astype(zero.dtype)
            graph.initializer.append(onnx.numpy_helper.from_array(integers, node.output[0]))
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    kept = [array for array in graph.initializer if array.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _decoding(nodes: Sequence[_Node]) -> list[str]:
    """Of nodes in topological order those with no product behind them: the heads' own convolutions, and decoding."""
    products = {node.name for node in nodes if node.is_product}
    before: set[str] = set()  # nodes with a product behind them
    for node in reversed(nodes):
        if any(reader in before or reader in products for reader in node.readers):
            before.add(node.name)
    return [node.name for node in nodes if node.name not in before]
