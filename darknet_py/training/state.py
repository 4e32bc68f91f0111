"""What NAME_last.state holds: all that a training needs to resume with the same bits.

The file is a `torch.save` archive whose comment is its checksum: `torch.load` reads it as any other, and no changed bit
goes unnoticed. The keys are part of the file format and stay as they are. Files of version 2 have no checksum.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

import torch
from torch import Tensor
from typing_extensions import NotRequired

from darknet_py.graph.graph import Graph
from darknet_py.model.network import Network
from darknet_py.training.optimizer import make_optimizer, trainable_arrays
from darknet_py.untrusted import first_line

_VERSION = 3
_UNCHECKED = 2  # the version before checksums
_COMMENT = b"darknet_py sha256:"
_LENGTH = struct.Struct("<H")  # of the comment, the last field of a zip archive
_SLOTS = {"update", "first", "second"}  # of both optimizers
_SCALER = {
    **dict.fromkeys(("scale", "growth_factor", "backoff_factor"), float),
    "growth_interval": int,
    "_growth_tracker": int,
}
_SCORES = ("map", "top1", "likelihood", "loss")
_STATS = {"largest", "mean", "spread", "threshold"}


class StepState(TypedDict):
    """All that an iteration changes (`TrainStep.state_dict`)."""

    iteration: int
    seed: int
    rate_factor: NotRequired[float]  # this and the next since version 3
    parts: NotRequired[int]
    network: dict[str, Tensor]
    optimizer: dict[str, object]
    ema: list[Tensor]
    scaler: dict[str, object]
    rolling: dict[str, Tensor]
    memory: dict[str, list[Tensor]]


class LogState(TypedDict):
    """Rows of all iterations, and evaluations as NAME_map.json has them (`TrainLogger.state_dict`)."""

    rows: Tensor
    maps: list[dict[str, object]]
    parts: NotRequired[list[dict[str, float]]]  # since version 3: what the heads reported, with the iteration


class TrainingState(TypedDict):
    """The whole state.

    best: the best score, −1 before the first. measured: iteration of the last evaluation. problems: bad images and bad
    labels so far. weights: checksum of the NAME_last.weights that was written with it.
    """

    learner: StepState
    journal: LogState
    best: float
    measured: int
    problems: NotRequired[list[list[str]]]  # this and the next since version 3
    weights: NotRequired[str]


class DamagedState(Exception):
    """A state that cannot be used, with the reason."""


class OtherNetwork(Exception):
    """A state of a network with other layers."""


def pack_state(state: TrainingState, graph: Graph) -> bytes:
    """The content of a state file."""
    buffer = io.BytesIO()
    torch.save({"version": _VERSION, "cfg": graph.layers_hash, **state}, buffer)
    return _with_checksum(buffer.getvalue())


def _with_checksum(archive: bytes) -> bytes:
    """A zip archive without a comment → the same with its checksum as the comment."""
    comment = _COMMENT + hashlib.sha256(archive).hexdigest().encode()
    return archive[: -_LENGTH.size] + _LENGTH.pack(len(comment)) + comment


def unpack_state(content: bytes, graph: Graph) -> TrainingState:
    """Reads the content of a state file and checks all of it.

    Args:
        content: What `pack_state` gave.
        graph: The network that is to be resumed.

    Raises:
        DamagedState: The content is not a state, or not as it was written.
        OtherNetwork: It is of a network with other layers.
    """
    size = len(_COMMENT) + 2 * hashlib.sha256().digest_size
    has_checksum = content[-size:].startswith(_COMMENT)
    if has_checksum and _with_checksum(content[: -size - _LENGTH.size] + _LENGTH.pack(0)) != content:
        raise DamagedState("its checksum is wrong")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DamagedState(first_line(error)) from error
    version = state.get("version") if isinstance(state, dict) else None
    if version not in (_UNCHECKED, _VERSION):
        raise DamagedState(f"expected a training state of version {_VERSION}, got something else")
    if version == _VERSION and not has_checksum:
        raise DamagedState("its checksum is missing")
    if state.get("cfg") != graph.layers_hash:
        raise OtherNetwork
    try:
        _check(state, graph)
    except DamagedState:
        raise
    except Exception as error:  # whatever a value of another type leads to
        raise DamagedState(f"expected the state of this network: {error!r}") from error
    return cast("TrainingState", state)


def _check(state: Mapping[str, object], graph: Graph) -> None:
    """Raises DamagedState, or what Python raises, where types or shapes are not those of this network's state."""
    step, log = _dict(state, "learner"), _dict(state, "journal")
    iteration = step["iteration"]
    _require(_is_int(iteration) and _is_int(step["seed"]) and _is_int(state["measured"]), "iteration, seed, measured")
    _require(isinstance(state["best"], float), "best")
    _require(0 < cast("float", step.get("rate_factor", 1.0)) <= 1, "rate_factor")
    _require(_is_int(step.get("parts", 1)) and step.get("parts", 1) != 0, "parts")
    _require(isinstance(state.get("weights", ""), str), "weights")
    problems = cast("list[list[str]]", state.get("problems", [[], []]))
    _require(len(problems) == 2 and all(isinstance(line, str) for lines in problems for line in lines), "problems")

    network = Network(graph)
    expected = network.state_dict()
    tensors = cast("dict[str, Tensor]", _dict(step, "network"))
    _require(tensors.keys() == expected.keys(), "network")
    for name, tensor in expected.items():
        _require(_fits(tensors[name], tensor), name)
    arrays = [tensor for _, _, tensor in trainable_arrays(network)]
    ema = cast("list[Tensor]", step["ema"])
    _require(isinstance(ema, list) and (not ema or _all_fit(ema, arrays)), "ema")
    _check_optimizer(_dict(step, "optimizer"), network)
    scaler, stats, memory = _dict(step, "scaler"), _dict(step, "rolling"), _dict(step, "memory")
    _require(not scaler or {key: type(value) for key, value in scaler.items()} == _SCALER, "scaler")
    _require(not stats or stats.keys() == _STATS, "rolling")
    _require(all(isinstance(value, Tensor) and value.numel() == 1 for value in stats.values()), "rolling")
    lists = cast("list[list[Tensor]]", list(memory.values()))
    _require(all(isinstance(part, Tensor) for parts in lists for part in parts), "memory")

    rows = log["rows"]
    _require(isinstance(rows, Tensor) and rows.dtype == torch.float64, "rows")
    values = cast("Tensor", rows).tolist()
    _require(all(len(row) == 6 and math.isfinite(row[0]) and math.isfinite(row[4]) for row in values), "rows")
    maps = cast("list[dict[str, object]]", log["maps"])
    _require(isinstance(maps, list) and all(_is_int(row["iteration"]) for row in maps), "maps")
    parts = cast("list[dict[str, float]]", log.get("parts", []))
    _require(isinstance(parts, list) and all(_is_int(row["iteration"]) for row in parts), "parts")
    _require(all(isinstance(value, (int, float)) for row in parts for value in row.values()), "parts")
    scores = (row.get(key, 0.0) for row in maps for key in _SCORES)
    _require(all(isinstance(score, (int, float)) for score in scores), "maps")


def _check_optimizer(state: Mapping[str, object], network: Network) -> None:
    groups = make_optimizer(network).param_groups
    stored = cast("list[dict[str, object]]", state["param_groups"])
    _require(isinstance(stored, list) and all(isinstance(group, dict) for group in stored), "groups")
    sizes = [len(cast("list[int]", group["params"])) for group in stored]
    _require(sizes == [len(group["params"]) for group in groups], "groups")
    tensors = [tensor for group in groups for tensor in group["params"]]
    numbers = [number for group in stored for number in cast("list[int]", group["params"])]
    _require(all(map(_is_int, numbers)) and numbers == list(range(len(tensors))), "groups")
    for group, own in zip(stored, groups, strict=True):
        _require(all(type(group[key]) is type(own[key]) for key in ("decayed", "scale", "clip", "start")), "groups")
    for number, slots in cast("dict[int, dict[str, Tensor]]", state["state"]).items():
        _require(_is_int(number) and number < len(tensors) and slots.keys() <= _SLOTS, "optimizer")
        _require(all(_fits(slot, tensors[number]) for slot in slots.values()), "optimizer")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise DamagedState(f"expected the state of this network, got another value of {what}")


def _dict(content: Mapping[str, object], key: str) -> dict[str, object]:
    value = content[key]
    _require(isinstance(value, dict), key)
    return cast("dict[str, object]", value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _fits(value: Tensor, like: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == like.shape and value.dtype == like.dtype


def _all_fit(values: list[Tensor], like: Sequence[Tensor]) -> bool:
    return len(values) == len(like) and all(_fits(value, tensor) for value, tensor in zip(values, like, strict=True))
