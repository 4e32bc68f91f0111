"""The graph of a network as one HTML file that needs nothing else: no server, no network, no library.

The diagram is in the file as SVG, so that it is there before any script runs. The scripts do the rest:
`graph_canvas.js` opens, moves and zooms, `graph_panel.js` and `graph_values.js` describe the picked layer,
`graph_paths.js` draws gradient paths, `graph_export.js` saves the diagram, and `graph_page.js` is what users do: pick,
search, keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from darknet_py.counted import counted
from darknet_py.graph.gradient_paths import LayerPaths, ends, gradient_paths, paths_text, reads
from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import NetworkProfile, network_profile
from darknet_py.view import graph_labels as labels
from darknet_py.view.graph_layout import Plan, Sum, name, place
from darknet_py.view.graph_maps import Maps
from darknet_py.view.graph_svg import Diagram, Drawing, render
from darknet_py.view.graph_tree import INPUT, Block, blocks, category, leaves
from darknet_py.view.graph_values import ValuesView

_LEGEND = (
    ("convolution", "conv"),
    ("concatenation, CSP", "csp"),
    ("addition, residual", "residual"),
    ("scaling, attention", "attention"),
    ("pooling, SPP", "pool"),
    ("resampling, branches", "resample"),
    ("head", "head"),
    ("other", "other"),
)


def page(graph: Graph, maps: Maps | None = None, weights: Mapping[int, list[ValuesView]] | None = None) -> str:
    """The text of the HTML file.

    Args:
        graph: The network.
        maps: The activations of each layer for an image, see `graph_maps`.
        weights: The arrays of each layer, see `graph_values`.
    """
    diagram = Diagram(graph)
    opened = {diagram.tree.root}
    placed = place(diagram.tree, opened)
    total = network_profile(graph)
    facts = _facts(graph, total)
    return render(
        "graph_page.html.jinja",
        model=_model(diagram, total, facts, maps),
        maps=maps.images if maps else None,
        values={"weights": weights or {}, "activations": maps.values if maps else {}} if maps or weights else None,
        summary=" · ".join(f"{value} {key}" for key, value in facts[1:4]),
        size=placed[diagram.tree.root].size,
        drawing=Drawing(diagram, opened, placed, foldable=True),
    )


def _model(diagram: Diagram, total: NetworkProfile, facts: list[list[str]], maps: Maps | None) -> dict[str, object]:
    """What graph_page.js reads."""
    graph = diagram.graph
    lines = graph.text.splitlines()
    tree = diagram.tree
    paths = gradient_paths(graph)
    return {
        "title": Path(graph.path).stem,
        "facts": facts,
        "totals": total._asdict(),
        "legend": [[text, labels.COLORS[look]] for text, look in _LEGEND],
        "input": labels.size_text(graph.input),
        "inputReaders": diagram.readers[INPUT],
        "tree": {
            "root": tree.root,
            "closed": tree.closed,
            "plans": {key: _plan(plan) for key, plan in tree.plans.items()},
        },
        "edges": {key: [[edge.start, edge.end] for edge in grid.edges] for key, grid in diagram.grids.items()},
        "parents": diagram.parents,
        "names": {f"n{node.index}": node.index for node in graph.layers},
        "layers": [_layer(diagram, row, diagram.readers[row.node.index], lines) for row in paths.layers],
        "ends": ends(graph),
        "blocks": {name(block): _block(graph, block) for block in blocks(diagram.root) if block is not diagram.root},
        "mapsTile": f"0 0 {maps.tile[0]} {maps.tile[1]}" if maps else "",
        "mapsNote": maps.note if maps else "",
    }


def _facts(graph: Graph, total: NetworkProfile) -> list[list[str]]:
    return [
        ["input", labels.size_text(graph.input)],
        ["layers", str(total.layers)],
        ["parameters", labels.short_number(total.parameters)],
        ["BFLOPs", f"{total.bflops:.4g}"],
        ["CIO", f"{labels.short_number(total.cio)} values"],
        ["activations at most", f"{total.peak_bytes / 2**20:.3g} MiB"],
        ["weights file", counted(total.weights_bytes, "byte", ",")],
        ["receptive field", counted(total.receptive_field, "pixel")],
    ]


def _plan(plan: Plan) -> dict[str, object]:
    """As graph_page.js reads it: a formula is [constant, variable, …]."""

    def formula(it: Sum) -> list[float]:
        return [it.constant, *it.variables]

    return {
        "children": plan.children,
        "maxima": [[formula(it) for it in formulas] for formulas in plan.maxima],
        "corners": [[formula(it) for it in corner] for corner in plan.corners],
        "paths": [[[command, *map(formula, places)] for command, places in path] for path in plan.paths],
        "size": [formula(it) for it in plan.size],
        "bands": [[formula(it) for it in band] for band in plan.bands],
    }


def _layer(diagram: Diagram, paths: LayerPaths, readers: list[int], lines: list[str]) -> dict[str, object]:
    node = paths.node
    row = diagram.rows[node.index]
    return {
        "index": node.index,
        "name": f"n{node.index}",
        "type": node.type,
        "look": category(node),
        "title": labels.leaf_title(node),
        "inputs": [labels.size_text(shape) for shape in node.inputs],
        "output": labels.leaf_subtitle(node),
        "parameters": row.parameters,
        "bflops": float(f"{row.bflops:.6g}"),
        "cio": row.cio,
        "field": row.receptive_field,
        "live": 4 * row.live_values,
        "sources": list(dict.fromkeys(node.sources)),
        "readers": readers,
        "reads": list(reads(node)),
        "gradients": list(paths.sources),
        "paths": [
            ["to the heads", paths_text(paths.to_heads)],
            ["to the stage's output", paths_text(paths.to_stage)],
            ["from the input", paths_text(paths.from_input)],
        ],
        "line": node.line,
        "cfg": _section(lines, node.line),
    }


def _section(lines: list[str], line: int) -> str:
    """A section's lines as the cfg has them, without the comments that lead to the next one."""
    end = line
    while end < len(lines) and not lines[end].lstrip().startswith("["):
        end += 1
    section = lines[line - 1 : end]
    while len(section) > 1 and (not section[-1].strip() or section[-1].lstrip()[0] in "#;"):
        section.pop()
    return "\n".join(section)


def _block(graph: Graph, block: Block) -> dict[str, object]:
    return {
        "title": labels.block_title(graph, block),
        "place": labels.layers_text(block),
        "layers": sorted(leaves(block)),
        "output": block.output,
    }
