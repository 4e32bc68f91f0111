"""Mutated cfgs: each is rejected by a DarknetError or parsed; small networks are built and run too.

They start from the cfgs of tests/golden (every section, one option each) and of given folders.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darknet_py.errors import CfgError, DarknetError
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.graph.profile import profile_table
from darknet_py.layers import ALIASES, LAYERS
from darknet_py.model.network import Network

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
RUN_VALUES = 1 << 18  # parameters and outputs of a network that is run
RUN_FLOPS = 2e8
RUN_STEPS = 8  # of time
SECTIONS = 12  # at most so many sections of a long cfg are used, so that mutations have an effect

NUMBERS = (
    "", "0", "-0", "1", "-1", "2", "3", "7", "8", "16", "64", "100", "1000", "65536", "65537", "1000000", "-1000000",
    "2147483647", "2147483648", "-2147483648", "9999999999999999999", "9" * 400, "9" * 5000, "1e9", "1e38", "1e400",
    "-1e400", ".5", "-.5", "1e-45", "nan", "inf", "-inf", "0x10", "1.5.5", "٣", "²", "½", "1_0", "+3", "--1", "1,2,3",
    "-1,-2", ",", ",,1", "0" * 30, "1#2",
)  # fmt: skip
WORDS = (
    "leaky", "mish", "relu", "normalize_channels", "linear", "per_channel", "per_feature", "softmax", "steps", "sgdr",
    "x", "é", "日本", "/dev/null", "/", "no/such/file", "a\0b", "\ufffd", "[net]", "=", "#", "  ",
)  # fmt: skip
JUNK = "\0\1\x1b\x7f\x85\xa0\u2028\u200b\ufeff\ufffd[]=#;,.-+%\\\"' \tأ日é𝟙\n\r\v\f0aZ"


def golden_cfgs() -> list[str]:
    """The cfgs of the C Darknet cases in tests/golden, which contain nearly every section."""
    texts = [
        entry["cfg"]
        for name in ("layers", "heads")
        for entry in json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8")).values()
        if "[detection]" not in entry["cfg"]  # its input has another size there
    ]
    image = "[net]\nwidth=16\nheight=16\nchannels=3\n[convolutional]\nfilters=8\nsize=3\npad=1\n"
    texts += [
        image + "[implicit_add]\nfilters=8\n[implicit_mul]\nfilters=8\n[shift_channels]\nfrom=-2\n"
        "[control_channels]\nfrom=-2\n[prelu]\nn=4\n[route_lhalf]\nlayers=-4\n",
        image + "[depthwise]\nfilters=8\nsize=3\npad=1\nactivation=h_swish\n[se]\nreduction=2\n",
        image + "[empty]\n[avgpool]\n[connected]\noutput=52\n[detection]\nclasses=3\ncoords=4\nside=2\nnum=2\n",
        image + "[iseg]\nclasses=5\nids=3\n",
        image + "[avgpool]\n[softmax]\ngroups=2\ntree=\n[cost]\ntype=sse\n",
        image + "[maxpool]\nsize=2\nstride=2\n[connected]\noutput=6\n[logistic]\n",
        image + "[avgpool]\n[contrastive]\nclasses=4\ntemperature=1\n",
        image + "[dropout]\ndropblock=1\ndropblock_size_abs=3\n[convolutional]\nfilters=16\nsize=3\npad=1\nsway=1\n",
    ]
    return sorted(set(texts))


def folder_cfgs(folders: Sequence[Path]) -> list[str]:
    paths = sorted(path for folder in folders for path in folder.rglob("*.cfg"))
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


def known_keys(texts: Sequence[str]) -> list[str]:
    lines = {line.split("=")[0].strip() for text in texts for line in text.splitlines() if "=" in line}
    return sorted(line for line in lines if line and line[0] not in "#;[")


class CfgMutator:
    """Draws mutated cfgs from `texts`; equal states of `random` give the same cfgs."""

    def __init__(self, texts: Sequence[str]):
        self.random = random.Random()
        self.sources = [_sections(text) for text in texts]
        self.keys = known_keys(texts)
        self.names = sorted([*LAYERS, *ALIASES, "net"])
        self.changes: list[Callable[[list[list[str]]], None]] = [
            *[self._value] * 6, self._value_of_other, self._nudge, self._nudge, self._nudge, self._key, self._add,
            self._drop_line, self._double_line, self._drop_section, self._double_section, self._swap_sections,
            self._rename, self._junk, self._cut, self._insert,
        ]  # fmt: skip

    def draw(self, random: random.Random) -> str:
        self.random = random
        sections = [list(section) for section in self._short(self.random.choice(self.sources))]
        for _ in range(self.random.choice((1, 1, 1, 2, 2, 3, 5, 9))):
            if not sections:
                break
            self.random.choice(self.changes)(sections)
        text = "\n".join(line for section in sections for line in section) + "\n"
        if not self.random.randrange(50):
            text = self._noise(text)
        return text

    def _short(self, sections: list[list[str]]) -> list[list[str]]:
        if len(sections) <= SECTIONS:
            return sections
        start = self.random.choice((1, self.random.randrange(1, len(sections) - SECTIONS)))
        return [sections[0], *sections[start : start + self.random.randrange(1, SECTIONS)]]

    def _line(self, sections: list[list[str]]) -> tuple[list[str], int]:
        section = self.random.choice(sections)
        return section, self.random.randrange(len(section))

    def _number(self) -> str:
        kind = self.random.randrange(3)
        if kind == 0:
            return self.random.choice(NUMBERS)
        return str(self.random.randrange(-3, 20) if kind == 1 else self.random.randrange(-(1 << 33), 1 << 33))

    def _value(self, sections: list[list[str]]) -> None:
        section, at = self._line(sections)
        key, _, _ = section[at].partition("=")
        section[at] = f"{key}={self.random.choice(WORDS) if not self.random.randrange(8) else self._number()}"

    def _value_of_other(self, sections: list[list[str]]) -> None:
        section, at = self._line(sections)
        other, other_at = self._line(sections)
        section[at] = section[at].partition("=")[0] + "=" + other[other_at].partition("=")[2]

    def _nudge(self, sections: list[list[str]]) -> None:
        """Changes a number slightly, so that many results are still valid networks."""
        section, at = self._line(sections)
        key, equals, value = section[at].partition("=")
        if equals and len(value) < 12 and value.strip().removeprefix("-").isdecimal():
            section[at] = f"{key}={int(value) + self.random.choice((-2, -1, 1, 2, 3))}"

    def _key(self, sections: list[list[str]]) -> None:
        section, at = self._line(sections)
        section[at] = self.random.choice(self.keys) + "=" + section[at].partition("=")[2]

    def _add(self, sections: list[list[str]]) -> None:
        section, at = self._line(sections)
        section.insert(at + 1, f"{self.random.choice(self.keys)}={self._number()}")

    def _drop_line(self, sections: list[list[str]]) -> None:
        section, at = self._line(sections)
        del section[at]
        sections[:] = [section for section in sections if section]

    def _double_line(self, sections: list[list[str]]) -> None:
        section, at = self._line(sections)
        section.insert(at, section[at])

    def _drop_section(self, sections: list[list[str]]) -> None:
        del sections[self.random.randrange(len(sections))]

    def _double_section(self, sections: list[list[str]]) -> None:
        at = self.random.randrange(len(sections))
        sections[at:at] = [list(sections[at])] * self.random.choice((1, 1, 2, 5))
        sections[:] = [list(section) for section in sections]

    def _swap_sections(self, sections: list[list[str]]) -> None:
        i, j = (self.random.randrange(len(sections)) for _ in range(2))
        sections[i], sections[j] = sections[j], sections[i]

    def _rename(self, sections: list[list[str]]) -> None:
        self.random.choice(sections)[0] = f"[{self.random.choice(self.names)}]"

    def _junk(self, sections: list[list[str]]) -> None:
        section, at = self._line(sections)
        section[at] = self._noise(section[at])

    def _cut(self, sections: list[list[str]]) -> None:
        section, at = self._line(sections)
        section[at] = section[at][: self.random.randrange(len(section[at]) + 1)]

    def _insert(self, sections: list[list[str]]) -> None:
        """Inserts a section of another cfg."""
        section = self.random.choice(self.random.choice(self.sources))
        sections.insert(self.random.randrange(len(sections) + 1), list(section))

    def _noise(self, text: str) -> str:
        at = self.random.randrange(len(text) + 1)
        junk = "".join(self.random.choice(JUNK) for _ in range(self.random.randrange(1, 9)))
        return text[:at] + junk + text[at + self.random.randrange(3) :]


def _sections(text: str) -> list[list[str]]:
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("["):
            sections.append([])
        sections[-1].append(line)
    return [section for section in sections if section]


def check(text: str, run: bool) -> str:
    """The outcome of one cfg: "refused", "parsed", "ran" or "refused while building"; an exception is a failure."""
    try:
        graph = parse_text(text)
    except CfgError as error:
        assert error.problems
        return "refused"
    assert graph.parameters >= 0 and math.isfinite(graph.bflops) and graph.layers
    if not run or not small(graph):
        return "parsed"
    profile_table(graph)
    try:
        network = Network(graph).eval()
    except DarknetError:
        return "refused while building"
    _run(graph, network)
    return "ran"


def small(graph: Graph) -> bool:
    """Whether the network is small enough to be run."""
    values = (
        sum(node.output.size + node.spec.workspace(node.inputs) for node in graph) + graph.parameters + graph.input.size
    )
    return values < RUN_VALUES and graph.bflops * 1e9 < RUN_FLOPS and graph.net.time_steps <= RUN_STEPS


def _run(graph: Graph, network: Network) -> None:
    """Runs a forward pass; a layer's output has the shape that was announced."""
    shapes: dict[int, tuple[int, ...]] = {}

    def note(index: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            shapes[index] = tuple(output.shape)

        return hook

    for node, layer in zip(graph.layers, network.layers, strict=True):
        layer.register_forward_hook(note(node.index))
    batch = graph.net.time_steps
    with torch.no_grad():
        network(torch.rand(batch, *graph.input))
    for node in graph:
        shape = shapes.get(node.index)
        assert shape == (batch, *node.output), f"[{node.type}]: expected {(batch, *node.output)}, got {shape}"
