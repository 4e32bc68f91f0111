"""Speed of yolov4-tiny compared with PyTorch_YOLOv4: inference with decoding and NMS, and a training step.

    python tools/bench/peer.py PEER_CHECKOUT [--size 416] [--rounds 60] [--threads N] [--device cuda] [--json FILE]

The candidates alternate, so that a busy machine slows all of them; the result is the median of the ratios per round.
Inference: batch 1, the same .weights file and image for both, with about 30 boxes before NMS; the detected boxes must
be equal. Training: mini-batch 4 with the same images and boxes; forward, loss, backward, optimizer; each candidate in a
process of its own, as how one uses its memory changes the time of the next.

The peer is imported from its checkout and used as in its own scripts, with its own fuse() for inference. It is timed a
second time in channels-last memory, which its scripts do not use. Stubs replace packages that it imports without need
here (torchvision, yaml, matplotlib), and `torchvision.ops.nms` if torchvision is not installed; the time of that stub
is subtracted. On a GPU both run inference in fp16 and train in fp16 autocast, as the peer's scripts do.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor

from darknet_py import timing
from darknet_py.boxes import to_corners
from darknet_py.cli import benchmark
from darknet_py.graph.graph import parse, parse_text
from darknet_py.inference.detections import Detections
from darknet_py.inference.fuse import fuse
from darknet_py.inference.nms import postprocess
from darknet_py.layers.convolutional import ConvolutionalLayer
from darknet_py.model.network import Network
from darknet_py.training.allocator import freed_memory_reused

ROOT = Path(__file__).resolve().parents[2]
CFG = ROOT / "cfg" / "yolov4-tiny.cfg"
BOXES, CLASSES = 30, 80
THRESH, NMS = 0.25, 0.45
MINI_BATCH = 4
_WARM_UP = 3
OURS, PEER, PEER_LAST = "darknet_py", "peer", "peer, channels-last"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path, help="a checkout of WongKinYiu/PyTorch_YOLOv4")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument(
        "--rounds", type=int, default=60, help="rounds of inference; training has a third of them (default: 60)"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_up(arguments.threads)
    device = torch.device(arguments.device)
    peer = Peer(arguments.peer)
    report: dict[str, Any] = {
        "what": "yolov4-tiny, darknet_py / PyTorch_YOLOv4",
        "date": datetime.date.today().isoformat(),
        "machine": benchmark.machine_name(device),
        "load": [round(value, 2) for value in os.getloadavg()],
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "size": arguments.size,
        "nms of the peer": peer.nms_name,
    }
    contests = (("inference", inference, arguments.rounds), ("training step", training, max(arguments.rounds // 3, 1)))
    for name, contest, rounds in contests:
        with contest(peer, arguments.size, device) as (arms, facts):
            report[name] = facts | ratios(take_turns(arms, rounds))
        show(name, report[name])
    report["load after"] = [round(value, 2) for value in os.getloadavg()]
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(re.sub(r"\n +(-?[\d.]+,?)(?=\n)", r" \1", json.dumps(report, indent=1)) + "\n")


def set_up(threads: int | None) -> None:
    """What holds for a whole process."""
    if threads:
        torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # the peer is older than this torch
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True


class Seconds(NamedTuple):
    """Wall-clock time, and processor time of all threads."""

    clock: float = 0.0
    processor: float = 0.0

    @classmethod
    def now(cls, device: torch.device) -> Seconds:
        return cls(timing.now(device), time.process_time())

    def since(self, start: Seconds) -> Seconds:
        return Seconds(self.clock - start.clock, self.processor - start.processor)

    def plus(self, more: Seconds) -> Seconds:
        return Seconds(self.clock + more.clock, self.processor + more.processor)


Arms = dict[str, Callable[[], Seconds]]


# --- the measured functions


@contextmanager
def inference(peer: Peer, size: int, device: torch.device) -> Iterator[tuple[Arms, dict[str, Any]]]:
    """Both networks with the same weights and image."""
    half = torch.float16 if device.type == "cuda" else None
    image = torch.rand(1, 3, size, size)
    net = Network(parse_text(match_peer_decoding(peer.cfg.read_text()), str(peer.cfg), width=size, height=size))
    make_sensible(net, image)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "yolov4-tiny.weights"
        net.save_weights(path)
        exact, theirs, theirs_last = (peer.network(size, path) for _ in range(3))
    with torch.inference_mode():  # on the CPU in float32, where there is little rounding
        facts = compare(postprocess(fuse(net)(image), THRESH, NMS)[0], peer.nms(exact(image)[0]), size)
    ours = fuse(net.to(device), half)
    theirs.to(device, half)
    theirs_last.to(device, half, memory_format=torch.channels_last)
    x = image.to(device, half)
    x_last = x.contiguous(memory_format=torch.channels_last)
    calls: dict[str, Callable[[], Any]] = {
        OURS: lambda: postprocess(ours(x), THRESH, NMS),
        PEER: lambda: peer.nms(theirs(x)[0]),
        PEER_LAST: lambda: peer.nms(theirs_last(x_last)[0]),
    }
    yield {name: partial(timed, torch.inference_mode()(call), device, peer) for name, call in calls.items()}, facts


@contextmanager
def training(peer: Peer, size: int, device: torch.device) -> Iterator[tuple[Arms, dict[str, Any]]]:
    """A training step of each, on the same images and boxes."""
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        arms: Arms = {}
        memory: dict[str, int] = {}
        for name in (OURS, PEER, PEER_LAST):
            here, there = spawn.Pipe()
            arguments = (there, name, peer.checkout, size, device, torch.get_num_threads())
            process = spawn.Process(target=serve_training_steps, args=arguments)
            process.start()
            there.close()  # else a process that ends would never be noticed here
            stack.callback(process.join)
            stack.callback(here.close)
            arms[name] = partial(ask_for_step, here, name, memory)
        facts: dict[str, Any] = {"mini-batch": MINI_BATCH, "boxes": MINI_BATCH * benchmark.TRUTHS}
        yield arms, facts | {"peak memory beyond the imports, MB": memory}


def ask_for_step(pipe: Connection, name: str, memory: dict[str, int]) -> Seconds:
    """Has the process at the other end do a step. memory: where its peak goes, by name."""
    pipe.send(True)
    seconds, memory[name] = pipe.recv()
    return Seconds(*seconds)


def serve_training_steps(
    pipe: Connection, name: str, checkout: Path, size: int, device: torch.device, threads: int
) -> None:
    """The process of a candidate: a step whenever the other end asks, until that is closed."""
    set_up(threads)
    peer, memory = Peer(checkout), benchmark.PeakMemory()
    net = Network(parse(CFG, width=size, height=size)).to(device)
    images, truth = benchmark.random_images(net, MINI_BATCH, device), benchmark.random_truth(net, MINI_BATCH, device)
    if name == OURS:
        amp = "fp16" if device.type == "cuda" else None
        step = partial(benchmark.make_train_step(net, MINI_BATCH, amp).step, [(images, truth)])
    else:
        images = images if name == PEER_LAST else images.contiguous()
        step = partial(peer.trainer(size, device, last=name == PEER_LAST), images, truth)
    del net
    memory.reset()
    with freed_memory_reused(device) if name == OURS else nullcontext(), suppress(EOFError):
        while pipe.recv():
            pipe.send((timed(step, device, peer), memory.peak() // 1_000_000))


def match_peer_decoding(text: str) -> str:
    """Changes the cfg so that Darknet decodes as the peer does.

    The peer always decodes as new_coords=1 scale_x_y=2 does on logistic outputs. Its NMS uses plain IoU.
    """
    text = re.sub(r"activation\s*=\s*linear(\s*\[yolo])", r"activation=logistic\1\nnew_coords=1", text)
    text = re.sub(r"scale_x_y\s*=\s*\S+", "scale_x_y=2", text)
    return re.sub(r"nms_kind\s*=\s*\S+", "nms_kind=default", text)


def make_sensible(net: Network, image: Tensor) -> None:
    """Sets random weights with bounded features that detect BOXES boxes of one class on `image`."""
    convolutions = [layer for layer in net.layers if isinstance(layer, ConvolutionalLayer)]
    for layer in convolutions:
        layer.momentum = 1.0  # use the statistics of this image
    with torch.no_grad():
        net.train()(image)
        net.eval()
        heads = [net.layers[i - 1] for i, _ in net.detectors]
        for head in heads:
            bias = head.bias.view(-1, 5 + CLASSES)
            bias[:, 4], bias[:, 5:], bias[:, 7] = 0.0, -12.0, 12.0
        objectness = net(image).objectness.flatten().logit().sort(descending=True).values
        for head in heads:
            level = torch.tensor(THRESH).logit() - (objectness[BOXES - 1] + objectness[BOXES]) / 2
            head.bias.view(-1, 5 + CLASSES)[:, 4] = level


def compare(ours: Detections, theirs: Tensor, size: int) -> dict[str, Any]:
    """Checks that both detect the same boxes. theirs: rows of x1, y1, x2, y2 in pixels, confidence, class."""
    boxes, scores, labels = (torch.from_numpy(part) for part in (ours.boxes, ours.confidences, ours.class_ids))
    mine = torch.cat((to_corners(boxes) * size, scores[:, None], labels[:, None].float()), 1)
    if len(mine) != len(theirs):
        sys.exit(f"expected the same boxes from both, got {len(mine)} and {len(theirs)}")
    # Matched by position, because similar confidences may change the order.
    difference = (mine - theirs[torch.cdist(mine[:, :4], theirs[:, :4]).argmin(1)]).abs()
    if difference[:, :4].max() > 0.05 or difference[:, 4].max() > 1e-3 or difference[:, 5].any():
        sys.exit(f"expected the same boxes from both, got differences up to {difference.amax(0).tolist()}")
    return {
        "boxes": len(mine),
        "largest difference in pixels": round(float(difference[:, :4].max()), 5),
        "largest difference in confidence": round(float(difference[:, 4].max()), 7),
    }


# --- the peer


class Peer:
    """The modules of the peer, imported from its checkout."""

    def __init__(self, checkout: Path):
        self.cfg = checkout / "cfg" / "yolov4-tiny.cfg"
        if not self.cfg.is_file():
            sys.exit(f"{checkout}: expected a checkout of WongKinYiu/PyTorch_YOLOv4, got no cfg/yolov4-tiny.cfg")
        self.checkout = checkout
        self.suppressing = Seconds()  # spent in the stub
        self.nms_name = self._install_stubs()
        with self._import_path():
            self.models, self.general, self.losses = (
                importlib.import_module(name) for name in ("models.models", "utils.general", "utils.loss")
            )

    def network(self, size: int, weights: Path | None = None) -> Any:
        """The peer's network; with weights, in eval mode and fused."""
        with self._import_path(), redirect_stdout(None):
            net = self.models.Darknet(str(self.cfg), (size, size))
            if weights:
                self.models.load_darknet_weights(net, str(weights))
                for module in net.modules():
                    if isinstance(module, torch.nn.BatchNorm2d):
                        module.eps = 1e-5  # Darknet's; the peer's 1e-4 gives slightly other boxes
                net.eval()
                net.fuse()
        return net

    def nms(self, prediction: Tensor) -> Tensor:
        return self.general.non_max_suppression(prediction, THRESH, NMS)[0]

    def discount(self) -> Seconds:
        """Seconds spent in the stub since the last call."""
        seconds, self.suppressing = self.suppressing, Seconds()
        return seconds

    def trainer(self, size: int, device: torch.device, last: bool = False) -> Callable[[Tensor, Tensor], None]:
        """A step as in its train.py, without the moving average of the weights."""
        net = self.network(size).to(device).train()
        if last:
            net.to(memory_format=torch.channels_last)
        options = self._options()
        net.nc, net.hyp, net.gr = CLASSES, options, 1.0
        weights = [p for name, p in net.named_parameters() if "Conv2d.weight" in name]
        biases = [p for name, p in net.named_parameters() if ".bias" in name]
        others = [p for name, p in net.named_parameters() if "Conv2d.weight" not in name and ".bias" not in name]
        optimizer = torch.optim.SGD(others, lr=1e-6, momentum=options["momentum"], nesterov=True)
        optimizer.add_param_group({"params": weights, "weight_decay": options["weight_decay"]})
        optimizer.add_param_group({"params": biases})
        cuda = device.type == "cuda"
        self.losses.torch = OnDevice(device) if cuda else torch
        scaler = torch.amp.GradScaler(device.type, enabled=cuda)

        def step(images: Tensor, truth: Tensor) -> None:
            with torch.autocast(device.type, torch.float16, enabled=cuda):
                loss, _ = self.losses.compute_loss(net(images), truth, net)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

        return step

    def _options(self) -> dict[str, float]:
        lines = (self.checkout / "data" / "hyp.scratch.yaml").read_text().splitlines()
        pairs = [line.split("#")[0].split(":") for line in lines if ":" in line.split("#")[0]]
        return {key.strip(): float(value) for key, value in pairs}

    @contextmanager
    def _import_path(self) -> Iterator[None]:
        """Makes its packages `models` and `utils` importable."""
        sys.path.insert(0, str(self.checkout))
        try:
            yield
        finally:
            sys.path.remove(str(self.checkout))

    def _install_stubs(self) -> str:
        for name in ("yaml", "matplotlib", "matplotlib.pyplot"):
            try:
                importlib.import_module(name)
            except ImportError:
                sys.modules[name] = MagicMock()
        # Older versions of torch accepted and rounded a one-element tensor as a number; the peer depends on that.
        clamp = Tensor.clamp_

        def with_whole_limit(cells: Tensor, *limits: Any, **named: Any) -> Tensor:
            return clamp(cells, *limits[:1], *map(int, limits[1:]), **named)  # our own code names its limits

        Tensor.clamp_ = with_whole_limit  # type: ignore[assignment, method-assign]
        try:
            return f"torchvision {importlib.import_module('torchvision').__version__}"
        except (ImportError, RuntimeError):
            sys.modules["torchvision"] = MagicMock()
        self.library = torch.library.Library("torchvision", "DEF")
        self.library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        self.library.impl("nms", self._suppress, "CompositeExplicitAutograd")
        return "a stub, whose time is subtracted"

    def _suppress(self, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        """torchvision.ops.nms. boxes: (N, 4) corners."""
        device = boxes.device
        start = Seconds.now(device)
        order = scores.argsort(descending=True)
        left, top, right, bottom = boxes[order].float().cpu().numpy().T
        area = (right - left) * (bottom - top)
        width = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
        height = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
        common = width.clip(0) * height.clip(0)
        suppresses = common > threshold * (area[:, None] + area - common)
        remaining = np.ones(len(area), dtype=bool)
        for row in range(len(area)):
            if remaining[row]:
                remaining[row + 1 :] &= ~suppresses[row, row + 1 :]
        selected = order[torch.from_numpy(remaining.nonzero()[0]).to(device)]
        self.suppressing = self.suppressing.plus(Seconds.now(device).since(start))
        return selected


class OnDevice:
    """torch for the peer's loss, which indexes a CPU range by a GPU mask; torch no longer supports that."""

    def __init__(self, device: torch.device):
        self.device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def arange(self, *bounds: int) -> Tensor:
        return torch.arange(*bounds, device=self.device)


# --- measuring


def timed(call: Callable[[], Any], device: torch.device, peer: Peer) -> Seconds:
    """Of a call, without those in the peer's stub."""
    peer.discount()
    start = Seconds.now(device)
    call()
    return Seconds.now(device).since(start).since(peer.discount())


def take_turns(arms: Arms, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds per call. Every second round runs in the opposite order."""
    spent: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in Seconds._fields} for name in arms}
    for number in range(-_WARM_UP, rounds):
        for name in list(arms)[:: 1 if number % 2 else -1]:
            taken = arms[name]()
            if number >= 0:
                for kind, seconds in taken._asdict().items():
                    spent[name][kind].append(round(1e3 * seconds, 3))
    return spent


def ratios(spent: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Our time divided by theirs: the median over the rounds, and of the fastest calls; then all rounds."""
    ours = spent[OURS]
    comparisons: dict[str, Any] = {}
    for name, theirs in spent.items():
        if name == OURS:
            continue
        comparisons[f"ratio to {name}"] = {
            kind: {
                "median": round(statistics.median(a / b for a, b in zip(ours[kind], theirs[kind], strict=True)), 3),
                "fastest": round(min(ours[kind]) / min(theirs[kind]), 3),
            }
            for kind in ours
        }
    medians = {
        name: {kind: {"median": statistics.median(v), "fastest": min(v)} for kind, v in times.items()}
        for name, times in spent.items()
    }
    return comparisons | {"milliseconds": medians, "rounds": spent}


def show(name: str, result: dict[str, Any]) -> None:
    print(f"\n{name:<24}{'median':>10}{'fastest':>10}  ms    processor time{'median':>10}{'fastest':>10}  ms")
    for arm, times in result["milliseconds"].items():
        clock, processor = times["clock"], times["processor"]
        line = f"  {arm:<22}{clock['median']:10.2f}{clock['fastest']:10.2f}"
        print(f"{line}{'':22}{processor['median']:10.2f}{processor['fastest']:10.2f}")
    for key, value in result.items():
        if key.startswith("ratio"):
            clock, processor = value["clock"], value["processor"]
            line = f"  {key:<22}{clock['median']:10.3f}{clock['fastest']:10.3f}"
            print(f"{line}{'':22}{processor['median']:10.3f}{processor['fastest']:10.3f}")
        elif key not in ("milliseconds", "rounds"):
            print(f"  {key}: {value}")


if __name__ == "__main__":
    main()
