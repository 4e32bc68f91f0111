"""Several processes on this machine train what one process trains; what becomes of them when one is killed."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from tests.training.conftest import CFG

NORMED = CFG.replace("[dropout]\nprobability=.3\n", "").replace("random=1", "random=0")
PLAIN = NORMED.replace("batch_normalize=1\n", "")
AVERAGED = PLAIN.replace("decay=", "ema_alpha=.7\ndecay=")
STARTER = multiprocessing.get_context("forkserver")
STARTER.set_forkserver_preload(["darknet_py.training.trainer"])


def arguments(cfg: Path, data: Path, out: Path, *options: str) -> list[str]:
    own = ["train", str(cfg), "--data", str(data), "--out", str(out)]
    return [*own, "--workers", "0", "--device", "cpu", "--no-chart", *options]


def together(cfg: Path, data: Path, out: Path, *options: str) -> str:
    """Trains with two processes, as torchrun starts them, and returns what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = out.parent / f"{out.name}.txt"
    argv = arguments(cfg, data, out, *options)
    team = [STARTER.Process(target=member, args=(rank, port, argv, said)) for rank in range(2)]
    for process in team:
        process.start()
    for process in team:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in team] == [0, 0], said.read_text()
    return said.read_text()


def member(rank: int, port: int, argv: list[str], said: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    with said.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        status = main(argv)
    sys.exit(status)


def alone(cfg: Path, data: Path, out: Path, **options: Any) -> None:
    darknet_py.train(cfg, data, out=out, quiet=True, device="cpu", workers=0, chart=False, **options)


def weights(folder: Path, what: str = "final") -> np.ndarray:
    return np.fromfile(folder / f"tiny_{what}.weights", "<f4", offset=20)


def column(folder: Path, number: int) -> list[float]:
    return [float(row.split(",")[number]) for row in (folder / "tiny_log.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("text", "subdivisions"), [(PLAIN, 1), (AVERAGED, 4)], ids=["one mini-batch", "subdivisions and averages"]
)
def test_two_processes_are_one_with_twice_the_mini_batch(
    text: str, subdivisions: int, shapes: Path, tmp_path: Path
) -> None:
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(text.replace("subdivisions=2", f"subdivisions={subdivisions}"))
    alone(cfg, shapes, tmp_path / "one", max_batches=8, save_every=5, map=4)
    said = together(cfg, shapes, tmp_path / "two", "--max-batches", "8", "--save-every", "5", "--map", "4")
    assert said.count("8: mAP@0.50") == said.count("tiny_final.weights") == 1  # one process talks
    for what in ("final", "last", *(["ema"] if text == AVERAGED else [])):
        one, two = (weights(tmp_path / way, what) for way in ("one", "two"))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    assert column(tmp_path / "one", 1) == pytest.approx(column(tmp_path / "two", 1), rel=1e-5)


def test_synchronised_batch_norm(shapes: Path, tmp_path: Path) -> None:
    """Two processes with 2 images each normalise as one does with 4; without --sync-bn they do not."""
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(NORMED.replace("subdivisions=2", "subdivisions=1"))
    alone(cfg, shapes, tmp_path / "one", max_batches=6, map=False)
    options = ("--max-batches", "6", "--map", "off")
    together(cfg, shapes, tmp_path / "two", *options, "--sync-bn")
    together(cfg, shapes, tmp_path / "apart", *options)
    one, two, apart = (weights(tmp_path / way) for way in ("one", "two", "apart"))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
    assert abs(one - apart).max() > 1e-3
