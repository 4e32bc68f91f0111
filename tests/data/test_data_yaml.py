"""The reader for descriptions of data sets, with PyYAML and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from darknet_py.data import yamlfile
from darknet_py.errors import DataError, MissingExtra

CASES: dict[str, Any] = {
    "path: ../sets/coco8  # the root\ntrain: images/train\nval: [images/val, 'a b']\ntest:\n": {
        "path": "../sets/coco8",
        "train": "images/train",
        "val": ["images/val", "a b"],
        "test": "",
    },
    "names:\n  0: person\n  1: traffic light\n  # so\n  2: \"it's # quoted\"\n  3: 'don''t'\nnc: 4": {
        "names": {"0": "person", "1": "traffic light", "2": "it's # quoted", "3": "don't"},
        "nc": "4",
    },
    "names: ['a', b, no,\n   \"\\u00e9\"]\nx: {0: p, 1: 'q: r'}\n": {
        "names": ["a", "b", "no", "é"],
        "x": {"0": "p", "1": "q: r"},
    },
    "---\nnames:\n- Fußgänger\n- 'y'\n- 3\ntrain:\n  - a\n  - b#c\nurl: https://x.y/z\n": {
        "names": ["Fußgänger", "y", "3"],
        "train": ["a", "b#c"],
        "url": "https://x.y/z",
    },
    "roboflow:\n  workspace: a\n  more:\n    url: b\nempty: []\nnone: {}\n": {
        "roboflow": {"workspace": "a", "more": {"url": "b"}},
        "empty": [],
        "none": {},
    },
}


@pytest.mark.parametrize("text", CASES)
def test_simple_yaml(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    monkeypatch.setattr(yamlfile, "yaml", None)
    assert yamlfile.read_yaml(tmp_path / "data.yaml") == CASES[text]


@pytest.mark.parametrize("text", CASES)
def test_pyyaml_reads_the_same(text: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
    assert yamlfile.read_yaml(tmp_path / "data.yaml") == CASES[text]


def test_a_block_of_text_is_skipped_over(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("download: |\n  import x\n  if a:\n    b: c\nnc: 2\n")
    content = yamlfile.read_yaml(tmp_path / "a.yaml")
    assert content["nc"] == "2" and content["download"].startswith("import x")


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1",
        "a: *x",
        "a:\n  - b: 1",
        "a: [1, 2",
        "a: [[1}",
        "a: 'b",
        "a: !tag b",
        "a: 1\n   b: 2",
        "? a",
        "a: b: c",
    ],
)
def test_more_than_simple_yaml_asks_for_pyyaml(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlfile, "yaml", None)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(MissingExtra, match=r"data.yaml: line \d+: this YAML needs the package 'pyyaml'.*\[yaml\]"):
        yamlfile.read_yaml(tmp_path / "data.yaml")


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml: cannot read: No such file"):
        yamlfile.read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(DataError, match=r"list\.yaml: expected `key: value` lines, got"):
        yamlfile.read_yaml(tmp_path / "list.yaml")
