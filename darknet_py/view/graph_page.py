"""The picture of a network as one HTML file that needs nothing else: no server, no network, no library.

The picture itself is in the file as SVG, so that it is there before any script runs. `graph_place.js` and
`graph_view.js` move it, `graph_page.js` does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import NetworkProfile, network_profile
from darknet_py.layers.base import Node
from darknet_py.view import graph_labels as labels
from darknet_py.view.graph_layout import Grid, name
from darknet_py.view.graph_place import place
from darknet_py.view.graph_svg import Picture, definitions, draw, style
from darknet_py.view.graph_tree import INPUT, Block, blocks, leaves

_HERE = Path(__file__).parent
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


def page(graph: Graph, maps: Mapping[int, str] | None = None, tile: tuple[int, int] = (1, 1), note: str = "") -> str:
    """The HTML text.

    maps: layer (-1: the input) → picture of its activations as a data URI, see `graph_maps`; tile: width and height in
    pixels of the first tile of each; note: what they show.
    """
    picture = Picture(graph)
    placed = place(picture.tree, {picture.tree.root})
    model = _model(picture, tile, note)
    scene = draw(picture, {picture.tree.root}, placed, hidden=True)
    scripts = "\n".join((_HERE / f"graph_{part}.js").read_text(encoding="utf-8") for part in ("place", "view", "page"))
    data = _script("model", model) + (_script("maps", dict(maps)) if maps else "")
    size = placed[picture.tree.root].size
    facts = " · ".join(f"{value} {key}" for key, value in model["facts"][1:4])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{escape(model["title"])}</title>
<style>
{style("page")}
{(_HERE / "graph_page.css").read_text(encoding="utf-8")}</style>
<script>document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"
</script>
</head>
<body>
<header>
<h1>{escape(model["title"])}</h1>
<span class="facts">{escape(facts)}</span>
<input id="search" type="search" placeholder="Search: conv 3×3, mish, #61" aria-label="Search layers">
<span id="found" aria-live="polite"></span>
<span class="group"><button id="out" title="smaller (−)" aria-label="smaller">−</button>
<button id="in" title="larger (+)" aria-label="larger">+</button>
<button id="fit" title="the whole picture (0)">Fit</button></span>
<span class="group"><button id="open" title="open every block (e)">Open all</button>
<button id="close" title="close every block (c)">Close all</button></span>
<button id="theme" title="light or dark (t)">Theme</button>
</header>
<svg id="stage" class="graph" tabindex="0" role="application" aria-label="{escape(model["title"])}, the network's graph"
 viewBox="0 0 {size.w:g} {size.h:g}" preserveAspectRatio="xMidYMid">
{definitions()}
<g id="scene">{scene}</g>
</svg>
<aside id="panel" aria-label="details"></aside>
<footer>
<div class="line"><label>Each layer's
<select id="metric">
<option value="bflops">BFLOPs</option>
<option value="parameters">parameters</option>
<option value="cio">CIO (memory traffic)</option>
<option value="live">activations held</option>
</select></label> <span>in cfg order</span> <span id="largest"></span></div>
<svg id="profile" class="graph" preserveAspectRatio="none" aria-label="cost of each layer"></svg>
</footer>
<div id="tip" data-item="" hidden></div>
<div id="live" aria-live="polite"></div>
{data}<script>
{scripts}
</script>
</body>
</html>
"""


def _script(key: str, value: Any) -> str:
    """Data for the scripts. `<` cannot end the element or begin a comment, whatever a cfg says."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{key}">{text}</script>\n'


def _model(picture: Picture, tile: tuple[int, int], note: str) -> dict[str, Any]:
    graph = picture.graph
    total = network_profile(graph)
    readers: dict[int, list[int]] = {index: [] for index in range(-1, len(graph.layers))}
    for node in graph.layers:
        for source in dict.fromkeys(node.sources):
            readers[source].append(node.index)
    lines = graph.text.splitlines()
    tree = picture.tree
    return {
        "title": Path(graph.path).stem,
        "facts": _facts(graph, total),
        "totals": total._asdict(),
        "legend": [[text, labels.COLOURS[look]] for text, look in _LEGEND],
        "input": labels.size_text(graph.input),
        "inputReaders": readers[INPUT],
        "tree": {
            "root": tree.root,
            "closed": tree.closed,
            "headers": tree.headers,
            "grids": {key: _grid(grid) for key, grid in tree.grids.items()},
        },
        "parents": picture.parents,
        "names": {f"n{node.index}": node.index for node in graph.layers},
        "layers": [_layer(picture, node, readers[node.index], lines) for node in graph.layers],
        "blocks": {name(block): _block(graph, block) for block in blocks(picture.root) if block is not picture.root},
        "mapsTile": f"0 0 {tile[0]} {tile[1]}",
        "mapsNote": note,
    }


def _facts(graph: Graph, total: NetworkProfile) -> list[list[str]]:
    return [
        ["input", labels.size_text(graph.input)],
        ["layers", str(total.layers)],
        ["parameters", labels.short_number(total.parameters)],
        ["BFLOPs", f"{total.bflops:.4g}"],
        ["CIO", f"{labels.short_number(total.cio)} values"],
        ["activations at most", f"{total.peak_bytes / 2**20:.3g} MiB"],
        ["weights file", f"{total.weights_bytes:,} bytes"],
        ["receptive field", f"{total.field} pixels"],
    ]


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        "rows": grid.rows,
        "columns": grid.columns,
        "lines": [[line.start, line.end, line.lane] for line in grid.lines],
        "wires": [[wire.start, wire.end, wire.kind, wire.down, wire.gutters] for wire in grid.wires],
    }


def _layer(picture: Picture, node: Node, readers: list[int], lines: list[str]) -> dict[str, Any]:
    row = picture.rows[node.index]
    return {
        "index": node.index,
        "name": f"n{node.index}",
        "type": node.type,
        "look": labels.category(node),
        "title": labels.leaf_title(node),
        "inputs": [labels.size_text(shape) for shape in node.inputs],
        "output": labels.leaf_subtitle(node),
        "parameters": row.parameters,
        "bflops": float(f"{row.bflops:.6g}"),
        "cio": row.cio,
        "field": row.field,
        "live": 4 * row.live,
        "sources": list(dict.fromkeys(node.sources)),
        "readers": readers,
        "line": node.line,
        "cfg": _section(lines, node.line),
    }


def _section(lines: list[str], line: int) -> str:
    """A section's lines as the cfg has them, without the comments that lead to the next one."""
    end = line
    while end < len(lines) and not lines[end].lstrip().startswith("["):
        end += 1
    found = lines[line - 1 : end]
    while len(found) > 1 and (not found[-1].strip() or found[-1].lstrip()[0] in "#;"):
        found.pop()
    return "\n".join(found)


def _block(graph: Graph, block: Block) -> dict[str, Any]:
    return {
        "title": labels.block_title(graph, block),
        "place": labels.layers_text(block),
        "layers": sorted(leaves(block)),
        "output": block.output,
    }
