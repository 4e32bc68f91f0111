"""Two trainings do not write the same files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import darknet_py
from darknet_py.errors import TrainError
from darknet_py.training import run_lock
from darknet_py.training.checkpoint_dir import CheckpointDir
from darknet_py.training.run_lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from darknet_py.training.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[bytes]:
    """Another process that has the lock."""
    root = Path(darknet_py.__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, cwd=root)
    assert process.stdout is not None and process.stdout.readline() == b"locked\n"
    return process


def test_a_second_training_is_refused_and_a_killed_ones_lock_taken_over(
    cfg: Path, shapes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with hold(CheckpointDir(out, "tiny").lock) as process:
        with pytest.raises(TrainError, match=rf"process {process.pid} on {socket.gethostname()}\); wait until"):
            darknet_py.train(cfg, shapes, out=out, workers=0, quiet=True, max_batches=1, map=False)
        assert [path.name for path in out.iterdir()] == [".tiny.lock"]
        process.send_signal(signal.SIGKILL)
    darknet_py.train(cfg, shapes, out=out, workers=0, quiet=True, max_batches=1, map=False)
    assert not CheckpointDir(out, "tiny").lock.exists()


def test_in_one_process_too(tmp_path: Path) -> None:
    with RunLock(tmp_path / "lock"), pytest.raises(TrainError, match=f"process {os.getpid()}"):
        RunLock(tmp_path / "lock").__enter__()
    with RunLock(tmp_path / "lock"), RunLock(tmp_path / "other"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_locks_of_the_file_system_the_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)
    path, host = tmp_path / "lock", socket.gethostname()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for owner in (f"{ended.pid} {host}", "", "damaged"):
        path.write_text(owner)
        with RunLock(path):
            assert path.read_text() == f"{os.getpid()} {host}\n"
    path.write_text(f"{os.getppid()} {host}")
    with pytest.raises(TrainError, match=f"process {os.getppid()} on {host}"):
        RunLock(path).__enter__()
