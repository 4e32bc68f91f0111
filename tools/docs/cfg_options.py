"""The options of every cfg section, recorded while the package itself parses one.

Each section is parsed with every text of `TRIALS` by a reader that notes which options are read, as what and with which
default. So the reference says what the code does.
"""

from __future__ import annotations

import builtins
import contextlib
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from darknet_py.cfg.net import POLICIES, UNUSED_KEYS, NetSpec
from darknet_py.cfg.options import Options
from darknet_py.cfg.sections import Problems, parse_sections
from darknet_py.layers import LAYERS
from darknet_py.layers.base import CommonOptions

_MARK = 999_999  # a default of this size stands for "not given"

# Lines that make a section read options that it otherwise does not look at.
TRIALS: dict[str, tuple[str, ...]] = {
    "net": ("adam=1", *(f"policy={policy}" for policy in POLICIES)),
}


class Read(NamedTuple):
    """An option as the code reads it."""

    kind: str
    default: str


_LOOKED_UP = Read("text", "")


class Recorder(Options):
    """Options that note every read."""

    def __init__(self, text: str, name: str, index: int | None):
        problems = Problems(name)
        (section,) = parse_sections(f"[{name}]\n{text}\n", problems)
        super().__init__(section, index, problems)
        self.reads: dict[str, Read] = {}

    def _note(self, key: str, kind: str, default: object) -> None:
        if key not in self.reads or self.reads[key] == _LOOKED_UP:
            self.reads[key] = Read(kind, _shown(default))

    def __contains__(self, key: object) -> bool:
        self.reads.setdefault(str(key), _LOOKED_UP)
        return super().__contains__(str(key))

    def accept(self, *keys: str) -> None:
        for key in keys:
            self._note(key, "no effect", "")
        super().accept(*keys)

    def text(self, key: str, default: str = "") -> str:
        self._note(key, "text", default)
        return super().text(key, default)

    def int(self, key: str, default: builtins.int = 0, *bounds: builtins.int, **named: builtins.int) -> builtins.int:
        self._note(key, "integer", "" if abs(default) >= _MARK else default)
        return super().int(key, default, *bounds, **named)

    def flag(self, key: str, default: bool = False) -> bool:
        self._note(key, "0 or 1", builtins.int(default))
        return super().flag(key, default)

    def float(
        self, key: str, default: builtins.float = 0.0, *bounds: builtins.float, **named: builtins.float
    ) -> builtins.float:
        self._note(key, "number", default)
        return super().float(key, default, *bounds, **named)

    def ints(self, key: str, default: Sequence[builtins.int] = ()) -> tuple[builtins.int, ...]:
        self._note(key, "integers", ", ".join(map(str, default)))
        return super().ints(key, default)

    def floats(self, key: str, default: Sequence[builtins.float] = ()) -> tuple[builtins.float, ...]:
        self._note(key, "numbers", ", ".join(map(_shown, default)))
        return super().floats(key, default)

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        self._note(key, ", ".join(f"`{choice}`" for choice in choices), default)
        return super().choice(key, default, choices)


def _shown(default: object) -> str:
    if isinstance(default, builtins.float):
        return "" if not math.isfinite(default) else f"{default:g}"
    return str(default)


def net_options() -> dict[str, Read]:
    """The options of `[net]`."""
    reads: dict[str, Read] = {}
    for trial in ("", *TRIALS["net"]):
        recorder = Recorder(trial, "net", None)
        NetSpec.parse(recorder)
        reads = {**recorder.reads, **reads}
    return {**reads, **{key: Read("no effect", "") for key in UNUSED_KEYS}}


def common_options() -> dict[str, Read]:
    """The options that every layer takes."""
    recorder = Recorder("", "convolutional", 0)
    CommonOptions.parse(recorder)
    return recorder.reads


def layer_options(name: str) -> dict[str, Read]:
    """The options of a layer's section, without those that every layer takes."""
    recorder = Recorder("", name, 0)
    with contextlib.suppress(ValueError, IndexError):  # a section that cannot be read without a value
        LAYERS[name].parse(recorder, NetSpec(), 5)
    return recorder.reads


@cache
def options_of(name: str) -> dict[str, Read]:
    """The options of a section; "common" stands for those of every layer."""
    return net_options() if name == "net" else common_options() if name == "common" else layer_options(name)
