"""`1 image`, never `1 images`: messages count by `counted`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import darknet_py
from darknet_py.counted import counted

PACKAGE = Path(darknet_py.__file__).parent
PLURALS = (
    "anchors arrays boxes bytes channels classes duplicates epochs errors files frames images iterations labels layers"
)
PLURALS += " lines names objects pixels problems processes rows seconds values warnings"
COUNT = re.compile(rf" (?:(?:class|consecutive|input|other|such) )?({'|'.join(PLURALS.split())})\b(?!/s)")
# What C prints; and `3 x 4 pixels`, and the zoo's comments on networks that have more than one of everything.
ELSEWHERE = {"darknet_output.py", "darknet_training.py", "train_log.py"}
SIZES = (" x ", "of the ", "of all ")


def test_counted() -> None:
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(1, "class") == "1 class" and counted(2, "class") == "2 classes" and counted(3, "box") == "3 boxes"
    assert counted(2, "batch") == "2 batches" and counted(100, "epoch") == "100 epochs"
    assert counted(12345, "such file", ",") == "12,345 such files" and counted(1.5, "pixel", ".1f") == "1.5 pixels"


def counts_without_singular(source: str) -> list[str]:
    """Numbers of f-strings that a plural follows, but for `none of the {n} images`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for before, value, after in zip([None, *parts], parts, parts[1:], strict=False):
            text = before.value if isinstance(before, ast.Constant) else ""
            match = COUNT.match(after.value) if isinstance(after, ast.Constant) else None
            if (
                isinstance(value, ast.FormattedValue)
                and "short_number" not in ast.unparse(value.value)
                and match
                and not str(text).endswith(SIZES)
            ):
                found.append(f"{value.lineno}: {{{ast.unparse(value.value)}}}{match.group()}")
    return found


def test_messages_have_a_singular() -> None:
    """Write `counted(number, "image")`."""
    assert counts_without_singular('f"{n} images, {k:,} such files"') == ["1: {n} images", "1: {k} such files"]
    assert counts_without_singular('f"none of the {n} images; {k:.1f} images/s; {n} imagesets"') == []
    found = {
        str(path.relative_to(PACKAGE)): counts
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name not in ELSEWHERE
        and path.parent.name != "zoo"
        and (counts := counts_without_singular(path.read_text()))
    }
    assert found == {}
