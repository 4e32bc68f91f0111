"""State dicts of other programs as the arrays of a cfg.

Programs that build their network from a cfg number its layers: `module_list.5.Conv2d.weight` is of cfg layer 5. Others
list their convolutions in the order in which they define them, mostly that of the cfg; there, order and shapes decide.
Nothing is guessed: what does not fit is an error that names the layer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.errors import WeightsError
from darknet_py.export.safe_unpickle import read_tensors
from darknet_py.export.state_dict_parts import Part, in_cfg_order, layer_number, read_parts
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import LayerArray, Node
from darknet_py.layers.normalize import EPS
from darknet_py.model.layout import arrays, tensor_name
from darknet_py.model.model_file import ModelFile

logger = logging.getLogger(__name__)

_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # DistributedDataParallel, torch.compile


class Layout(NamedTuple):
    """How a program names its tensors.

    Attributes:
        program: Its repositories.
        pattern: A name that only they have.
        eps: Epsilon of their batch norms, which a state dict does not hold.
        note: What to know about the boxes.
        limit: Why some of its networks fit no cfg.
    """

    program: str
    pattern: re.Pattern[str]
    eps: float
    note: str = ""
    limit: str = ""


LAYOUTS = (
    Layout(
        "PyTorch_YOLOv4, ScaledYOLOv4, yolor, ultralytics/yolov3 (archive)",
        re.compile(r"module_list\.\d+\.(?:Conv2d|BatchNorm2d)\."),
        1e-4,
        "the first three decode every [yolo] as new_coords=1 and scale_x_y=2 after activation=logistic, "
        "the last one as scale_x_y=1, whatever the cfg says",
    ),
    Layout("eriklindernoren/PyTorch-YOLOv3", re.compile(r"module_list\.\d+\.(?:conv|batch_norm)_\d+\."), 1e-5),
    Layout("Tianxiaomo/pytorch-YOLOv4 (Darknet)", re.compile(r"models\.\d+\.(?:conv|bn)\d+\."), 1e-5),
    Layout("Tianxiaomo/pytorch-YOLOv4 (Yolov4)", re.compile(r"(?:down\d|neck|head)\.(?:conv\d+|resblock)\."), 1e-5),
    Layout(
        "Ultralytics models from YAML files",
        re.compile(r"model\.\d+\.(?:conv|bn|cv\d|m)\."),
        1e-3,
        "they decode every [yolo] as new_coords=1 and scale_x_y=2 after activation=logistic",
        "BottleneckCSP2 and SPPCSP normalize and activate a branch once more after its last convolution; the cfg needs "
        "a [convolutional] with batch_normalize=1, size=1 and groups=filters there, as yolov4-p5-large.cfg has",
    ),
)


@dataclass(frozen=True)
class _Slot:
    """The arrays of a layer that one part fills; a recurrent layer has several."""

    node: Node
    arrays: tuple[LayerArray, ...]

    @property
    def by_role(self) -> Mapping[str, LayerArray]:
        return {array.role: array for array in self.arrays}

    @property
    def has_norm(self) -> bool:
        return "scale" in self.by_role

    def __str__(self) -> str:
        shape = self.by_role.get("weight", self.arrays[0]).shape
        return (
            f"layer {self.node.index} [{self.node.type}]: expected {shape}{' with batch norm' if self.has_norm else ''}"
        )


def read_state_dict(model: ModelFile, path: str | Path) -> ModelFile:
    """The arrays of a cfg from a PyTorch file of another program, or from a state dict of ours.

    Batch norm adds another epsilon to the variance in some programs; the difference is added to the variances, so that
    Darknet's epsilon gives their outputs.

    Args:
        model: The network, without arrays.
        path: A file of `torch.save`: a state dict, a checkpoint with one, or a whole module. Its code never runs.

    Returns:
        The network with all its arrays.

    Raises:
        WeightsError: The file is damaged, or its tensors do not fit the cfg in one way.
    """
    stored = read_tensors(path)
    tensors = {_WRAPPERS.sub("", name): values.float() for name, values in stored.tensors.items()}
    if any(tensor_name(node, array) in tensors for node, array in arrays(model.graph)):
        return replace(model, tensors=tensors, source=str(path)).fit(model.graph)
    layout = next((layout for layout in LAYOUTS if any(layout.pattern.match(name) for name in tensors)), None)
    eps = {_WRAPPERS.sub("", name): value for name, value in stored.eps.items()}
    parts = list(in_cfg_order(read_parts(tensors, eps, layout.eps if layout else EPS)))
    try:
        found, how = _match(parts, model.graph)
    except WeightsError as error:
        limit = f"; {layout.program}: {layout.limit}" if layout and layout.limit else ""
        raise WeightsError(f"{path}: {error}{limit}") from None
    logger.info("%s: %s, matched by %s", Path(path).name, layout.program if layout else "unknown program", how)
    if layout and layout.note:
        logger.info("note: %s", layout.note)
    filled = {tensor_name(*pair): found[tensor_name(*pair)] for pair in arrays(model.graph)}
    return replace(model, tensors=filled, source=str(path)).fit(model.graph)


def _match(parts: Sequence[Part], graph: Graph) -> tuple[dict[str, Tensor], str]:
    """The arrays by our names, and what decided. The numbers of another cfg of the same network may differ."""
    slots = list(_slots(graph))
    if not all(layer_number(part) is not None for part in parts):
        try:
            return _by_order(parts, slots, graph), "order and shapes"
        except WeightsError:
            return _by_order(parts, _heads_by_level(slots, graph), graph), "order and shapes"
    try:
        return _by_number(parts, slots), "layer numbers"
    except WeightsError as error:
        try:
            return _by_order(parts, slots, graph), "order and shapes"
        except WeightsError:
            raise error from None


def _slots(graph: Graph) -> Iterator[_Slot]:
    """What the file of a graph holds, in its order."""
    for node in graph.layers:
        grouped: dict[str, list[LayerArray]] = {}
        for array in node.spec.arrays(node):
            grouped.setdefault(array.name.rpartition(".")[0], []).append(array)
        for group in grouped.values():
            yield _Slot(node, tuple(group))


def _heads_by_level(slots: Sequence[_Slot], graph: Graph) -> list[_Slot]:
    """The layers of heads that follow all others moved to the layer that each of them reads, as YAML files have it."""
    reads: dict[int, int] = {}
    for head in graph.heads:
        first = head
        while first.sources == (first.index - 1,) and first.index:
            first = graph.layers[first.index - 1]
        if first.spec.is_idle and len(first.sources) == 1:
            reads.update(dict.fromkeys(range(first.index, head.index + 1), first.sources[0]))
    return sorted(slots, key=lambda slot: (reads.get(slot.node.index, slot.node.index), slot.node.index))


def _by_number(parts: Sequence[Part], slots: Sequence[_Slot]) -> dict[str, Tensor]:
    """Pairs parts and layers by the layer's number."""
    numbered: dict[int | None, list[Part]] = {}
    for part in parts:
        numbered.setdefault(layer_number(part), []).append(part)
    filled: dict[str, Tensor] = {}
    for slot in slots:
        candidates = numbered.get(slot.node.index, [])
        values = _fill(slot, candidates[0]) if candidates else None
        if values is None:
            raise WeightsError(f"{slot}, got {candidates[0] if candidates else 'nothing of that number'}")
        filled.update(values)
        del candidates[0]
    rest = [part for candidates in numbered.values() for part in candidates]
    if rest:
        raise WeightsError(f"expected nothing beyond this network's tensors, got {rest[0]}")
    return filled


def _by_order(parts: Sequence[Part], slots: Sequence[_Slot], graph: Graph) -> dict[str, Tensor]:
    """Pairs parts and layers in order, those with and without batch norm apart; else by shapes that occur only once.

    Heads often come last in a state dict, and theirs are the convolutions without batch norm.
    """
    pairs: list[tuple[_Slot, Part]] = []
    for norm in (True, False):
        some_slots = [slot for slot in slots if slot.has_norm == norm]
        some_parts = [part for part in parts if bool(part.norm or part.is_norm) == norm]
        in_order = list(zip(some_slots, some_parts, strict=False))
        unlike = next((f"{slot}, got {part}" for slot, part in in_order if _fill(slot, part) is None), "")
        if len(some_slots) != len(some_parts):
            expected = f"{counted(len(some_slots), 'layer')} {'with' if norm else 'without'} batch norm"
            raise WeightsError(
                f"expected {expected}, got {len(some_parts)}{unlike and f'; first difference: {unlike}'}"
            )
        if unlike:
            fitting = [[j for j, part in enumerate(some_parts) if _fill(slot, part)] for slot in some_slots]
            if sorted(fitting) != [[j] for j in range(len(some_parts))]:
                raise WeightsError(f"{unlike}; neither order nor shapes decide")
            in_order = [(slot, some_parts[j]) for slot, (j,) in zip(some_slots, fitting, strict=True)]
        pairs += in_order
    nodes = {part.name: slot.node for slot, part in pairs}
    filled: dict[str, Tensor] = {}
    for slot, part in pairs:
        if part.skip:
            _check_skip(slot, nodes[part.skip], graph)
        filled.update(_fill(slot, _reordered(slot, part, graph) if part.pooled else part) or {})
    return filled


def _check_skip(slot: _Slot, skip: Node, graph: Graph) -> None:
    """Two branches of one shape may be concatenated in either order, which no shape tells."""
    route = graph.layers[slot.node.sources[0]]
    if not route.spec.joins_channels or route.sources[-1] != skip.index:
        raise WeightsError(f"{slot}: expected a [route] before it that ends with layer {skip.index}")


def _reordered(slot: _Slot, part: Part, graph: Graph) -> Part:
    """The part with its input channels in the order of the cfg, where the map mostly follows the poolings of it."""
    route = graph.layers[slot.node.sources[0]]
    windows = [_pooling_window(graph, index) for index in route.sources]
    if not route.spec.joins_channels or len(windows) != 4 or len(set(windows)) != 4:
        raise WeightsError(f"{slot}: expected a [route] of a layer and three [maxpool] before it")
    chunks = part.values["weight"].chunk(4, dim=1)
    weight = torch.cat([chunks[sorted(windows).index(window)] for window in windows], dim=1)
    return replace(part, values={**part.values, "weight": weight})


def _pooling_window(graph: Graph, index: int) -> int:
    """The width of what all [maxpool] in a row up to a layer look at; 1 where it is none."""
    node = graph.layers[index]
    if not (node.spec.is_channelwise or node.spec.is_idle):
        return 1
    return node.spec.kernel()[0] - 1 + _pooling_window(graph, node.sources[0])


def _fill(slot: _Slot, part: Part) -> dict[str, Tensor] | None:
    """The arrays of a slot by their names in our state dict; None where the part does not fit."""
    values = _values_by_role(slot, part)
    if values is None or any(values[array.role].numel() != array.count for array in slot.arrays):
        return None
    return {tensor_name(slot.node, array): values[array.role].reshape(array.shape) for array in slot.arrays}


def _values_by_role(slot: _Slot, part: Part) -> dict[str, Tensor] | None:
    roles = slot.by_role
    if len(slot.arrays) == 1 and "shortcut" not in roles:  # implicit values, slopes
        return {slot.arrays[0].role: next(iter(part.values.values()))} if len(part.values) == 1 else None
    if part.is_norm:
        return _values_of_norm_alone(slot, part)
    weight, bias = part.values.get("weight"), part.values.get("bias")
    if "weight" not in roles or weight is None or tuple(weight.shape) != roles["weight"].shape:
        return None
    if part.values.keys() - {"weight", "bias"} or (part.norm and not slot.has_norm):
        return None
    plain = {"weight": weight, "bias": torch.zeros(roles["bias"].shape) if bias is None else bias}
    if not slot.has_norm:
        return plain
    if not part.norm:  # folded; this batch norm changes nothing
        ones = torch.ones_like(plain["bias"])
        return {**plain, "scale": ones, "mean": 0 * ones, "variance": (1 - EPS) * ones}
    norm = _norm_values(part.norm, part.eps)
    return {**norm, "weight": weight, "mean": norm["mean"] - plain["bias"]}


def _values_of_norm_alone(slot: _Slot, part: Part) -> dict[str, Tensor] | None:
    """Those of a [batchnorm], or of a [convolutional] that multiplies each channel by 1 before its batch norm."""
    norm = _norm_values(part.values, part.eps)
    if not slot.has_norm or "weight" not in slot.by_role:
        return norm if slot.has_norm else None
    channels = slot.node.inputs[0].c
    shape = slot.by_role["weight"].shape
    return {**norm, "weight": torch.ones(shape)} if shape == (channels, 1, 1, 1) else None


def _norm_values(values: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    mean = values["running_mean"]
    return {
        "bias": values.get("bias", torch.zeros_like(mean)),
        "scale": values.get("weight", torch.ones_like(mean)),
        "mean": mean,
        "variance": values["running_var"] + (eps - EPS),
    }
