"""Training, from a cfg to weights: reads top-down, one thing after the other."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from darknet_py.data.loader import Batch
from darknet_py.errors import TrainError
from darknet_py.evaluation.rank_merge import all_gather
from darknet_py.files import write_atomically
from darknet_py.graph.set_num_classes import set_num_classes
from darknet_py.layers.base import Node
from darknet_py.model.checkpoint import is_checkpoint
from darknet_py.model.load import read_graph
from darknet_py.model.network import Network
from darknet_py.model.transfer import load_matching
from darknet_py.training.checkpoint_dir import CheckpointDir, is_numbered_checkpoint
from darknet_py.training.distributed import (
    DistContext,
    any_rank,
    average_statistics,
    broadcast_parameters,
    process_group,
)
from darknet_py.training.optimizer import set_statistics_momentum
from darknet_py.training.plan import check_schedule, make_task, notes, pick_device
from darknet_py.training.schedule import next_measurement, statistics_momentum
from darknet_py.training.shutdown import GracefulShutdown
from darknet_py.training.tensorboard import TensorBoardWriter
from darknet_py.training.train_log import TrainLogger
from darknet_py.training.train_options import TrainOptions, override_net, split_options
from darknet_py.training.train_step import StepResult, TrainStep

PathLike = str | Path

_SHOWN = 10  # bad images and labels that are printed; all of them are listed in a file


class TrainResult(NamedTuple):
    """What a training left behind.

    weights: NAME_final.weights. best, chart: None where there is none. loss: the last iteration's. average: Darknet's
    running average. map: the last one measured (of a classifier: its top-1 accuracy), 0 … 1, None where none was;
    best_map: of `best`. label: what it is. cfg: what the weights go with; the one given, unless `classes` made another.
    """

    weights: Path
    best: Path | None
    state: Path
    log: Path
    chart: Path | None
    iterations: int
    loss: float
    average: float
    map: float | None
    best_map: float | None
    label: str
    cfg: Path


def train(
    cfg: PathLike, data: PathLike | None = None, weights: PathLike | None = None, **overrides: Any
) -> TrainResult:
    """Trains a detector, a classifier or a network of texts as Darknet does.

    cfg: path of a cfg, or of a .pt checkpoint, which holds its own, and the weights to start from. data: of a detector
    see `data.formats`, of a classifier `data.classifier_data`, else a text; None: a built-in set.
    weights: a .weights file or checkpoint to start from. overrides: see `TrainOptions`; besides, any key of `[net]`
    (batch, learning_rate, max_batches, width …) with a new value.

    The files it writes are named in `training.checkpoint`. Ctrl-C and SIGTERM save after the current iteration and
    then raise KeyboardInterrupt. Under `torchrun` the processes share each batch. Raises DarknetError: CfgError,
    WeightsError, DataError, or TrainError when training cannot start or go on.
    """
    options, changes = split_options(overrides)
    with process_group(options.device) as team, GracefulShutdown() as stop:
        training = Trainer(Path(cfg), data, weights, options, changes, team)
        try:
            training.run(stop)
        finally:
            training.close()
        return training.result()


class Trainer:
    """Everything a training holds. `run` is the loop."""

    def __init__(
        self,
        cfg: Path,
        data: PathLike | None,
        weights: PathLike | None,
        options: TrainOptions,
        changes: dict[str, Any],
        team: DistContext,
    ):
        self.options, self.team = options, team
        if weights is None and is_checkpoint(cfg):
            weights = cfg
        source = read_graph(cfg)
        fitted = set_num_classes(source, options.classes) if options.classes else source
        graph, followed = override_net(fitted, changes)
        self.net = graph.net
        check_schedule(graph, changes)
        self.task = make_task(graph, data, options)
        self.backup = CheckpointDir(Path(options.out or self.task.file.backup), cfg.stem, self.task.metric)
        self.cfg = cfg if fitted is source else self.backup.folder / f"{cfg.stem}.cfg"
        if fitted is not source and self.cfg.resolve() == cfg.resolve():
            raise TrainError(f"out: expected another folder than that of {cfg}, as the cfg for new classes goes there")
        if fitted is not source:
            followed.append(f"the cfg for {options.classes} classes: {self.cfg}")
        if team.leads:
            self.backup.prepare()

        torch.manual_seed(options.seed)
        self.network = Network(graph, self.task.names)
        if weights is not None and options.classes:
            anew = load_matching(self.network, Path(weights), source, options.cutoff)
            followed.append(f"{weights}: {_started_anew(anew)}")
        elif weights is not None:
            self.network.load_weights(Path(weights), options.cutoff)
        if options.clear or options.cutoff:
            self.network.state.seen = 0
        self.device = pick_device(options.device, team)
        self.network.to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        set_statistics_momentum(self.network, options.bn_momentum or statistics_momentum(self.net))
        if options.sync_bn:
            broadcast_parameters(self.network, team)
        self.learner = TrainStep(self.network, seed=options.seed, amp=options.amp, team=team)

        images = self.net.batch_images
        board = TensorBoardWriter(self.backup.path("tensorboard")) if options.tensorboard and team.leads else None
        self.journal = TrainLogger(
            self.backup, self.net, images, self.task.label, loud=team.leads, quiet=options.quiet, board=board
        )
        for line in followed + notes(graph, self.task):
            self.journal.say(line)
        self.best = -1.0 if self.learner.iteration == 0 else self.backup.best()
        self.measured = self.learner.iteration
        if options.resume:
            self._resume(weights is not None or options.clear)
        elif self.learner.iteration >= self.net.max_batches:
            raise TrainError(
                f"{weights}: expected weights of less than max_batches={self.net.max_batches} iterations, "
                f"found {self.learner.iteration}; clear=True (--clear) counts from 0"
            )
        if team.leads and fitted is not source:  # not before what the weights that lie there may belong to was read
            self.backup.save_cfg(graph.text)
        self.loader = self.task.loader(self.learner.share, team, self.learner.seed, self.device)
        self.batches: Iterator[Batch] = self.loader.batches(self.learner.iteration * self.learner.share.mini_batches)

    def run(self, stop: GracefulShutdown) -> None:
        """The loop, up to max_batches or until `stop` is asked for (then KeyboardInterrupt, all saved)."""
        learner, journal, last = self.learner, self.journal, self.net.max_batches
        save_every = self.options.save_every or self.task.file.savelast or 100
        log_every = self.options.log_every or (10 if self.device.type == "cuda" else 1)
        journal.start(learner.iteration)
        while learner.iteration < last:
            step = learner.step(self._mini_batches())
            journal.add(step)

            iteration = step.iteration
            measuring = self.task.measures and iteration >= self._due()
            saving = iteration % save_every == 0 or iteration == last or measuring
            numbered = self._numbered(iteration)
            alone_and_stopped = self.team.size == 1 and stop.asked
            if not (iteration % log_every == 0 or saving or numbered or alone_and_stopped):
                continue

            journal.flush(self._keep_batch)
            stopping = any_rank(stop.asked, self.team, self.device) and iteration < last
            if saving or numbered or stopping:
                self._check_weights(step)
            tired = False
            if measuring:
                self._measure(iteration)
                tired = any_rank(self._tired(), self.team, self.device)
            if saving or stopping:
                self._save()
            if numbered and self.team.leads:
                self.backup.save_weights(self.network, str(iteration))
            journal.pause()
            if stopping:
                journal.say(
                    f"saved iteration {iteration} in {self.backup.path('last.state')}; --resume continues from it"
                )
                raise KeyboardInterrupt
            if tired:
                journal.say(f"no better {self.task.label} in {self.options.patience} measurements: done")
                break
        if self.team.leads:
            self.backup.save_weights(self.network, "final")

    def close(self) -> None:
        """Ends the loader's processes and the progress bar."""
        _close(self.batches)
        self.journal.close()

    def result(self) -> TrainResult:
        backup, journal = self.backup, self.journal
        best, chart, row = backup.path("best.weights"), journal.chart, journal.rows[-1] if journal.rows else None
        return TrainResult(
            backup.path("final.weights"),
            best if self.best >= 0 else None,
            backup.path("last.state"),
            backup.path("log.csv"),
            chart if self.options.chart else None,
            self.learner.iteration,
            row.loss if row else math.nan,
            row.average if row else math.nan,
            journal.scores[-1] if journal.maps else None,
            self.best if self.best >= 0 else None,
            self.task.label,
            self.cfg,
        )

    def _mini_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in islice(self.batches, self.learner.share.mini_batches):
            if batch.skipped:
                self._tell_bad(batch.skipped)
            yield batch.images, self.task.truth(batch, self.network).to(self.device, non_blocking=True)

    def _check_weights(self, step: StepResult) -> None:
        """Raises TrainError where they are no numbers any more. The loss need not show it: heads leave out what is not
        finite, as C's do."""
        found = self.network.state_dict().items()
        bad = [name for name, tensor in found if tensor.is_floating_point() and not tensor.isfinite().all()]
        if any_rank(bool(bad), self.team, self.device):
            raise TrainError(
                f"iteration {step.iteration}: expected finite weights, got others in {', '.join(bad[:3])} "
                f"(rate {step.rate:.6g}); they were not saved"
            )

    def _measure(self, iteration: int) -> None:
        """The task's score on the validation list; NAME_best.weights at the best so far (the later of equals)."""
        average_statistics(self.network, self.team)
        self.measured = iteration
        score = self.task.measure(self.network, self.team)
        self._tell_bad(self.loader.reports.new([], list(score.skipped)))
        if not self.team.leads:
            return
        better = score.value >= self.best
        if better:
            self.best = score.value
            self.backup.save_best(self.network, score.value, iteration)
        self.journal.measured(iteration, score, self.best, draw=better and self.options.chart)

    def _tired(self) -> bool:
        """Whether `patience` measurements have passed since the last best one."""
        scores, patience = self.journal.scores, self.options.patience
        return patience is not None and len(scores) > patience and max(scores[-patience:]) < max(scores[:-patience])

    def _save(self) -> None:
        average_statistics(self.network, self.team)
        reports = all_gather(self.loader.reports, self.team.size)
        if not self.team.leads:
            return
        state = {
            "learner": self.learner.state_dict(),
            "journal": self.journal.state_dict(),
            "best": self.best,
            "measured": self.measured,
        }
        self.backup.save_last(self.network, state)
        with self.learner.averaged() as averaged:
            if averaged:
                self.backup.save_weights(self.network, "ema")
        if self.options.chart:
            self.journal.draw_chart()
        for name, kind in (("bad.list", "images"), ("bad_label.list", "labels")):
            lines = list(dict.fromkeys(line for each in reports for line in getattr(each, kind)))
            if lines:
                text = "".join(f"{line}\n" for line in lines)
                write_atomically(self.backup.folder / name, text.encode("utf-8", "surrogateescape"), TrainError)

    def _resume(self, given: bool) -> None:
        """Takes up NAME_last.state; without one NAME_last.weights (of Darknet, say); without either, from the start.

        given: whether something was said about the beginning.
        """
        state = self.backup.load_last(self.network)
        last = self.backup.path("last.weights")
        if state:
            self.learner.load_state_dict(state["learner"])
            self.journal.load_state_dict(state["journal"])
            self.best, self.measured = max(state["best"], self.backup.best()), state["measured"]
            if self.team.leads:
                self.backup.save_weights(self.network, "last")  # a crash may have come between the two files
            self.journal.say(f"resuming at iteration {self.learner.iteration} of {self.net.max_batches}")
            if given or self.options.seed not in (0, self.learner.seed):
                self.journal.say("note: weights, clear and seed only count where a training begins")
        elif last.exists():
            self.network.load_weights(last)
            self.learner.iteration = self.measured = self.network.state.seen // self.net.batch_images
            self.best = self.backup.best()
            self.journal.say(f"no {self.backup.path('last.state')}: going on from {last} with a new optimizer")
        else:
            self.journal.say(f"nothing to resume in {self.backup.folder}: starting from the beginning")

    def _due(self) -> int:
        every = True if self.options.map is None else self.options.map
        images, batch = self.task.images, self.net.batch_images
        return next_measurement(self.net, self.measured, images, batch, every, self.options.map_epochs)

    def _numbered(self, iteration: int) -> bool:
        every = self.task.file.saveweights
        return iteration % every == 0 if every else is_numbered_checkpoint(iteration)

    def _keep_batch(self, step: StepResult, loss: float) -> list[str]:
        """Makes the batch of an iteration once more and saves it; lines that say where, and which images it is of."""
        count = self.learner.share.mini_batches
        numbers = range((step.iteration - 1) * count, step.iteration * count)
        files = self.task.files(self.loader, numbers)
        loader = self.task.loader(self.learner.share, self.team, self.learner.seed, self.device)
        found = loader.batches(numbers.start)
        batch = [(each.images, self.task.truth(each, self.network)) for each in islice(found, count)]
        _close(found)
        path = self.backup.save_batch(self.team.rank, step.iteration, loss, files, batch)
        return [f"  the batch: {path}", "  its images:", *(f"    {file}" for file in files)]

    def _tell_bad(self, lines: list[str]) -> None:
        before = len(self.loader.reports.images) + len(self.loader.reports.labels) - len(lines)
        for line in lines[: max(_SHOWN - before, 0)]:
            self.journal.say(f"warning: {line}")
        if before < _SHOWN <= before + len(lines):
            self.journal.say(
                f"more bad images and labels are only listed, in {self.backup.folder}/bad.list and bad_label.list"
            )


def _close(batches: Iterator[Batch]) -> None:
    """Ends the loader's processes."""
    if isinstance(batches, Generator):
        batches.close()


def _started_anew(nodes: list[Node]) -> str:
    """A line about layers that took nothing over."""
    if not nodes:
        return "all layers loaded"
    runs: list[list[Node]] = []
    for node in nodes:
        if runs and runs[-1][-1].index + 1 == node.index:
            runs[-1].append(node)
        else:
            runs.append([node])
    named = (
        f"{run[0].index} [{run[0].type}]" + (f" to {run[-1].index} [{run[-1].type}]" if len(run) > 1 else "")
        for run in runs
    )
    return f"loaded but for what starts anew: layer{'s' * (len(nodes) > 1)} {', '.join(named)}"
