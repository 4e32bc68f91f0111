"""Measurements for `bench`: inference and training steps on random images, without reading files."""

from __future__ import annotations

import gc
import platform
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from darknet_py.inference.fuse import AMP, fuse
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import HeadLayer, Predictions
from darknet_py.model.network import Network
from darknet_py.timing import time_in_turns
from darknet_py.training.allocator import freed_memory_reused
from darknet_py.training.train_options import override_net
from darknet_py.training.train_step import TrainStep

CANDIDATES = 100  # per image, that reach NMS
TRUTHS = 8  # boxes per image in a training step


class Timing(NamedTuple):
    """Milliseconds per call."""

    median: float
    p90: float
    min: float

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        ordered = sorted(1e3 * value for value in seconds)
        return cls(statistics.median(ordered), ordered[int(0.9 * (len(ordered) - 1))], ordered[0])


class InferenceTiming(NamedTuple):
    """Inference with folded batch norm.

    forward: images to candidates. decode: the part of it that turns head outputs into boxes. nms: thresholds and
    suppression. total: forward and nms together. decode, nms: None without a detection head. memory: peak memory in
    bytes beyond that of the process before the network was built.
    """

    forward: Timing
    decode: Timing | None
    nms: Timing | None
    total: Timing
    images_per_second: float
    gflops_per_second: float
    memory: int
    calls: int


class TrainingTiming(NamedTuple):
    """Steps of one mini-batch: forward, loss, backward, update."""

    step: Timing
    images_per_second: float
    memory: int
    calls: int


def inference(
    load: Callable[[], Network], batch: int = 1, *, amp: str | None = None, compiled: bool = False, seconds: float = 5.0
) -> InferenceTiming:
    """Measures inference. CANDIDATES boxes per image reach NMS.

    load: builds the network. batch: images per forward pass. amp: fp16 or bf16. compiled: use torch.compile.
    """
    memory = PeakMemory()
    net = load()
    device = net.device
    torch.backends.cudnn.benchmark = True  # for a single input size
    net = fuse(net, AMP[amp] if amp else None, pack=not compiled)
    memory.reset()
    x = random_images(net, batch, device)
    with torch.inference_mode():
        raw_outputs = head_outputs(net, x)
        run = _compiled(net, device) if compiled else net
        functions: dict[str, Callable[[], object]] = {"forward": lambda: run(x)}
        if raw_outputs:
            found = Predictions(*(part.clone() for part in run(x)))
            nms_options = (threshold(found), 0.45, *net.nms_kind)
            functions["decode"] = lambda: [head.decode(output) for head, output in raw_outputs]
            functions["nms"] = lambda: postprocess(found, *nms_options)
            functions["total"] = lambda: postprocess(Predictions(*run(x)), *nms_options)
        times_by_name = time_in_turns(functions, device, seconds)
    times = {name: Timing.of(values) for name, values in times_by_name.items()}
    total = times.get("total", times["forward"])
    return InferenceTiming(
        forward=times["forward"],
        decode=times.get("decode"),
        nms=times.get("nms"),
        total=total,
        images_per_second=batch / total.median * 1e3,
        gflops_per_second=net.graph.bflops * batch / times["forward"].median * 1e3,
        memory=memory.peak(),
        calls=len(times_by_name["forward"]),
    )


def training(
    load: Callable[[], Network], batch: int, *, amp: str | None = None, seconds: float = 5.0
) -> TrainingTiming:
    """A mini-batch of `batch` random images with TRUTHS boxes each, by the training step of the trainer."""
    memory = PeakMemory()
    torch.backends.cudnn.benchmark = True
    step = make_train_step(load(), batch, amp)
    memory.reset()
    x = random_images(step.network, batch, step.device)
    targets = random_truth(step.network, batch, step.device)
    with freed_memory_reused(step.device):
        calls = time_in_turns({"step": lambda: step.step([(x, targets)])}, step.device, seconds)["step"]
    times = Timing.of(calls)
    return TrainingTiming(times, batch / times.median * 1e3, memory.peak(), len(calls))


def make_train_step(net: Network, batch: int, amp: str | None = None) -> TrainStep:
    """A training step for mini-batches of `batch`, with a learning rate too small to change the network."""
    size = {"width": net.graph.net.width, "height": net.graph.net.height}
    graph = override_net(net.graph, {**size, "batch": batch, "subdivisions": 1, "learning_rate": 1e-6})
    trained = Network(graph, net.names)
    trained.load_state_dict(net.state_dict())
    trained.to(net.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainStep(trained, amp=amp)


def random_images(net: Network, batch: int, device: torch.device) -> Tensor:
    """(batch, C, H, W) noise, the same at every call; channels-last like the images of the loader."""
    noise = torch.rand((batch, *net.graph.input), generator=torch.Generator().manual_seed(0)).to(device)
    return noise.contiguous(memory_format=torch.channels_last)


def random_truth(net: Network, batch: int, device: torch.device) -> Tensor:
    """Targets for `Network.loss`: TRUTHS boxes per image for detectors, one class per image for classifiers."""
    generator = torch.Generator().manual_seed(1)
    if not net.detectors:
        classes = net.graph.layers[-1].output.size
        return torch.eye(classes)[torch.randint(classes, (batch,), generator=generator)].to(device)
    rows = torch.rand(batch * TRUTHS, 6, generator=generator)
    rows[:, 0] = torch.arange(len(rows)) // TRUTHS
    rows[:, 1] = (rows[:, 1] * net.graph.layers[net.detectors[0][0]].spec.classes).floor()  # type: ignore[attr-defined]
    rows[:, 2:4] = 0.2 + 0.6 * rows[:, 2:4]
    rows[:, 4:6] = 0.05 + 0.3 * rows[:, 4:6]
    return rows.to(device)


def _compiled(net: Network, device: torch.device) -> Callable[[Tensor], Any]:
    """The compiled network, on a GPU with CUDA graphs, which avoid the launch overhead of small kernels."""
    torch.compiler.reset()  # otherwise torch stops recompiling after several networks
    return torch.compile(net, fullgraph=True, mode="reduce-overhead" if device.type == "cuda" else "default")


def head_outputs(net: Network, x: Tensor) -> list[tuple[HeadLayer, Tensor]]:
    """Each detection head with its output for x, not yet decoded."""
    raw_outputs: list[tuple[HeadLayer, Tensor]] = []
    hooks = [
        head.register_forward_hook(lambda *call: raw_outputs.append((call[0], call[2]))) for _, head in net.detectors
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return raw_outputs


def threshold(found: Predictions) -> float:
    """The score that CANDIDATES boxes per image exceed on average."""
    scores = found.scores.flatten()
    return float(scores.topk(min(CANDIDATES * len(found.scores) + 1, len(scores))).values[-1])


def machine_name(device: torch.device) -> str:
    """Name of the GPU, or of the processor with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


class PeakMemory:
    """Peak memory in bytes since construction: of the GPU if one is in use, else of the process.

    Only Linux can reset the peak of a process; elsewhere building the network is included.
    """

    def __init__(self) -> None:
        gc.collect()
        self.before = {"cuda": _allocated(), "process": _proc_status("VmRSS") or _max_rss()}

    def reset(self) -> None:
        """Resets the peak: building a network takes more memory than running it."""
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return

    def peak(self) -> int:
        if torch.cuda.is_initialized():
            return torch.cuda.max_memory_allocated() - self.before["cuda"]
        return max((_proc_status("VmHWM") or _max_rss()) - self.before["process"], 0)


def _allocated() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0


def _proc_status(key: str) -> int:
    """A value of /proc/self/status in bytes; 0 on other systems."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def _max_rss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
