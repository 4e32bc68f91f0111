"""Writes docs/support.md: what is supported for each section, found by trying it.

    python tools/support_table.py [--reference ../shared/reference]

For each section, a small cfg of tests/golden is parsed and its shapes are inferred; then the layer is run, trained,
saved and loaded, and exported. The last columns count the cases of C Darknet that the tests compare with. The reference
folder is not part of the project; its counts are stored in tests/golden/reference_sections.json and updated by
--reference.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from hostile.cfgs import GOLDEN, golden_cfgs
from torch import Tensor, nn

from darknet_py.cfg.sections import Problems, parse_sections
from darknet_py.graph.graph import parse_text
from darknet_py.layers import ALIASES, LAYERS
from darknet_py.layers.base import DetectionHeadSpec, HeadLayer, Node, TrainState
from darknet_py.layers.recurrent import reset_state
from darknet_py.model.network import Network

OUT = Path(__file__).parents[1] / "docs" / "support.md"
REFERENCE = GOLDEN / "reference_sections.json"
BATCH = 4
COLUMNS = ("parse", "infer", "train", "weights", "export")
INTRO = """\
# What each section does

Written by `tools/support_table.py`, which tries everything with a small network; do not edit it by hand.

- **parse**: the options are read and checked. **infer**: the inferred shape equals that of the output.
  **train**: a loss (of a head: its own) has gradients for inputs or weights. **weights**: a `.weights` file restores
  all arrays bit for bit; "–": the layer has none. **export**: `torch.export` accepts the layer, and the exported
  program computes the same in two calls; "first call": the exported program does not keep the state of a recurrent
  layer between calls.
- **outputs** and **gradients** count the cases of C Darknet that the tests compare with (AlexeyAB's version; pjreddie's
  for sections that only it has): cases in `tests/golden`, which are in the repository, + cases of the reference folder.
  Gradients include those of layers, deltas and costs of heads, and whole trainings. Sections with 0 + 0 do not exist in
  C; the tests compare them with values calculated by hand.
"""

Sections = dict[str, collections.Counter[str]]  # section → "outputs" or "gradients" → how many cases


def sections_of(cfg: str) -> set[str]:
    """Names of the layers of a cfg, without aliases."""
    names = {ALIASES.get(section.name, section.name) for section in parse_sections(cfg, Problems("<case>"))}
    return names & set(LAYERS)


def counted(cases: Iterable[tuple[str, set[str]]]) -> Sections:
    """Counts the cases of each section. cases: ("outputs" or "gradients", sections)."""
    counts: Sections = {name: collections.Counter() for name in LAYERS}
    for kind, names in cases:
        for name in names:
            counts[name][kind] += 1
    return counts


def golden_cases() -> Sections:
    def read(name: str) -> dict[str, Any]:
        return json.loads((GOLDEN / name).read_text(encoding="utf-8"))

    cases = [
        ("outputs" if "outputs" in case else "gradients", sections_of(case["cfg"]))
        for case in read("layers.json").values()
    ]
    cases += [("gradients", sections_of(case["cfg"])) for case in read("heads.json").values()]
    cases += [("gradients", {"contrastive"})] * len(read("heads_contrastive.json"))
    cases += [("gradients", {name}) for name in ("iseg", "logistic") if name in read("segment.json")]
    return counted(cases)


def reference_cases(folder: Path) -> Sections:
    cases = []
    for kind in ("forward", "features"):
        for entry in json.loads((folder / kind / "manifest.json").read_text()):
            text = (folder / entry["cfg"]).read_text(encoding="utf-8", errors="replace")
            cases.append(("outputs", sections_of(text)))
    for name in ("heads/heads.json", "train/train.json"):
        cases += [("gradients", sections_of(case["cfg"])) for case in json.loads((folder / name).read_text()).values()]
    return counted(cases)


class Layer:
    """One layer of a small network."""

    def __init__(self, network: Network, node: Node):
        self.network, self.node = network, node
        self.module: nn.Module = network.layers[node.index]
        self.batch = BATCH * node.net.time_steps

    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(torch.rand(self.batch, *shape) for shape in self.node.inputs)

    def infers(self) -> bool:
        with torch.no_grad():
            output = self.module.eval()(*self.inputs())
        return tuple(output.shape) == (self.batch, *self.node.output)

    def trains(self) -> bool:
        self.module.train()
        inputs = [x.requires_grad_() for x in self.inputs()]
        if isinstance(self.module, HeadLayer):
            loss = self.module.loss(inputs[0], self.truth(), TrainState(seen=BATCH))
            loss.total.backward()
        else:
            self.module(*inputs).square().sum().backward()
        gradients = [value.grad for value in (*inputs, *self.module.parameters())]
        return any(gradient is not None and bool(gradient.count_nonzero()) for gradient in gradients)

    def truth(self) -> Tensor:
        head, shape = self.module, self.node.output
        assert isinstance(head, HeadLayer)
        if isinstance(self.node.spec, DetectionHeadSpec):
            return torch.tensor([[0, 0, 0.5, 0.5, 0.3, 0.4], [1, 1, 0.3, 0.6, 0.2, 0.2]])
        if self.node.type == "iseg":
            return torch.cat((torch.zeros(self.batch, 1, 1), torch.ones(self.batch, 1, shape.h * shape.w)), 2)
        return torch.eye(shape.size)[torch.arange(self.batch) // 2]

    def restores_weights(self) -> bool | None:
        if not self.node.spec.arrays(self.node):
            return None
        fresh = Network(self.network.graph)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.weights"
            self.network.save_weights(path)
            fresh.load_weights(path)
        before, after = self.module.state_dict(), fresh.layers[self.node.index].state_dict()
        return all(torch.equal(before[array.name], after[array.name]) for array in self.node.spec.arrays(self.node))

    def exports(self) -> bool | str:
        calls = [self.inputs(), self.inputs()]
        self.module.eval()
        reset_state(self.module)
        with torch.no_grad():
            exported = torch.export.export(self.module, calls[0]).module()
            reset_state(self.module)
            same = [torch.allclose(exported(*inputs), self.module(*inputs)) for inputs in calls]
        return "first call" if same == [True, False] else all(same)


def layers() -> dict[str, Layer]:
    """Each section in the shortest golden cfg that contains it."""
    layers_by_section: dict[str, Layer] = {}
    for text in sorted(golden_cfgs(), key=lambda text: (len(text), text)):
        if sections_of(text) <= set(layers_by_section):
            continue
        network = Network(parse_text(text))
        for node in network.graph:
            layers_by_section.setdefault(node.type, Layer(network, node))
    return layers_by_section


def answer_text(question: Callable[[], bool | str | None]) -> str:
    try:
        answer = question()
    except Exception as error:  # the table reports what does not work
        return f"no ({type(error).__name__})"
    return answer if isinstance(answer, str) else {None: "–", True: "yes", False: "no"}[answer]


def table() -> str:
    """The text of docs/support.md."""
    logging.getLogger("torch").setLevel(logging.ERROR)  # torch.export logs a lot
    logging.getLogger("torch.__trace").setLevel(logging.ERROR)
    torch.manual_seed(1)
    golden = golden_cases()
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    lines = [INTRO]
    lines.append("| section | " + " | ".join(COLUMNS) + " | outputs | gradients |")
    lines.append("|---|" + "---|" * (len(COLUMNS) + 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = layers()
        for name in sorted(LAYERS, key=str.lower):
            aliases = "".join(f", `{alias}`" for alias, meant in ALIASES.items() if meant == name)
            layer = tried[name]
            questions = (layer.infers, layer.trains, layer.restores_weights, layer.exports)
            answers = ["yes", *(answer_text(question) for question in questions)]
            counts = [f"{golden[name][kind]} + {reference[name].get(kind, 0)}" for kind in ("outputs", "gradients")]
            lines.append(f"| `{name}`{aliases} | " + " | ".join(answers + counts) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--reference", type=Path, help="folder of C Darknet's reference values, to count its cases again"
    )
    options = arguments.parse_args()
    if options.reference:
        cases = reference_cases(options.reference)
        REFERENCE.write_text(json.dumps(cases, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    OUT.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
