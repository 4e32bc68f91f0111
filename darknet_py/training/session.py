"""A training from its plan to its result: timed first, and in parts where it has to end at a given time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from darknet_py.counted import counted
from darknet_py.errors import TrainError
from darknet_py.graph.graph import parse
from darknet_py.training.callbacks import TrainCallback
from darknet_py.training.duration import format_duration
from darknet_py.training.estimate import Estimate, Speed
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.speed import measure_speed
from darknet_py.training.trainer import Trainer, TrainResult

_PAUSES = (0.1, 0.3, 0.6, 0.8, 0.92)  # shares of the iterations after which the schedule is fitted again
_TOLERANCE = 0.02  # of the iterations; the schedule stays where it is off by less
_LONG = 86400  # seconds from which there is a warning
_SMALL = 320  # a usual size of small inputs
_FAST_CFGS = ("yolov4-tiny.cfg", "yolo-fastest-1.1.cfg")
_MUCH_FASTER = 0.5
_RESERVE = 0.02  # of the time: charts and files at the end


def measured(plan: TrainingPlan) -> TrainingPlan:
    """The plan with the speed of this machine; with `time`, with as many iterations as fit.

    Args:
        plan: A plan. One of several processes is returned as it is.

    Returns:
        The plan.

    Raises:
        TrainError: Not a single iteration fits into the time.
    """
    if plan.context.size > 1 or plan.first_iteration >= plan.net.max_batches:
        return plan
    prepared = plan.task.prepare()  # not part of the speed; what it reports comes with the notes
    speed = measure_speed(plan)
    plan = replace(plan, speed=speed)
    seconds = plan.seconds
    if seconds is not None:
        iterations = _affordable(plan, speed, _left(plan, seconds))
        if iterations < 1:
            raise TrainError(
                f"time: expected more than {format_duration(seconds)}: an iteration takes "
                f"{format_duration(speed.iteration)} after {format_duration(speed.setup)} of preparation"
            )
        plan = plan.with_iterations(iterations)
    estimate = Estimate(plan.net.max_batches - plan.first_iteration, plan.evaluations, speed)
    note = f"time: {estimate}; memory: about {plan.memory.total / 2**20:,.0f} MiB; files in {plan.files.folder}"
    return replace(plan, notes=(*plan.notes, *prepared, note), warnings=(*plan.warnings, *_warnings(plan, estimate)))


def run(
    plan: TrainingPlan, callbacks: Sequence[TrainCallback] = (), *, command: str = "", owns_process: bool = False
) -> TrainResult:
    """Trains. With `time`, pauses several times to fit the rest of the schedule to the speed until then.

    Args:
        plan: What to do, from `measured`.
        callbacks: As of `Trainer`.
        command: As of `Trainer`.
        owns_process: As of `Trainer.run`.

    Returns:
        The files and the last values.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM asked to stop; everything is saved.
        DarknetError: The training cannot continue.
    """
    seconds = plan.seconds
    for share in _PAUSES if seconds else ():
        assert seconds is not None
        pause = round(plan.net.max_batches * share)
        first = plan.first_iteration
        if not first < pause < plan.net.max_batches:
            continue
        trainer = Trainer(replace(plan, pause=pause), callbacks, command)
        result = trainer.run(owns_process=owns_process)
        if result.iterations < pause:  # stopped early, or the time is over
            return result
        speed = trainer.speed
        plan = replace(plan, speed=speed)
        iterations = max(pause + _affordable(plan, speed, _left(plan, seconds)), pause + 1)
        notes: tuple[str, ...] = ()
        if abs(iterations - plan.net.max_batches) > _TOLERANCE * plan.net.max_batches:
            notes = (
                f"{counted(iterations, 'iteration', ',')} instead of {plan.net.max_batches:,}, by the speed so far",
            )
            plan = plan.with_iterations(iterations)
        state, _ = plan.files.load_last(plan.graph)
        plan = replace(plan, state=state, weights=None, resumes=True, notes=notes, warnings=())
    return Trainer(plan, callbacks, command).run(owns_process=owns_process)


def _left(plan: TrainingPlan, seconds: float) -> float:
    return plan.started + seconds * (1 - _RESERVE) - time.monotonic()


def _affordable(plan: TrainingPlan, speed: Speed, seconds: float) -> int:
    """Iterations that fit into the time, evaluations included."""
    share = plan.evaluations / (plan.net.max_batches - plan.first_iteration)
    return int(seconds / (speed.iteration + share * speed.evaluation))


def _warnings(plan: TrainingPlan, estimate: Estimate) -> list[str]:
    """Ways out of a training that takes days: less time, a smaller input, another cfg."""
    if estimate.seconds < _LONG:
        return []
    ways = ["--time 8h (a schedule that ends by then)"]
    graph = plan.graph
    if graph.detection_specs and not graph.detection_specs[-1].vector:
        side = max(plan.net.width, plan.net.height)
        if side > _SMALL:
            share = (_SMALL / side) ** 2
            ways.append(f"--width {_SMALL} --height {_SMALL} (about {share:.2g} of the time)")
        for name in _FAST_CFGS:
            share = parse(name).bflops / graph.bflops
            if share < _MUCH_FASTER:
                ways.append(f"{name} instead of {plan.source.name} (about {share:.1g} of the time)")
    return [f"this takes about {format_duration(estimate.seconds)}; less with {', or '.join(ways)}"]
