"""How OpenMP's threads wait: set before torch is imported, unless the environment says how."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from darknet_py.openmp import share_cores

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
LIBRARY = Path(sys.prefix, "lib", "libiomp5.so")


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}),
        ({"KMP_BLOCKTIME": "7"}, {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "7"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_environment_has_precedence(
    before: dict[str, str], after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    share_cores()
    assert {name: os.environ[name] for name in VARIABLES if name in os.environ} == after


def info(tmp_path: Path, variables: dict[str, str]) -> str:
    """What the command prints on standard error."""
    (tmp_path / "x.cfg").write_text("[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\n")
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-m", "darknet_py", "bench", str(tmp_path / "x.cfg"), "--seconds", "0.1"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment | variables).stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torch has libgomp on Linux only")
def test_libgomp_sees_the_spin_count(tmp_path: Path) -> None:
    assert "GOMP_SPINCOUNT = '10000'" in info(tmp_path, {"OMP_DISPLAY_ENV": "VERBOSE"})


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARY.is_file(), reason="the extra openmp is not installed")
def test_torch_uses_the_runtime_of_the_extra(tmp_path: Path) -> None:
    assert "Intel(R) OMP version" in info(tmp_path, {"KMP_VERSION": "1"})


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARY.is_file(), reason="the extra openmp is not installed")
def test_an_environment_that_says_how_keeps_libgomp(tmp_path: Path) -> None:
    assert "Intel(R) OMP" not in info(tmp_path, {"KMP_VERSION": "1", "GOMP_SPINCOUNT": "10000"})


@pytest.mark.usefixtures("_environment")
@pytest.mark.skipif(sys.platform != "linux", reason="libraries are replaced on Linux only")
def test_a_damaged_runtime_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libiomp5.so").write_bytes(b"no library")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch")
    share_cores()


def test_it_needs_little() -> None:
    """`--help` imports it."""
    command = [sys.executable, "-c", "import darknet_py.openmp, sys; print('torch' in sys.modules)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
