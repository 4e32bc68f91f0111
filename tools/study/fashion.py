"""The study on Fashion-MNIST: how stages share features, at equal cost, for three lengths of training.

    python tools/study/fashion.py                      240 trainings on one core; docs/study.md says how long they took
    python tools/study/fashion.py --scale gpu          wider networks, whole epochs, 20 seeds, on a GPU
    python tools/study/fashion.py --first-seed 10 --length 270 --out again     a part once more, with other seeds
    python tools/study/fashion.py --images FOLDER      where the four IDX files are, packed with gzip or not

The images are those of Debian's package dataset-fashion-mnist: 60,000 to train, 10,000 to test (Xiao et al., 2017). All
networks have the same stem and head, and growths that give each of them the same BFLOPs within 1 %. With
the same seed and length all of them see the same images in the same order. Every finished training is a row of
study/fashion.jsonl, seed by seed; the same command skips finished trainings.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from report import read_jsonl  # noqa: E402
from run import append_row  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.functional import one_hot, pad  # noqa: E402
from tqdm import tqdm  # noqa: E402

import darknet_py  # noqa: E402
from darknet_py.errors import DarknetError, DataError  # noqa: E402
from darknet_py.graph.profile import network_profile  # noqa: E402
from darknet_py.model.network import Network  # noqa: E402
from darknet_py.training.optimizer import set_statistics_momentum  # noqa: E402
from darknet_py.training.schedule import statistics_momentum  # noqa: E402
from darknet_py.training.train_step import TrainStep  # noqa: E402
from darknet_py.zoo import blocks, heads  # noqa: E402
from darknet_py.zoo.aggregation import elan, osa  # noqa: E402
from darknet_py.zoo.cfg_writer import CfgWriter  # noqa: E402
from darknet_py.zoo.stages import Csp  # noqa: E402

IMAGES = Path("/usr/share/datasets/fashion-mnist")
CLASSES, LAYERS = 10, 4
_CURVE_IMAGES = 1000  # test images that points of a learning curve are measured on
_SHIFT = 2  # pixels


@dataclass(frozen=True)
class Scale:
    """How large the study is.

    stem: channels. bflops: of every network. iterations: the lengths of training, each with a schedule of its own.
    """

    stem: int
    bflops: float
    batch: int
    iterations: tuple[int, ...]
    rate: float
    seeds: int
    device: str = "cpu"
    amp: str | None = None


SCALES = {
    "cpu": Scale(stem=16, bflops=0.0018, batch=64, iterations=(90, 270, 810), rate=0.01, seeds=10),
    "gpu": Scale(32, 0.08, 128, (469 * 5, 469 * 20, 469 * 80), 0.005, 20, "cuda", "bf16"),  # epochs of 469 iterations
}


class Variant(NamedTuple):
    """A kind of stage. csp: of dense stages. block: (cfg, growth) writes a stage of another kind, without pooling."""

    name: str
    title: str
    csp: Csp | None = None
    block: Callable[[CfgWriter, int], object] | None = None


def _osa_stage(cfg: CfgWriter, growth: int) -> None:
    osa(cfg, growth, cfg.width() + LAYERS * growth, LAYERS)


VARIANTS = (
    Variant("plain", "plain"),
    Variant("first", "fusion first, γ = 0.5", Csp(0.5, "first", "groups")),
    Variant("last", "fusion last, γ = 0.5", Csp(0.5, "last", "groups")),
    Variant("csp-0.25", "CSP, γ = 0.25", Csp(0.25, "csp", "groups")),
    Variant("csp-0.5", "CSP, γ = 0.5", Csp(0.5, "csp", "groups")),
    Variant("csp-0.75", "CSP, γ = 0.75", Csp(0.75, "csp", "groups")),
    Variant("elan", "ELAN", block=lambda cfg, growth: elan(cfg, growth, 4 * growth)),
    Variant("osa", "OSA", block=_osa_stage),
)


def cfg_text(variant: Variant, growths: Sequence[int], scale: Scale, iterations: int) -> str:
    """The cfg of a network. growths: channels that a layer of each of the two stages adds."""
    net = {
        "Fashion-MNIST": {"batch": scale.batch, "subdivisions": 1, "width": 28, "height": 28, "channels": 1},
        "Adam, whose rate grows over burn_in iterations and then falls evenly to zero": {
            "adam": 1,
            "decay": 0.0005,
            "learning_rate": scale.rate,
            "burn_in": iterations // 15,
            "max_batches": iterations,
            "policy": "poly",
            "power": 1,
        },
    }
    cfg = CfgWriter(f"Study on Fashion-MNIST: {variant.title}.", net, "tools/study/fashion.py.")
    cfg.chapter("Backbone")
    cfg.part("stem, stride 4")
    cfg.conv(scale.stem, 3, 2)
    cfg.maxpool(2, 2)
    for stage, growth in enumerate(growths):
        cfg.part(f"stage at stride {4 << stage}")
        pool = "before" if stage < len(growths) - 1 else ""
        if variant.block is not None:
            variant.block(cfg, growth)
            if pool:
                cfg.maxpool(2, 2)
        else:
            _dense_stage(cfg, variant.csp, growth, pool)
    heads.classifier(cfg, CLASSES)
    return cfg.text()


def _dense_stage(cfg: CfgWriter, csp: Csp | None, growth: int, pool: str) -> None:
    """Dense layers between a split and transitions (`zoo.dense`), plain ones before a transition."""
    base = cfg.width()
    total = base + LAYERS * growth
    skipped = csp.divide(cfg, base) if csp else -1
    blocks.repeat(cfg, lambda: blocks.dense(cfg, growth, 0), LAYERS)
    if csp:
        csp.join(cfg, skipped, cfg.width(), total, pool=pool)
        return
    cfg.note("Transition")
    cfg.conv(total)
    if pool:
        cfg.maxpool(2, 2)


@cache
def growths(variant: Variant, scale: Scale) -> tuple[int, int]:
    """The growths that come nearest to the scale's BFLOPs; the second is 1.6 to 2.4 times the first."""
    best, off = (0, 0), float("inf")
    for first in range(2, 200):
        pairs = [(first, second) for second in range(-(-8 * first // 5), 12 * first // 5 + 1)]
        costs = [network_profile(darknet_py.parse_text(cfg_text(variant, pair, scale, 15))).bflops for pair in pairs]
        for pair, cost in zip(pairs, costs, strict=True):
            if abs(cost - scale.bflops) < off:
                best, off = pair, abs(cost - scale.bflops)
        if min(costs) > scale.bflops:
            break
    return best


class Run(NamedTuple):
    """One training."""

    variant: Variant
    iterations: int
    seed: int
    scale: Scale
    cfg: str

    @property
    def digest(self) -> str:
        """Hash of everything that the result depends on but the images; comments of the cfg do not count."""
        lines = [line for line in self.cfg.splitlines() if line and not line.startswith("#")]
        return hashlib.sha256(f"{lines} {self.seed}".encode()).hexdigest()[:12]


def runs(scale: Scale, seeds: int | None = None, first_seed: int = 0) -> Iterator[Run]:
    """All trainings, seed by seed, so that an interrupted study has the same seeds of every network."""
    for seed in range(first_seed, first_seed + (seeds or scale.seeds)):
        for iterations in scale.iterations:
            for variant in VARIANTS:
                yield Run(
                    variant, iterations, seed, scale, cfg_text(variant, growths(variant, scale), scale, iterations)
                )


class Images(NamedTuple):
    """images: (N, 1, 28, 28) in 0..1. labels: (N,)."""

    images: Tensor
    labels: Tensor


def read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An array of bytes in the IDX format; the file may be packed, and its name end in .gz."""
    path = next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), path)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError) as error:
        raise DataError(f"IDX file not found or damaged: {path} (Debian: apt install dataset-fashion-mnist)") from error
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path}: expected an IDX file of bytes, got something else")
    shape = np.frombuffer(data, ">u4", data[3], 4)
    if len(data) != 4 + 4 * data[3] + int(shape.prod(dtype=np.int64)):
        raise DataError(f"{path}: expected {'x'.join(map(str, shape))} bytes, got {len(data) - 4 - 4 * data[3]}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def read_images(folder: Path, name: str, device: str = "cpu") -> Images:
    """The images of a part of Fashion-MNIST. name: train or t10k."""
    pixels, labels = read_idx(folder / f"{name}-images-idx3-ubyte"), read_idx(folder / f"{name}-labels-idx1-ubyte")
    if pixels.shape[1:] != (28, 28) or labels.shape != pixels.shape[:1]:
        raise DataError(f"{folder}: expected images of 28 x 28 with a label each, got {pixels.shape}, {labels.shape}")
    images = torch.from_numpy(pixels.copy()).to(device)[:, None].float() / 255
    return Images(images, torch.from_numpy(labels.copy()).long().to(device))


def batches(data: Images, size: int, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random images, each epoch in a new order, half of them mirrored, moved by up to two pixels; and their truth."""
    dice = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(count):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(len(data.labels), generator=dice)])
        chosen, order = order[:size].to(data.labels.device), order[size:]
        images = data.images[chosen]
        mirrored = torch.rand(size, generator=dice).lt(0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        dx, dy = torch.randint(2 * _SHIFT + 1, (2,), generator=dice).tolist()
        images = pad(images, [_SHIFT] * 4)[:, :, dy : dy + 28, dx : dx + 28]
        yield images.contiguous(memory_format=torch.channels_last), one_hot(data.labels[chosen], CLASSES).float()


def accuracy(network: Network, data: Images, count: int | None = None) -> float:
    """Top-1 on the first `count` images."""
    network.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in zip(data.images[:count].split(1000), data.labels[:count].split(1000), strict=True):
            right += int((network(images).flatten(1).argmax(1) == labels).sum())
    network.train()
    return right / len(data.labels[:count])


def train(run: Run, training: Images, test: Images) -> dict[str, Any]:
    """Trains and evaluates one network; returns its row."""
    started = time.process_time() if run.scale.device == "cpu" else time.perf_counter()
    torch.manual_seed(run.seed)
    graph = darknet_py.parse_text(run.cfg, strict=True)
    network = Network(graph).to(run.scale.device, memory_format=torch.channels_last)
    set_statistics_momentum(network, statistics_momentum(graph.net))
    network.train()
    learner = TrainStep(network, seed=run.seed, amp=run.scale.amp)
    curve: list[tuple[int, float]] = []
    losses: list[Tensor] = []
    points = {run.iterations * part // 12 for part in (2, 4, 6, 8, 10)}
    for number, batch in enumerate(batches(training, run.scale.batch, run.iterations, run.seed), 1):
        losses.append(learner.step([batch]).loss)
        if number in points:
            curve.append((number, accuracy(network, test, _CURVE_IMAGES)))
    score = accuracy(network, test)
    cost = network_profile(graph)
    ended = time.process_time() if run.scale.device == "cpu" else time.perf_counter()
    return {
        "variant": run.variant.name,
        "iterations": run.iterations,
        "seed": run.seed,
        "score": score,
        "loss": round(float(torch.stack(losses[-20:]).mean()), 5),
        "curve": " ".join(f"{number}:{value:.4f}" for number, value in curve),
        "parameters": cost.parameters,
        "bflops": round(cost.bflops, 7),
        "cio": cost.cio,
        "growths": " ".join(map(str, growths(run.variant, run.scale))),
        "batch": run.scale.batch,
        "seconds": round(ended - started, 2),
        "device": torch.cuda.get_device_name() if run.scale.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "digest": run.digest,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--images", type=Path, default=IMAGES, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, help="trainings of each network and length (default: the scale's)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="other trainings of the same networks")
    parser.add_argument("--length", type=int, action="append", metavar="N", help="iterations; can be repeated")
    parser.add_argument("--runs", type=int, help="stop after this many trainings")
    parser.add_argument("--out", type=Path, default=Path("study"), help="folder of fashion.jsonl")
    args = parser.parse_args(arguments)
    scale = SCALES[args.scale]
    try:
        if unknown := set(args.length or ()) - set(scale.iterations):
            raise DarknetError(f"--length: expected one of {scale.iterations}, got {min(unknown)}")
        scale = replace(scale, iterations=tuple(args.length or scale.iterations))
        if scale.device == "cuda" and not torch.cuda.is_available():
            raise DarknetError(f"--scale {args.scale}: expected a CUDA device, got none")
        training, test = (read_images(args.images, name, scale.device) for name in ("train", "t10k"))
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / "fashion.jsonl"
        done = {row["digest"] for row in read_jsonl(path)} if path.is_file() else set()
        missing = [run for run in runs(scale, args.seeds, args.first_seed) if run.digest not in done]
        for run in tqdm(missing[: args.runs], unit="training", dynamic_ncols=True):
            append_row(path, train(run, training, test))
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    print(path)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
