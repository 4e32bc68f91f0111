"""tools/hostile/soak.py finds what grows and what is left over."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@pytest.fixture(scope="module")
def soak() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "tools")
        yield importlib.import_module("hostile.soak")


def test_growth_is_that_of_the_second_half(soak: ModuleType) -> None:
    seconds = [float(second) for second in range(101)]
    assert soak.growth(seconds, [7.0] * 101) == 0
    assert soak.growth(seconds, [min(second, 50.0) for second in seconds]) == 0  # it grows to its size, and stays there
    assert soak.growth(seconds, [2 * second for second in seconds]) == pytest.approx(100)
    peaks = [300.0 if second % 10 == 0 else 5.0 for second in range(101)]  # evaluations
    assert soak.growth(seconds, peaks) == 0
    assert soak.growth([0.0], [1.0]) == 0


PROGRAM = """
import mmap, os, sys, threading, tempfile
files = [open(os.devnull) for _ in range(40)]
threading.Thread(target=threading.Event().wait, daemon=True).start()
shared = open("/dev/shm/soak-test-" + str(os.getpid()), "w+b")
shared.truncate(3 << 20)
area = mmap.mmap(shared.fileno(), 3 << 20)
if not os.fork():
    os.setpgid(0, 0)
os.write(1, b"x")
sys.stdin.read()
os.unlink(shared.name)
"""


def test_all_processes_of_a_session_are_counted(soak: ModuleType) -> None:
    command = [sys.executable, "-c", PROGRAM]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        assert process.stdin and process.stdout
        assert process.stdout.read(2) == "xx"  # both processes are ready
        names: set[str] = set()
        sample = soak.look(process.pid, names)
        process.stdin.close()
        process.wait()
    assert sample["processes"] == 2
    assert sample["threads"] == 3  # a fork has the thread that calls it alone
    assert 2 * 40 < sample["descriptors"] < 2 * 50
    assert sample["shared memory, MiB"] == 3  # both map the same
    assert 4 < sample["memory, MiB"] < 200
    assert names == {f"/dev/shm/soak-test-{process.pid}"}


def test_failures_and_leftovers_are_problems(soak: ModuleType) -> None:
    program = "import os, sys, time; os.fork() or time.sleep(999); print('last'); sys.exit('broken')"
    result = soak.watch(soak.Part([sys.executable, "-c", program], "work"), 0.05)
    assert result["last line"] == "last"
    assert result["problems"][:2] == ["exit code 1: broken\n", "processes left over: 1"]
    assert soak.processes(-1) == []
