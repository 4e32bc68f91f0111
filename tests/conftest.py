"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

# One thread for each process, the programs that tests start included: results do not depend on the number of cores, and
# the processes of pytest-xdist do not disturb each other. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = Path(os.environ.get("DARKNET_REFERENCE", ROOT.parent / "shared" / "reference"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_reference = pytest.mark.skip(reason=f"no reference values at {REFERENCE}")
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "reference" in item.keywords and not REFERENCE.is_dir():
            item.add_marker(no_reference)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)


def tool(path: str) -> ModuleType:
    """A program of tools/ as a module, such as `zoo/tables`."""
    folder, _, name = path.rpartition("/")
    sys.path.insert(0, str(ROOT / "tools" / folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with C Darknet's reference values."""
    return REFERENCE


@pytest.fixture(scope="session")
def probe() -> ModuleType:
    """The generator of deterministic weights and inputs of the reference values."""
    spec = importlib.util.spec_from_file_location("probe", REFERENCE / "probe.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
