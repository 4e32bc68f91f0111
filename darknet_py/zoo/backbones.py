"""Backbones: stem and stages. Each gives its features, stride → index of the layer that necks read there.

The last layer written is the one of the largest stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from darknet_py.zoo import blocks
from darknet_py.zoo.text import Cfg

Features = dict[int, int]


def darknet53(cfg: Cfg, csp: Sequence[bool] = (False,) * 5) -> Features:
    """Darknet-53 (YOLOv3): a strided 3x3 convolution opens each of five stages of residual blocks.

    csp: for each stage, whether it is cross stage partial. There each part has half of the stage's channels, except
    in the first stage, whose parts keep all 64.
    """
    cfg.chapter(f"Backbone: {'CSP' if any(csp) else ''}Darknet-53")
    cfg.part("stem, stride 1")
    cfg.conv(32, 3)
    features: Features = {}
    for stage, count in enumerate((1, 2, 8, 8, 4)):
        stride, width = 2 << stage, 64 << stage
        kind = "cross stage partial, " if csp[stage] else ""
        cfg.part(f"stage at stride {stride}, {width} channels: {kind}{_plural(count, 'darknet block')}")
        cfg.conv(width, 3, 2)
        if csp[stage]:
            part = width // 2 if stage else width
            block = partial(blocks.darknet, cfg, part, part if stage else part // 2)
            features[stride] = blocks.csp(cfg, block, count, part, width)
        else:
            features[stride] = blocks.repeat(cfg, partial(blocks.darknet, cfg, width, width // 2), count)
    return features


def resnet(cfg: Cfg, counts: Sequence[int] = (3, 4, 6, 3), groups: int = 1) -> Features:
    """ResNet-50 and deeper; with groups=32 ResNeXt, whose 3x3 convolutions are twice as wide.

    The first block of a stage has no projection: its input is added where it has a value, as Darknet does between
    outputs of different sizes.
    """
    cfg.chapter(f"Backbone: ResNe{'X' if groups > 1 else ''}t-{3 * sum(counts) + 2}")
    _resnet_stem(cfg)
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, width = 4 << stage, 256 << stage
        cfg.part(f"stage at stride {stride}, {width} channels: {_plural(count, 'bottleneck')}")
        for number in range(count):
            step = 2 if stage and not number else 1
            cfg.note(f"Block {number + 1} of {count}")
            features[stride] = blocks.bottleneck(cfg, width, width // (2 if groups > 1 else 4), step, groups)
    return features


def csp_resnet50(cfg: Cfg, groups: int = 1) -> Features:
    """CSPResNet-50, with groups=32 CSPResNeXt-50: parts of half of the plain stage's channels.

    What is a stage's first bottleneck in ResNet-50 is here the way into the stage: the last transition narrows, a
    strided 3x3 convolution and the split follow. The splits of the two middle stages have no activation.
    """
    cfg.chapter(f"Backbone: CSPResNe{'X' if groups > 1 else ''}t-50")
    _resnet_stem(cfg)
    features: Features = {}
    for stage, (count, split) in enumerate(zip((3, 3, 5, 2), (None, "linear", "linear", None), strict=True)):
        stride, width = 4 << stage, 128 << stage
        inner = width if groups > 1 else width // 2
        cfg.part(f"stage at stride {stride}, {width} channels a part: cross stage partial, {count} bottlenecks")
        if stage:
            cfg.conv(inner, 3, 2, groups=groups)
        block = partial(blocks.bottleneck, cfg, width, inner, groups=groups)
        second = width if stage else 64  # the first stage's blocks start from as many channels as the stem has
        features[stride] = blocks.csp(cfg, block, count, width, 2 * inner, second=second, split=split)
    return features


def darknet19(cfg: Cfg) -> Features:
    """Darknet-19 (YOLOv2): 3x3 convolutions with 1x1 ones between them, maxima between the stages."""
    cfg.chapter("Backbone: Darknet-19")
    features: Features = {}
    for stage, count in enumerate((1, 1, 3, 3, 5, 5)):
        stride, width = 1 << stage, 32 << stage
        cfg.part(f"stage at stride {stride}, {width} channels: {_plural(count, 'convolution')}")
        if stage:
            cfg.maxpool(2, 2)
        for number in range(count):
            if number % 2:
                cfg.conv(width // 2)
            else:
                cfg.conv(width, 3)
        features[stride] = cfg.last
    return features


def darknet_tiny(cfg: Cfg, top: int) -> Features:
    """Backbone of YOLOv2-tiny and YOLOv3-tiny: 3x3 convolutions and maxima, the last one with stride 1.

    top: channels of the convolution that ends it. Features of stride 32 are those before the last maximum, for necks
    that look back; the last layer is the convolution.
    """
    cfg.chapter("Backbone: tiny Darknet")
    features: Features = {}
    for stage in range(6):
        stride, width = 1 << stage, 16 << stage
        cfg.part(f"stride {stride}, {width} channels")
        if stage:
            cfg.maxpool(2, 2)
        features[stride] = cfg.conv(width, 3)
    cfg.part(f"top, stride 32, {top} channels")
    cfg.maxpool(2, 1)
    cfg.conv(top, 3)
    return features


def csp_darknet_tiny(cfg: Cfg) -> Features:
    """Backbone of YOLOv4-tiny: three small CSP stages that split by halves of the channels."""
    cfg.chapter("Backbone: tiny CSPDarknet")
    cfg.part("stem, stride 4")
    cfg.conv(32, 3, 2)
    cfg.conv(64, 3, 2)
    features: Features = {}
    for width in (64, 128, 256):
        stride = width // 16
        cfg.part(f"stage at stride {stride}, {width} channels: cross stage partial, two convolutions")
        features[stride] = blocks.csp_tiny(cfg, width)
        cfg.maxpool(2, 2)  # brings the next stride
    cfg.part("top, stride 32, 512 channels")
    features[32] = cfg.conv(512, 3)
    return features


def fastest(cfg: Cfg) -> Features:
    """Backbone of Yolo-Fastest 1.1: inverted residual blocks of few channels."""
    cfg.chapter("Backbone: inverted residual blocks")
    cfg.part("stem, stride 2")
    cfg.conv(8, 3, 2)
    features: Features = {}
    stride = 2
    # channels of the opening block, its stride, channels of the stage, residual blocks and their inner channels
    for opening, step, width, count, expanded in (
        (8, 1, 4, 1, 8),
        (24, 2, 8, 2, 32),
        (32, 2, 8, 2, 48),
        (48, 1, 16, 4, 96),
        (96, 2, 24, 4, 136),
        (136, 2, 48, 5, 224),
    ):
        stride *= step
        cfg.part(f"stage at stride {stride}, {width} channels: {_plural(count, 'inverted residual block')}")
        blocks.inverted(cfg, width, opening, step)
        block = partial(blocks.inverted_residual, cfg, width, expanded, dropout=0.15)
        features[stride] = blocks.repeat(cfg, block, count)
    return features


def _resnet_stem(cfg: Cfg) -> None:
    cfg.part("stem, stride 4")
    cfg.conv(64, 7, 2)
    cfg.maxpool(2, 2)


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
