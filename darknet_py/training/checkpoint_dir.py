"""The files that a training leaves in its output folder.

    NAME_last.weights    every 100 iterations        NAME_last.state   beside it: all that resuming needs
                                                     NAME_previous.state   the one before, in case it is damaged
    NAME_ITER.weights    every 1,000 iterations, every 10,000 past 10,000
    NAME_best.weights    at the best mAP or top-1    NAME_best.json    that score, the best confidence threshold
    NAME_final.weights   at the end                  NAME_ema.weights  averages, with ema_alpha
    NAME_….weights.sha256   beside each of them: a file that has changed since is not loaded
    NAME_nonfinite.pt    the batch whose loss was not finite, with its files: see `CheckpointDir.save_batch`
    NAME.cfg             the cfg of the weights, where `classes` changed it
    NAME.names           the names of the classes
    NAME_report.html     the page about the training: see `ReportWriter`
    NAME_run1/           the files of an earlier training in the same folder, NAME_run2/ those of a later one …

Each file is written under a temporary name and renamed, so that it is complete or not there. The state is written last
and holds the weights too: whenever a process dies, it is enough to resume, and whatever is newer is written again.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from darknet_py.errors import TrainError, WeightsError
from darknet_py.files import make_folder, remove_checksum, sha256_of, stored_checksum, write_atomically, write_checksum
from darknet_py.graph.graph import Graph
from darknet_py.model.network import Network
from darknet_py.training.run_lock import is_running
from darknet_py.training.state import DamagedState, OtherNetwork, TrainingState, pack_state, unpack_state
from darknet_py.untrusted import open_regular

MiniBatch = tuple[Tensor, Tensor]  # images, truth

_OPERATING_POINT = (
    *("best_thresh", "best_precision", "best_recall", "best_f1"),
    *("auto_thresh", "auto_precision", "auto_recall"),
)

# What follows NAME_ in the files of a training.
_RUN_FILE = re.compile(
    r"(best|final|last|previous|ema|log|map|top1|likelihood|classes|confusion|precision_recall|report|tensorboard"
    r"|worst|samples|loss_parts|train|valid|nonfinite(_\d+)?|\d+)(\.\w+){0,2}"
)


def is_numbered_checkpoint(iteration: int) -> bool:
    """Whether NAME_ITER.weights is written after this iteration, by Darknet's rule."""
    return iteration % (1000 if iteration <= 10000 else 10000) == 0


@dataclass(frozen=True)
class CheckpointDir:
    """The files of one training.

    Attributes:
        folder: Where they are.
        name: What their names start with: that of the cfg.
        metric: Key of the score in NAME_best.json.
    """

    folder: Path
    name: str
    metric: str = "map"

    def path(self, suffix: str) -> Path:
        """Path of NAME_suffix, for example `last.weights`."""
        return self.folder / f"{self.name}_{suffix}"

    @property
    def cfg(self) -> Path:
        """Path of NAME.cfg."""
        return self.folder / f"{self.name}.cfg"

    @property
    def names(self) -> Path:
        """Path of NAME.names."""
        return self.folder / f"{self.name}.names"

    @property
    def data(self) -> Path:
        """Path of NAME.data, which names the lists of a split data set."""
        return self.folder / f"{self.name}.data"

    @property
    def chart(self) -> Path:
        """Path of chart_NAME.png."""
        return self.folder / f"chart_{self.name}.png"

    def prepare(self) -> None:
        """Makes the folder and checks that it can be written to. Raises TrainError."""
        make_folder(self.folder, TrainError)
        probe = self.path("probe")
        write_atomically(probe, b"", TrainError)
        probe.unlink()

    @property
    def lock(self) -> Path:
        """Path of the file that `RunLock` locks."""
        return self.folder / f".{self.name}.lock"

    def contains(self, path: Path) -> bool:
        """Whether a file is, by its name and folder, one that a training writes here."""
        rest = path.name.removeprefix(f"{self.name}_")
        return rest != path.name and bool(_RUN_FILE.fullmatch(rest)) and path.parent.resolve() == self.folder.resolve()

    def earlier_files(self) -> list[Path]:
        """The files of an earlier training, if it left weights or a state."""
        found = [path for path in sorted(self.folder.glob("*")) if self.contains(path)]
        if not any(path.suffix in (".weights", ".state") for path in found):
            return []
        return found + [path for path in (self.chart,) if path.exists()]

    def next_run(self) -> Path:
        """The folder that the files of an earlier training would be moved to."""
        earlier = (re.fullmatch(rf"{re.escape(self.name)}_run(\d+)", path.name) for path in self.folder.glob("*"))
        return self.path(f"run{max((int(match[1]) for match in earlier if match), default=0) + 1}")

    def set_aside(self) -> Path | None:
        """Moves the files of an earlier training into a folder of their own, with copies of NAME.cfg and NAME.names.

        Returns:
            The folder; None where there was nothing to move.

        Raises:
            TrainError: A file cannot be moved.
        """
        files = self.earlier_files()
        if not files:
            return None
        target = make_folder(self.next_run(), TrainError)
        try:
            for path in files:
                path.rename(target / path.name)
            for path in (self.cfg, self.names):
                if path.exists():
                    shutil.copyfile(path, target / path.name)
        except OSError as error:
            raise TrainError(f"{target}: cannot keep the earlier files: {error.strerror or error}") from error
        return target

    def remove_temporary(self, process: int | None = None) -> None:
        """Removes unfinished files: those of a process that is about to end, or all that killed trainings left."""
        for path in self.folder.glob(".*.tmp"):
            match = re.fullmatch(
                rf"\.((chart_)?{re.escape(self.name)}[._].*|bad(_label)?\.list)\.(\d+)\.tmp", path.name
            )
            if match and (int(match[4]) == process if process is not None else not is_running(int(match[4]))):
                path.unlink(missing_ok=True)

    def save_cfg(self, graph: Graph) -> None:
        """Writes NAME.cfg, the cfg of the weights."""
        write_atomically(self.cfg, graph.document.content, TrainError)

    def save_weights(self, network: Network, kind: str) -> str:
        """Writes NAME_kind.weights and its checksum, which is returned. Raises TrainError."""
        path = self.path(f"{kind}.weights")
        try:
            network.save_weights(path)
        except WeightsError as error:
            raise TrainError(str(error)) from error
        return write_checksum(path, TrainError)

    def remove_numbered(self, keep: int) -> None:
        """Removes all NAME_ITER.weights but the last `keep`."""
        pattern = re.compile(rf"{re.escape(self.name)}_(\d+)\.weights")
        numbered = [(int(match[1]), path) for path in self.folder.glob("*") if (match := pattern.fullmatch(path.name))]
        for _, path in sorted(numbered)[:-keep]:
            remove_checksum(path)
            path.unlink(missing_ok=True)

    def save_last(self, network: Network, state: TrainingState, *, keep_previous: bool = True) -> None:
        """Writes NAME_last.weights, then NAME_last.state, with the checksum of the weights.

        Args:
            network: The weights.
            state: The state; without the checksum.
            keep_previous: Whether the state that is there becomes NAME_previous.state.
        """
        digest = self.save_weights(network, "last")
        content = pack_state({**state, "weights": digest}, network.graph)
        last, previous = self.path("last.state"), self.path("previous.state")
        if keep_previous and last.exists():
            try:
                previous.unlink(missing_ok=True)
                try:
                    os.link(last, previous)  # there is a whole state at any time
                except OSError:  # a file system without hard links
                    last.rename(previous)
            except OSError as error:
                raise TrainError(f"{previous}: cannot write: {error.strerror or error}") from error
        write_atomically(last, content, TrainError)

    def load_last(self, graph: Graph) -> tuple[TrainingState | None, str]:
        """Reads NAME_last.state, or the state before where it is damaged or missing.

        Args:
            graph: The network that is to be resumed.

        Returns:
            The state, None where there is none; and a line where it is the state before.

        Raises:
            TrainError: Both are damaged, or a state is of a network with other layers.
        """
        last, previous = self.path("last.state"), self.path("previous.state")
        reason = "not found"
        if last.exists():
            try:
                return self._load(last, graph), ""
            except DamagedState as error:
                reason = f"damaged ({error})"
        if previous.exists():
            try:
                return self._load(previous, graph), f"{last}: {reason}; resuming from the state before, {previous}"
            except DamagedState as error:
                reason = f"{reason}, and {previous.name} too ({error})"
        if reason == "not found":
            return None, ""
        raise TrainError(
            f"{last}: {reason}; --weights {self.path('last.weights')} instead of --resume continues from the weights "
            "alone"
        )

    def _load(self, path: Path, graph: Graph) -> TrainingState:
        with open_regular(path, "training state") as file:
            content = file.read()
        try:
            return unpack_state(content, graph)
        except OtherNetwork:
            raise TrainError(f"{path}: saved with other layers than those of {graph.path}") from None

    def holds_weights(self, digest: str) -> bool:
        """Whether NAME_last.weights is there and has this checksum, as the file beside it says too."""
        path = self.path("last.weights")
        return path.is_file() and sha256_of(path, TrainError) == digest == stored_checksum(path)

    def save_batch(self, rank: int, iteration: int, loss: float, files: list[str], batch: list[MiniBatch]) -> Path:
        """Writes a batch whose loss was not finite.

        The file holds a dict for `torch.load(weights_only=True)` with the keys iteration, loss, files, images and
        truth, the last two as lists with one tensor per mini-batch, as `Network.loss` takes them.

        Args:
            rank: Of this process; all but the main process put it into the file's name.
            iteration: Number of the iteration.
            loss: Its loss.
            files: The files behind the batch.
            batch: Images and truth of each mini-batch.

        Returns:
            The path.
        """
        images, truth = ([part.cpu().contiguous() for part in parts] for parts in zip(*batch, strict=True))
        buffer = io.BytesIO()
        torch.save({"iteration": iteration, "loss": loss, "files": files, "images": images, "truth": truth}, buffer)
        path = self.path(f"nonfinite_{rank}.pt" if rank else "nonfinite.pt")
        make_folder(self.folder, TrainError)
        write_atomically(path, buffer.getvalue(), TrainError)
        return path

    def save_best(self, network: Network, score: float, iteration: int, metrics: Mapping[str, object]) -> None:
        """Writes NAME_best.weights and NAME_best.json: the score, and of a detector the threshold of the best F1."""
        self.save_weights(network, "best")
        point = {key: metrics[key] for key in _OPERATING_POINT if metrics.get(key) is not None}
        content = json.dumps({self.metric: score, "iteration": iteration, **point})
        write_atomically(self.path("best.json"), content.encode() + b"\n", TrainError)

    def writes_names(self, names: Sequence[str]) -> bool:
        """Whether NAME.names is written for these names: not where they are the numbers of the classes."""
        return bool(names) and list(names) != [str(number) for number in range(len(names))]

    def save_names(self, names: Sequence[str]) -> str:
        """Writes NAME.names, see `writes_names`.

        Returns:
            A line about another file that was there and has been renamed; else an empty string.
        """
        if not self.writes_names(names):
            return ""
        content = "".join(f"{' '.join(name.split())}\n" for name in names).encode("utf-8", "surrogateescape")
        path, note = self.names, ""
        try:
            if path.exists() and path.read_bytes() != content:
                old = path.rename(path.with_name(f"{path.name}.old"))
                note = f"{path}: holds the names of this training now; what it was is {old}"
        except OSError as error:
            raise TrainError(f"{path}: cannot write: {error.strerror or error}") from error
        write_atomically(path, content, TrainError)
        return note

    def save_list(self, name: str, lines: list[str]) -> None:
        """Writes a list such as bad.list: the lines, each once; nothing where there is none."""
        if lines:
            text = "".join(f"{line}\n" for line in dict.fromkeys(lines))
            write_atomically(self.folder / name, text.encode("utf-8", "surrogateescape"), TrainError)

    def best_score(self) -> float:
        """The score of NAME_best.weights; −1 where there are none."""
        if not self.path("best.weights").exists():
            return -1.0
        try:
            return float(json.loads(self.path("best.json").read_bytes())[self.metric])
        except (OSError, ValueError, KeyError, TypeError):
            return -1.0
