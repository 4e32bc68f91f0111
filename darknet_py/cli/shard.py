"""A share of a list: several processes divide it, and the last one joins what all of them wrote."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple, TypeVar

from darknet_py.training.distributed import DistContext, joined_processes
from darknet_py.training.peers import PeerWatch

_CLAIMED = ".joining"  # after the name of the first shard's record, by the process that joins them

Item = TypeVar("Item")


class Shard(NamedTuple):
    """One of `total` shares, counted from 1: every total-th of a list, so that all shares take about as long."""

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/4`, for argparse."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, as in 2/4, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_process(cls) -> Shard:
        """The share of this process, by what `torchrun` sets; a single process has the whole list."""
        context = DistContext.from_environment()
        return cls(context.rank + 1, context.size)

    def items_of(self, items: Sequence[Item]) -> list[Item]:
        return list(items[self.number - 1 :: self.total])

    def record(self, target: Path) -> Path:
        """The finished record of this share of what goes into `target`."""
        return target.with_name(f"{target.name}.shard-{self.number}-of-{self.total}")

    def records(self, target: Path) -> list[Path]:
        """The finished records of all shares."""
        return [Shard(number, self.total).record(target) for number in range(1, self.total + 1)]


def shard_argument(parser: argparse.ArgumentParser, help: str) -> None:
    """--shard."""
    parser.add_argument("--shard", type=Shard.parse, metavar="K/N", help=f"{help} (default: by torchrun's processes)")


def shared_work(shard: Shard | None, timeout: float) -> AbstractContextManager[PeerWatch | None]:
    """Meets the processes of torchrun that share the work with this one; none where the share was given."""
    return nullcontext() if shard else joined_processes(timeout, "--resume continues from the records")


def exit_code(failed: bool, watch: PeerWatch | None) -> int:
    """1 where something could not be read; not for torchrun, which would start all processes again."""
    if failed and watch:
        print("darknet_py: some files could not be read; the others are done", file=sys.stderr)
    return int(failed and watch is None)


def claimed(record: Path) -> Path:
    """What the first record is called while a process joins the records."""
    return record.with_name(record.name + _CLAIMED)


def claim_records(records: Sequence[Path]) -> list[Path] | None:
    """The finished records of all processes, for the one process that may join them; for the others None.

    Renaming the first record is the claim, which only one process can do; see `release_claim`.
    """
    if not all(record.exists() for record in records):
        return None
    first = claimed(records[0])
    try:
        records[0].rename(first)
    except FileNotFoundError:
        return None
    return [first, *records[1:]]


def release_claim(record: Path) -> None:
    """Takes back the claim of a process that was killed while it joined the records: who has the first one does so."""
    if claimed(record).exists():
        claimed(record).rename(record)


def merge_lines(
    images: Sequence[str], parts: Sequence[Iterator[bytes]], path_of: Callable[[bytes], str]
) -> Iterator[bytes]:
    """The lines of all shards in the order of the images. Images that could not be read have no line.

    Args:
        images: All images.
        parts: The lines of each shard, in the order of its images.
        path_of: The image of a line.
    """
    heads = [next(part, None) for part in parts]
    for position, image in enumerate(images):
        shard = position % len(parts)
        line = heads[shard]
        if line is not None and path_of(line) == image:
            yield line
            heads[shard] = next(parts[shard], None)
