"""What a training leaves beside its weights: the class names, and the confidence threshold to use.

NAME_best.weights (_last, _final, _ema, _ITERATION)     NAME.names          one name a line
NAME_best.weights                                       NAME_best.json      {"map": …, "auto_thresh": …}
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from darknet_py.errors import DataError
from darknet_py.graph.graph import Graph
from darknet_py.untrusted import clean_names, read_text

_WEIGHTS = re.compile(r"(.+)_(best|last|final|ema|\d+)\.weights")


def names_beside(weights: str | Path, graph: Graph) -> tuple[str, ...]:
    """The class names of the training that wrote these weights; none where they are not known.

    Args:
        weights: A `.weights` file.
        graph: Its network. Names that are more than its classes are those of another one.
    """
    match = _WEIGHTS.fullmatch(Path(weights).name)
    path = Path(weights).parent / f"{match[1]}.names" if match else None
    if path is None or not path.is_file():
        return ()
    try:
        names = clean_names(read_text(path, "names").split("\n"))
        while names and not names[-1]:
            names.pop()
    except DataError:
        return ()
    heads = graph.detection_specs
    limit = heads[-1].classes if heads else graph.layers[-1].output.size
    return tuple(names) if len(names) <= limit else ()


def threshold_beside(weights: str | Path) -> float | None:
    """The confidence threshold that the evaluation of these weights found best; None where there is none."""
    path = Path(weights).with_suffix(".json")
    try:
        content = json.loads(read_text(path, "scores")) if path.is_file() else None
    except (DataError, ValueError, RecursionError):
        return None
    value = content.get("auto_thresh", content.get("best_thresh")) if isinstance(content, dict) else None
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else None
