"""constraints.txt and requirements.lock say the same, and all that `make` installs is in them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pins(file: str) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in lines}


def test_locked_versions_are_those_of_the_constraints() -> None:
    constraints, lock = pins("constraints.txt"), pins("requirements.lock")
    assert set(lock) == set(constraints) - {"torch", "opencv-python-headless"}
    assert lock == {name: constraints[name] for name in lock}


def test_each_locked_file_has_a_hash() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    assert all(re.fullmatch(r"[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_required_packages_are_pinned() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tables = "".join(re.findall(r"^(?:dependencies|docs|dev) = \[.*?\]$", text, re.MULTILINE | re.DOTALL))
    names = {name.lower() for name in re.findall(r'"([\w.-]+)>=', tables)}
    assert len(names) > 30
    assert names <= set(pins("constraints.txt"))


@pytest.mark.parametrize(
    ("requires", "line"),
    [
        ("", "a-b==1.0"),
        (">=3.9", "a-b==1.0"),
        ("!=3.14.1,>=3.11", 'a-b==1.0; python_full_version >= "3.11"'),
        (">= 3.11.5", 'a-b==1.0; python_full_version >= "3.11.5"'),
    ],
)
def test_a_pin_leaves_older_pythons_alone(requires: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    lock = importlib.import_module("lock")
    assert lock.pin(lock.Release("a-b", "1.0", "", requires)) == line
    assert lock.pinned_names(f"# x==1\n{line}\nA_c==2\n") == {"a-b", "a-c"}
