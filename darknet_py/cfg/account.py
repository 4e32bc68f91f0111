"""What a graph costs: parameters, BFLOPs, memory traffic, receptive field, size of the weights file."""

from __future__ import annotations

from typing import Any, NamedTuple

from darknet_py.cfg.graph import Graph
from darknet_py.layers.base import Node

_HEADER_BYTES = 20


class Row(NamedTuple):
    """One layer's account. traffic: values read and written for one image (CIO in CSPNet's terms)."""

    node: Node
    parameters: int
    bflops: float
    traffic: int
    field: int  # receptive field in input pixels (of one side)


def rows(graph: Graph) -> list[Row]:
    """The account of each layer, in cfg order."""
    fields: dict[int, tuple[int, int]] = {-1: (1, 1)}  # index → (receptive field, input pixels per output pixel)
    result = []
    for node in graph.layers:
        size, stride, dilation = node.spec.kernel()
        field, scale = max(fields[source] for source in node.sources) if node.sources else (1, 1)
        field += (size - 1) * dilation * scale
        scale = scale * stride
        if node.inputs and node.output.h > node.inputs[0].h > 1:  # upsampled
            scale = max(scale // (node.output.h // node.inputs[0].h), 1)
        fields[node.index] = (field, scale)
        cost = node.spec.cost(node)
        result.append(Row(node, node.parameters, cost.flops / 1e9, cost.reads + cost.writes, field))
    return result


def weights_bytes(graph: Graph) -> int:
    """Size of the `.weights` file that Darknet writes for it."""
    return _HEADER_BYTES + 4 * graph.parameters


def as_dict(graph: Graph) -> dict[str, Any]:
    """The account as plain values, for JSON."""
    layers = [
        {
            "index": row.node.index,
            "type": row.node.type,
            "line": row.node.line,
            "sources": list(row.node.sources),
            "output": list(row.node.output),
            "parameters": row.parameters,
            "bflops": row.bflops,
            "traffic": row.traffic,
            "receptive_field": row.field,
        }
        for row in rows(graph)
    ]
    return {
        "cfg": graph.path,
        "width": graph.net.width,
        "height": graph.net.height,
        "channels": graph.net.channels,
        "parameters": graph.parameters,
        "bflops": graph.bflops,
        "traffic": sum(layer["traffic"] for layer in layers),
        "weights_bytes": weights_bytes(graph),
        "layers": layers,
    }


def table(graph: Graph) -> str:
    """Darknet's table (layer, filters, size/stride, input, output, BFLOPs) with parameters and receptive field."""
    lines = ["layer  type              filters  size/strd(dil)      input                output            BF       parameters"]
    for row in rows(graph):
        node = row.node
        size, stride, dilation = node.spec.kernel()
        kernel = "" if size == 1 and stride == 1 and not row.bflops else f"{size} x {size} / {stride}"
        kernel += f" ({dilation})" if dilation > 1 else ""
        source = str(node.inputs[0]) if node.sources == (node.index - 1,) else ", ".join(map(str, node.sources))
        lines.append(
            f"{node.index:5d}  {node.type:<16}  {node.output.c:7d}  {kernel:<15}  {source:>18} -> {node.output!s:>18}"
            f"  {row.bflops:8.4f}  {row.parameters:10d}"
        )
    traffic = sum(row.traffic for row in rows(graph))
    field = max((row.field for row in rows(graph)), default=1)
    lines.append(
        f"total: {graph.parameters} parameters ({weights_bytes(graph)} bytes of weights), {graph.bflops:.3f} BFLOPs, "
        f"{traffic / 1e6:.1f} M values of memory traffic, receptive field {field}"
    )
    return "\n".join(lines)
