"""Processes that meet through a store, and what becomes of the others when one is stopped or lost."""

from __future__ import annotations

import inspect
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import darknet_py
from darknet_py.cli.common import rank_timeout_argument
from darknet_py.cli.detect_results import DetectResults
from darknet_py.cli.usage import Parser
from darknet_py.errors import TrainError
from darknet_py.evaluation import detector
from darknet_py.training.peers import TIMEOUT, PeerWatch, watch_peers
from darknet_py.training.train_options import TrainOptions
from tests.evaluation import make
from tests.ranks import finish_ranks, free_port, start_ranks
from tests.training.test_distributed import PLAIN, start, weights

HOST = os.uname().nodename


@contextmanager
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    yield


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


@pytest.mark.parametrize("stopped", [1, 0], ids=["another one", "the one with the store"])
def test_a_stopped_rank_is_named_and_ends_the_training(stopped: int, shapes: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(PLAIN)
    options = ("--max-batches", "100000", "--save-every", "2", "--map", "off", "--rank-timeout", "2")
    said, team = start(cfg, shapes, tmp_path / "out", *options)
    wait_for(tmp_path / "out" / "tiny_last.state")
    os.kill(team[stopped].pid, signal.SIGSTOP)
    team[1 - stopped].join(60)
    assert team[1 - stopped].exitcode == 1, said.read_text()
    who = f"rank {stopped} (process {team[stopped].pid} on {HOST})"
    who += "" if stopped else ", which has the store at 127.0.0.1:"
    line = next(line for line in said.read_text().splitlines() if "not answered" in line)
    assert line.startswith(f"error: rank {1 - stopped}: {who}") and "for 2 s; --resume continues" in line
    assert "Traceback" not in said.read_text()
    os.kill(team[stopped].pid, signal.SIGCONT)
    assert finish_ranks(team) == [1, 1]


def slow_iterations() -> None:
    """Rank 1 computes for longer than the timeout, outside of Python."""
    from darknet_py.training.train_step import TrainStep

    step = TrainStep.step

    def slow(self: TrainStep, mini_batches: Any) -> Any:
        if self.context.rank and self.iteration == 1:
            time.sleep(3)
        return step(self, mini_batches)

    TrainStep.step = slow  # type: ignore[method-assign]


def test_a_long_iteration_is_none_of_its_business(shapes: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(PLAIN)
    options = ("--max-batches", "4", "--map", "off", "--rank-timeout", "1")
    said, team = start(cfg, shapes, tmp_path / "slow", *options, first=slow_iterations)
    assert finish_ranks(team) == [0, 0], said.read_text()
    said, team = start(cfg, shapes, tmp_path / "fast", *options)
    assert finish_ranks(team) == [0, 0], said.read_text()
    assert (weights(tmp_path / "slow") == weights(tmp_path / "fast")).all()


def stop_second() -> None:
    """Stops rank 1 when it has found something."""

    def stopping(function: Any) -> Any:
        def stops(*arguments: Any) -> Any:
            if os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGSTOP)
            return function(*arguments)

        return stops

    DetectResults.record = stopping(DetectResults.record)  # type: ignore[method-assign]
    detector.all_gather = stopping(detector.all_gather)


@pytest.mark.parametrize("command", ["detect", "evaluate"])
def test_a_stopped_rank_ends_detection_and_evaluation(command: str, tmp_path: Path) -> None:
    cfg, weights = make.small_network(tmp_path, 0, "default")
    images = make.labeled(tmp_path)
    (tmp_path / "valid.txt").write_text("\n".join(images))
    (tmp_path / "s.data").write_text(f"classes=4\nvalid={tmp_path}/valid.txt\n")
    argv = [command, str(cfg), "--weights", str(weights), "--device", "cpu", "--rank-timeout", "2"]
    if command == "detect":
        argv += [*images, "--no-images", "--json", str(tmp_path / "found.json"), "--resume"]
    else:
        argv += ["--data", str(tmp_path / "s.data"), "--workers", "0"]
    team = start_ranks([argv, argv], tmp_path / "said.txt", stop_second)
    team[0].join(60)
    said = (tmp_path / "said.txt").read_text()
    team[1].kill()
    assert finish_ranks(team) == [1, -signal.SIGKILL], said
    advice = "--resume continues from the records" if command == "detect" else "start it again"
    assert f"error: rank 0: rank 1 (process {team[1].pid} on {HOST}) has not answered for 2 s; {advice}\n" in said
    if command == "detect":
        whole = start_ranks([argv, argv], tmp_path / "again.txt")
        assert finish_ranks(whole) == [0, 0], (tmp_path / "again.txt").read_text()
        assert [frame["filename"] for frame in json.loads((tmp_path / "found.json").read_text())] == images


def meet(rank: int, size: int, work: Any, timeout: float = 5) -> None:
    with watch_peers(rank, size, timeout, "advice") as watch:
        assert watch is not None
        work(watch)


def test_a_process_leaves_when_all_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """In threads, each with a watch of its own."""
    with address(monkeypatch):
        left: list[tuple[int, float]] = []

        def process(rank: int) -> None:
            with PeerWatch(rank, 3, 5, "advice"):
                time.sleep(0.3 * rank)
                done = time.monotonic()
            left.append((rank, time.monotonic() - done))

        begin = time.monotonic()
        threads = [threading.Thread(target=process, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(rank for rank, _ in left) == [0, 1, 2]
        assert dict(left)[0] > 0.5 and time.monotonic() - begin < 15


def test_ranks_that_do_not_start_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darknet_py.training.peers._JOINING", 0.5)
    with address(monkeypatch), pytest.raises(TrainError) as error:
        meet(0, 3, lambda watch: None, timeout=0.5)
    assert str(error.value) == "rank 0: rank 1, 2: not started within 0.5 s; advice"
    with (
        address(monkeypatch),
        pytest.raises(TrainError, match=r"rank 0, which has the store at 127\.0\.0\.1:\d+, does not answer"),
    ):
        meet(1, 3, lambda watch: None, timeout=0.5)


def test_what_ended_processes_wrote_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of torchrun's agent outlives them. Here rank 0 holds it, and enters twice."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    with address(monkeypatch):
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(host, port, is_master=True, wait_for_workers=False)
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
        tokens: list[str] = []

        def process(rank: int) -> None:
            with PeerWatch(rank, 2, 5, "advice") as watch:
                tokens.append(watch._token)

        for _ in range(2):
            threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert len(tokens) == 4 and len(set(tokens)) == 2
        del store


def train_twice(words: list[str]) -> int:
    data, out = map(Path, words)
    for name in ("first", "second"):
        darknet_py.train(
            out / "tiny.cfg", data, out=out / name, max_batches=2, map=False, chart=False, workers=0, device="cpu"
        )
    return 0


def test_a_program_may_train_twice(shapes: Path, tmp_path: Path) -> None:
    """Both trainings meet at the address of rank 0, one after the other."""
    (tmp_path / "tiny.cfg").write_text(PLAIN)
    said = tmp_path / "said.txt"
    team = start_ranks([[str(shapes), str(tmp_path)]] * 2, said, command=train_twice)
    assert finish_ranks(team) == [0, 0], said.read_text()
    np.testing.assert_array_equal(weights(tmp_path / "first"), weights(tmp_path / "second"))


def test_the_default_is_the_same_everywhere() -> None:
    parser = Parser()
    rank_timeout_argument(parser)
    given = parser.parse_args([]).rank_timeout
    default = inspect.signature(darknet_py.train).parameters["rank_timeout"].default
    assert given == default == TrainOptions().rank_timeout == TIMEOUT
    with pytest.raises(TrainError, match="rank_timeout: expected more than 0 seconds, got 0"):
        TrainOptions(rank_timeout=0)


def test_one_process_needs_no_store() -> None:
    with watch_peers(0, 1, 5, "advice") as watch:
        assert watch is None
