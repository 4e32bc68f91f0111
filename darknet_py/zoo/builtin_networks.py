"""Small networks that learn the built-in data within minutes on one CPU core (docs/recipes.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from darknet_py.counted import counted
from darknet_py.zoo import blocks, heads, necks, net_sections
from darknet_py.zoo.cfg_writer import CfgWriter, Value
from darknet_py.zoo.classifiers import CSP_RESNEXT50
from darknet_py.zoo.heads import YoloHeads
from darknet_py.zoo.plain_backbones import csp_darknet_tiny

CLASSES = 6  # of the built-in data sets
# k-means on IoU over the built-in detection set, at 160 x 160 pixels
_CELLS = (0.6, 0.6, 1.6, 1.6, 2.4, 2.3, 3.3, 3.3, 4.4, 4.7)  # of 16 pixels each
_PIXELS = (9, 9, 25, 25, 36, 37, 55, 44, 47, 59, 72, 74)
_AT_224 = (11, 11, 17, 15, 34, 32, 42, 46, 60, 48, 53, 64, 84, 66, 66, 85, 101, 105)  # three per stride
_AT_320 = (15, 15, 24, 22, 48, 46, 60, 65, 87, 68, 75, 92, 119, 94, 95, 122, 145, 151)

_V4_LOSS: dict[str, Value] = {**heads.V4_LOSS, "jitter": 0.1, "random": 0}


def _darknet(cfg: CfgWriter, stem: int, stages: Sequence[tuple[int, int]], stride: int = 2) -> None:
    """A small Darknet: a 3x3 convolution of the given stride, then stages (channels, residual blocks) of stride 2."""
    cfg.chapter("Backbone: small Darknet")
    cfg.part(f"stem, stride {stride}")
    cfg.conv(stem, 3, stride)
    for width, count in stages:
        stride *= 2
        kind = f": {counted(count, 'darknet block')}" if count else ""
        cfg.part(f"stage at stride {stride}, {width} channels{kind}")
        cfg.conv(width, 3, 2)
        blocks.repeat(cfg, partial(blocks.darknet, cfg, width, width // 2), count)


def _cifar(classes: int = CLASSES) -> CfgWriter:
    cfg = CfgWriter(
        "A classifier of 32 x 32 pixels (the size of CIFAR images) for the built-in shape classes.",
        net_sections.small_net(
            32, 32, rate=0.003, batches=1800, min_crop=32, max_crop=36, angle=10, aspect=1.1, **_colors(0.1, 1.5)
        ),
    )
    _darknet(cfg, 32, ((64, 1), (128, 1), (256, 0)), 1)
    heads.classifier(cfg, classes)
    return cfg


def _trunk(title: str, *, batches: int, size: int = 160) -> tuple[CfgWriter, int]:
    """A detector without its head, and the index of the layer at stride 16 that the head reads."""
    cfg = CfgWriter(title, net_sections.small_net(size, 16, rate=0.002, batches=batches, **_colors(0.02, 1.3)))
    _darknet(cfg, 16, ((32, 0), (64, 1), (128, 2)))
    cfg.chapter("Head")
    cfg.part("stride 16")
    return cfg, cfg.conv(128, 3)


def _yolov1(classes: int = CLASSES) -> CfgWriter:
    """YOLO version 1 with convolutions instead of the fully connected layer.

    [detection] reads a vector: the classes of all cells, then their objectness, then their boxes. YOLO version 1 fills
    it by a fully connected layer, which learns each cell separately. Three convolutions, reordered by [reorg3d], share
    their weights between cells.
    """
    side, boxes = 10, 2
    cfg, x = _trunk(
        "YOLO version 1 (Redmon et al., 2015), small and convolutional: one [detection] head on a 10 x 10 grid.",
        batches=3000,
        size=16 * side,
    )
    parts: list[int] = []
    for what, channels in (("classes", classes), ("objectness", boxes), ("boxes", 4 * boxes)):
        cfg.part(f"{what}: {channels} values per cell")
        if parts:
            cfg.route(x)
        cfg.conv(channels, activation="linear", norm=False)
        parts.append(cfg.section("reorg3d", channels * side**2, stride=side))
    cfg.part(f"{side} x {side} cells x ({classes} classes + {boxes} boxes x (objectness + 4 coordinates))")
    cfg.route(*parts)
    cfg.section(
        "detection",
        classes=classes,
        coords=4,
        rescore=1,
        side=side,
        num=boxes,
        softmax=0,
        sqrt=1,
        jitter=0.2,
        object_scale=1,
        noobject_scale=0.5,
        class_scale=1,
        coord_scale=5,
    )
    return cfg


def _yolov2(classes: int = CLASSES) -> CfgWriter:
    cfg, _ = _trunk("YOLO version 2 (Redmon and Farhadi, 2016), small: one [region] head at stride 16.", batches=1600)
    heads.region(cfg, classes, anchors=_CELLS, jitter=0.2, random=0)
    return cfg


def _gaussian(classes: int = CLASSES) -> CfgWriter:
    title = "Gaussian YOLOv3 (Choi et al., 2019), small: one head that predicts a variance for each coordinate."
    cfg, _ = _trunk(title, batches=1600)
    anchors = len(_PIXELS) // 2
    cfg.note(f"{anchors} anchors x (4 coordinates and their variances + objectness + {classes} classes)")
    cfg.conv(anchors * (9 + classes), activation="linear", norm=False)
    cfg.section(
        "Gaussian_yolo",
        mask=range(anchors),
        anchors=_PIXELS,
        classes=classes,
        num=anchors,
        jitter=0.2,
        ignore_thresh=0.7,
        truth_thresh=1,
        iou_thresh=0.213,
        uc_normalizer=1.0,
        cls_normalizer=1.0,
        iou_normalizer=0.5,
        iou_loss="giou",
        scale_x_y=1.05,
        random=0,
    )
    return cfg


def _yolov4_tiny(classes: int = CLASSES) -> CfgWriter:
    """The published network with a third head at stride 8 for tiny shapes, and with anchors for the shapes."""
    cfg = CfgWriter(
        "YOLOv4-tiny (Wang et al., 2020) with heads at 3 strides, for the built-in shapes.",
        net_sections.small_net(320, 8, rate=0.0015, batches=2500, **_colors(0.02, 1.5)),
    )
    head = YoloHeads(classes, _AT_320, heads.THREE_SCALES, {**_V4_LOSS, "scale_x_y": 1.05})
    necks.tiny_fpn(cfg, csp_darknet_tiny(cfg), head)
    return cfg


def _csresnext50(classes: int = CLASSES) -> CfgWriter:
    """The published network with the loss of YOLOv4 and with anchors for the shapes."""
    cfg = CfgWriter(
        "CSPResNeXt50-PANet-SPP (CSPNet, Wang et al., 2019), for the built-in shapes.",
        net_sections.small_net(224, 8, rate=0.002, batches=2500, **_colors(0.02, 1.5)),
    )
    scales: dict[int, dict[str, Value]] = {8: {"scale_x_y": 1.2}, 16: {"scale_x_y": 1.1}, 32: {"scale_x_y": 1.05}}
    necks.panet(cfg, CSP_RESNEXT50(cfg), YoloHeads(classes, _AT_224, heads.THREE_SCALES, _V4_LOSS, scales))
    return cfg


def _lstm(symbols: int = 256) -> CfgWriter:
    cfg = CfgWriter(
        "An LSTM language model: predicts the next byte of a text.",
        net_sections.text_net(symbols, 16, 64, rate=0.01, batches=2000),
    )
    cfg.part("LSTM and the scores of the next byte")
    cfg.section("lstm", output=128)
    cfg.section("connected", output=symbols, activation="linear")
    cfg.section("softmax")
    return cfg


def _colors(hue: float, strength: float) -> dict[str, Value]:
    """Augmentation of colors. The hue range should be small: most shapes have the color of their class."""
    return {"hue": hue, "saturation": strength, "exposure": strength}


SMALL: dict[str, Callable[..., CfgWriter]] = {
    "cifar-small": _cifar,
    "yolov1-tiny-shapes": _yolov1,
    "yolov2-tiny-shapes": _yolov2,
    "gaussian-yolov3-tiny-shapes": _gaussian,
    "yolov4-tiny-shapes": _yolov4_tiny,
    "csresnext50-panet-spp-shapes": _csresnext50,
    "lstm-text": _lstm,
}
