"""The reader for descriptions of data sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from darknet_py.data.yamlfile import read_yaml
from darknet_py.errors import DataError

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
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_values_are_text_lists_and_mappings(text: str, mark: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(mark + text.encode())
    assert read_yaml(tmp_path / "data.yaml") == CASES[text]


def test_a_block_of_text_is_one_value(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("download: |\n  import x\n  if a:\n    b: c\nnc: 2\n")
    content = read_yaml(tmp_path / "a.yaml")
    assert content["nc"] == "2" and str(content["download"]).startswith("import x")


def test_aliases_and_nested_lists(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("train: &x [a, b]\nval: *x\nmore:\n  - b: 1\n    c: [[2]]\n")
    assert read_yaml(tmp_path / "a.yaml") == {
        "train": ["a", "b"],
        "val": ["a", "b"],
        "more": [{"b": "1", "c": [["2"]]}],
    }


def test_tags_create_no_objects(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: !!python/object/apply:os.system ['exit 3']\nb: !!int 3\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": ["exit 3"], "b": "3"}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("nc: 1\na: *x", 2, "undefined alias"),
        ("a: [1, 2", 1, "flow sequence"),
        ("nc: 1\n\na: [[1}", 3, "flow sequence"),
        ("a: 'b", 1, "end of stream"),
        ("a: 1\n   b: 2", 2, "mapping values"),
        ("a: b: c", 1, "mapping values"),
        ("? [a]\n: 1", 1, "expected a plain key, got a list or a mapping"),
        ("nc: 1\na: \x07", 2, "special characters are not allowed"),
        ("a: 1\n---\nb: 2", 2, "expected a single document"),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(text: str, line: int, problem: str, tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"data\.yaml:{line}: invalid YAML: .*{problem}") as raised:
        read_yaml(tmp_path / "data.yaml")
    assert "\n" not in str(raised.value)


def test_aliases_that_expand_without_end_are_refused(tmp_path: Path) -> None:
    levels = [f"a{k}: &a{k} [{','.join([f'*a{k - 1}' if k else 'x'] * 10)}]" for k in range(11)]
    for text in ("\n".join([*levels, "names: *a10"]), "a: &a [*a, *a]", "a: &a [*a]"):
        (tmp_path / "bomb.yaml").write_text(text)
        with pytest.raises(DataError, match=r"bomb\.yaml: invalid YAML: (aliases expand to more|nested too deeply)"):
            read_yaml(tmp_path / "bomb.yaml")


@pytest.mark.reference
def test_the_published_alias_bomb_is_refused(reference: Path) -> None:
    file = reference / "bugs" / "hostile" / "yaml_alias_names" / "data.yaml"
    with pytest.raises(
        DataError, match=rf"{re.escape(str(file))}: invalid YAML: aliases expand to more than a million"
    ):
        read_yaml(file)


@pytest.mark.parametrize("text", ["[" * 3000, "{a: " * 3000, "a: " + "[" * 3000 + "]" * 3000])
def test_deep_nesting_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text(text)
    with pytest.raises(DataError, match=r"deep\.yaml: invalid YAML: nested too deeply"):
        read_yaml(tmp_path / "deep.yaml")


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml: cannot read the YAML file: No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(DataError, match=r"list\.yaml: expected `key: value` lines, got"):
        read_yaml(tmp_path / "list.yaml")
