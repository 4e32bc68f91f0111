"""What training needs before its first iteration: checks, data, and lines that say what will happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from darknet_py.errors import TrainError
from darknet_py.graph.graph import Graph
from darknet_py.training.distributed import DistContext
from darknet_py.training.tasks.classification_task import ClassificationTask
from darknet_py.training.tasks.detection_task import DetectionTask
from darknet_py.training.tasks.task import Task
from darknet_py.training.tasks.text_task import TextTask
from darknet_py.training.train_options import TrainOptions


def make_task(graph: Graph, path: str | Path | None, options: TrainOptions) -> Task:
    """Of a detector, a classifier or, where it takes no images, a network of texts. Raises DarknetError."""
    detects = bool(graph.detection_specs)
    if not detects and not graph.layers[-1].spec.vector:
        raise TrainError(
            f"{graph.path}: expected a detection layer such as [yolo], or [softmax] or [cost] at the end, got none"
        )
    check_supported(graph, detects)
    read: Callable[..., Task] = DetectionTask.read if detects else ClassificationTask.read
    task = (TextTask.read if graph.reads_text else read)(path, graph, options)
    if options.patience and not task.measures:
        raise TrainError(f"patience: expected a list to measure on (map, --map), got none in {task.file.path}")
    return task


def check_schedule(graph: Graph, changes: Mapping[str, Any]) -> None:
    """Raises TrainError where `[net]` is for testing."""
    if not graph.net.max_batches:
        raise TrainError(f"{graph.path}: expected max_batches in [net] (or max_batches=N, --max-batches N), got none")
    if graph.net.batch == 1 and "batch" not in changes:
        raise TrainError(
            f"{graph.path}: batch=1 is for testing, expected more in [net] "
            "(or batch=64 subdivisions=16, --batch 64 --subdivisions 16)"
        )


def check_supported(graph: Graph, detects: bool) -> None:
    """Raises TrainError for keys of `[net]` that steer training in C Darknet and that we do not have."""
    net = graph.net
    refused = {
        "attention": net.attention,  # a window that shows input gradients
        "weights_reject_freq": net.weights_reject_freq > 0,
        "unsupervised": net.unsupervised and detects,
        "track": net.track and not detects,
        "dynamic_minibatch": net.dynamic_minibatch and not detects,
    }
    kind = "a detector" if detects else "a classifier"
    for key in (key for key, expected in refused.items() if expected):
        raise TrainError(f"{graph.path}: [net] {key} is not supported for {kind}; remove it (or --set {key}=0)")
    if net.contrastive and net.mini_batch < 2:
        raise TrainError(f"{graph.path}: contrastive=1 wants mini-batches of at least 2 images, got {net.mini_batch}")
    if net.dynamic_minibatch and (net.time_steps > 1 or net.track):
        raise TrainError(f"{graph.path}: dynamic_minibatch=1 is not supported with time_steps or track; remove it")
    changing = any(scale != 1 for scale in net.seq_scales)
    if net.track and (net.sequential_subdivisions != net.subdivisions or changing):
        raise TrainError(
            f"{graph.path}: track=1 is supported with one sequence per subdivision only: expected "
            f"sequential_subdivisions={net.subdivisions} and no seq_scales"
        )


def pick_device(name: str | None, team: DistContext) -> torch.device:
    """The one asked for, else a GPU of its own for each process, else the CPU. Raises TrainError."""
    if name is None:
        name = f"cuda:{team.local_rank}" if torch.cuda.is_available() else "cpu"
    elif name == "cuda":
        name = f"cuda:{team.local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainError(f"expected a device like cpu or cuda:0, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainError(f"expected a device like cpu or cuda:0, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainError(f"expected the device {name}, got {torch.cuda.device_count()} CUDA devices")
    return device


def notes(graph: Graph, task: Task) -> list[str]:
    """Lines to print before training starts."""
    net, lines = graph.net, [*task.notes(), *_idle(graph)]
    if net.batch % net.subdivisions:
        found = net.mini_batch * net.subdivisions
        lines.append(
            f"note: batch={net.batch} is no multiple of subdivisions={net.subdivisions}: {found} images are taken"
        )
    if net.burn_in >= net.max_batches:
        lines.append(f"warning: burn_in={net.burn_in} is not over when training ends at max_batches={net.max_batches}")
    return lines


def _idle(graph: Graph) -> list[str]:
    """A line for each key of `[net]` that has no effect in this network, in C Darknet neither."""
    net, heads = graph.net, graph.detection_specs
    rejecting = any(head.filters_labels for head in heads)
    idle = {
        "badlabels_rejection_percentage": (net.badlabels_rejection_percentage and not rejecting, "only [yolo] has it"),
        "num_sigmas_reject_badlabels": (net.num_sigmas_reject_badlabels and not rejecting, "only [yolo] has it"),
        "equidistant_point": (net.equidistant_point and not rejecting, "only [yolo] has it"),
        "seq_scales": (any(scale != 1 for scale in net.seq_scales) and not net.track, "track=1 is not set"),
        "dynamic_minibatch": (net.dynamic_minibatch and not any(head.random for head in heads), "random=1 is not set"),
        "contrastive_jit_flip": (net.contrastive_jit_flip and not net.contrastive, "contrastive=1 is not set"),
        "contrastive_color": (net.contrastive_color and not net.contrastive, "contrastive=1 is not set"),
        "cutmix": (net.mixup in (2, 4) and heads, "it is for classifiers"),
        "angle": (net.angle and heads, "it is for classifiers"),
        "gaussian_noise": (net.gaussian_noise and not heads, "it is for detectors"),
        "letter_box": (net.letter_box and not heads, "it is for detectors"),
        "mosaic_bound": (net.mosaic_bound and net.mixup not in (3, 4), "mosaic=1 is not set"),
    }
    return [f"note: [net] {key} has no effect: {reason}" for key, (is_idle, reason) in idle.items() if is_idle]
