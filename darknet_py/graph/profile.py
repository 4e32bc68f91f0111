"""What a graph costs: parameters, BFLOPs, memory traffic, receptive field, activation memory, size on disk."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from darknet_py.graph.graph import Graph, live_values
from darknet_py.layers.base import Node, Spec

_HEADER_BYTES = 20
_FLOAT_BYTES = 4

# Names as Darknet's table prints them, where they differ from the section's.
_PRINTED = {
    "avgpool": "avg",
    "convolutional": "conv",
    "deconvolutional": "deconv",
    "local_avgpool": "avg",
    "maxpool": "max",
    "scale_channels": "scale",
}


class LayerProfile(NamedTuple):
    """One layer's account, for one image.

    cio: values read and written by a layer with weights, CSPNet's measure of memory traffic (convolutional input/output
    of HarDNet: joining and adding are free). traffic: values read and written whatever the layer. field: receptive
    field in input pixels, one side. live: values held while it runs, its inputs and output among them.
    """

    node: Node
    parameters: int
    bflops: float
    cio: int
    traffic: int
    field: int
    live: int


class NetworkProfile(NamedTuple):
    """A network's account, for one image. peak_bytes: activations held at the worst moment, float32."""

    layers: int
    parameters: int
    bflops: float
    cio: int
    traffic: int
    field: int
    peak_bytes: int
    weights_bytes: int


def layer_profiles(graph: Graph) -> list[LayerProfile]:
    """The account of each layer, in cfg order. Linear in layers and their inputs."""
    fields: dict[int, tuple[int, int]] = {-1: (1, 1)}
    live = live_values(graph)
    result = []
    for node, values in zip(graph.layers, live, strict=True):
        fields[node.index] = _field(node, fields)
        cost = node.spec.cost(node)
        traffic = cost.reads + cost.writes
        cio = traffic if weighted(node) else 0
        result.append(
            LayerProfile(node, node.parameters, cost.flops / 1e9, cio, traffic, fields[node.index][0], values)
        )
    return result


def network_profile(graph: Graph) -> NetworkProfile:
    """Sums over the layers; the field and the memory are the largest."""
    account = layer_profiles(graph)
    return NetworkProfile(
        layers=len(account),
        parameters=graph.parameters,
        bflops=sum(row.bflops for row in account),
        cio=sum(row.cio for row in account),
        traffic=sum(row.traffic for row in account),
        field=max(row.field for row in account),
        peak_bytes=_FLOAT_BYTES * max(row.live for row in account),
        weights_bytes=weights_bytes(graph),
    )


def weights_bytes(graph: Graph) -> int:
    """Size of the `.weights` file that Darknet writes for it."""
    return _HEADER_BYTES + _FLOAT_BYTES * graph.parameters


def weighted(node: Node) -> bool:
    """Whether it multiplies its input by weights (convolutions, connected and recurrent layers)."""
    return any(array.role == "weight" for array in node.spec.arrays(node))


def _field(node: Node, fields: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
    """(receptive field, input pixels from one cell to the next) of one side, from those of its inputs.

    Of several inputs the widest counts (Darknet's show_receptive_field=1 does so too). A layer without a kernel that
    changes the size gathers cells (reorg, global pooling, connected) or spreads them (upsample). The scrambled reorg
    counts as a regular one.
    """
    size, stride, dilation = node.spec.kernel()
    sources = [(fields[source], shape) for source, shape in zip(node.sources, node.inputs, strict=True)]
    field = max(reach for (reach, _), _ in sources)
    if (size, stride) != (1, 1):
        _, jump = sources[0][0]
        return field + (size - 1) * dilation * jump, jump * stride
    same = [jump for (_, jump), shape in sources if shape.w == node.output.w]
    if same:
        return field, max(same)
    (_, jump), shape = sources[0]
    gathered = max(shape.w // node.output.w, 1)
    spread = max(node.output.w // shape.w, 1)
    return field + (gathered - 1) * jump, max(jump * gathered // spread, 1)


# --- as text and as plain values


def printed_name(node: Node) -> str:
    """The layer's name as Darknet's table has it."""
    return _PRINTED.get(node.type, node.type)


def kernel_text(node: Node) -> str:
    """`3 x 3/ 2`, `3 x 3/ 1(2)` with dilation, nothing for layers without a window (Darknet's size/strd(dil))."""
    size, stride, dilation = node.spec.kernel()
    if (size, stride) == (1, 1) and not weighted(node):
        return ""
    return f"{size:2d} x{size:2d}/{stride:2d}" + (f"({dilation})" if dilation > 1 else "")


def joins(node: Node) -> bool:
    """Whether its section names the layers that it reads ([route], [shortcut], …)."""
    return type(node.spec).inputs is not Spec.inputs and node.sources != (-1,)  # [implicit] reads nothing


def table(graph: Graph) -> str:
    """Darknet's table, with parameters, CIO and receptive field after its columns."""
    lines = [
        "   layer     filters  size/strd(dil)      input                output               BF"
        "  parameters    CIO (M)  field"
    ]
    for row in layer_profiles(graph):
        node = row.node
        line = (
            f"{node.index:4d} {printed_name(node):<8} {_middle(node):<37} ->  {_shape(node.output)}  {row.bflops:8.3f}"
        )
        lines.append(f"{line}  {row.parameters:10d}  {row.cio / 1e6:9.3f}  {row.field:5d}")
    total = network_profile(graph)
    lines += [
        f"Total BFLOPS {total.bflops:5.3f}",
        f"parameters {total.parameters}, weights file {total.weights_bytes} bytes, "
        f"CIO {total.cio / 1e6:.1f} M values (all layers: {total.traffic / 1e6:.1f} M), "
        f"activations at most {total.peak_bytes / 2**20:.1f} MiB, receptive field {total.field}",
    ]
    return "\n".join(lines)


def _middle(node: Node) -> str:
    """Filters, window and input; for a layer whose section names its inputs, those."""
    groups = getattr(node.spec, "groups", 1)
    if joins(node):
        share = f"{getattr(node.spec, 'group_id', 0)}/{groups}" if groups > 1 else ""
        return f"{' '.join(map(str, node.sources)):<31} {share}"
    filters = f"{node.output.c}/{groups}" if groups > 1 else str(node.output.c)
    return f"{filters if weighted(node) else '':>9}  {kernel_text(node):<13}{_shape(node.inputs[0])}"


def _shape(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width:4d} x{height:4d} x{channels:4d}"


def layer_dict(row: LayerProfile) -> dict[str, Any]:
    """One layer's account as plain values. Shapes are channels, height, width."""
    node = row.node
    size, stride, dilation = node.spec.kernel()
    return {
        "index": node.index,
        "type": node.type,
        "line": node.line,
        "sources": list(node.sources),
        "input": list(node.inputs[0]),
        "output": list(node.output),
        "size": size,
        "stride": stride,
        "dilation": dilation,
        "groups": getattr(node.spec, "groups", 1),
        "parameters": row.parameters,
        "bflops": row.bflops,
        "cio": row.cio,
        "traffic": row.traffic,
        "receptive_field": row.field,
        "live_bytes": _FLOAT_BYTES * row.live,
    }


def as_dict(graph: Graph) -> dict[str, Any]:
    """The account as plain values, for JSON."""
    total = network_profile(graph)._asdict()
    total["receptive_field"] = total.pop("field")
    del total["layers"]
    return {
        "cfg": graph.path,
        "width": graph.net.width,
        "height": graph.net.height,
        "channels": graph.net.channels,
        **total,
        "layers": [layer_dict(row) for row in layer_profiles(graph)],
    }


# --- two networks


class LayerPair(NamedTuple):
    """A line of the comparison: the same layer in both, or one that only the first (second) has."""

    first: LayerProfile | None
    second: LayerProfile | None


def pairs(first: Graph, second: Graph) -> list[LayerPair]:
    """The layers of two networks side by side: the longest runs of equal layers face each other.

    Equal: same section, window, groups and output shape. Where layers were replaced, they stand in one line.
    """
    left, right = layer_profiles(first), layer_profiles(second)
    matcher = difflib.SequenceMatcher(None, [_key(row) for row in left], [_key(row) for row in right], autojunk=False)
    found: list[LayerPair] = []
    for _, a, b, c, d in matcher.get_opcodes():
        for i in range(max(b - a, d - c)):
            found.append(LayerPair(left[a + i] if a + i < b else None, right[c + i] if c + i < d else None))
    return found


def same(pair: LayerPair) -> bool:
    return pair.first is not None and pair.second is not None and _key(pair.first) == _key(pair.second)


def _key(row: LayerProfile) -> tuple[Any, ...]:
    node = row.node
    return (node.type, node.spec.kernel(), getattr(node.spec, "groups", 1), tuple(node.output), len(node.sources))


def side_by_side(first: Graph, second: Graph) -> str:
    """Both tables in one: `=` equal layers, `~` one in the place of another, `<` `>` layers of one side only."""
    width = 52
    lines = [f"  {first.path[-width:]:<{width}} | {second.path[-width:]}"]
    for pair in pairs(first, second):
        mark = "=" if same(pair) else "~" if pair.first and pair.second else "<" if pair.first else ">"
        lines.append(f"{mark} {_half(pair.first):<{width}} | {_half(pair.second)}".rstrip())
    a, b = network_profile(first), network_profile(second)
    lines.append("")
    for name, x, y, unit in (
        ("layers", a.layers, b.layers, ""),
        ("parameters", a.parameters, b.parameters, ""),
        ("BFLOPs", a.bflops, b.bflops, ""),
        ("CIO", a.cio / 1e6, b.cio / 1e6, " M values"),
        ("activations", a.peak_bytes / 2**20, b.peak_bytes / 2**20, " MiB"),
        ("weights file", a.weights_bytes, b.weights_bytes, " bytes"),
        ("receptive field", a.field, b.field, " pixels"),
    ):
        change = f"{y / x - 1:+.1%}" if x else ""
        lines.append(f"{name:<16}{_number(x):>14}{_number(y):>14}{unit:<10} {change}".rstrip())
    return "\n".join(lines)


def _half(row: LayerProfile | None) -> str:
    if row is None:
        return ""
    node = row.node
    window = " ".join(map(str, node.sources)) if joins(node) else kernel_text(node)
    return f"{node.index:4d} {printed_name(node):<8} {window:<13} {_shape(node.output)} {row.bflops:7.3f}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
