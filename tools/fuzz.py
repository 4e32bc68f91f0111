"""Mutates cfgs and checks that each is rejected by a DarknetError or parsed; small networks are built and run too.

    python tools/fuzz.py 1000000 [--seed 1] [--folder cfg …] [--run-every 10] [--seconds 600] [--out FILE]

Starts from the cfgs of tests/golden (every section, one option each) and of the given folders. Address space is
limited, so that a cfg that makes the program allocate too much memory is a failure. Exits with code 1 if there is a
failure.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import random
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darknet_py.errors import CfgError, DarknetError
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.graph.profile import profile_table
from darknet_py.layers import ALIASES, LAYERS
from darknet_py.model.network import Network

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
RUN_VALUES = 1 << 18  # parameters and outputs of a network that is run
RUN_FLOPS = 2e8
RUN_STEPS = 8  # of time
SLOW = 10.0  # seconds of processor time; a cfg that takes longer is a failure
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

Outcome = tuple[str, str]  # class, and the reason of a failure


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


class Mutator:
    """Draws mutated cfgs from `texts`; the same seed gives the same cfgs."""

    def __init__(self, texts: Sequence[str], seed: int):
        self.random = random.Random(seed)
        self.texts = list(texts)
        self.keys = known_keys(texts)
        self.names = sorted([*LAYERS, *ALIASES, "net"])
        self.changes: list[Callable[[list[list[str]]], None]] = [
            *[self._value] * 6, self._value_of_other, self._nudge, self._nudge, self._nudge, self._key, self._add,
            self._drop_line, self._double_line, self._drop_section, self._double_section, self._swap_sections,
            self._rename, self._junk, self._cut, self._insert,
        ]  # fmt: skip

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self.draw()

    def draw(self) -> str:
        sections = self._short(_sections(self.random.choice(self.texts)))
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
        other = _sections(self.random.choice(self.texts))
        sections.insert(self.random.randrange(len(sections) + 1), list(self.random.choice(other)))

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


def check(text: str, run: bool) -> Outcome:
    """The outcome of one cfg: "refused", "parsed", "ran" or "refused while building"; all others are failures."""
    start = time.process_time()
    try:
        outcome = _check(text, run)
    except Exception as error:  # every exception is a failure
        where = traceback.extract_tb(error.__traceback__)[-1]
        file = "/".join(Path(where.filename).parts[-2:])
        message = str(error).splitlines()[0][:120] if str(error) else ""
        outcome = ("failure", f"{type(error).__name__} at {file}:{where.lineno}: {message}")
    if time.process_time() - start > SLOW:
        outcome = ("failure", f"took {time.process_time() - start:.0f} s")
    return outcome


def _check(text: str, run: bool) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = parse_text(text)
        except CfgError as error:
            return "refused", "" if error.problems else "no problem named"
        assert graph.parameters >= 0 and math.isfinite(graph.bflops) and graph.layers
        if not run or not small(graph):
            return "parsed", ""
        profile_table(graph)
        try:
            network = Network(graph).eval()
        except DarknetError:
            return "refused while building", ""
        return "ran", _run(graph, network)


def small(graph: Graph) -> bool:
    """Whether the network is small enough to be run."""
    values = (
        sum(node.output.size + node.spec.workspace(node.inputs) for node in graph) + graph.parameters + graph.input.size
    )
    return values < RUN_VALUES and graph.bflops * 1e9 < RUN_FLOPS and graph.net.time_steps <= RUN_STEPS


def _run(graph: Graph, network: Network) -> str:
    """Runs a forward pass; returns a description of the first wrong shape, or ""."""
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
        if shapes.get(node.index) != (batch, *node.output):
            return f"[{node.type}]: expected {(batch, *node.output)}, got {shapes.get(node.index)}"
    return ""


def bound_memory(gibibytes: float) -> None:
    """Limits the address space to this much more than the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(gibibytes * (1 << 30))
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def fuzz(texts: Sequence[str], count: int, seed: int, run_every: int, seconds: float) -> dict[str, Any]:
    """Checks up to `count` cfgs within `seconds`; reports counts per outcome and one cfg per kind of failure."""
    start = time.monotonic()
    outcomes: collections.Counter[str] = collections.Counter()
    failures: dict[str, dict[str, Any]] = {}
    torch.manual_seed(seed)
    for index, text in enumerate(Mutator(texts, seed)):
        if index == count or time.monotonic() - start > seconds:
            break
        outcome, wrong = check(text, index % run_every == 0)
        outcomes["failure" if wrong else outcome] += 1
        if wrong:
            failures.setdefault(wrong.partition(": ")[0], {"index": index, "what": wrong, "cfg": text, "count": 0})
            failures[wrong.partition(": ")[0]]["count"] += 1
    took = time.monotonic() - start
    done = sum(outcomes.values())
    return {
        "cfgs": done,
        "seed": seed,
        "sources": len(texts),
        "run_every": run_every,
        "seconds": round(took, 1),
        "per_second": round(done / took, 1),
        "outcomes": dict(sorted(outcomes.items())),
        "failures": list(failures.values()),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("count", nargs="?", type=int, default=10_000, help="mutated cfgs")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--folder", nargs="*", type=Path, default=[], help="folders of further cfgs to start from")
    arguments.add_argument("--run-every", type=int, default=10, help="build and run every N-th cfg")
    arguments.add_argument("--seconds", type=float, default=math.inf, help="stop after this time")
    arguments.add_argument("--memory", type=float, default=4, help="GiB of address space")
    arguments.add_argument("--out", type=Path, help="JSON file to write")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    bound_memory(options.memory)
    texts = golden_cfgs() + folder_cfgs(options.folder)
    report: dict[str, Any] = {"folders": [str(folder) for folder in options.folder]}
    report |= fuzz(texts, options.count, options.seed, options.run_every, options.seconds)
    text = json.dumps(report, indent=2, ensure_ascii=True) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text, end="")
    sys.exit(bool(report["failures"]))


if __name__ == "__main__":
    main()
