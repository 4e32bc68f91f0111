"""`.py`: a network as one readable file of plain torch, with its state dict beside it.

Each layer spec says how it is written (`Spec.source`); this module names the values and joins the lines.
"""

from __future__ import annotations

import inspect
import io
import json
import keyword
import re
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn

from darknet_py.errors import CfgError, DarknetError, Problem, WeightsError
from darknet_py.export.exporter import ExportResult, Job
from darknet_py.export.plain_inference import Classifier, Detector, fit_into, suppress
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import DetectionHeadSpec, LayerSource, SourceError
from darknet_py.layers.plain import Recurrent
from darknet_py.model.layout import tensor_name
from darknet_py.model.model_file import ModelFile

Part = Callable[..., object]
_LINE = 112  # characters, before names of classes are wrapped


class StandaloneExporter:
    """A file of plain torch, and `NAME-weights.pt` beside it."""

    outputs = ("raw", "boxes")
    precisions = ("fp32",)

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises CfgError for a layer without source, DarknetError where the file computes something else."""
        graph = job.model.graph
        if graph.detection_specs and job.outputs == "raw":
            raise DarknetError(f"{out.suffix}: expected the outputs boxes of a detector, got raw")
        weights = out.with_name(f"{out.stem}-weights.pt")
        code, state = standalone_code(graph, job.model.names, weights.name), standalone_state(job.model)
        network = run_standalone(code, state, class_name(graph.path))
        # The file has a copy of that class.
        cells = [
            (cast(Recurrent, network.get_submodule(f"layer{index}")), layer.memories)
            for index, layer in job.reference.recurrent()
        ]

        def run(x: Tensor, *states: Tensor) -> Sequence[Tensor]:
            given = iter(states)
            for cell, count in cells:
                cell.memory = tuple(islice(given, count))
            output: Tensor | tuple[Tensor, ...] = network(x)
            following = [part for cell, _ in cells for part in cell.memory or ()]
            return (*(output if isinstance(output, tuple) else (output,)), *following)

        return ExportResult({weights: state_bytes(state), out: code.encode()}, job.compare(str(out), run))


def standalone_code(graph: Graph, names: Sequence[str], weights: str) -> str:
    """The file's text.

    Args:
        graph: The network.
        names: Class names.
        weights: Name of the state dict's file.

    Returns:
        Python code with a class for the network and `load()`.

    Raises:
        CfgError: A layer has no source in plain torch; the error names all such layers.
    """
    sources = _sources(graph)
    is_detector = bool(graph.detection_specs)
    base: list[Part] = [Detector, fit_into, suppress] if is_detector else [Classifier] if graph.heads else []
    parts = dict.fromkeys([*(part for source in sources.values() for part in source.parts), *base])
    code = "\n\n\n".join(
        [
            *(inspect.getsource(part).rstrip() for part in parts),
            _network_class(graph, sources, names, base[0].__name__ if base else "nn.Module"),
            _load_function(class_name(graph.path), weights),
        ]
    )
    return f"{_header(graph, code, weights)}\n\n\n{code}\n"


def standalone_state(model: ModelFile) -> dict[str, Tensor]:
    """The state dict of the standalone network. Raises WeightsError where arrays are missing, CfgError as above."""
    state: dict[str, Tensor] = {}
    for index, source in _sources(model.graph).items():
        owner = model.graph.layers[index if source.owner is None else source.owner]
        for array in owner.spec.arrays(owner):
            values = model.tensors.get(tensor_name(owner, array))
            if values is None:
                raise WeightsError(
                    f"layer {owner.index} [{owner.type}], {array.name}: expected trained weights, got none"
                )
            name = f"layer{index}.{source.names[array.name]}"
            state[name] = values.detach().clone().contiguous()
            if name.endswith(".running_mean"):
                state[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
        state |= {f"layer{index}.{name}": values for name, values in source.buffers.items()}
    return state


def run_standalone(code: str, state: dict[str, Tensor], name: str) -> nn.Module:
    """The network of a file's text, ready for inference."""
    module = ModuleType("standalone")
    module.__file__ = "standalone.py"
    exec(compile(code, "<standalone>", "exec"), module.__dict__)
    network: nn.Module = module.__dict__[name]()
    network.load_state_dict(state)
    return network.eval()


def state_bytes(state: dict[str, Tensor]) -> bytes:
    """The state dict as the content of a file of `torch.save`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def class_name(path: str) -> str:
    """`cfg/yolov4-tiny.cfg` → `Yolov4Tiny`."""
    words = re.findall(r"[A-Za-z0-9]+", Path(path).stem)
    name = "".join(word[:1].upper() + word[1:] for word in words) or "Network"
    return f"Net{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def _sources(graph: Graph) -> dict[int, LayerSource]:
    """The sources of the layers that the result depends on."""
    results = [node.index for node in graph.layers if isinstance(node.spec, DetectionHeadSpec)]
    needed = set(results or [len(graph.layers) - 1])
    sources, problems = {}, []
    for node in reversed(graph.layers):
        if node.index not in needed:
            continue
        needed.update(node.sources)
        try:
            sources[node.index] = node.spec.source(node)
        except SourceError as error:
            where = f"[{node.type}] #{node.index}"
            problems.append(Problem(graph.path, node.line, where, f"not offered in a standalone .py: {error}"))
    read_heads = [index for index in results if any(index in graph.layers[k].sources for k in sources)]
    for index in read_heads:
        node = graph.layers[index]
        message = "not offered in a standalone .py: another layer reads its output"
        problems.append(Problem(graph.path, node.line, f"[{node.type}] #{index}", message))
    if problems:
        raise CfgError(sorted(problems, key=lambda problem: problem.line))
    return dict(sorted(sources.items()))


def _header(graph: Graph, code: str, weights: str) -> str:
    stem = Path(graph.path).stem
    result = (
        "net.detect(image)" if "class Detector" in code else "net.classify(image)" if "class Classifier" in code else ""
    )
    usage = [
        f'"""{stem} in plain PyTorch.',
        "",
        f"It computes what Darknet computes for {Path(graph.path).name}, and needs nothing but torch.",
        "",
        f"    net = load()  # reads {weights} beside this file",
        *(
            ["    # Each call is one step of recurrent layers; `layer.memory = None` starts again."]
            if "(Recurrent)" in code
            else []
        ),
        *(
            [f"    print({result})  # image: a uint8 tensor (height, width, {graph.net.channels}) in RGB"]
            if result
            else []
        ),
        '"""',
        "",
        "from __future__ import annotations",
        "",
    ]
    types = [name for name in ("Callable", "Sequence") if re.search(rf"\b{name}\b", code)]
    imports = [f"from collections.abc import {', '.join(types)}"] if types else []
    imports += ["from pathlib import Path", "", "import torch"]
    imports += ["import torch.nn.functional as F"] if "F." in code else []
    return "\n".join([*usage, *imports, "from torch import Tensor, nn"])


def _network_class(graph: Graph, sources: dict[int, LayerSource], names: Sequence[str], base: str) -> str:
    net, lines = graph.net, [f"class {class_name(graph.path)}({base}):"]
    if base != "nn.Module":
        lines += [f"    size = ({net.width}, {net.height})", *_names(names)]
    if graph.detection_specs:
        lines += ["    letter_box = True"] if net.letter_box else []
        last = graph.detection_specs[-1]
        beta = {"greedynms": 0.6, "diounms": last.beta_nms}.get(last.nms_kind, 0.0)
        lines += [f"    beta_nms = {beta}"] if beta else []
    lines += ["", "    def __init__(self) -> None:", "        super().__init__()", *_modules(graph, sources), ""]
    return "\n".join([*lines, *_forward(graph, sources)])


def _names(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    lines, line = ["    names = ["], " " * 7
    for name in names:
        word = json.dumps(name, ensure_ascii=False)
        if len(line) + len(word) > _LINE:
            lines, line = [*lines, line], " " * 7
        line += f" {word},"
    return [*lines, line, "    ]"]


def _modules(graph: Graph, sources: dict[int, LayerSource]) -> list[str]:
    """The lines that make the modules, with a comment where the size of the map changes."""
    lines: list[str] = []
    size = (graph.net.height, graph.net.width)
    for index, source in sources.items():
        node = graph.layers[index]
        if not source.module:
            continue
        if node.output[1:] != size and min(node.output[1:]) > 1:
            size = node.output[1:]
            lines.append(f"        # {size[1]} x {size[0]}")
        lines.append(f"        self.layer{index} = {source.module}")
    return lines


def _forward(graph: Graph, sources: dict[int, LayerSource]) -> list[str]:
    """The forward pass. A value that only the next line reads is `x`, others have the number of their layer."""
    passed_on: dict[int, int] = {}  # layers that only pass a value on, and where it is from
    reads: dict[int, list[int]] = {}
    for index, source in sources.items():
        inputs = [passed_on.get(origin, origin) for origin in graph.layers[index].sources]
        if source.output == "{0}":
            passed_on[index] = inputs[0]
        else:
            reads[index] = inputs
    order = list(reads)
    following = dict(pairwise(order))
    readers: dict[int, set[int]] = {}
    for index, inputs in reads.items():
        for origin in inputs:
            readers.setdefault(origin, set()).add(index)
    heads = [index for index in order if isinstance(graph.layers[index].spec, DetectionHeadSpec)]
    result = passed_on.get(len(graph.layers) - 1, len(graph.layers) - 1)
    variables = {-1: "image"}
    lines = []
    for index, inputs in reads.items():
        alone = readers.get(index, set()) <= {following.get(index)}
        variables[index] = f"head{index}" if index in heads else "x" if alone else f"x{index}"
        values = [variables[origin] for origin in inputs]
        value = sources[index].output.format(*values, layer=f"self.layer{index}", image="image")
        lines.append(f"        {variables[index]} = {value}")
    return [*_signature(graph, bool(heads)), *lines, f"        return {_result(graph, heads, variables, result)}"]


def _signature(graph: Graph, is_detector: bool) -> list[str]:
    shape = graph.input
    result = "tuple[Tensor, ...]" if is_detector else "Tensor"
    lines = [f"    def forward(self, image: Tensor) -> {result}:"]
    if shape.h == shape.w == 1:
        return [*lines, f'        """image: (B, {shape.c})."""', "        image = image.reshape(len(image), -1, 1, 1)"]
    gives = "Returns boxes relative to the image, objectness and scores."
    rows = (
        f"image: (B, {shape.c}, height, width), RGB in 0..1."
        if shape.c == 3
        else f"image: (B, {shape.c}, height, width)."
    )
    return [*lines, f'        """{rows}{" " + gives if is_detector else ""}"""']


def _result(graph: Graph, heads: Sequence[int], variables: dict[int, str], result: int) -> str:
    if len(heads) == 1:
        return variables[heads[0]]
    if heads:
        names = ", ".join(variables[index] for index in heads)
        return f"tuple(torch.cat(parts, 1) for parts in zip({names}, strict=True))"
    return f"{variables[result]}.flatten(1)" if graph.layers[-1].spec.vector else variables[result]


def _load_function(name: str, weights: str) -> str:
    file = json.dumps(weights, ensure_ascii=False)
    return f'''def load(path: str | Path = Path(__file__).with_name({file}), device: str = "cpu") -> {name}:
    """The network with its weights, ready for inference."""
    net = {name}()
    net.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    return net.to(device).eval()'''
