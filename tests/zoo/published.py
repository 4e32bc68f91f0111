"""Fingerprints of the layers of published networks; the files are not part of the project."""

from __future__ import annotations

import hashlib

from darknet_py.graph.graph import Graph


def fingerprint(graph: Graph) -> str:
    """Hash of section, inputs, window, groups, activation, output and parameters of every layer."""
    lines = []
    for node in graph:
        options = [getattr(node.spec, name, "") for name in ("groups", "group_id", "activation")]
        facts = (node.index, node.type, node.sources, node.spec.kernel(), options, tuple(node.output), node.parameters)
        lines.append(repr(facts))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
