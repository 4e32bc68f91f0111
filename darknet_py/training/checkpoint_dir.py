"""The files a training leaves in its backup folder.

    NAME_last.weights    every 100 iterations        NAME_last.state   beside it: all that resuming needs
    NAME_ITER.weights    every 1,000 iterations, every 10,000 past 10,000
    NAME_best.weights    at the best mAP or top-1    NAME_best.json    what that was
    NAME_final.weights   at the end                  NAME_ema.weights  averages, with ema_alpha
    NAME_nonfinite.pt    the batch whose loss was not finite, with its files: see `CheckpointDir.save_batch`
    NAME.cfg             what the weights go with, where `classes` changed the cfg

Each is written beside its place and renamed, so that it is complete or not there. The state carries the weights too:
whatever moment a process dies at, one file is enough to resume, and the pair is put right when it does not match.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from darknet_py.cfg.sections import Problems, parse_sections
from darknet_py.errors import TrainError, WeightsError
from darknet_py.files import make_folder, write_atomically

if TYPE_CHECKING:
    from darknet_py.model.network import Network

VERSION = 2

MiniBatch = tuple[torch.Tensor, torch.Tensor]  # images, truth


def is_numbered_checkpoint(iteration: int) -> bool:
    """True where NAME_ITER.weights is written."""
    return iteration % (1000 if iteration <= 10000 else 10000) == 0


@dataclass(frozen=True)
class CheckpointDir:
    """The files of one training: `name` (the cfg's) in `folder`. metric: what the best weights are best at."""

    folder: Path
    name: str
    metric: str = "map"

    def path(self, what: str) -> Path:
        """what: `last.weights`, `last.state`, `best.json`, … ."""
        return self.folder / f"{self.name}_{what}"

    def prepare(self) -> None:
        """Makes the folder and tries it out. Raises TrainError where nothing can be written."""
        make_folder(self.folder, TrainError)
        trial = self.path("trial")
        write_atomically(trial, b"", TrainError)
        trial.unlink()

    def save_cfg(self, text: str) -> None:
        """Writes NAME.cfg, which the weights go with."""
        write_atomically(self.folder / f"{self.name}.cfg", text.encode("utf-8", "surrogateescape"), TrainError)

    def save_weights(self, network: Network, what: str) -> Path:
        """Writes NAME_what.weights. Raises TrainError."""
        path = self.path(f"{what}.weights")
        try:
            network.save_weights(path)
        except WeightsError as error:
            raise TrainError(str(error)) from error
        return path

    def save_last(self, network: Network, state: dict[str, Any]) -> None:
        """Writes NAME_last.state, then NAME_last.weights."""
        buffer = io.BytesIO()
        torch.save({"version": VERSION, "cfg": layers_hash(network.graph.text), **state}, buffer)
        write_atomically(self.path("last.state"), buffer.getvalue(), TrainError)
        self.save_weights(network, "last")

    def load_last(self, network: Network) -> dict[str, Any] | None:
        """The saved state, None where there is none. Raises TrainError when it is damaged or of another cfg."""
        path = self.path("last.state")
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch meets in a damaged file
            raise TrainError(f"{path}: cannot read this training state: {_first_line(error)}") from error
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise TrainError(f"{path}: expected a training state of version {VERSION}, got something else")
        if state["cfg"] != layers_hash(network.graph.text):
            raise TrainError(f"{path}: saved with other layers than those of {network.graph.path}")
        return state

    def save_batch(self, rank: int, iteration: int, loss: float, files: list[str], batch: list[MiniBatch]) -> Path:
        """Writes a batch that could not be trained on as a dict for `torch.load(weights_only=True)`.

        Keys: iteration, loss, files, images and truth, the last two as lists with a tensor per mini-batch, as
        `Network.loss` takes them. rank: of this process; all but the first put it into the file's name.
        """
        images, truth = ([part.cpu().contiguous() for part in parts] for parts in zip(*batch, strict=True))
        buffer = io.BytesIO()
        torch.save({"iteration": iteration, "loss": loss, "files": files, "images": images, "truth": truth}, buffer)
        path = self.path(f"nonfinite_{rank}.pt" if rank else "nonfinite.pt")
        make_folder(self.folder, TrainError)
        write_atomically(path, buffer.getvalue(), TrainError)
        return path

    def save_best(self, network: Network, value: float, iteration: int) -> None:
        """Writes NAME_best.weights and what they reached."""
        self.save_weights(network, "best")
        row = json.dumps({self.metric: value, "iteration": iteration})
        write_atomically(self.path("best.json"), row.encode() + b"\n", TrainError)

    def best(self) -> float:
        """What NAME_best.weights reached; −1 where there are none."""
        try:
            return float(json.loads(self.path("best.json").read_bytes())[self.metric]) if self._has_best() else -1.0
        except (OSError, ValueError, KeyError, TypeError):
            return -1.0

    def _has_best(self) -> bool:
        return self.path("best.weights").exists()


def layers_hash(text: str) -> str:
    """A fingerprint of a cfg's layers. [net] is left out: a resumed training may change the schedule."""
    sections = parse_sections(text, Problems("<text>"))
    rows = [(section.name, [(option.key, option.value) for option in section.options]) for section in sections[1:]]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
