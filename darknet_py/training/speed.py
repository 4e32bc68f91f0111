"""Times a training before it starts."""

from __future__ import annotations

import logging
import time
from contextlib import closing

import torch

from darknet_py.inference.fuse import fuse
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, LocalBatch
from darknet_py.training.duration import format_duration
from darknet_py.training.estimate import Speed
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.train_step import OutOfMemory, TrainStep
from darknet_py.training.trainer import build_network

logger = logging.getLogger(__name__)

_SLOW = 60.0  # seconds of a mini-batch, by two images, from which no whole one is timed
_ENOUGH = 3.0  # seconds of timing
_TIMED_LIMIT = 5  # mini-batches that are timed at most
_FORWARD = 1 / 3  # time of an evaluated image relative to one that is trained on, where it is not measured


def measure_speed(plan: TrainingPlan) -> Speed:
    """Trains a copy of the network on a few mini-batches, or on two images where a mini-batch takes long.

    Nothing of it is kept, so that the training is the same with and without it.

    Args:
        plan: A training in one process.

    Returns:
        The time of an iteration and of an evaluation.
    """
    start = time.monotonic()
    network = build_network(plan)
    step = TrainStep(network, seed=plan.seed, amp=plan.options.amp)
    least = LocalBatch(1, min(2, plan.local_batch.images))  # batch norm of a 1 x 1 map takes no single image
    seconds = _seconds(plan, step, least) * plan.local_batch.images / least.images
    if seconds < _SLOW:
        if seconds > _ENOUGH:
            logger.info("a mini-batch takes about %s; timing one", format_duration(seconds))
        seconds = _seconds(plan, step, LocalBatch(1, plan.local_batch.images))
    iteration = seconds * plan.local_batch.mini_batches
    evaluated = iteration / plan.net.batch_images * _FORWARD
    if plan.task.valid_size and seconds < _SLOW and plan.graph.detection_specs:
        evaluated = _seconds_of_an_evaluated_image(plan, network)
    return Speed(iteration, plan.task.valid_size * evaluated, time.monotonic() - start)


def _seconds_of_an_evaluated_image(plan: TrainingPlan, network: Network) -> float:
    """Of the fused network that evaluations run, in float32; the faster of two passes."""
    shape = plan.graph.input
    images = torch.zeros(plan.local_batch.images, shape.c, shape.h, shape.w, device=plan.device)
    fused, times = fuse(network), []
    with torch.inference_mode():
        for _ in range(2):
            begin = time.perf_counter()
            float(fused.predict(images).boxes.sum())  # waits for the device
            times.append(time.perf_counter() - begin)
    return min(times) / plan.local_batch.images


def _seconds(plan: TrainingPlan, step: TrainStep, local: LocalBatch) -> float:
    """Seconds of a mini-batch: the median, without the first, which waits for the loader and prepares torch."""
    loader = plan.task.loader(local, DistContext(), plan.seed, plan.device)
    times = []
    with closing(loader.batches()) as batches:
        begin = last = time.perf_counter()
        for batch in batches:
            truth = plan.task.truth(batch, step.network).to(plan.device)
            try:
                float(step.step([(batch.images, truth)]).loss)  # waits for the device
            except OutOfMemory:
                if not step.split_further():  # as the training will
                    raise
                continue
            now = time.perf_counter()
            times.append(now - last)
            last = now
            if len(times) == _TIMED_LIMIT or now - begin > (_ENOUGH if len(times) > 1 else _SLOW):
                break
    timed = sorted(times[1:] or times)
    return timed[len(timed) // 2]
