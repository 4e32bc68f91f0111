from __future__ import annotations

from pathlib import Path

import pytest
import torch

from darknet_py.errors import DataError
from darknet_py.layers.class_hierarchy import ClassHierarchy


def test_probabilities_are_conditional_on_the_parent(tmp_path: Path) -> None:
    path = tmp_path / "a.tree"
    path.write_text("thing -1\nanimal 0\nvehicle 0\ncat 1\ndog 1\ncar 2\n")
    tree = ClassHierarchy.read(str(path), 6)
    x = torch.randn(2, 6, 3)
    p = tree.softmax(x, 1)
    assert torch.allclose(p[:, 0], torch.ones(2, 3))
    assert torch.allclose(p[:, 1:3], x[:, 1:3].softmax(1))
    assert torch.allclose(p[:, 3:5], x[:, 3:5].softmax(1))
    absolute = tree.absolute(p.movedim(1, 2))
    assert torch.allclose(absolute[..., 4], p[:, 0] * p[:, 1] * p[:, 4])
    assert torch.allclose(absolute[..., 3:].sum(-1), torch.ones(2, 3))


def test_targets_are_the_label_and_its_ancestors() -> None:
    tree = ClassHierarchy(["thing", "animal", "vehicle", "cat", "dog", "car"], [-1, 0, 0, 1, 1, 2])
    in_groups, targets = tree.targets(torch.tensor([4, 2]))
    assert in_groups.tolist() == [[True, True, True, True, True, False], [True, True, True, False, False, False]]
    assert targets.tolist() == [[True, True, False, False, True, False], [True, False, True, False, False, False]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a -1\nb 3\n", ":2: expected a name and a parent from -1 to 0, got 'b 3'"),
        ("a -1\n", "expected 2 classes, got 1"),
        (None, "cannot read the class tree"),
    ],
)
def test_bad_trees_are_reported(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "bad.tree"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        ClassHierarchy.read(str(path), 2)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
