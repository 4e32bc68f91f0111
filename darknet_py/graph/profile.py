"""What a network costs: parameters, BFLOPs, memory traffic, receptive field, activation memory, size of its file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from darknet_py.counted import counted
from darknet_py.graph.graph import Graph, live_values
from darknet_py.layers.base import Node, Spec

_HEADER_BYTES = 20
_FLOAT_BYTES = 4
_COLUMN_WIDTH = 52  # of one network in the comparison

# Names as Darknet's table prints them, where they differ from the section's.
_PRINTED_NAMES = {
    "avgpool": "avg",
    "convolutional": "conv",
    "deconvolutional": "deconv",
    "local_avgpool": "avg",
    "maxpool": "max",
    "scale_channels": "scale",
}


class LayerProfile(NamedTuple):
    """The cost of one layer, for one image.

    Attributes:
        node: the layer.
        parameters: floats in the weights file.
        bflops: billions of operations, by Darknet's count (a multiply-add is two).
        cio: values read and written by a layer with weights or a pooling layer, 0 for others: CSPNet's measure of
            memory traffic (convolutional input/output of HarDNet; concatenating and adding are free). With the
            pooling, ResNeXt-50 and CSPResNeXt-50 have the paper's 34.4 and 32.6 M values.
        traffic: values read and written, whatever the layer.
        receptive_field: one side in input pixels.
        live_values: values in memory while the layer runs, its inputs and its output included.
    """

    node: Node
    parameters: int
    bflops: float
    cio: int
    traffic: int
    receptive_field: int
    live_values: int


class NetworkProfile(NamedTuple):
    """The cost of a network, for one image.

    Attributes:
        layers: number of layers.
        parameters: floats in the weights file.
        bflops: billions of operations, by Darknet's count.
        cio: values read and written by layers with weights and pooling layers.
        traffic: values read and written by all layers.
        receptive_field: the largest one, one side in input pixels.
        peak_bytes: the most activation memory in use at once, as float32.
        weights_bytes: size of the `.weights` file.
    """

    layers: int
    parameters: int
    bflops: float
    cio: int
    traffic: int
    receptive_field: int
    peak_bytes: int
    weights_bytes: int


class LayerPair(NamedTuple):
    """A row of the comparison of two networks: a layer of each, or one that a single network has (the other: None)."""

    first: LayerProfile | None
    second: LayerProfile | None

    @property
    def is_same(self) -> bool:
        """Whether both layers have the same section, window, groups and output shape."""
        return (
            self.first is not None
            and self.second is not None
            and _comparison_key(self.first) == _comparison_key(self.second)
        )


def layer_profiles(graph: Graph) -> list[LayerProfile]:
    """The cost of each layer, in cfg order. It takes time linear in layers and their inputs.

    Args:
        graph: the network.

    Returns:
        One profile per layer.
    """
    fields: dict[int, tuple[int, int]] = {-1: (1, 1)}
    profiles = []
    for node, live in zip(graph.layers, live_values(graph), strict=True):
        fields[node.index] = _receptive_field(node, fields)
        cost = node.spec.cost(node)
        traffic = cost.reads + cost.writes
        cio = traffic if has_weights(node) or node.spec.pools else 0
        profiles.append(
            LayerProfile(node, node.parameters, cost.flops / 1e9, cio, traffic, fields[node.index][0], live)
        )
    return profiles


def network_profile(graph: Graph) -> NetworkProfile:
    """The cost of a network: sums over its layers, and the largest receptive field and memory.

    Args:
        graph: the network.

    Returns:
        The profile.
    """
    profiles = layer_profiles(graph)
    return NetworkProfile(
        layers=len(profiles),
        parameters=graph.parameters,
        bflops=sum(profile.bflops for profile in profiles),
        cio=sum(profile.cio for profile in profiles),
        traffic=sum(profile.traffic for profile in profiles),
        receptive_field=max(profile.receptive_field for profile in profiles),
        peak_bytes=_FLOAT_BYTES * max(profile.live_values for profile in profiles),
        weights_bytes=weights_bytes(graph),
    )


def weights_bytes(graph: Graph) -> int:
    """Size in bytes of the `.weights` file that Darknet writes for the network."""
    return _HEADER_BYTES + _FLOAT_BYTES * graph.parameters


def has_weights(node: Node) -> bool:
    """Whether the layer multiplies its input by weights (convolutions, connected and recurrent layers)."""
    return any(array.role == "weight" for array in node.spec.arrays(node))


def _receptive_field(node: Node, fields: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
    """(receptive field, input pixels from one cell to the next) of one side, from those of the layer's inputs.

    Of several inputs the widest counts, as with Darknet's show_receptive_field=1. A layer without a kernel that
    changes the size gathers cells (reorg, global pooling, connected) or spreads them (upsample). The scrambled reorg
    counts as a regular one.
    """
    size, stride, dilation = node.spec.kernel()
    sources = [(fields[source], shape) for source, shape in zip(node.sources, node.inputs, strict=True)]
    field = max(source_field for (source_field, _), _ in sources)
    if (size, stride) != (1, 1):
        _, step = sources[0][0]
        if node.spec.spreads:  # an output pixel reads every stride-th entry of the kernel
            return field + ((size - 1) // stride) * step, max(step // stride, 1)
        return field + (size - 1) * dilation * step, step * stride
    same_width = [step for (_, step), shape in sources if shape.w == node.output.w]
    if same_width:
        return field, max(same_width)
    (_, step), shape = sources[0]
    gathered = max(shape.w // node.output.w, 1)
    spread = max(node.output.w // shape.w, 1)
    return field + (gathered - 1) * step, max(step * gathered // spread, 1)


# --- as text and as plain values


def printed_name(node: Node) -> str:
    """The layer's name in Darknet's table."""
    return _PRINTED_NAMES.get(node.type, node.type)


def kernel_text(node: Node) -> str:
    """Darknet's size/strd(dil): `3 x 3/ 2`, or `3 x 3/ 1(2)` with dilation; "" for layers without a window."""
    size, stride, dilation = node.spec.kernel()
    if (size, stride) == (1, 1) and not (has_weights(node) and not node.spec.vector):
        return ""
    return f"{size:2d} x{size:2d}/{stride:2d}" + (f"({dilation})" if dilation > 1 else "")


def names_inputs(node: Node) -> bool:
    """Whether the layer's section names the layers that it reads ([route], [shortcut], …)."""
    return type(node.spec).inputs is not Spec.inputs and node.spec.reads_input


def profile_table(graph: Graph) -> str:
    """Darknet's table of the layers, with parameters, CIO and receptive field after its columns.

    Args:
        graph: the network.

    Returns:
        The table, without a newline at its end.
    """
    lines = [
        "   layer     filters  size/strd(dil)      input                output               BF"
        "  parameters    CIO (M)  field"
    ]
    for profile in layer_profiles(graph):
        node = profile.node
        lines.append(
            f"{node.index:4d} {printed_name(node):<8} {_input_columns(node):<37} ->  {_shape_text(node.output)}"
            f"  {profile.bflops:8.3f}  {profile.parameters:10d}  {profile.cio / 1e6:9.3f}  {profile.receptive_field:5d}"
        )
    total = network_profile(graph)
    lines += [
        f"Total BFLOPS {total.bflops:5.3f}",
        f"parameters {total.parameters}, weights file {counted(total.weights_bytes, 'byte')}, "
        f"CIO {total.cio / 1e6:.1f} M values (all layers: {total.traffic / 1e6:.1f} M), "
        f"activations at most {total.peak_bytes / 2**20:.1f} MiB, receptive field {total.receptive_field}",
    ]
    return "\n".join(lines)


def _input_columns(node: Node) -> str:
    """Filters, window and input shape; for a layer whose section names its inputs, those."""
    groups = node.spec.groups
    if names_inputs(node):
        part = f"{node.spec.group_id}/{groups}" if groups > 1 else ""
        return f"{' '.join(map(str, node.sources)):<31} {part}"
    filters = f"{node.output.c}/{groups}" if groups > 1 else str(node.output.c)
    return f"{filters if has_weights(node) else '':>9}  {kernel_text(node):<13}{_shape_text(node.inputs[0])}"


def _shape_text(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width:4d} x{height:4d} x{channels:4d}"


def layer_dict(profile: LayerProfile) -> dict[str, object]:
    """The cost of one layer as plain values, for JSON. Shapes are channels, height, width."""
    node = profile.node
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
        "groups": node.spec.groups,
        "parameters": profile.parameters,
        "bflops": profile.bflops,
        "cio": profile.cio,
        "traffic": profile.traffic,
        "receptive_field": profile.receptive_field,
        "live_bytes": _FLOAT_BYTES * profile.live_values,
    }


def profile_dict(graph: Graph) -> dict[str, object]:
    """The cost of a network and of its layers as plain values, for JSON.

    Args:
        graph: the network.

    Returns:
        The path, the input size, the fields of `NetworkProfile`, and `layers` with a `layer_dict` per layer.
    """
    total: dict[str, object] = network_profile(graph)._asdict()
    del total["layers"]
    return {
        "cfg": graph.path,
        "width": graph.net.width,
        "height": graph.net.height,
        "channels": graph.net.channels,
        **total,
        "layers": [layer_dict(profile) for profile in layer_profiles(graph)],
    }


# --- comparison of two networks


def align_layers(first: Graph, second: Graph) -> list[LayerPair]:
    """The layers of two networks side by side, so that the longest runs of equal layers are aligned.

    Args:
        first: a network.
        second: the network to compare it with.

    Returns:
        The rows; where layers were replaced, the old and the new one share a row.
    """
    left, right = layer_profiles(first), layer_profiles(second)
    matcher = difflib.SequenceMatcher(
        None,
        [_comparison_key(profile) for profile in left],
        [_comparison_key(profile) for profile in right],
        autojunk=False,
    )
    pairs: list[LayerPair] = []
    for _, left_start, left_end, right_start, right_end in matcher.get_opcodes():
        for offset in range(max(left_end - left_start, right_end - right_start)):
            i, j = left_start + offset, right_start + offset
            pairs.append(LayerPair(left[i] if i < left_end else None, right[j] if j < right_end else None))
    return pairs


def _comparison_key(profile: LayerProfile) -> tuple[object, ...]:
    node = profile.node
    return (node.type, node.spec.kernel(), node.spec.groups, tuple(node.output), len(node.sources))


def comparison_table(first: Graph, second: Graph) -> str:
    """Two networks side by side, and what their totals change by.

    Args:
        first: a network.
        second: the network to compare it with.

    Returns:
        The table. Marks: `=` equal layers, `~` one layer in place of another, `<` and `>` layers of one network only.
    """
    lines = [f"  {first.path[-_COLUMN_WIDTH:]:<{_COLUMN_WIDTH}} | {second.path[-_COLUMN_WIDTH:]}"]
    for pair in align_layers(first, second):
        mark = "=" if pair.is_same else "~" if pair.first and pair.second else "<" if pair.first else ">"
        lines.append(f"{mark} {_short_row(pair.first):<{_COLUMN_WIDTH}} | {_short_row(pair.second)}".rstrip())
    left, right = network_profile(first), network_profile(second)
    lines.append("")
    for name, old, new, unit in (
        ("layers", left.layers, right.layers, ""),
        ("parameters", left.parameters, right.parameters, ""),
        ("BFLOPs", left.bflops, right.bflops, ""),
        ("CIO", left.cio / 1e6, right.cio / 1e6, " M values"),
        ("activations", left.peak_bytes / 2**20, right.peak_bytes / 2**20, " MiB"),
        ("weights file", left.weights_bytes, right.weights_bytes, " bytes"),
        ("receptive field", left.receptive_field, right.receptive_field, " pixels"),
    ):
        change = f"{new / old - 1:+.1%}" if old else ""
        lines.append(f"{name:<16}{_number_text(old):>14}{_number_text(new):>14}{unit:<10} {change}".rstrip())
    return "\n".join(lines)


def _short_row(profile: LayerProfile | None) -> str:
    if profile is None:
        return ""
    node = profile.node
    window = " ".join(map(str, node.sources)) if names_inputs(node) else kernel_text(node)
    return f"{node.index:4d} {printed_name(node):<8} {window:<13} {_shape_text(node.output)} {profile.bflops:7.3f}"


def _number_text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
