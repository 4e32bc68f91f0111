"""What an exported file says about itself, the same keys in every format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from darknet_py.export.export_options import ExportOptions
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import DetectionHeadSpec


def describe(
    graph: Graph, names: Sequence[str], options: ExportOptions, output_names: Sequence[str], states: Sequence[str] = ()
) -> dict[str, str]:
    """Texts by key; all but `cfg` and `producer` are JSON.

    Args:
        graph: The network at the exported size.
        names: Class names.
        options: How it is exported.
        output_names: Names of the outputs.
        states: Names of the inputs that take what recurrent layers remember.

    Returns:
        names; input (size, layout, preprocessing); states, each with the output that gives the next one; outputs;
        heads (anchors in pixels, mask, classes); thresholds;
        precision; cfg, the text of the cfg, with the file's name in cfg_name; producer.
    """
    net = graph.net
    open_size = "any" if options.any_size else None
    content: dict[str, object] = {
        "names": list(names),
        "input": {
            "layout": "NC" if graph.reads_text else "NCHW",
            "batch": "any" if options.any_batch else options.batch,
            "channels": graph.input.c,
            "height": open_size or net.height,
            "width": open_size or net.width,
            "colors": "RGB" if net.channels == 3 else "gray" if net.channels == 1 else "as trained",
            "range": [0, 1],
            "resize": "letterbox" if net.letter_box else "stretch",
        },
        "states": {name: f"next_{name}" for name in states},
        "outputs": {"kind": options.chosen_outputs(graph), "names": list(output_names), "boxes": "cx cy w h, relative"},
        "heads": [
            {
                "layer": node.index,
                "type": node.type,
                "classes": node.spec.classes,
                "anchors": node.spec.anchors,
                "mask": node.spec.mask,
            }
            for node in graph.layers
            if isinstance(node.spec, DetectionHeadSpec)
        ],
        "thresholds": {
            "thresh": options.thresh,
            "nms": options.nms,
            "nms_kind": graph.detection_specs[-1].nms_kind if graph.detection_specs else "default",
        },
        "precision": options.precision,
        "cfg_name": Path(graph.path).name,
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in content.items()}
    return {"producer": "darknet_py", "cfg": graph.sized_text.encode("utf-8", "replace").decode(), **texts}
