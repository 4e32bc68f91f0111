"""How OpenMP's threads wait: set before torch is imported, unless the environment says how."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from darknet_py.__main__ import set_spin_count

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_environment_has_precedence(
    before: dict[str, str], after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    set_spin_count()
    assert {name: os.environ[name] for name in VARIABLES if name in os.environ} == after


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torch has libgomp on Linux only")
def test_torch_sees_it(tmp_path: Path) -> None:
    (tmp_path / "x.cfg").write_text("[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\n")
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    output = subprocess.run(
        [sys.executable, "-m", "darknet_py", "info", str(tmp_path / "x.cfg")],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
    ).stderr
    assert "GOMP_SPINCOUNT = '10000'" in output
