"""The steps of a fused network: its layers without those that change nothing, and with pooling before joining."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from darknet_py.graph.graph import with_last_uses
from darknet_py.layers.base import Node


class Step(NamedTuple):
    """A module to run.

    Attributes:
        node: The layer whose output it gives; `sources` are the layers that the module reads here.
        module: What is run.
    """

    node: Node
    module: nn.Module


def inference_steps(nodes: Sequence[Node], modules: Sequence[nn.Module]) -> list[Step]:
    """The steps that give the same output and the same detections as all layers one by one, in evaluation mode."""
    steps = _pooled_first(_without_idle([Step(*pair) for pair in zip(nodes, modules, strict=True)]))
    used = with_last_uses([step.node for step in steps])
    return [Step(node, step.module) for node, step in zip(used, steps, strict=True)]


def _without_idle(steps: Sequence[Step]) -> list[Step]:
    """Layers that pass their input on are left out; others read what these would read."""
    same: dict[int, int] = {}
    result: list[Step] = []
    for step in steps:
        node = replace(step.node, sources=tuple(same.get(source, source) for source in step.node.sources))
        if node.spec.is_idle and step is not steps[-1]:
            same[node.index] = node.sources[0]
        else:
            result.append(step._replace(node=node))
    return result


def _pooled_first(steps: Sequence[Step]) -> list[Step]:
    """What is joined and then pooled is pooled first, as pooling makes it smaller."""
    readers = Counter(source for step in steps for source in set(step.node.sources))
    joins = {step.node.index: step for step in steps if step.node.spec.joins_channels and readers[step.node.index] == 1}
    result: dict[int, Step] = {}
    for step in steps:
        node, (first, *others) = step.node, step.node.sources
        if first in joins and not others and node.spec.is_channelwise and node.output.size < node.inputs[0].size:
            join = result.pop(first)
            node = replace(node, sources=join.node.sources, inputs=join.node.inputs)
            step = Step(node, _PooledFirst(step.module, join.module))
        result[node.index] = step
    return list(result.values())


class _PooledFirst(nn.Module):
    """The pooled inputs, joined."""

    def __init__(self, pool: nn.Module, join: nn.Module):
        super().__init__()
        self.pool, self.join = pool, join

    def forward(self, *inputs: Tensor) -> Tensor:
        output: Tensor = self.join(*(self.pool(x) for x in inputs))
        return output
