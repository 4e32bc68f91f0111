"""What the study trains: networks, data and seeds, at several scales.

Three parts. *stages*: PeleeNet as a classifier, plain, and with cross stage partial stages of each fusion and γ.
*necks*: a detector on one CSPPeleeNet, with each of three necks. *equal_necks*: the same with five necks, whose widths
give all of them the same BFLOPs within 1.5 %. With the same seed, all networks of a part see the same images in the
same order; they have the same [net] and the same head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import NamedTuple

from darknet_py.zoo import blocks, heads, necks
from darknet_py.zoo.cfg_writer import CfgWriter, Value
from darknet_py.zoo.dense import peleenet
from darknet_py.zoo.heads import YoloHeads
from darknet_py.zoo.stages import Csp

FUSIONS = {"first": "fusion first", "last": "fusion last", "csp": "CSP (both)"}
GAMMAS = (0.25, 0.5, 0.75)
# Each with the factor of its width that gives it about the cost of the others.
NECKS: dict[str, tuple[Callable[..., None], float]] = {
    "fpn": (necks.fpn, 0.5),
    "gfm": (necks.gfm, 1),
    "efm": (necks.efm, 1),
}
# Channels of a level divided by its stride, at the scales "cpu" and "gpu": those that give the most similar BFLOPs.
EQUAL_NECKS: dict[str, tuple[Callable[..., None], float, float]] = {
    "equal-fpn": (necks.fpn, 2.75, 5),
    "equal-gfm": (necks.gfm, 5.5, 9),
    "equal-efm": (necks.efm, 4.75, 8),
    "equal-pan": (partial(necks.panet, top=blocks.conv_set), 2.25, 4),
    "equal-prn": (necks.prn, 5, 9),
}
TOPICS = ("fusion", "gamma", "necks", "equal-necks")
# Of the built-in shapes, for an input of 96 x 96: `darknet-py anchors --clusters 9 --width 96 --height 96`.
_SHAPES = (4, 5, 7, 7, 14, 14, 18, 19, 26, 20, 23, 28, 36, 28, 28, 37, 44, 45)


@dataclass(frozen=True)
class Variant:
    """A network of the study. topics: the questions that it contributes to."""

    name: str
    part: str
    topics: tuple[str, ...]
    csp: Csp | None = None
    neck: str = ""

    @property
    def title(self) -> str:
        if self.neck:
            return self.neck.removeprefix("equal-").upper()
        return f"{FUSIONS[self.csp.fusion]}, γ = {self.csp.gamma:g}" if self.csp else "plain"


@dataclass(frozen=True)
class Recipe:
    """How the networks of a part are built and trained.

    size: of the input in pixels. growth, counts: of PeleeNet. width: channels of a level of the neck divided by its
    stride. rate: highest learning rate of Adam. train, valid: number of images of the built-in data.
    """

    size: int
    growth: int
    counts: tuple[int, ...]
    batch: int
    iterations: int
    rate: float
    train: int
    valid: int
    subdivisions: int = 1
    width: int = 0


@dataclass(frozen=True)
class Scale:
    stages: Recipe
    necks: Recipe
    seeds: int
    amp: str = ""  # on a GPU
    device: str = "cpu"

    def recipe(self, part: str) -> Recipe:
        return self.stages if part == "stages" else self.necks


_CPU = Scale(
    stages=Recipe(64, 16, (3, 4, 8, 6), batch=32, iterations=400, rate=0.004, train=1200, valid=1200),
    necks=Recipe(96, 16, (2, 3, 4, 3), batch=8, iterations=600, rate=0.004, train=1200, valid=400, width=4),
    seeds=5,
)
SCALES = {
    "cpu": _CPU,
    # Three times as long: do the differences remain after more training?
    "long": replace(
        _CPU, stages=replace(_CPU.stages, iterations=1200), necks=replace(_CPU.necks, iterations=1800), seeds=3
    ),
    "gpu": Scale(
        stages=Recipe(224, 32, (3, 4, 8, 6), batch=128, iterations=50000, rate=0.002, train=12000, valid=6000),
        necks=Recipe(416, 32, (3, 4, 8, 6), batch=64, iterations=20000, rate=0.001, train=12000, valid=2400, width=8),
        seeds=5,
        amp="bf16",
        device="cuda",
    ),
}


def variants() -> list[Variant]:
    """Every network of the study: the fusions at γ = .5, γ with both transitions, and the necks, at equal cost too."""
    networks = [Variant("plain", "stages", ("fusion", "gamma"))]
    for fusion in FUSIONS:
        for gamma in GAMMAS if fusion == "csp" else (0.5,):
            topics = [topic for topic, applies in (("fusion", gamma == 0.5), ("gamma", fusion == "csp")) if applies]
            networks.append(Variant(f"{fusion}-{gamma:g}", "stages", tuple(topics), Csp(gamma, fusion, "groups")))
    for neck in NECKS:
        networks.append(Variant(neck, "necks", ("necks",), Csp(split="groups"), neck))
    for neck in EQUAL_NECKS:
        networks.append(Variant(neck, "equal_necks", ("equal-necks",), Csp(split="groups"), neck))
    return networks


def titles() -> dict[str, str]:
    return {variant.name: variant.title for variant in variants()}


class Run(NamedTuple):
    """One training. data: description of its images in the results."""

    scale: str
    variant: Variant
    recipe: Recipe
    seed: int
    cfg: str
    data: str

    @property
    def name(self) -> str:
        return f"{self.scale}-{self.variant.name}-seed{self.seed}"

    @property
    def digest(self) -> str:
        """Hash of everything that the result depends on; comments of the cfg do not count."""
        lines = [line for line in self.cfg.splitlines() if line and not line.startswith("#")]
        known = f"{lines} {asdict(self.recipe)} {self.data} {self.seed}"
        return hashlib.sha256(known.encode()).hexdigest()[:12]


class StudyData(NamedTuple):
    """The images of a part. name: description in the results. builtin: whether they are the built-in shapes."""

    name: str
    path: str
    classes: int
    builtin: bool


def runs(
    scale: str, only: Sequence[str], seeds: int | None, iterations: int | None, data: Mapping[str, StudyData]
) -> Iterator[Run]:
    """All trainings, seed by seed, so that an interrupted study has results of every network.

    only: topics; none: all. data: the images of each part.
    """
    for seed in range(seeds or SCALES[scale].seeds):
        for variant in variants_of(only):
            recipe = SCALES[scale].recipe(variant.part)
            if iterations:
                recipe = replace(recipe, iterations=iterations)
            images = data[variant.part]
            cfg = cfg_text(variant, recipe, images.classes, images.builtin)
            yield Run(scale, variant, recipe, seed, cfg, images.name)


def variants_of(only: Sequence[str]) -> list[Variant]:
    return [variant for variant in variants() if not only or set(only) & set(variant.topics)]


def cfg_text(variant: Variant, recipe: Recipe, classes: int, builtin: bool = True) -> str:
    """The cfg of a variant."""
    classify = variant.part == "stages"
    about = f"{variant.title}: a small PeleeNet, {'classifier' if classify else 'detector'} of the fusion study."
    cfg = CfgWriter(about, _net(recipe, classify), "tools/study/plan.py.")
    features = peleenet(cfg, variant.csp, counts=recipe.counts, growth=recipe.growth)
    if classify:
        heads.classifier(cfg, classes)
        return cfg.text()
    sides, size = (_SHAPES, 96) if builtin else (heads.COCO_V3, 416)
    anchors = tuple(side * recipe.size / size for side in sides)
    # YOLOv4's loss: with YOLOv3's, a detector needs many more iterations before it detects anything.
    loss = {**heads.V4_LOSS, "jitter": 0.1}
    if variant.neck in EQUAL_NECKS:
        neck, small, full = EQUAL_NECKS[variant.neck]
        width = small if recipe.width == _CPU.necks.width else full
    else:
        neck, factor = NECKS[variant.neck]
        width = int(recipe.width * factor)
    neck(cfg, features, YoloHeads(classes, anchors, heads.THREE_SCALES, loss), width=width)
    return cfg.text()


def _net(recipe: Recipe, classify: bool) -> Mapping[str, Mapping[str, Value]]:
    size = recipe.size
    augmentation: dict[str, Value] = {"hue": 0.1, "saturation": 1.5, "exposure": 1.5, "angle": 0}
    if classify:  # a crop of a copy whose shorter side has min_crop to max_crop pixels
        augmentation |= {"min_crop": size, "max_crop": size * 5 // 4, "angle": 7, "aspect": 0.75}
    return {
        "Input": {
            "batch": recipe.batch,
            "subdivisions": recipe.subdivisions,
            "width": size,
            "height": size,
            "channels": 3,
        },
        "Adam, whose rate grows over burn_in iterations and then falls evenly to zero": {
            "adam": 1,
            "decay": 0.0005,
            "learning_rate": recipe.rate,
            "burn_in": recipe.iterations // 15,
            "max_batches": recipe.iterations,
            "policy": "poly",
            "power": 1,
        },
        "Augmentation": augmentation,
    }
