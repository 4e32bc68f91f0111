"""Fingerprints of the layers of published networks; the files are not part of the project."""

from __future__ import annotations

import hashlib

from darknet_py.graph.graph import Graph

# The sections whose fingerprint contains the option; it is "" for others.
GROUPS = {"convolutional", "route", "softmax"}
GROUP_ID = {"route"}
ACTIVATION = {"connected", "convolutional", "sam", "scale_channels", "shortcut"}


def fingerprint(graph: Graph) -> str:
    """Hash of section, inputs, window, groups, activation, output and parameters of every layer."""
    lines = []
    for node in graph:
        spec = node.spec
        options = [
            spec.groups if node.type in GROUPS else "",
            spec.group_id if node.type in GROUP_ID else "",
            spec.activation if node.type in ACTIVATION else "",
        ]
        facts = (node.index, node.type, node.sources, spec.kernel(), options, tuple(node.output), node.parameters)
        lines.append(repr(facts))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
