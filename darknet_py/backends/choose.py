"""The back end and the precision for a network: those that were asked for, or the fastest that are exact enough."""

from __future__ import annotations

import json
import logging
import platform
import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.backends.cache import cached, digest
from darknet_py.backends.runners import BACKENDS, PRECISIONS, Request
from darknet_py.boxes import iou
from darknet_py.errors import DarknetError
from darknet_py.export.export_options import check_calibration
from darknet_py.export.quantize import calibration_digest
from darknet_py.export.verify import check_images
from darknet_py.layers.base import HIER_THRESH, Predictions
from darknet_py.model.network import Network
from darknet_py.timing import SETTLING, time_in_turns

logger = logging.getLogger(__name__)

BACKEND_CHOICES = (*BACKENDS, "auto")
PRECISION_CHOICES = ("auto", *PRECISIONS)

# Of precision auto, on the check image: by how much scores may differ from those in fp32, relative to the best score,
# and how well the boxes of the best candidates must coincide. A network finds nothing in that image: scores are low,
# and their relative difference is that of the logit z. A confidence p = 1 / (1 + exp(-z)) changes by p (1 - p) dz: 0.2
# means at most 0.05. docs/bench/precision.csv has what real networks show on photos (tools/bench/precision.py).
MAX_SCORE_DIFFERENCE = 0.2
MIN_IOU = 0.9
_COMPARED = 100  # candidates per image, the best ones
_ROUNDS = (7, 7)  # in which back ends are timed
# Flags of the processor, as Linux names them, with which a precision is faster than fp32.
_HARDWARE = {"bf16": {"avx512_bf16", "amx_bf16"}, "fp16": {"amx_fp16"}}


class BoxDifference(NamedTuple):
    """How far detections in one precision are from those in fp32, among the best candidates.

    Attributes:
        score: The largest difference of a class's score, relative to the best score.
        iou: The least IoU of a box with its counterpart.
    """

    score: float
    iou: float

    @property
    def is_small(self) -> bool:
        """Whether it is within the bound of precision auto."""
        return self.score <= MAX_SCORE_DIFFERENCE and self.iou >= MIN_IOU

    def __str__(self) -> str:
        return f"scores within {self.score:.2%} of the best, IoU at least {self.iou:.3f}"


def box_difference(expected: Predictions, got: Predictions) -> BoxDifference:
    """Compares the candidates with the highest scores of each image."""
    best = expected.scores.amax(2)
    rows = best.topk(min(_COMPARED, best.shape[1])).indices[..., None]
    scores = (expected.scores - got.scores).abs().amax(2).gather(1, rows[..., 0])
    boxes = [part.boxes.gather(1, rows.expand(-1, -1, 4)) for part in (expected, got)]
    least = iou(boxes[0], boxes[1]).nan_to_num(nan=0.0)
    largest = scores.nan_to_num(nan=float("inf")).max() / best.max().clamp(min=1e-12)
    return BoxDifference(float(largest), float(least.min()))


def output_difference(expected: Predictions | Tensor, got: Predictions | Tensor) -> BoxDifference:
    """`box_difference` of detectors; of other networks the largest difference, relative to the largest value."""
    if isinstance(expected, Predictions) and isinstance(got, Predictions):
        return box_difference(expected, got)
    assert isinstance(expected, Tensor) and isinstance(got, Tensor)
    largest = (expected - got).abs().nan_to_num(nan=float("inf")).max() / expected.abs().max().clamp(min=1e-12)
    return BoxDifference(float(largest), 1.0)


def open_backend(
    net: Network,
    backend: str = "auto",
    precision: str = "fp32",
    batch: int = 1,
    hier: float = HIER_THRESH,
    calibrate: str | Path = "",
) -> BackendNetwork:
    """Runs a network by another runtime.

    Args:
        net: A network without recurrent layers.
        backend: torch, compile, onnxruntime, openvino, or auto: the fastest of those installed, measured once per
            network and machine.
        precision: fp32, bf16, fp16, int8, or auto: bf16 or fp16 where the processor has it and the boxes on a check
            image stay within `MAX_SCORE_DIFFERENCE` and `MIN_IOU`, else fp32.
        batch: Images per call.
        hier: Class trees: probability above which a class is reported.
        calibrate: A folder, glob or list of images like those to come, for int8 only.

    Returns:
        The network in that runtime. What was chosen is logged.

    Raises:
        DarknetError: A word is unknown, the back end lacks the precision, or it cannot run the network.
        WeightsError: The network has random weights that nobody asked for.
        MissingExtra: A package of the back end is not installed.
    """
    net.eval()
    if backend not in BACKEND_CHOICES:
        raise DarknetError(f"backend: expected one of {', '.join(BACKEND_CHOICES)}, got {backend!r}")
    if precision not in PRECISION_CHOICES:
        raise DarknetError(f"precision: expected one of {', '.join(PRECISION_CHOICES)}, got {precision!r}")
    net.require_weights()
    check_calibration(precision, calibrate)
    request = Request(net, precision, batch, hier, calibrate)
    if backend != "auto" and precision != "auto":
        return start(request, backend)
    images = calibration_digest(calibrate) if calibrate else ""
    known = f"{digest(net, machine(), backend, precision, batch, hier, images)}.json"
    choice = json.loads(cached(known, lambda: json.dumps(_measure(request, backend)).encode()))
    logger.info("%s", choice["reason"])
    return start(replace(request, precision=choice["precision"]), choice["backend"])


def start(request: Request, backend: str) -> BackendNetwork:
    """The network by this back end. Raises DarknetError, MissingExtra."""
    net, precision = request.net, request.precision
    chosen = BACKENDS[backend]
    if precision not in chosen.precisions:
        expected = ", ".join(chosen.precisions)
        raise DarknetError(f"{backend}: expected a precision of {expected}, got {precision}")
    if net.device.type != "cpu" and not chosen.is_torch:
        raise DarknetError(f"{backend}: runs on the CPU only; expected --device cpu, got {net.device}")
    batch = None if chosen.is_torch else request.batch
    return BackendNetwork(net, chosen.start(request), backend, precision, batch, request.hier)


def pairs_to_try(net: Network, backend: str, precision: str) -> list[tuple[str, str]]:
    """The pairs (back end, precision) to try, fp32 first."""
    if backend == "auto":
        runtimes = [item for item in BACKENDS.values() if item.measured and item.is_installed]
        runtimes = [item for item in runtimes if net.device.type == "cpu" or item.is_torch]
    else:
        runtimes = [BACKENDS[backend]]
    precisions = [precision]
    if precision == "auto":
        flags = processor_flags()
        fast = [name for name, needed in _HARDWARE.items() if needed & flags]
        precisions = ["fp32", *(_HARDWARE if net.device.type == "cuda" else fast)]
    pairs = [(item.name, kind) for kind in precisions for item in runtimes if kind in item.precisions]
    # torch's fp16 convolutions on a CPU are slower than fp32, whatever the processor has.
    return [
        (name, kind) for name, kind in pairs if not (kind == "fp16" and net.device.type == "cpu" and name != "openvino")
    ]


def _measure(request: Request, backend: str) -> dict[str, str]:
    """The fastest pair whose boxes are close enough to fp32, with a line that says why."""
    net, batch = request.net, request.batch
    x = check_input(net, batch)
    with torch.inference_mode():
        expected = start(replace(request, precision="fp32"), "torch")(x)
    found: dict[str, BackendNetwork] = {}
    notes: list[str] = []
    for name, kind in pairs_to_try(net, backend, request.precision):
        try:
            opened = start(replace(request, precision=kind), name)
            with torch.inference_mode():
                difference = output_difference(expected, opened(x))
        except DarknetError as error:
            notes.append(f"{name} {kind} not used: {error}")
            continue
        if request.precision != "auto" or kind == "fp32" or difference.is_small:
            found[f"{name} {kind}"] = opened
        else:
            notes.append(f"{name} {kind} not used: {difference}")
    if not found:
        raise DarknetError(f"{net.graph.path}: no back end runs this network: {'; '.join(notes)}")
    times = time_backends(found, x)
    best = min(times, key=lambda key: times[key])
    measured = ", ".join(f"{key} {1e3 * times[key]:.1f}" for key in sorted(times, key=lambda key: times[key]))
    reason = f"back end: {best} (ms for {batch} image{'s' * (batch > 1)}: {measured})"
    return {
        "backend": found[best].backend,
        "precision": found[best].precision,
        "reason": "; ".join([reason, *notes]),
    }


def check_input(net: Network, batch: int) -> Tensor:
    """The images on which precision auto compares boxes, and on which back ends are timed."""
    return check_images(batch, *net.graph.input).to(net.device)


def time_backends(networks: Mapping[str, BackendNetwork], x: torch.Tensor) -> dict[str, float]:
    """Median seconds of each."""
    with torch.inference_mode():
        functions = {name: partial(network, x) for name, network in networks.items()}
        times = time_in_turns(functions, x.device, 0, _ROUNDS, SETTLING)
    return {name: statistics.median(values) for name, values in times.items()}


def processor_flags() -> set[str]:
    """The processor's features by Linux's names; none on other systems."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return set(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def machine() -> str:
    """What a measurement depends on: processor, threads, and the versions of the runtimes."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    processor = next((line for line in lines if line.startswith("model name")), platform.processor())
    versions = []
    for package in ("torch", "onnxruntime", "openvino"):
        try:
            versions.append(version(package))
        except PackageNotFoundError:
            versions.append("none")
    return f"{platform.node()} {processor} {torch.get_num_threads()} {versions}"
