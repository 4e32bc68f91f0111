"""What `bench` measures: inference and training steps on random images, without reading files."""

from __future__ import annotations

import gc
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from darknet_py.inference.fuse import AMP, fuse
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network
from darknet_py.training.train_options import override_net
from darknet_py.training.train_step import TrainStep

CANDIDATES = 100  # per image, that reach NMS
TRUTHS = 8  # boxes per image in a training step
_WARM_UP = 3  # rounds; where something is compiled the first takes long
_LEAST, _MOST = 10, 2000  # rounds measured


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
    """With batch norm folded. forward: images to candidates. decode: that part of it which turns head outputs into
    boxes. nms: thresholds and suppression. total: forward and nms in one go. decode, nms: None without a detection
    head. memory: bytes at the peak beyond what the process had before the network was made.
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
    """load: makes the network. amp: fp16 or bf16. The threshold is set so that CANDIDATES per image reach NMS."""
    memory = PeakMemory()
    net = load()
    device = net.device
    torch.backends.cudnn.benchmark = True  # one input size: let cuDNN try its algorithms
    net = fuse(net, AMP[amp] if amp else None, pack=not compiled)
    memory.mark()
    x = images(net, batch, device)
    with torch.inference_mode():
        kept = head_outputs(net, x)
        run = _compiled(net, device) if compiled else net
        arms: dict[str, Callable[[], Any]] = {"forward": lambda: run(x)}
        if kept:
            found = Predictions(*(part.clone() for part in run(x)))
            rules = (threshold(found), 0.45, *net.nms_kind)
            arms["decode"] = lambda: [head.decode(output) for head, output in kept]
            arms["nms"] = lambda: postprocess(found, *rules)
            arms["total"] = lambda: postprocess(run(x), *rules)
        spent = rounds(arms, device, seconds)
    times = {name: Timing.of(values) for name, values in spent.items()}
    total = times.get("total", times["forward"])
    return InferenceTiming(
        forward=times["forward"],
        decode=times.get("decode"),
        nms=times.get("nms"),
        total=total,
        images_per_second=batch / total.median * 1e3,
        gflops_per_second=net.graph.bflops * batch / times["forward"].median * 1e3,
        memory=memory.peak(),
        calls=len(spent["forward"]),
    )


def training(
    load: Callable[[], Network], batch: int, *, amp: str | None = None, seconds: float = 5.0
) -> TrainingTiming:
    """A mini-batch of `batch` random images with TRUTHS boxes each, subdivisions=1, by the trainer's own step."""
    memory = PeakMemory()
    torch.backends.cudnn.benchmark = True
    learner = make_learner(load(), batch, amp)
    memory.mark()
    x = images(learner.network, batch, learner.device)
    answers = truth(learner.network, batch, learner.device)
    spent = rounds({"step": lambda: learner.step([(x, answers)])}, learner.device, seconds)["step"]
    times = Timing.of(spent)
    return TrainingTiming(times, batch / times.median * 1e3, memory.peak(), len(spent))


def make_learner(net: Network, batch: int, amp: str | None = None) -> TrainStep:
    """As the trainer sets it up, for mini-batches of `batch`; at a rate so small that the weights stay sane."""
    size = {"width": net.graph.net.width, "height": net.graph.net.height}
    graph, _ = override_net(net.graph, {**size, "batch": batch, "subdivisions": 1, "learning_rate": 1e-6})
    trained = Network(graph, net.names)
    trained.load_state_dict(net.state_dict())
    trained.to(net.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainStep(trained, amp=amp)


def images(net: Network, batch: int, device: torch.device) -> Tensor:
    """(batch, C, H, W) noise, the same at every call; channels-last as the loader gives it."""
    noise = torch.rand((batch, *net.graph.input), generator=torch.Generator().manual_seed(0)).to(device)
    return noise.contiguous(memory_format=torch.channels_last)


def truth(net: Network, batch: int, device: torch.device) -> Tensor:
    """What `Network.loss` takes: TRUTHS boxes per image for detectors, one class per image for classifiers."""
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
    """With CUDA graphs on a GPU, where starting small kernels one by one takes longer than they do."""
    torch.compiler.reset()  # torch gives up on code that it has compiled for several networks
    return torch.compile(net, fullgraph=True, mode="reduce-overhead" if device.type == "cuda" else "default")


def head_outputs(net: Network, x: Tensor) -> list[tuple[Any, Tensor]]:
    """Each detection head with what it gives for x, not yet decoded."""
    kept: list[tuple[Any, Tensor]] = []
    hooks = [head.register_forward_hook(lambda *call: kept.append((call[0], call[2]))) for _, head in net.detectors]
    net(x)
    for hook in hooks:
        hook.remove()
    return kept


def threshold(found: Predictions) -> float:
    """The score above which CANDIDATES per image are, on the average."""
    scores = found.scores.flatten()
    return float(scores.topk(min(CANDIDATES * len(found.scores) + 1, len(scores))).values[-1])


def rounds(arms: Mapping[str, Callable[[], Any]], device: torch.device, seconds: float) -> dict[str, list[float]]:
    """Seconds of each call. Each round calls every arm once, so that a busy machine hits all alike."""
    for _ in range(_WARM_UP):
        for arm in arms.values():
            arm()
    spent: dict[str, list[float]] = {name: [] for name in arms}
    end = now(device) + seconds
    for count in range(_MOST):
        if count >= _LEAST and now(device) > end:
            break
        for name, arm in arms.items():
            start = now(device)
            arm()
            spent[name].append(now(device) - start)
    return spent


def now(device: torch.device) -> float:
    """Seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def machine(device: torch.device) -> str:
    """The processor or GPU, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


class PeakMemory:
    """Bytes at the peak beyond what was taken when this was made: of the GPU where one is in use, else of the process.

    Only Linux lets a process set its peak back; elsewhere the making of the network counts too.
    """

    def __init__(self) -> None:
        gc.collect()
        self.before = {"cuda": _allocated(), "process": _status("VmRSS") or _highest()}

    def mark(self) -> None:
        """Forgets the peak so far: making a network takes more than running it."""
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
        return max((_status("VmHWM") or _highest()) - self.before["process"], 0)


def _allocated() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0


def _status(key: str) -> int:
    """Bytes, from Linux's account of this process; 0 elsewhere."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def _highest() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
