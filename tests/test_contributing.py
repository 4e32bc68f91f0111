"""CONTRIBUTING.md's worked example works as written."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from darknet_py import layers

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_a_new_layer_in_15_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, line, test = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    # A real module, as dataclasses look up their module's namespace.
    module = types.ModuleType("darknet_py.layers.channel_shuffle")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(layer, "channel_shuffle.py", "exec"), module.__dict__)
    table = eval("{" + line + "}", dict(module.__dict__))
    monkeypatch.setitem(layers.LAYERS, "channel_shuffle", table["channel_shuffle"])
    exec(compile(test, "test_channel_shuffle.py", "exec"), {})


def test_the_rooms_it_names_are_there() -> None:
    root = Path(__file__).parents[1]
    rooms = re.findall(r"^\| `(darknet_py/[^`]+)`", TEXT, re.MULTILINE)
    assert len(rooms) > 8
    assert [room for room in rooms if not (root / room).exists()] == []
