"""Ctrl-C, SIGTERM and SIGHUP during training."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import darknet_py
from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
from darknet_py.training import shutdown, train_log
from darknet_py.training.distributed import LossModule
from darknet_py.training.shutdown import GracefulShutdown, StopRequested
from darknet_py.training.tasks.detection_task import DetectionTask
from darknet_py.training.train_step import TrainStep
from darknet_py.training.trainer import TrainResult
from tests.training.conftest import CFG


@pytest.fixture(autouse=True)
def _hangups() -> Iterator[None]:
    """Under nohup SIGHUP is ignored, and stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


OPTIONS: dict[str, Any] = {"workers": 0, "device": "cpu", "quiet": True, "map": 6, "save_every": 5}

# Runs the command; mini-batch 1 of iteration 3 never ends, in C. A mutex that its own thread locks twice waits forever,
# as one long operation of torch would: without the GIL, and without returning for a signal.
STUCK = """
import ctypes, sys
from darknet_py.cli import main
from darknet_py.training.distributed import LossModule
forward, calls = LossModule.forward, []
def slow(self, x, truth):
    calls.append(1)
    if len(calls) == 6:
        open(sys.argv[1] + "/.tiny_last.weights.%d.tmp" % __import__("os").getpid(), "w").close()
        print("stuck", flush=True)
        mutex = ctypes.create_string_buffer(64)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
    return forward(self, x, truth)
LossModule.forward = slow
main(sys.argv[2:])
"""


def later(stop: GracefulShutdown) -> None:
    """As if the first signal had been a while ago."""
    stop._first -= 1


def test_the_first_signal_asks_and_a_later_one_interrupts(log: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGINT)
    with GracefulShutdown() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # at once: `timeout` sends it to the process and to its group
        assert stop.requested
        while not log.messages:
            time.sleep(0.001)
        assert log.messages == ["stopping and saving; press Ctrl-C again to quit immediately"]
        later(stop)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(log.messages) == 1


def test_parts_that_can_be_left_anywhere() -> None:
    with GracefulShutdown() as stop:
        with pytest.raises(StopRequested), stop.interruptible():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested), stop.interruptible():
            pytest.fail("it is entered although a stop was requested")
    with GracefulShutdown(raises=False) as stop, stop.interruptible():
        signal.raise_signal(signal.SIGHUP)
        assert stop.requested


def test_nohup_is_respected() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> TrainResult:
    """A training that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.cfg").write_text(CFG)
    return darknet_py.train(folder / "tiny.cfg", shapes, out=folder, **OPTIONS)


@pytest.mark.parametrize(
    ("number", "forward_pass", "iteration"),
    [(signal.SIGINT, 10, 5), (signal.SIGTERM, 9, 4), (signal.SIGHUP, 2, 1), (signal.SIGINT, 1, 0)],
)
def test_it_stops_between_mini_batches_and_goes_on_with_the_same_bits(
    number: signal.Signals,
    forward_pass: int,
    iteration: int,
    whole: TrainResult,
    cfg: Path,
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two mini-batches make an iteration; one that is the last of its iteration lets that end."""
    forward, passes = LossModule.forward, 0

    def signaled(self: LossModule, x: Tensor, truth: Tensor) -> Any:
        nonlocal passes
        passes += 1
        if passes == forward_pass:
            signal.raise_signal(number)
        return forward(self, x, truth)

    monkeypatch.setattr(LossModule, "forward", signaled)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        darknet_py.train(cfg, shapes, out=out, **OPTIONS)
    assert passes == forward_pass
    assert torch.load(out / "tiny_last.state", weights_only=True)["learner"]["iteration"] == iteration
    assert not any(path.name.startswith(".") for path in out.iterdir())
    resumed = darknet_py.train(cfg, shapes, out=out, resume=True, **OPTIONS)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert (out / "tiny_best.weights").read_bytes() == (whole.weights.parent / "tiny_best.weights").read_bytes()


def test_an_evaluation_is_left_and_made_up_for(
    whole: TrainResult, cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = DetectionTask.evaluate

    def signaled(self: DetectionTask, *args: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return evaluate(self, *args)

    monkeypatch.setattr(DetectionTask, "evaluate", signaled)
    with pytest.raises(KeyboardInterrupt):
        darknet_py.train(cfg, shapes, out=tmp_path, **OPTIONS)
    monkeypatch.undo()
    assert torch.load(tmp_path / "tiny_last.state", weights_only=True)["learner"]["iteration"] == 6
    assert not (tmp_path / "tiny_map.json").exists()
    resumed = darknet_py.train(cfg, shapes, out=tmp_path, resume=True, **OPTIONS)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    rows = [json.loads((folder / "tiny_map.json").read_text()) for folder in (tmp_path, whole.weights.parent)]
    assert rows[0] == rows[1]


def test_a_second_signal_ends_the_command_while_torch_computes(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    command = ["train", str(cfg), "--data", str(shapes), "--out", str(tmp_path), "--workers", "1", "--map", "off"]
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path), *command, "--save-every", "1", "--device", "cpu", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(darknet_py.__file__).parents[1],
    )
    assert process.stdout is not None and process.stdout.readline() == b"stuck\n"
    os.kill(process.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2 * shutdown._SAME_REQUEST)
    os.kill(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"press Ctrl-C again" in printed and printed.endswith(b"the last saved state is kept\n")
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())  # no lock, no temporary file
    assert torch.load(tmp_path / "tiny_last.state", weights_only=True)["learner"]["iteration"] == 2


def test_a_long_iteration_tells_its_progress(
    cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, clock = LossModule.forward, 0.0

    def slow(self: LossModule, x: Tensor, truth: Tensor) -> Any:
        nonlocal clock
        clock += 8.0  # seconds
        return forward(self, x, truth)

    monkeypatch.setattr(LossModule, "forward", slow)
    monkeypatch.setattr(train_log.time, "perf_counter", lambda: clock)
    options = {**OPTIONS, "quiet": False, "map": False}
    darknet_py.train(cfg, shapes, out=tmp_path, batch=4, subdivisions=4, max_batches=1, **options)
    assert [line for line in log.messages if "mini-batch" in line] == [
        "a mini-batch takes about 8 s; timing one",
        "iteration 1: mini-batch 2 of 4 after 16 s, about 16 s to go",  # at most one line in ten seconds
    ]


NETWORKS = {
    "filter of bad labels": """
[net]
batch=4\nsubdivisions=2\nwidth=32\nheight=32\nmax_batches=2\nbadlabels_rejection_percentage=.1
[convolutional]\nbatch_normalize=1\nfilters=18\nsize=3\nstride=8\npad=1
[yolo]\nmask=0,1,2\nanchors=8,8, 16,16, 32,32\nclasses=1\nnum=3
""",
    "deformed kernels": """
[net]
batch=4\nsubdivisions=2\nwidth=32\nheight=32\nmax_batches=100
[convolutional]\nbatch_normalize=1\nfilters=32\nsize=3\nstride=8\npad=1\nstretch_sway=1
[convolutional]\nfilters=18\nsize=1
[yolo]\nmask=0,1,2\nanchors=8,8, 16,16, 32,32\nclasses=1\nnum=3
""",
    "memory": """
[net]
batch=4\nsubdivisions=2\ninputs=8\ntime_steps=2\nmax_batches=100
[gru]\nbatch_normalize=1\noutput=8
[softmax]
""",
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_iteration_that_ends_early_leaves_nothing(kind: str) -> None:
    torch.manual_seed(0)
    network = Network(parse_text(NETWORKS[kind]))
    step = TrainStep(network)
    if kind == "memory":
        batch = [(torch.rand(4, 8), torch.eye(8)[:4]) for _ in range(2)]
    else:
        batch = [(torch.rand(2, 3, 32, 32), torch.tensor([[0.0, 0, 0.5, 0.5, 0.4, 0.4]])) for _ in range(2)]

    def broken() -> Any:
        yield batch[1]
        raise StopRequested

    step.step(batch)
    step.step(batch)
    before = {name: tensor.clone() for name, tensor in flat(step.state_dict()).items()}
    with pytest.raises(StopRequested):
        step.step(broken())
    after = flat(step.state_dict())
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in network.parameters())

    other = TrainStep(Network(parse_text(NETWORKS[kind])))
    other.load_state_dict(copy.deepcopy(step.state_dict()))
    for each_step in (step, other):
        each_step.step(batch)
    first, second = flat(step.state_dict()), flat(other.state_dict())
    assert all(torch.equal(first[name], second[name]) for name in first)


def flat(value: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors of nested dicts and lists, by their paths."""
    if isinstance(value, Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {path: tensor for key, part in items for path, tensor in flat(part, f"{name}.{key}").items()}
