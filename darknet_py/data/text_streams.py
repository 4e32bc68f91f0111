"""Texts as training data: streams of bytes that are read side by side (Darknet's `rnn.c`)."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from darknet_py.data.loader import Batch, BatchSource
from darknet_py.errors import DataError
from darknet_py.untrusted import read_file

Text = NDArray[np.uint8]

_JUMP_CHANCE = 0.1  # that a stream continues elsewhere in the text after a mini-batch


def read_bytes(path: str | Path, inputs: int) -> Text:
    """Reads a text of at least two bytes, all of them below `inputs`. Raises DataError."""
    text = np.frombuffer(read_file(path, "text"), np.uint8)
    if len(text) < 2:
        raise DataError(f"{path}: expected a text of at least 2 bytes, got {len(text)}")
    if text.max() >= inputs:
        position = int((text >= inputs).argmax())
        raise DataError(f"{path}: expected bytes below {inputs} (inputs=), got {text[position]} at position {position}")
    return text


class TextStreams(BatchSource):
    """The streams of a mini-batch read the text side by side; each jumps now and then (`train_char_rnn`).

    Where mini-batch k reads is a pure function of (seed, k).

    Args:
        path: Where the text comes from, for messages.
        text: Its bytes.
        inputs: Number of symbols, one of which the network reads at a time.
        steps: Bytes per mini-batch and stream.
        streams: Streams of a mini-batch.
        seed: Of the random jumps.
        device: Where the batches are sent.
    """

    def __init__(
        self, path: Path, text: Text, *, inputs: int, steps: int, streams: int, seed: int, device: torch.device
    ):
        super().__init__()
        self.path, self.text = path, text
        self.inputs, self.steps, self.streams = inputs, steps, streams
        self.seed, self.device = seed, device

    def positions(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """For each mini-batch: where each stream starts to read, and which streams jumped before it."""
        rng = np.random.default_rng([self.seed, 7])
        length = len(self.text)
        starts = rng.integers(length, size=self.streams)
        jumped = np.arange(0)
        while True:
            yield starts, jumped
            jumps = rng.random(self.streams) < _JUMP_CHANCE
            starts = np.where(jumps, rng.integers(length, size=self.streams), (starts + self.steps) % length)
            jumped = jumps.nonzero()[0]

    def batches(self, start: int = 0) -> Generator[Batch, None, None]:
        """images: (steps · streams, inputs), one-hot, row t·streams + b is step t of stream b. tracks: who jumped."""
        for starts, jumped in itertools.islice(self.positions(), start, None):
            indices = starts + np.arange(self.steps + 1)[:, None]
            symbols = torch.from_numpy(self.text[indices % len(self.text)].astype(np.int64)).to(self.device)
            one_hot = torch.nn.functional.one_hot(symbols, self.inputs).float()
            yield Batch(one_hot[:-1].flatten(0, 1), one_hot[1:].flatten(0, 1), [], torch.from_numpy(jumped))

    def files(self, mini_batches: range) -> list[str]:
        positions = itertools.islice(self.positions(), mini_batches.start, mini_batches.stop)
        return [f"{self.path} from byte {start}" for starts, _ in positions for start in starts.tolist()]
