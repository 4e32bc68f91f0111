"""The modules of a state dict: each convolution with its batch norm, and CSP blocks in the order of a cfg."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

from torch import Tensor

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
_IN_BLOCK = re.compile(r"(?P<block>(?:.*?\.)??)(?P<child>cv\d|bn|m)(?:\.|$)")


class _Block(NamedTuple):
    """A block of the models from YAML files. Its names are those of the modules in it.

    Attributes:
        order: The order of a cfg.
        pooled: What reads the concatenation of a map and three poolings of it, the smallest window first.
    """

    order: str
    pooled: str = ""


# By the order in which they define their modules. `bn` follows the concatenation of two branches.
_BLOCKS = {
    "cv1 cv2 cv3 cv4 bn m": _Block("cv2 cv1 m cv3 cv4"),  # BottleneckCSP
    "cv1 cv2 cv3 bn m": _Block("cv1 cv2 m bn cv3"),  # BottleneckCSP2
    "cv1 cv2 cv3 cv4 cv5 cv6 bn cv7": _Block("cv2 cv1 cv3 cv4 cv5 cv6 bn cv7", pooled="cv5"),  # SPPCSP
    "cv1 cv2": _Block("cv1 cv2", pooled="cv2"),  # SPP; a Bottleneck, too, where nothing is pooled
}


@dataclass
class Part:
    """A convolution or connected layer with its batch norm, a batch norm alone, or any other single tensor.

    skip: The name of the part whose output comes last in the concatenation that this part reads.
    pooled: Whether this part reads the concatenation of a map and three poolings of it, the smallest window first.
    """

    name: str
    values: dict[str, Tensor] = field(default_factory=dict)  # by their names in the module
    norm: dict[str, Tensor] = field(default_factory=dict)
    eps: float = 0.0
    skip: str = ""
    pooled: bool = False

    @property
    def is_norm(self) -> bool:
        return "running_var" in self.values

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(next(iter(self.values.values())).shape)

    def __str__(self) -> str:
        return f"{self.name} {self.shape}{' with batch norm' if self.norm else ''}"


def read_parts(tensors: Mapping[str, Tensor], eps: Mapping[str, float], default: float) -> Iterator[Part]:
    """The modules of a state dict in its order, each batch norm with the convolution before it."""
    modules: dict[str, Part] = {}
    for name, values in tensors.items():
        module, _, key = name.rpartition(".")
        if key not in _EXTRAS:
            modules.setdefault(module, Part(module)).values[key] = values
    before: Part | None = None
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


def _belongs(norm: Part, before: Part) -> bool:
    """Whether a batch norm is that of the part before it. In numbered layouts, a layer's parts have its number."""
    if before.is_norm or before.norm or norm.shape[0] not in before.shape[:2]:
        return False
    return layer_number(norm) == layer_number(before)


def layer_number(part: Part) -> int | None:
    match = _INDEXED.match(f"{part.name}.")
    return int(match["layer"]) if match else None


def in_cfg_order(parts: Iterable[Part]) -> Iterator[Part]:
    """The same parts, but those of CSP blocks in the order of a cfg, where each branch has its own batch norm."""
    for prefix, group in groupby(parts, lambda part: match["block"] if (match := _IN_BLOCK.match(part.name)) else None):
        members = list(group)
        children: dict[str, list[Part]] = {}
        for part in members if prefix is not None else ():
            children.setdefault(part.name.removeprefix(prefix or "").split(".")[0], []).append(part)
        block = _BLOCKS.get(" ".join(children))
        if block and block.pooled:
            pooled = children[block.pooled][0]
            before = children[list(children)[list(children).index(block.pooled) - 1]][0]
            pooled.pooled = pooled.shape[1:2] == (4 * before.shape[0],)
        yield from _divide_norm(children, block.order.split()) if block and "bn" in children else members


def _divide_norm(children: Mapping[str, Sequence[Part]], order: Sequence[str]) -> Iterator[Part]:
    """Divides the batch norm of a block between its branches.

    `cv2`, the branch that skips the block, has none of its own and gets the last channels. The other branch gets the
    first ones: its last convolution where that has no batch norm either, else a batch norm alone, which follows it.
    """
    norm, skip = children["bn"][0], children["cv2"][0]
    width = skip.shape[0]
    first, last = (
        {key: values[half] for key, values in norm.values.items()} for half in (slice(-width), slice(-width, None))
    )
    for child in order:
        for part in children[child]:
            if part is skip:
                yield replace(part, norm=last, eps=norm.eps)
            elif part is norm:
                yield replace(part, values=first)
            elif child == order[-1]:
                yield replace(part, skip=skip.name)
            elif child == order[-2]:
                yield replace(part, norm=first, eps=norm.eps)
            else:
                yield part
