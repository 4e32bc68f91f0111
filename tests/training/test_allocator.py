"""Freed memory stays with the process during a training, and goes back to the system after it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import torch
from darknet_py.cli.benchmark import _proc_status
from darknet_py.training.allocator import freed_memory_reused

def megabytes():
    return _proc_status("VmRSS") / 1e6

before = megabytes()
with freed_memory_reused(torch.device("cpu")):
    tensors = [torch.ones(10_000_000) for _ in range(3)]
    del tensors
    print(megabytes() - before)
print(megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_is_reused_and_returned() -> None:
    """In a process of its own, whose heap no other test has filled. Three blocks of 40 MB."""
    output = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    during, after = map(float, output.split())
    assert during > 100
    assert after < 40
