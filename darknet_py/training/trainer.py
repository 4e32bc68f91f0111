"""The training loop. `TrainingPlan` decides what it does; `run` reads top-down."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.data.loader import Batch, ProblemLog
from darknet_py.errors import TrainError
from darknet_py.evaluation.rank_merge import all_gather
from darknet_py.model.load import read_trained
from darknet_py.model.network import Network
from darknet_py.training.allocator import freed_memory_reused
from darknet_py.training.callbacks import TrainCallback
from darknet_py.training.checkpoint_dir import MiniBatch, is_numbered_checkpoint
from darknet_py.training.distributed import (
    any_rank,
    average_statistics,
    check_same,
    process_group,
    synchronize_batch_norm,
)
from darknet_py.training.estimate import Speed
from darknet_py.training.optimizer import set_statistics_momentum
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.recovery import LIMIT, Recovery, likely_cause
from darknet_py.training.report_writer import ReportWriter
from darknet_py.training.run_lock import RunLock
from darknet_py.training.schedule import statistics_momentum
from darknet_py.training.shutdown import GracefulShutdown, StopRequested
from darknet_py.training.tasks.task import EvalScore
from darknet_py.training.tensorboard import TensorBoardWriter
from darknet_py.training.train_log import TrainLogger
from darknet_py.training.train_options import DARKNET
from darknet_py.training.train_step import Diverged, OutOfMemory, StepResult, TrainStep

_ENDING = 1.3  # time of the end (evaluation, final weights, report) relative to an evaluation
_PROBLEM_LIMIT = 10  # bad images and labels that are logged; all of them are listed in a file


class TrainResult(NamedTuple):
    """The result of a training.

    Attributes:
        weights: NAME_final.weights.
        best: NAME_best.weights; None without an evaluation.
        state: NAME_last.state.
        log: NAME_log.csv.
        chart: chart_NAME.png; None without charts.
        iterations: Number of iterations done.
        loss: Loss of the last iteration.
        average: Darknet's running average of the loss.
        map: The last score, 0 … 1 (of a classifier its top-1 accuracy); None without an evaluation.
        best_map: The score of `best`.
        label: Name of the score.
        cfg: The cfg that the weights go with: the one given, unless `classes` made another.
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

    def load(self, device: str | torch.device = "cpu") -> Network:
        """The trained network, ready for inference, with its class names: the best weights, else the last ones."""
        return read_trained(self.cfg, self.best or self.weights, device=device)


class _Due(NamedTuple):
    """What is to be done after an iteration."""

    log: bool
    evaluate: bool
    save: bool
    save_numbered: bool


class Trainer:
    """Trains a network as its plan says.

    Args:
        plan: All decisions. Making the trainer builds the network and loads weights; `run` writes files.
        callbacks: What is told about iterations and evaluations.
        command: The command or the call that started it, for the report.

    Attributes:
        plan: The plan, without the arrays that it was started from.
        network: The network on its device.
        train_step: What an iteration does, with the optimizer.
        log: Rows of all iterations and evaluations.
        best: The best score so far; −1 before the first.
    """

    def __init__(self, plan: TrainingPlan, callbacks: Sequence[TrainCallback] = (), command: str = ""):
        options, state = plan.options, plan.state
        # The arrays are copied below; the plan is kept for the whole training and lets them go.
        self.plan = dataclasses.replace(plan, weights=None, state=None)
        self.network = build_network(plan)
        self.train_step = TrainStep(self.network, seed=plan.seed, amp=options.amp, context=plan.context)
        is_main = plan.context.is_main_process
        if options.tensorboard and is_main:
            callbacks = [*callbacks, TensorBoardWriter(plan.files.path("tensorboard"))]
        self.log = TrainLogger(
            plan.files,
            plan.net,
            plan.task.metric_label,
            plan.task.loss_label,
            is_main_process=is_main,
            quiet=options.quiet,
            callbacks=callbacks if is_main else (),
        )
        self._report = ReportWriter(self.plan, str(plan), self.log, command) if options.report and is_main else None
        self._shows_samples = self._report is not None
        self._continues = plan.continues
        self.best = plan.files.best_score() if plan.continues else -1.0
        self.last_evaluation = plan.first_iteration
        self._restored = state is not None
        self._restored_weights = state.get("weights", "") if state else ""
        self._last_is_whole = not plan.falls_back  # NAME_last.state
        self._saved = -1  # the last iteration that was saved
        self._begun = time.monotonic()  # of the iteration
        self._iterations, self._training = 0, 0.0  # number of iterations, and their seconds
        # Seconds that an evaluation takes, with the files that follow it.
        self._evaluation = plan.speed.evaluation if plan.speed else 0.0
        self._is_over = False  # the time is
        self._recovery: Recovery | None = None
        if state:
            self.train_step.load_state_dict(state["learner"])
            self.log.load_state_dict(state["journal"])
            self.best, self.last_evaluation = max(state["best"], self.best), state["measured"]
        self.loader = plan.task.loader(plan.local_batch, plan.context, plan.seed, plan.device)
        if state and is_main:
            self.loader.reports.new(*state.get("problems", ([], [])))

    def run(self, *, owns_process: bool = False) -> TrainResult:
        """Trains up to max_batches, or to where the plan pauses.

        The first Ctrl-C, SIGTERM or SIGHUP stops training after the current mini-batch (with several processes, after
        the iteration). What the unfinished iteration has done is dropped, and the state is saved.

        Args:
            owns_process: Whether a second signal ends the process at once, even while torch computes; otherwise it
                raises KeyboardInterrupt as soon as Python runs again.

        Returns:
            The files and the last values.

        Raises:
            KeyboardInterrupt: A signal asked to stop; everything is saved.
            DarknetError: The training cannot continue.
        """
        plan = self.plan
        with (
            process_group(plan.context, plan.device, timeout=plan.options.rank_timeout),
            freed_memory_reused(plan.device),
            closing(self.train_step),
            closing(self.log),
            self._lock() as lock,
            GracefulShutdown(self._quit(lock) if owns_process else None, raises=plan.context.size == 1) as shutdown,
        ):
            check_same(plan.context, plan.shared_by_processes)
            with shutdown.interruptible():
                self._start()
            self._recovery = Recovery(self.train_step, self.log, self.last_evaluation) if plan.options.recover else None
            paused = False
            try:
                self._train_on(shutdown)
                paused = self.train_step.iteration == plan.last_iteration < plan.net.max_batches
                if plan.context.is_main_process and not paused:
                    plan.files.save_weights(self.network, "final")
            finally:
                if self._report:
                    self._report.write(self.best, is_running=paused)
        return self._result()

    @property
    def speed(self) -> Speed:
        """The time of an iteration and of an evaluation in this run; without an evaluation, that of the plan."""
        return Speed(self._training / max(self._iterations, 1), self._evaluation)

    def _train_on(self, shutdown: GracefulShutdown) -> None:
        """Trains to the end, over what makes it stop or go back."""
        while True:
            try:
                self._train(shutdown)
                return
            except StopRequested:
                self._save_and_stop()
            except Diverged as problem:
                self._go_back(problem)
            except OutOfMemory as problem:
                self._split_mini_batches(problem)

    def _train(self, shutdown: GracefulShutdown) -> None:
        """All iterations. Raises StopRequested between two of them or two mini-batches; the state is then whole."""
        plan, step = self.plan, self.train_step
        due = _Due(False, self._restored and self._evaluation_is_due(step.iteration), False, False)
        with closing(self.loader.batches(step.iteration * plan.local_batch.mini_batches)) as batches:
            while True:
                if any(due) and self._conclude(step.iteration, due, shutdown):
                    break
                if step.iteration >= plan.last_iteration or self._is_over:
                    break
                self._begun = time.monotonic()
                try:
                    self.log.add(step.step(self._mini_batches(batches, shutdown)))
                finally:
                    self.log.end_iteration()
                self._iterations += 1
                self._training += time.monotonic() - self._begun
                due = self._due(step.iteration)

    def _conclude(self, iteration: int, due: _Due, shutdown: GracefulShutdown) -> bool:
        """What is due after an iteration; returns whether to stop early."""
        plan, recovery, begin = self.plan, self._recovery, time.monotonic()
        self.log.flush()
        if recovery:
            recovery.watch()
        if due.save or due.save_numbered or due.evaluate or (recovery and recovery.is_due):
            self._check_weights(iteration)
        if due.evaluate:
            with shutdown.interruptible():
                score, averaged = self._evaluate()
            self._add_evaluation(iteration, score, averaged)
        if due.save_numbered and plan.context.is_main_process:
            plan.files.save_weights(self.network, str(iteration))
            if plan.options.keep:
                plan.files.remove_numbered(plan.options.keep)
        if due.save or due.evaluate:
            self._save()
        if recovery:
            recovery.keep(self.last_evaluation)
        self.log.restart_clock()
        if due.evaluate:
            self._evaluation = max(time.monotonic() - begin, self._evaluation)
        if plan.context.size > 1 and iteration < plan.net.max_batches and self._any_rank(shutdown.requested):
            raise StopRequested
        if due.evaluate and self._any_rank(self._should_stop_early()):
            self.log.info(
                f"early stopping: {plan.task.metric_label} has not improved for {plan.options.patience} evaluations"
            )
            return True
        return False

    def _save_and_stop(self) -> None:
        try:
            self.log.flush()
            self._check_weights(self.train_step.iteration)
        except Diverged as problem:
            self._go_back(problem)
        iteration = self.train_step.iteration
        if self._saved != iteration:
            self._save()
        path = self.plan.files.path("last.state")
        self.log.info(f"saved iteration {iteration} in {path}; --resume continues from it")
        raise KeyboardInterrupt from None

    def _go_back(self, problem: Diverged) -> None:
        """Goes back to an earlier state. Raises TrainError, with the batch saved, where that is not wanted any more."""
        plan, recovery = self.plan, self._recovery
        if recovery and recovery.count < LIMIT:
            self.last_evaluation = recovery.go_back(problem)
            return
        lines = problem.report()
        batch: list[MiniBatch] = []
        if problem.step:
            batch, about = self._save_batch(problem.step, problem.loss)
            lines += about
        if recovery:
            lines.insert(0, f"the training diverged again after going back {LIMIT} times")
            rate, images = self.log.rate, plan.net.batch_images
            lines.append(likely_cause(batch, plan.options.amp, rate, images))
        raise TrainError("\n".join(lines)) from None

    def _split_mini_batches(self, problem: OutOfMemory) -> None:
        """Lets each mini-batch be computed in twice as many parts. Raises TrainError where it cannot be."""
        plan, step = self.plan, self.train_step
        if plan.context.size > 1 or not step.split_further():
            raise TrainError(
                f"{problem}; a smaller mini-batch needs less (--subdivisions {2 * plan.net.subdivisions}), and so does "
                "a smaller input (--width, --height)"
            ) from problem
        self.log.warning(
            f"{problem}: each mini-batch of {counted(plan.local_batch.images, 'image')} is computed in {step.parts} "
            "parts from now on; the update is the same but for batch norm and dropout"
        )

    def _quit(self, lock: RunLock | None) -> Callable[[], None]:
        """What is done before a second signal ends the process."""

        def quit() -> None:
            self.plan.files.remove_temporary(os.getpid())
            if lock:
                lock.release()

        return quit

    def _lock(self) -> AbstractContextManager[RunLock | None]:
        """Makes the output folder and keeps other trainings out of its files."""
        if not self.plan.context.is_main_process:
            return nullcontext()
        self.plan.files.prepare()
        return RunLock(self.plan.files.lock)

    def _start(self) -> None:
        """Prepares the output folder and tells what was decided."""
        plan = self.plan
        if plan.context.is_main_process:
            plan.files.remove_temporary()
        if plan.context.is_main_process and not self._continues:
            earlier = plan.files.set_aside()
            if earlier:
                self.log.warning(f"files of an earlier training moved to {earlier}")
        for note in plan.notes:
            self.log.info(note)
        for warning in plan.warnings:
            self.log.warning(warning)
        for line in plan.task.prepare():
            self.log.info(line)
        if plan.context.is_main_process:
            note = plan.files.save_names(plan.task.names)
            if note:
                self.log.warning(note)
            plan.write()
            if self._restored:
                self._restore_files()
        self.log.start(self.train_step.iteration)

    def _restore_files(self) -> None:
        """Writes what a crash may have kept from being written, or left newer than the state, or what has changed."""
        files = self.plan.files
        if not files.holds_weights(self._restored_weights):
            if self._restored_weights:
                self.log.warning(
                    f"{files.path('last.weights')} is not what was saved with the state (missing, damaged, or written "
                    "by another program): written again from the state"
                )
            files.save_weights(self.network, "last")
        self._save_side_files([self.loader.reports])

    def _mini_batches(self, batches: Iterator[Batch], shutdown: GracefulShutdown) -> Iterator[tuple[Tensor, Tensor]]:
        iteration, total = self.train_step.iteration + 1, self.plan.local_batch.mini_batches
        for number in range(total):
            self.log.add_mini_batch(iteration, number, total)
            with shutdown.interruptible():
                batch = next(batches)
            if batch.skipped:
                self._log_problems(batch.skipped)
            if self._shows_samples and self._report:
                self._shows_samples = False
                self._report.write_samples(self.plan.task.tiles(batch))
            yield batch.images, self.plan.task.truth(batch, self.network).to(self.plan.device, non_blocking=True)
        self.log.add_mini_batch(iteration, total, total)

    def _due(self, iteration: int) -> _Due:
        plan, options, file = self.plan, self.plan.options, self.plan.task.file
        save_every = options.save_every or file.savelast or 100
        log_every = options.log_every or (10 if plan.device.type == "cuda" else 1)
        if self._ends_now(iteration):
            return _Due(True, plan.task.evaluates, True, False)
        evaluate = self._evaluation_is_due(iteration)
        if file.saveweights:
            numbered = iteration % file.saveweights == 0
        else:
            numbered = is_numbered_checkpoint(iteration)
        save = iteration % save_every == 0 or iteration == plan.last_iteration or evaluate
        return _Due(iteration % log_every == 0, evaluate, save, numbered)

    def _ends_now(self, iteration: int) -> bool:
        """Whether another iteration, and what follows the last one, would exceed the time that the training has."""
        plan, ema, now = self.plan, self.train_step.ema, time.monotonic()
        if plan.deadline is None or iteration >= plan.last_iteration:
            return False
        passes = 2 if ema and ema.is_averaging(iteration + 1) else 1  # the averages are evaluated too
        if now + (now - self._begun) + _ENDING * self._evaluation * passes < plan.deadline:
            return False
        self._is_over = True
        self.log.info(f"the time is over after {iteration:,} of {counted(plan.net.max_batches, 'iteration', ',')}")
        return True

    def _evaluation_is_due(self, iteration: int) -> bool:
        return self.plan.task.evaluates and iteration >= self.plan.next_evaluation(self.last_evaluation)

    def _check_weights(self, iteration: int) -> None:
        """Raises Diverged where arrays are not finite. The loss need not show it: heads leave such values out, as
        C's do."""
        state = self.network.state_dict().items()
        bad = [name for name, tensor in state if tensor.is_floating_point() and not tensor.isfinite().all()]
        if self._any_rank(bool(bad)):
            raise Diverged(
                f"iteration {iteration}: non-finite weights in {', '.join(bad[:3])} (rate {self.log.rate:.6g}); "
                "checkpoint not written"
            )

    def _evaluate(self) -> tuple[EvalScore, bool]:
        """The score, and whether it is that of the averaged weights: by a recipe, the better of both counts."""
        plan, step = self.plan, self.train_step
        average_statistics(self.network, plan.context)
        score = plan.task.evaluate(self.network, plan.context)
        if plan.recipe.name != DARKNET and step.ema and step.ema.is_averaging(step.iteration):
            with step.averaged():
                of_averages = plan.task.evaluate(self.network, plan.context)
            if of_averages.value > score.value:
                return of_averages, True
        return score, False

    def _add_evaluation(self, iteration: int, score: EvalScore, averaged: bool) -> None:
        """Logs an evaluation; NAME_best.weights is written at the best score (the later of equals)."""
        plan = self.plan
        self.last_evaluation = iteration
        self._log_problems(self.loader.reports.new([], list(score.skipped)))
        if not plan.context.is_main_process:
            return
        is_best = score.value >= self.best
        if is_best:
            self.best = score.value
            with self.train_step.averaged() if averaged else nullcontext():
                plan.files.save_best(self.network, score.value, iteration, score.metrics)
            if self._report:
                self._report.write_worst(score.worst, score.names)
        self.log.add_evaluation(iteration, score, self.best, plot=is_best and plan.options.chart)

    def _should_stop_early(self) -> bool:
        """Whether `patience` evaluations have passed since the last best one."""
        scores, patience = self.log.scores, self.plan.options.patience
        return patience is not None and len(scores) > patience and max(scores[-patience:]) < max(scores[:-patience])

    def _save(self) -> None:
        """Writes NAME_last, the averages, the chart, and the lists of bad images and labels."""
        plan = self.plan
        self._saved = self.train_step.iteration
        average_statistics(self.network, plan.context)
        reports = all_gather(self.loader.reports, plan.context.size)
        if not plan.context.is_main_process:
            return
        self._save_side_files(reports)
        plan.files.save_last(
            self.network,
            {
                "learner": self.train_step.state_dict(),
                "journal": self.log.state_dict(),
                "best": self.best,
                "measured": self.last_evaluation,
                "problems": [
                    [line for report in reports for line in report.images],
                    [line for report in reports for line in report.labels],
                ],
            },
            keep_previous=self._last_is_whole,
        )
        self._last_is_whole = True

    def _save_side_files(self, reports: Sequence[ProblemLog]) -> None:
        """Writes the averages, the chart, and the lists of bad images and labels: before the state, so that a training
        which is killed in between writes them again."""
        plan = self.plan
        with self.train_step.averaged() as averaged:
            if averaged:
                plan.files.save_weights(self.network, "ema")
        if plan.options.chart:
            self.log.draw_chart()
        if self._report:
            self._report.write(self.best, is_running=True)
        plan.files.save_list("bad.list", [line for report in reports for line in report.images])
        plan.files.save_list("bad_label.list", [line for report in reports for line in report.labels])

    def _save_batch(self, step: StepResult, loss: float) -> tuple[list[MiniBatch], list[str]]:
        """Makes the batch of an iteration again and saves it; returns it, and lines about the file and the images."""
        plan = self.plan
        count = plan.local_batch.mini_batches
        mini_batches = range((step.iteration - 1) * count, step.iteration * count)
        files = self.loader.files(mini_batches)
        loader = plan.task.loader(plan.local_batch, plan.context, plan.seed, plan.device)
        with closing(loader.batches(mini_batches.start)) as batches:
            batch = [(each.images, plan.task.truth(each, self.network)) for each in islice(batches, count)]
        path = plan.files.save_batch(plan.context.rank, step.iteration, loss, files, batch)
        return batch, [f"  the batch: {path}", "  its images:", *(f"    {file}" for file in files)]

    def _log_problems(self, lines: list[str]) -> None:
        """Logs the first bad images and labels. lines: new ones, which the loader's reports hold already."""
        reports = self.loader.reports
        earlier = len(reports.images) + len(reports.labels) - len(lines)
        for line in lines[: max(_PROBLEM_LIMIT - earlier, 0)]:
            self.log.warning(line)
        if earlier < _PROBLEM_LIMIT <= earlier + len(lines):
            self.log.warning(
                f"further bad images and labels are listed in {self.plan.files.folder} only (bad.list, bad_label.list)"
            )

    def _any_rank(self, flag: bool) -> bool:
        return any_rank(flag, self.plan.context, self.plan.device)

    def _result(self) -> TrainResult:
        files, rows, scores = self.plan.files, self.log.rows, self.log.scores
        return TrainResult(
            weights=files.path("final.weights"),
            best=files.path("best.weights") if self.best >= 0 else None,
            state=files.path("last.state"),
            log=files.path("log.csv"),
            chart=files.chart if self.plan.options.chart else None,
            iterations=self.train_step.iteration,
            loss=rows[-1].loss if rows else math.nan,
            average=rows[-1].average if rows else math.nan,
            map=scores[-1] if scores else None,
            best_map=self.best if self.best >= 0 else None,
            label=self.plan.task.metric_label,
            cfg=self.plan.cfg,
        )


def build_network(plan: TrainingPlan) -> Network:
    """The network of a plan on its device, with its initial weights.

    Raises:
        TrainError: sync_bn was asked for with a network that does not support it.
    """
    torch.manual_seed(plan.options.seed)
    network = Network(plan.graph, plan.task.names)
    if plan.weights:
        plan.weights.copy_to(network)
        network.state.seen = plan.weights.seen
    network.to(plan.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_statistics_momentum(network, plan.options.bn_momentum or statistics_momentum(plan.net))
    if plan.options.sync_bn:
        synchronize_batch_norm(network, plan.context)
    return network
