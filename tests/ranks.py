"""Several processes of one command, as torchrun starts them; without its agent, which takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from darknet_py.cli import main

STARTER = multiprocessing.get_context("forkserver")
STARTER.set_forkserver_preload(["darknet_py.training.trainer"])


def start_ranks(
    commands: Sequence[list[str]],
    said: Path,
    first: Callable[[], None] | None = None,
    command: Callable[[list[str]], int] = main,
) -> list[Any]:
    """A process for each command line, which is given to `command`; `first` is called before.

    said: what all of them print.
    """
    port = free_port()
    ranks = range(len(commands))
    team = [
        STARTER.Process(target=_run, args=(rank, len(ranks), port, commands[rank], said, first, command))
        for rank in ranks
    ]
    for process in team:
        process.start()
    return team


def finish_ranks(team: Sequence[Any]) -> list[int | None]:
    """Waits for the processes, and ends those that do not; their exit codes."""
    codes = []
    for process in team:
        process.join(60)
        codes.append(process.exitcode)
        process.kill()
    return codes


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _run(
    rank: int,
    size: int,
    port: int,
    argv: list[str],
    said: Path,
    first: Callable[[], None] | None,
    command: Callable[[list[str]], int],
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    if first:
        first()
    with said.open("a", 1) as file, redirect_stdout(file), redirect_stderr(file):
        status = command(argv)
    sys.exit(status)
