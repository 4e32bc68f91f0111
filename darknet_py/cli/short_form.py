"""The short command lines of hank-ai's Darknet: `animals dog.jpg`, where the network's files are found by their name.

The rules are those of its `find_neural_network_files`.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm")


class NetworkFiles(NamedTuple):
    """The files of a network; None where there is none."""

    cfg: Path
    names: Path | None
    weights: Path | None


def complete(argv: Sequence[str], commands: Collection[str]) -> list[str]:
    """Completes a command line that begins with a network's name or cfg to one of `detect`, or of `video`.

    Args:
        argv: The command line.
        commands: Words that begin another command line.

    Returns:
        The complete command line; another one unchanged.
    """
    first, *rest = argv or [""]
    files = None if first in commands or not rest or first.startswith("-") else find_network(first)
    if files is None:
        return list(argv)
    command = "video" if any(word.lower().endswith(_VIDEOS) for word in rest) else "detect"
    words = [command, str(files.cfg), *rest]
    for option, path in (("--names", files.names), ("--weights", files.weights)):
        if path is not None and option not in rest:
            words += [option, str(path)]
    logger.info("= darknet-py %s", shlex.join(words))
    return words


def find_network(name: str) -> NetworkFiles | None:
    """The files of a network by its cfg, or by what their names begin with. None without a cfg.

    Beside `animals.cfg` these are `animals.names` and `animals_best.weights`, else `animals.weights`. Of `animals`
    the first cfg and names file whose names begin so, and the first weights called …_best.weights, else the last ones.
    """
    path = Path(name)
    if path.suffix == ".cfg":
        if not path.is_file():
            return None
        best = path.with_name(f"{path.stem}_best.weights")
        weights = (best, path.with_suffix(".weights"))
        names = path.with_suffix(".names")
        return NetworkFiles(
            path, names if names.is_file() else None, next((file for file in weights if file.is_file()), None)
        )
    try:
        matches = sorted(
            path.parent / file for file in os.listdir(path.parent) if path.name and file.startswith(path.name)
        )
    except (OSError, ValueError):
        return None
    by_ending = {
        ending: [file for file in matches if file.suffix == ending] for ending in (".cfg", ".names", ".weights")
    }
    if not by_ending[".cfg"]:
        return None
    found = by_ending[".weights"]
    best_weights = [file for file in found if file.name.endswith("_best.weights")]
    chosen = best_weights[:1] or found[-1:]
    names_files = by_ending[".names"]
    return NetworkFiles(by_ending[".cfg"][0], names_files[0] if names_files else None, chosen[0] if chosen else None)
