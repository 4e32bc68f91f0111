"""State dicts of other programs as the arrays of a cfg.

Programs that build their network from a cfg number its layers: `module_list.5.Conv2d.weight` is of cfg layer 5. Others
list their convolutions in the order in which they define them, mostly that of the cfg; there, order and shapes decide.
Nothing is guessed: what does not fit is an error that names the layer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.errors import WeightsError
from darknet_py.export.safe_unpickle import read_tensors
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import LayerArray, Node
from darknet_py.layers.normalize import EPS
from darknet_py.model.layout import arrays, tensor_name
from darknet_py.model.model_file import ModelFile

logger = logging.getLogger(__name__)

_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # DistributedDataParallel, torch.compile
_INDEXED = re.compile(r"(?:module_list|models|layers)\.(?P<layer>\d+)\.")
# What heads, profilers and batch norms register beside their weights.
_EXTRAS = {
    "num_batches_tracked",
    "anchors",
    "anchor_grid",
    "anchor_vec",
    "anchor_wh",
    "grid",
    "stride",
    "total_ops",
    "total_params",
}


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
        "their CSP blocks normalize the joined branches once more, which no cfg of Darknet does",
    ),
)


@dataclass
class _Part:
    """A convolution or connected layer with its batch norm, a batch norm alone, or any other single tensor."""

    name: str
    values: dict[str, Tensor] = field(default_factory=dict)  # by their names in the module
    norm: dict[str, Tensor] = field(default_factory=dict)
    eps: float = 0.0

    @property
    def is_norm(self) -> bool:
        return "running_var" in self.values

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(next(iter(self.values.values())).shape)

    def __str__(self) -> str:
        return f"{self.name} {self.shape}{' with batch norm' if self.norm else ''}"


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
    parts = list(_parts(tensors, eps, layout.eps if layout else EPS))
    slots = list(_slots(model.graph))
    try:
        found, how = _match(parts, slots)
    except WeightsError as error:
        limit = f"; {layout.program}: {layout.limit}" if layout and layout.limit else ""
        raise WeightsError(f"{path}: {error}{limit}") from None
    logger.info("%s: %s, matched by %s", Path(path).name, layout.program if layout else "unknown program", how)
    if layout and layout.note:
        logger.info("note: %s", layout.note)
    filled = {tensor_name(*pair): found[tensor_name(*pair)] for pair in arrays(model.graph)}
    return replace(model, tensors=filled, source=str(path)).fit(model.graph)


def _match(parts: Sequence[_Part], slots: Sequence[_Slot]) -> tuple[dict[str, Tensor], str]:
    """The arrays by our names, and what decided. The numbers of another cfg of the same network may differ."""
    if not all(_layer(part) is not None for part in parts):
        return _by_order(parts, slots), "order and shapes"
    try:
        return _by_number(parts, slots), "layer numbers"
    except WeightsError as error:
        try:
            return _by_order(parts, slots), "order and shapes"
        except WeightsError:
            raise error from None


def _parts(tensors: Mapping[str, Tensor], eps: Mapping[str, float], default: float) -> Iterator[_Part]:
    """The modules of a state dict in its order, each batch norm with the convolution before it."""
    modules: dict[str, _Part] = {}
    for name, values in tensors.items():
        module, _, key = name.rpartition(".")
        if key not in _EXTRAS:
            modules.setdefault(module, _Part(module)).values[key] = values
    before: _Part | None = None
    for part in modules.values():
        part.eps = eps.get(part.name, default)
        if part.is_norm and before is not None and _belongs(part, before):
            before.norm, before.eps = part.values, part.eps
            continue
        if before is not None:
            yield before
        before = part
    if before is not None:
        yield before


def _belongs(norm: _Part, before: _Part) -> bool:
    """Whether a batch norm is that of the part before it. In numbered layouts, a layer's parts have its number."""
    if before.is_norm or before.norm or norm.shape[0] not in before.shape[:2]:
        return False
    return _layer(norm) == _layer(before)


def _layer(part: _Part) -> int | None:
    match = _INDEXED.match(f"{part.name}.")
    return int(match["layer"]) if match else None


def _slots(graph: Graph) -> Iterator[_Slot]:
    """What the file of a graph holds, in its order."""
    for node in graph.layers:
        grouped: dict[str, list[LayerArray]] = {}
        for array in node.spec.arrays(node):
            grouped.setdefault(array.name.rpartition(".")[0], []).append(array)
        for group in grouped.values():
            yield _Slot(node, tuple(group))


def _by_number(parts: Sequence[_Part], slots: Sequence[_Slot]) -> dict[str, Tensor]:
    """Pairs parts and layers by the layer's number."""
    numbered: dict[int | None, list[_Part]] = {}
    for part in parts:
        numbered.setdefault(_layer(part), []).append(part)
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


def _by_order(parts: Sequence[_Part], slots: Sequence[_Slot]) -> dict[str, Tensor]:
    """Pairs parts and layers in order, those with and without batch norm apart; else by shapes that occur only once.

    Heads often come last in a state dict, and theirs are the convolutions without batch norm.
    """
    filled: dict[str, Tensor] = {}
    for norm in (True, False):
        some_slots = [slot for slot in slots if slot.has_norm == norm]
        some_parts = [part for part in parts if bool(part.norm or part.is_norm) == norm]
        if len(some_slots) != len(some_parts):
            which = "with" if norm else "without"
            raise WeightsError(
                f"expected {counted(len(some_slots), 'layer')} {which} batch norm, got {len(some_parts)}"
            )
        in_order = [_fill(slot, part) for slot, part in zip(some_slots, some_parts, strict=True)]
        if None in in_order:
            k = in_order.index(None)
            fitting = [[j for j, part in enumerate(some_parts) if _fill(slot, part)] for slot in some_slots]
            if sorted(fitting) != [[j] for j in range(len(some_parts))]:
                raise WeightsError(f"{some_slots[k]}, got {some_parts[k]}; neither order nor shapes decide")
            in_order = [_fill(slot, some_parts[j]) for slot, (j,) in zip(some_slots, fitting, strict=True)]
        for values in in_order:
            filled.update(values or {})
    return filled


def _fill(slot: _Slot, part: _Part) -> dict[str, Tensor] | None:
    """The arrays of a slot by their names in our state dict; None where the part does not fit."""
    values = _values_by_role(slot, part)
    if values is None or any(values[array.role].numel() != array.count for array in slot.arrays):
        return None
    return {tensor_name(slot.node, array): values[array.role].reshape(array.shape) for array in slot.arrays}


def _values_by_role(slot: _Slot, part: _Part) -> dict[str, Tensor] | None:
    roles = slot.by_role
    if len(slot.arrays) == 1 and "shortcut" not in roles:  # implicit values, slopes
        return {slot.arrays[0].role: next(iter(part.values.values()))} if len(part.values) == 1 else None
    if part.is_norm:
        return _norm_values(part.values, part.eps) if "weight" not in roles and slot.has_norm else None
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


def _norm_values(values: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    mean = values["running_mean"]
    return {
        "bias": values.get("bias", torch.zeros_like(mean)),
        "scale": values.get("weight", torch.ones_like(mean)),
        "mean": mean,
        "variance": values["running_var"] + (eps - EPS),
    }
