"""Class hierarchies: `tree=` of [region] and [softmax] (Darknet's `tree.c`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darknet_py.cfg.options import atoi
from darknet_py.counted import counted
from darknet_py.errors import DataError
from darknet_py.untrusted import read_text

_MAX_PATHS = 1 << 24  # values in `ClassHierarchy.path`; the tree of YOLO9000 has 9,418 classes in 17 levels


class ClassHierarchy(nn.Module):
    """Classes in groups of siblings; a probability is conditional on the parent.

    A file has one line "name parent" per class, parent −1 (or nothing) at the top. Parents come before their children,
    and siblings are adjacent. group, parent: (classes,). path: (classes, depth) the class, its parent and so on,
    padded with −1.
    """

    def __init__(self, names: list[str], parents: list[int]):
        super().__init__()
        self.names = names
        self.group: Tensor
        self.parent: Tensor
        self.path: Tensor
        parent = torch.tensor(parents)
        self.register_buffer("parent", parent, persistent=False)
        group = torch.cat((torch.zeros(1, dtype=torch.long), (parent[1:] != parent[:-1]).cumsum(0)))
        self.register_buffer("group", group, persistent=False)
        steps = [torch.arange(len(parents))]
        while (steps[-1] >= 0).any():
            steps.append(torch.where(steps[-1] >= 0, parent[steps[-1].clamp(min=0)], -1))
        self.register_buffer("path", torch.stack(steps[:-1], 1), persistent=False)
        self.groups = int(group[-1]) + 1

    @classmethod
    def read(cls, path: str, classes: int) -> ClassHierarchy:
        """Raises DataError naming file and line."""
        text = read_text(path, "class tree")
        names: list[str] = []
        parents: list[int] = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words:
                continue
            parent = atoi(words[1]) if len(words) > 1 else -1
            if parent is None or not -1 <= parent < len(names):
                expected = f"a name and a parent from -1 to {len(names) - 1}"
                raise DataError(f"{path}:{number}: expected {expected}, got {line!r}")
            names.append(words[0])
            parents.append(parent)
        if len(names) != classes:
            raise DataError(f"{path}: expected {counted(classes, 'class')}, got {len(names)}")
        levels: list[int] = []
        for parent in parents:
            levels.append(levels[parent] + 1 if parent >= 0 else 1)
        if max(levels, default=1) * classes > _MAX_PATHS:
            most = _MAX_PATHS // classes
            raise DataError(f"{path}: expected at most {most} levels of {counted(classes, 'class')}, got {max(levels)}")
        return cls(names, parents)

    def softmax(self, x: Tensor, dim: int, temperature: float = 1.0) -> Tensor:
        """Softmax within each group along `dim` (`softmax_tree`)."""
        x = x.movedim(dim, 0) / temperature
        index = self.group.reshape(-1, *[1] * (x.dim() - 1)).expand_as(x)
        shape = (self.groups, *x.shape[1:])
        largest = x.new_full(shape, float("-inf")).scatter_reduce(0, index, x, "amax")
        e = (x - largest[self.group]).exp()
        return (e / e.new_zeros(shape).index_add(0, self.group, e)[self.group]).movedim(0, dim)

    def absolute(self, probabilities: Tensor) -> Tensor:
        """(…, classes) conditional → absolute probabilities (`hierarchy_predictions`)."""
        result = torch.ones_like(probabilities)
        for step in self.path.unbind(1):
            result = result * torch.where(step >= 0, probabilities[..., step.clamp(min=0)], 1.0)
        return result

    def targets(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(M,) labels → (M, classes) whether a class is in the group of the label or of one of its ancestors, and
        whether it is the label or an ancestor itself."""
        steps = self.path[labels]
        real = steps >= 0
        on_path = torch.zeros(len(labels), len(self.parent) + 1, dtype=torch.bool, device=labels.device)
        on_path.scatter_(1, torch.where(real, steps, len(self.parent)), True)
        groups = torch.zeros(len(labels), self.groups + 1, dtype=torch.bool, device=labels.device)
        groups.scatter_(1, torch.where(real, self.group[steps.clamp(min=0)], self.groups), True)
        return groups[:, self.group], on_path[:, :-1]
