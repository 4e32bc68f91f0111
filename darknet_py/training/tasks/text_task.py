"""Recurrent networks that learn to continue a text, byte by byte (Darknet's `rnn.c`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.data.builtin.synthetic_text import ensure_synthetic_text
from darknet_py.data.datafile import DataFile
from darknet_py.data.loader import Batch, ProblemLog
from darknet_py.errors import DataError, TrainError
from darknet_py.evaluation.text import evaluate_text
from darknet_py.graph.graph import Graph
from darknet_py.layers.recurrent import reset_state
from darknet_py.training.tasks.task import BatchSource, EvalScore
from darknet_py.training.train_options import TrainOptions

if TYPE_CHECKING:
    from darknet_py.model.network import Network
    from darknet_py.training.distributed import DistContext, LocalBatch

_JUMP = 0.1  # chance that a stream goes on elsewhere in the text after a mini-batch
_HELD_OUT = 20  # of a text, 1 / so much at its end is held out where it is to be measured on
_LEAST = 0.0001  # bytes less likely than this are never written (`test_char_rnn`)


@dataclass(frozen=True)
class TextTask:
    """text: (N,) uint8, its bytes. inputs: values the network takes, a byte being one of them. valid: a text to measure
    on; None where there is none. cfg: where the network comes from."""

    path: Path
    text: NDArray[np.uint8]
    inputs: int
    steps: int
    valid: NDArray[np.uint8] | None = None
    cfg: str = ""
    metric: str = "likelihood"
    label: str = "likelihood of a byte"

    @classmethod
    def read(cls, path: str | Path | None, graph: Graph, options: TrainOptions) -> TextTask:
        """path: None means the built-in text. Raises DataError and TrainError."""
        inputs, outputs = graph.input.size, graph.layers[-1].output.size
        if outputs != inputs:
            raise TrainError(f"{graph.path}: expected as many outputs as inputs ({inputs}), got {outputs}")
        if path is not None:
            text, valid = read_bytes(path, inputs), None
            if options.map:
                cut = len(text) - max(len(text) // _HELD_OUT, 2)
                if cut < 2:
                    raise DataError(
                        f"{path}: expected a text of at least 4 bytes to measure on a part of, got {len(text)}"
                    )
                text, valid = text[:cut], text[cut:]
            return cls(Path(path), text, inputs, graph.net.time_steps, valid)
        tale = ensure_synthetic_text()
        assert tale.train is not None and tale.valid is not None
        valid = None if options.map is False else read_bytes(tale.valid, inputs)
        return cls(tale.train, read_bytes(tale.train, inputs), inputs, graph.net.time_steps, valid, str(graph.path))

    @property
    def measures(self) -> bool:
        return self.valid is not None

    @property
    def file(self) -> DataFile:
        return DataFile(self.path)

    @property
    def names(self) -> list[str]:
        return []

    @property
    def images(self) -> int:
        return len(self.text)

    def notes(self) -> list[str]:
        if not self.cfg:
            return []
        return [
            f"no text given: training on the built-in one, {self.images} bytes ({self.path}); "
            f"on your own: python -m darknet_py rnn train {self.cfg} TEXT"
        ]

    def loader(self, share: LocalBatch, team: DistContext, seed: int, device: torch.device) -> TextStreams:
        if team.size > 1:
            raise TrainError("text is trained by one process, got several")
        return TextStreams(self, share.images, seed, device)

    def truth(self, batch: Batch, network: Network) -> Tensor:
        """The next bytes. The network forgets the streams that jumped."""
        for stream in batch.tracks.tolist():
            reset_state(network, stream)
        return batch.truth

    def measure(self, network: Network, team: DistContext) -> EvalScore:
        assert self.valid is not None
        result = evaluate_text(network, self.valid)
        return EvalScore(result.likelihood, result.loss, result.to_json(), dict)

    def files(self, loader: BatchSource, mini_batches: range) -> list[str]:
        assert isinstance(loader, TextStreams)
        found = itertools.islice(loader.places(), mini_batches.start, mini_batches.stop)
        return [f"{self.path} from byte {place}" for places, _ in found for place in places.tolist()]


def read_bytes(path: str | Path, inputs: int) -> NDArray[np.uint8]:
    """A text of at least two bytes, all of them below `inputs`. Raises DataError."""
    try:
        text = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot read this text: {error.strerror}") from error
    if len(text) < 2:
        raise DataError(f"{path}: expected a text of at least 2 bytes, got {len(text)}")
    if text.max() >= inputs:
        where = int((text >= inputs).argmax())
        raise DataError(f"{path}: expected bytes below {inputs} (inputs=), got {text[where]} at position {where}")
    return text


class TextStreams:
    """Streams of a mini-batch go through the text side by side; each jumps now and then (`train_char_rnn`).

    Where mini-batch k reads is a pure function of (seed, k).
    """

    def __init__(self, text: TextTask, streams: int, seed: int, device: torch.device):
        self.text, self.streams, self.seed, self.device = text, streams, seed, device
        self.reports = ProblemLog()

    def places(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """For each mini-batch: where each stream starts to read, and which streams jumped before it."""
        dice = np.random.default_rng([self.seed, 7])
        length = len(self.text.text)
        places = dice.integers(length, size=self.streams)
        jumped = np.arange(0)
        while True:
            yield places, jumped
            jumps = dice.random(self.streams) < _JUMP
            places = np.where(jumps, dice.integers(length, size=self.streams), (places + self.text.steps) % length)
            jumped = jumps.nonzero()[0]

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """images: (steps · streams, inputs), one-hot, row t·streams + b is step t of stream b. tracks: who jumped."""
        for places, jumped in itertools.islice(self.places(), start, None):
            at = places + np.arange(self.text.steps + 1)[:, None]
            symbols = torch.from_numpy(self.text.text[at % len(self.text.text)].astype(np.int64)).to(self.device)
            hot = torch.nn.functional.one_hot(symbols, self.text.inputs).float()
            yield Batch(hot[:-1].flatten(0, 1), hot[1:].flatten(0, 1), [], torch.from_numpy(jumped))


def check_text_network(network: Network) -> None:
    """Raises DataError."""
    graph = network.graph
    if not graph.reads_text or graph.layers[-1].output.size != graph.input.size:
        raise DataError(f"{graph.path}: expected a network of texts, got one that takes {graph.input}")


def generate(network: Network, start: bytes, length: int, temperature: float = 0.7, seed: int = 0) -> Iterator[int]:
    """`length` bytes that continue `start`, one after the other (`test_char_rnn`).

    temperature: below 1 the likely becomes likelier; instead of the cfg's, which is taken to be 1. Raises DataError.
    """
    check_text_network(network)
    inputs = network.graph.input.size
    if temperature <= 0:
        raise DataError(f"temperature: expected a number above 0, got {temperature}")
    if not start or max(start) >= inputs:
        raise DataError(f"seed text: expected at least one byte, all below {inputs}, got {start!r}")
    network.eval()
    reset_state(network)
    device = network.device
    dice = torch.Generator().manual_seed(seed)

    def read(symbol: int) -> Tensor:
        x = torch.zeros(1, inputs, device=device)
        x[0, symbol] = 1
        with torch.inference_mode():
            probabilities: Tensor = network(x).flatten().double().cpu()
            return probabilities

    for symbol in start[:-1]:
        read(symbol)
    symbol = start[-1]
    for _ in range(length):
        chances = (read(symbol).clamp(min=1e-30).log() / temperature).softmax(0)
        chances[chances < _LEAST] = 0
        symbol = int(torch.multinomial(chances, 1, generator=dice))
        yield symbol
