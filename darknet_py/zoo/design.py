"""Builds a network from the names of its parts (`darknet-py design`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from darknet_py.cfg.options import did_you_mean
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import parse_text
from darknet_py.zoo import blocks, heads, necks, net_sections
from darknet_py.zoo.backbones import BACKBONES, Backbone
from darknet_py.zoo.cfg_writer import CfgWriter, Value
from darknet_py.zoo.heads import YoloHeads
from darknet_py.zoo.residual import Features
from darknet_py.zoo.scale_filters import scale_filters
from darknet_py.zoo.stages import Csp

ATTENTIONS = ("se", "sam")
HEADS = ("yolov2", "yolov3", "yolov4", "classifier")
NECKS: dict[str, Callable[..., None]] = {
    "fpn": necks.fpn,
    "added-fpn": lambda cfg, features, head, width: necks.added_fpn(cfg, features, head, width=32 * width),
    "tiny-fpn": lambda cfg, features, head, width: necks.tiny_fpn(cfg, features, head),
    "panet": partial(necks.panet, top=blocks.conv_set),
    "csp-panet": necks.csp_panet,
    "prn": necks.prn,
    "cem": necks.cem,
    "gfm": necks.gfm,
    "efm": necks.efm,
}
TOPS = {"spp": blocks.spp_set, "rfb": blocks.rfb_set}
# Necks that contain the top block; for others it comes before the neck.
_TOPS_INSIDE = {"fpn": TOPS, "panet": TOPS, "efm": {"spp": blocks.spp_maxout, "rfb": blocks.rfb}}
_NARROW = ("prn", "cem", "gfm", "efm")  # necks whose width does not depend on the backbone
_LEVELS = 3


@dataclass(frozen=True)
class Design:
    """A choice of parts.

    Attributes:
        backbone: A key of `BACKBONES`.
        csp: How its stages are made cross stage partial; None: plain stages.
        neck: A key of `NECKS`; default: "fpn".
        top: A key of `TOPS`, the block at the coarsest level; default: none.
        head: One of `HEADS`.
        classes: Number of classes; default: 80, of a classifier 1000.
        anchors: Anchor widths and heights in pixels of the input (yolov2: in cells); default: those of COCO.
        levels: Number of strides with a head, starting from the coarsest.
        activation: Activation of the convolutions; default: that of the backbone.
        attention: One of `ATTENTIONS`, after each block of the backbone; default: none.
        neck_attention: One of `ATTENTIONS`, of the features that each detection head reads; default: none.
        elastic: Whether blocks process half of the channels at half the resolution.
        size: (width, height) of the input in pixels; default: 416, or the next multiple of the stride; of a classifier
            256.
        batch: Images per iteration; default: 64, of a classifier 128.
        batches: Iterations of the training; default: `net_sections.iterations`.
        scale: Factor for the filters of all layers but those that feed the heads (`scale_filters`).
    """

    backbone: str
    csp: Csp | None = None
    neck: str = ""
    top: str = ""
    head: str = "yolov3"
    classes: int = 0
    anchors: Sequence[float] = ()
    levels: int = 3
    activation: str = ""
    attention: str = ""
    neck_attention: str = ""
    elastic: bool = False
    size: tuple[int, int] = (0, 0)
    batch: int = 0
    batches: int = 0
    scale: float = 1.0

    def text(self, by: str = "darknet_py.zoo.design.") -> str:
        """Writes the cfg.

        Args:
            by: What writes the file, for the comment at its top.

        Returns:
            The text of the cfg.

        Raises:
            DarknetError: An unknown part, or parts that do not fit together.
        """
        backbone = self._checked()
        classify = self.head == "classifier"
        step = max(backbone.stride, 64 if self.elastic else 0)
        width, height = (side or (256 if classify else -(-416 // step) * step) for side in self.size)
        if width % step or height % step:
            raise DarknetError(f"size: expected a width and height divisible by {step}, got {width} x {height}")
        classes = self.classes or (1000 if classify else 80)
        batch = self.batch or (128 if classify else 64)
        subdivisions = _subdivisions(batch, 32 if classify else 8)
        batches = self.batches or net_sections.iterations(classes, classify)
        if classify:
            net = net_sections.classifier_net(subdivisions, size=width, height=height, batch=batch, batches=batches)
        else:
            net = net_sections.detector_net(
                width,
                subdivisions,
                height=height,
                batch=batch,
                batches=batches,
                burn_in=min(1000, batches // 5),
                steps=(batches * 4 // 5, batches * 9 // 10),
                mosaic=int(self.head == "yolov4"),
            )
        cfg = CfgWriter(self._about(backbone), net, by)
        cfg.activation = self.activation or backbone.activation
        cfg.attention, cfg.elastic = self.attention, self.elastic
        features = backbone.write(cfg, self.csp)
        cfg.attention, cfg.elastic = self.neck_attention, False
        self._finish(cfg, features, 8 if backbone.light else 16)
        graph = parse_text(cfg.text(), f"{self.backbone} design", strict=True)
        return graph.text if self.scale == 1 else scale_filters(graph, self.scale).text

    def _checked(self) -> Backbone:
        _one_of("backbone", self.backbone, BACKBONES)
        _one_of("head", self.head, HEADS)
        _one_of("neck", self.neck, ["", *NECKS])
        _one_of("top", self.top, ["", *TOPS])
        _one_of("attention", self.attention, ["", *ATTENTIONS])
        _one_of("neck-attention", self.neck_attention, ["", *ATTENTIONS])
        backbone = BACKBONES[self.backbone]
        if self.elastic and not backbone.elastic:
            able = ", ".join(name for name, other in BACKBONES.items() if other.elastic)
            raise DarknetError(f"elastic: expected one of {able}, got {self.backbone}")
        if self.csp and backbone.divides:
            raise DarknetError(
                f"csp: expected none, because the blocks of {self.backbone} are cross stage partial already"
            )
        for what, name in (("neck", self.neck), ("neck-attention", self.neck_attention)):
            if name and self.head in ("classifier", "yolov2"):
                raise DarknetError(f"{what}: expected none for the head {self.head}, got {name}")
        if self.neck == "cem" and len(set(self.size)) > 1:
            raise DarknetError(f"size: expected a square input for the neck cem, got {self.size[0]} x {self.size[1]}")
        if self.top and (self.head == "classifier" or self.neck == "csp-panet"):
            raise DarknetError(f"top: expected none for {self.neck or self.head}, got {self.top}")
        if not 1 <= self.levels <= _LEVELS:
            raise DarknetError(f"levels: expected 1 … {_LEVELS}, got {self.levels}")
        if self.classes < 0:
            raise DarknetError(f"classes: expected a positive number, got {self.classes}")
        for what, number in (("batch", self.batch), ("batches", self.batches)):
            if number < 0:
                raise DarknetError(f"{what}: expected a positive number, got {number}")
        return backbone

    def _about(self, backbone: Backbone) -> str:
        parts = [("CSP" if self.csp else "") + backbone.title]
        if self.csp:
            parts.append(f"gamma {self.csp.gamma:g}, fusion {self.csp.fusion}, split by {self.csp.split}")
        parts += [name for name in (self.attention, "elastic" if self.elastic else "", self.neck, self.top) if name]
        parts += [f"{self.neck_attention} in the neck"] if self.neck_attention else []
        parts += [f"filters times {self.scale:g}"] if self.scale != 1 else []
        return f"{', '.join(parts)}, {self.head}."

    def _finish(self, cfg: CfgWriter, features: Features, width: int) -> None:
        """Writes the neck and the heads. width: channels of an FPN level divided by its stride."""
        if self.head == "classifier":
            heads.classifier(cfg, self.classes or 1000)
            return
        if self.head == "yolov2":
            self._pool(cfg, 32 * width)
            necks.passthrough(cfg, features, width=64 * width)
            heads.region(cfg, self.classes or 80, anchors=self._anchors(heads.COCO_V2))
            return
        neck = self.neck or "fpn"
        options: dict[str, object] = {}
        if self.top and neck in _TOPS_INSIDE:
            options["top"] = _TOPS_INSIDE[neck][self.top]
        else:
            self._pool(cfg, 32 * width)
        head = self._yolo(sorted(features)[-self.levels :])
        NECKS[neck](cfg, features, head, width=8 if neck in _NARROW else width, **options)

    def _pool(self, cfg: CfgWriter, width: int) -> None:
        if self.top:
            cfg.part("pooling" if self.top == "spp" else "receptive fields")
            TOPS[self.top](cfg, width)

    def _yolo(self, strides: Sequence[int]) -> YoloHeads:
        v4 = self.head == "yolov4"
        default = heads.COCO_TINY if len(strides) == 2 else heads.COCO_V4 if v4 else heads.COCO_V3
        anchors = self._anchors(default)
        if len(anchors) // 2 % len(strides):
            raise DarknetError(
                f"anchors: expected the same number for each of {len(strides)} levels, got {len(anchors) // 2} in total"
            )
        masks = heads.masks(strides, len(anchors) // 2)
        loss = heads.V4_LOSS if v4 else heads.V3_LOSS
        by_stride: dict[int, dict[str, Value]] = heads.V4_SCALES if v4 else {}
        if self.neck == "cem":  # for one size of the input
            loss = {**loss, "random": 0}
            by_stride = {stride: {**options, "random": 0} for stride, options in by_stride.items()}
        return YoloHeads(self.classes or 80, anchors, masks, loss, by_stride)

    def _anchors(self, default: Sequence[float]) -> Sequence[float]:
        if len(self.anchors) % 2 or any(side <= 0 for side in self.anchors):
            raise DarknetError(f"anchors: expected pairs of a positive width and height, got {list(self.anchors)}")
        return tuple(int(side) if side == int(side) else side for side in self.anchors) or default


def _subdivisions(batch: int, most: int) -> int:
    """The fewest forward passes of at most `most` images each."""
    return next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= most)


def _one_of(what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        raise DarknetError(
            f"{what}: expected one of {', '.join(filter(None, names))}, got {name!r}{did_you_mean(name, names)}"
        )
