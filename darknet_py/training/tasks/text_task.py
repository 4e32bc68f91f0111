"""Training of recurrent networks that continue a text, byte by byte (Darknet's `rnn.c`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.data.builtin.synthetic_text import ensure_synthetic_text
from darknet_py.data.datafile import DataFile
from darknet_py.data.loader import Batch
from darknet_py.data.text_streams import Text, TextStreams, read_bytes
from darknet_py.errors import DataError, TrainError
from darknet_py.evaluation.text import evaluate_text
from darknet_py.graph.graph import Graph
from darknet_py.layers.recurrent import reset_state
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, LocalBatch
from darknet_py.training.tasks.task import EvalScore, Task
from darknet_py.training.train_options import TrainOptions

_VALID_PART = 20  # 1 / so much at the end of a text is kept for evaluation, where that is asked for


@dataclass(frozen=True)
class TextTask(Task):
    """Training on a text.

    Attributes:
        train: Bytes to train on.
        valid: Bytes to evaluate on; None where there are none.
    """

    train: Text
    valid: Text | None

    kind: ClassVar[str] = "text network"
    metric: ClassVar[str] = "likelihood"
    item: ClassVar[str] = "bytes"

    @classmethod
    def open(cls, data: str | Path | None, graph: Graph, options: TrainOptions) -> TextTask:
        """Reads the text.

        Args:
            data: Any file; None is the built-in text.
            graph: The network to train.
            options: Options of the run.

        Raises:
            DataError: The text is too short or holds symbols that the network has no input for.
            TrainError: The network does not have as many outputs as inputs.
        """
        inputs, outputs = graph.input.size, graph.layers[-1].output.size
        if outputs != inputs:
            raise TrainError(f"{graph.path}: expected as many outputs as inputs ({inputs}), got {outputs}")
        if data is None:
            builtin = ensure_synthetic_text()
            assert builtin.train is not None and builtin.valid is not None
            valid = None if options.map is False else read_bytes(builtin.valid, inputs)
            return cls(graph, options, DataFile(builtin.train), [], True, read_bytes(builtin.train, inputs), valid)
        text, valid = read_bytes(data, inputs), None
        if options.map:
            cut = len(text) - max(len(text) // _VALID_PART, 2)
            if cut < 2:
                raise DataError(
                    f"{data}: expected a text of at least 4 bytes to evaluate on a part of, got {len(text)}"
                )
            text, valid = text[:cut], text[cut:]
        return cls(graph, options, DataFile(Path(data)), [], False, text, valid)

    @property
    def metric_label(self) -> str:
        return "likelihood of a byte"

    @property
    def train_size(self) -> int:
        return len(self.train)

    @property
    def valid_size(self) -> int:
        return 0 if self.valid is None else len(self.valid)

    @property
    def class_limit(self) -> int:
        return self.graph.input.size

    def notes(self) -> list[str]:
        if not self.builtin:
            return []
        return [
            f"no text given: training on the built-in one, {counted(self.train_size, 'byte')} ({self.file.path}); "
            f"on your own: darknet-py rnn train {self.graph.path} TEXT"
        ]

    def prepare(self) -> list[str]:
        return []

    def loader(self, local: LocalBatch, context: DistContext, seed: int, device: torch.device) -> TextStreams:
        return TextStreams(
            self.file.path,
            self.train,
            inputs=self.graph.input.size,
            steps=self.graph.net.time_steps,
            streams=local.images,
            seed=seed,
            device=device,
        )

    def truth(self, batch: Batch, network: Network) -> Tensor:
        """The next bytes. The network forgets the streams that jumped."""
        for stream in batch.tracks.tolist():
            reset_state(network, stream)
        return batch.truth

    def evaluate(self, network: Network, context: DistContext) -> EvalScore:
        assert self.valid is not None
        result = evaluate_text(network, self.valid)
        return EvalScore(result.likelihood, result.loss, result.to_json())
