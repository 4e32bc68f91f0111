"""A user's script with every public name, under `mypy --strict`: no errors, and nothing is of type Any."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import darknet_py

SCRIPT = Path(__file__).with_name("user_script.py")
# NumPy writes an array of any shape like this.
_ANY_SHAPE = "tuple[Any, ...]"


def test_the_script_has_every_public_name() -> None:
    text = SCRIPT.read_text()
    assert [name for name in darknet_py.__all__ if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.slow
def test_types_are_known(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
    run = subprocess.run(
        [*command, f"--cache-dir={tmp_path}", str(SCRIPT)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": str(Path(darknet_py.__file__).parents[1])},
    )
    lines = run.stdout.splitlines()
    assert "Found" not in run.stdout and "Success" in lines[-1], run.stdout + run.stderr
    revealed = [line for line in lines if "Revealed type" in line]
    assert len(revealed) == SCRIPT.read_text().count("  reveal_type(")
    assert [line for line in revealed if re.search(r"\bAny\b", line.replace(_ANY_SHAPE, ""))] == []
