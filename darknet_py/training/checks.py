"""Keys of `[net]` that forbid a training, or that have no effect in it."""

from __future__ import annotations

from collections.abc import Mapping

from darknet_py.errors import TrainError
from darknet_py.graph.graph import Graph
from darknet_py.training.distributed import DistContext
from darknet_py.training.train_options import NetValue


def check_schedule(graph: Graph, overrides: Mapping[str, NetValue]) -> None:
    """Raises TrainError where `[net]` is for testing. overrides: new values that the caller gave."""
    if not graph.net.max_batches:
        raise TrainError(f"{graph.path}: expected max_batches in [net] (or max_batches=N, --max-batches N), got none")
    if graph.net.learning_rate <= 0:
        raise TrainError(
            f"{graph.path}: expected a learning_rate above 0 in [net], got {graph.net.learning_rate:g}{_why(graph)}"
        )
    # A short training is one, as in C, but not where `max_batches=1,200` is 1.
    is_short = graph.net.max_batches < graph.net.burn_in and not {"max_batches", "burn_in"} & overrides.keys()
    if is_short and (why := _why(graph)):
        raise TrainError(
            f"{graph.path}: expected more iterations than burn_in={graph.net.burn_in}, "
            f"got max_batches={graph.net.max_batches}{why}"
        )
    if graph.net.batch == 1 and "batch" not in overrides:
        raise TrainError(
            f"{graph.path}: batch=1 is for testing, expected more in [net] "
            "(or batch=64 subdivisions=16, --batch 64 --subdivisions 16)"
        )


def _why(graph: Graph) -> str:
    """The warnings about the schedule's numbers, which may be the reason: `learning_rate=0,001` is 0 in C."""
    keys = ("learning_rate:", "max_batches:", "burn_in:")
    return "".join(f" (line {line}: {text})" for _, line, _, text in graph.warnings if text.startswith(keys))


def check_supported(graph: Graph, context: DistContext) -> None:
    """Raises TrainError for networks and keys of `[net]` that cannot be trained, among them keys of C Darknet."""
    net, detects = graph.net, bool(graph.detection_specs)
    if not detects and not graph.layers[-1].spec.vector:
        raise TrainError(
            f"{graph.path}: expected a detection layer such as [yolo], or [softmax] or [cost] at the end, got none"
        )
    unsupported = {
        "attention": net.attention,  # a window that shows input gradients
        "weights_reject_freq": net.weights_reject_freq > 0,
        "unsupervised": net.unsupervised and detects,
        "track": net.track and not detects,
        "dynamic_minibatch": net.dynamic_minibatch and not detects,
    }
    kind = "a detector" if detects else "a classifier"
    for key in (key for key, is_set in unsupported.items() if is_set):
        raise TrainError(f"{graph.path}: [net] {key} is not supported for {kind}; remove it (or --set {key}=0)")
    if net.contrastive and net.mini_batch < 2:
        raise TrainError(
            f"{graph.path}: contrastive=1: expected mini-batches of at least 2 images, got {net.mini_batch}"
        )
    if net.dynamic_minibatch and (net.time_steps > 1 or net.track):
        raise TrainError(f"{graph.path}: dynamic_minibatch=1 is not supported with time_steps or track; remove it")
    scales_sequences = any(scale != 1 for scale in net.seq_scales)
    if net.track and (net.sequential_subdivisions != net.subdivisions or scales_sequences):
        raise TrainError(
            f"{graph.path}: track=1 is supported with one sequence per subdivision only: expected "
            f"sequential_subdivisions={net.subdivisions} and no seq_scales"
        )
    if graph.reads_text and context.size > 1:
        raise TrainError(f"{graph.path}: expected one process to train on text, got {context.size}")


def ineffective_keys(graph: Graph) -> list[str]:
    """A line for each key of `[net]` that has no effect in this network, nor in C Darknet."""
    net, heads = graph.net, graph.detection_specs
    filters = any(head.filters_labels for head in heads)
    only_yolo, no_contrast = "only [yolo] has it", "contrastive=1 is not set"
    ineffective = {
        "badlabels_rejection_percentage": (net.badlabels_rejection_percentage and not filters, only_yolo),
        "num_sigmas_reject_badlabels": (net.num_sigmas_reject_badlabels and not filters, only_yolo),
        "equidistant_point": (net.equidistant_point and not filters, only_yolo),
        "seq_scales": (any(scale != 1 for scale in net.seq_scales) and not net.track, "track=1 is not set"),
        "dynamic_minibatch": (net.dynamic_minibatch and not any(head.random for head in heads), "random=1 is not set"),
        "contrastive_jit_flip": (net.contrastive_jit_flip and not net.contrastive, no_contrast),
        "contrastive_color": (net.contrastive_color and not net.contrastive, no_contrast),
        "cutmix": (net.mixup in (2, 4) and heads, "it is for classifiers"),
        "angle": (net.angle and heads, "it is for classifiers"),
        "gaussian_noise": (net.gaussian_noise and not heads, "it is for detectors"),
        "letter_box": (net.letter_box and not heads, "it is for detectors"),
        "mosaic_bound": (net.mosaic_bound and net.mixup not in (3, 4), "mosaic=1 is not set"),
    }
    return [f"note: [net] {key} has no effect: {reason}" for key, (applies, reason) in ineffective.items() if applies]
