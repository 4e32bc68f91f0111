"""Backbones of residual blocks: Darknet-53, ResNet, ResNeXt, Res2Net, plain or cross stage partial.

Each returns its features: stride → index of the layer that necks read; the last layer written has the largest stride.
In a cross stage partial stage the blocks have the channels of their part, but inside a block the channels are those of
the plain network (CSPNet needs no bottleneck).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from darknet_py.counted import counted
from darknet_py.zoo import blocks
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.stages import Csp, residual

Features = dict[int, int]


def darknet53(
    cfg: CfgWriter,
    csp: Csp | None = None,
    *,
    counts: Sequence[int] = (1, 2, 8, 8, 4),
    stem: int = 32,
    base: int = 64,
    first: int = 128,
) -> Features:
    """Darknet-53 (YOLOv3): each stage is a strided 3x3 convolution and residual blocks.

    Args:
        cfg: The cfg.
        csp: How stages are made cross stage partial; None: plain stages.
        counts: Number of blocks of each stage.
        stem: Channels of the first convolution.
        base: Channels of the first stage; they double per stage, up to 16 times as many.
        first: Channels of both parts of the first stage if it is cross stage partial; 0: it is plain.

    Returns:
        Stride → index of the features.
    """
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}Darknet-{2 * sum(counts) + len(counts) + 2}")
    cfg.part("stem, stride 1")
    cfg.conv(stem, 3)
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, width = 2 << stage, min(base << stage, 16 * base)
        inner = width // 2
        partial_csp = csp if stage or first else None
        cfg.part(f"stage at stride {stride}, {width} channels: {_kind(partial_csp)}{counted(count, 'darknet block')}")
        cfg.conv(width, 3, 2)
        if partial_csp:
            block = partial(blocks.darknet, cfg, inner=inner)
            features[stride] = residual(cfg, partial_csp, block, count, width if stage else first, width)
        else:
            features[stride] = blocks.repeat(cfg, partial(blocks.darknet, cfg, width, inner), count)
    return features


def resnet(
    cfg: CfgWriter,
    csp: Csp | None = None,
    *,
    counts: Sequence[int] = (3, 4, 6, 3),
    groups: int = 1,
    project: bool = False,
) -> Features:
    """ResNet-50 and deeper; with groups=32 ResNeXt, whose 3x3 convolutions are twice as wide.

    project: the first block of a stage projects its input. Otherwise outputs of different sizes are added over the
    values that both have, as in pjreddie's Darknet. Cross stage partial: see `csp_resnet`.
    """
    if csp:
        return csp_resnet(cfg, csp, counts=(counts[0], *(count - 1 for count in counts[1:])), groups=groups)
    cfg.chapter(f"Backbone: ResNe{'X' if groups > 1 else ''}t-{3 * sum(counts) + 2}")
    _stem(cfg)
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, width = 4 << stage, 256 << stage
        cfg.part(f"stage at stride {stride}, {width} channels: {counted(count, 'bottleneck')}")
        for number in range(count):
            step = 2 if stage and not number else 1
            inner = width // (2 if groups > 1 else 4)
            cfg.note(f"Block {number + 1} of {count}")
            features[stride] = blocks.bottleneck(cfg, width, inner, step, groups, project=project and not number)
    return features


def csp_resnet(
    cfg: CfgWriter,
    csp: Csp,
    *,
    counts: Sequence[int] = (3, 3, 5, 2),
    groups: int = 1,
    linear: Sequence[int] = (),
    block: Callable[..., int] = blocks.bottleneck,
) -> Features:
    """CSPResNet-50, with groups=32 CSPResNeXt-50.

    The last transition of the previous stage, a strided 3x3 convolution and the split replace the first bottleneck of a
    ResNet stage. linear: indices of the stages whose split has no activation. block: `bottleneck` or `added_elastic`.
    """
    depth = 3 * (sum(counts) + len(counts) - 1) + 2
    cfg.chapter(f"Backbone: CSPResNe{'X' if groups > 1 else ''}t-{depth}")
    _stem(cfg)
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, width = 4 << stage, 256 << stage
        inner = width // (2 if groups > 1 else 4)
        bottlenecks = counted(count, "bottleneck")
        cfg.part(f"stage at stride {stride}, {width} channels in both parts: {_kind(csp)}{bottlenecks}")
        if stage:
            cfg.conv(inner, 3, 2, groups=groups)
        features[stride] = residual(
            cfg,
            csp,
            partial(block, cfg, inner=inner, groups=groups),
            count,
            width,
            2 * inner,
            # The blocks of the first stage start from the channels of the stem.
            through=None if stage or cfg.elastic or block is not blocks.bottleneck else 64,
            activation="linear" if stage in linear else None,
        )
    return features


def small_resnet(
    cfg: CfgWriter, csp: Csp | None = None, *, counts: Sequence[int] = (1, 1, 1, 1), project: bool = False
) -> Features:
    """ResNet-10, -18 and -34: blocks of two 3x3 convolutions. project: as in `resnet`.

    Cross stage partial: the split widens to the channels of the stage; the last transition widens to those of the next
    stage, before the max pooling. Both parts of the first stage have 64 channels, as in CSPDarknet-53.
    """
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}ResNet-{2 * sum(counts) + 2}")
    _stem(cfg)
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, width = 4 << stage, 64 << stage
        cfg.part(f"stage at stride {stride}, {width} channels: {_kind(csp)}{counted(count, 'basic block')}")
        if csp is None:
            for number in range(count):
                cfg.note(f"Block {number + 1} of {count}")
                strided = bool(stage) and not number
                features[stride] = blocks.basic(cfg, width, 1 + strided, project=project and strided)
            continue
        if stage:
            cfg.maxpool(2, 2)
        last = stage == len(counts) - 1
        # The last stage has no last transition, because no stage follows.
        partial_csp = Csp(csp.gamma, "last", csp.split) if last and csp.fusion == "csp" else csp
        block = partial(blocks.basic, cfg)
        out = width if last else 2 * width
        features[stride] = residual(cfg, partial_csp, block, count, width if stage else 128, out)
    return features


def res2netlite72(cfg: CfgWriter) -> Features:
    """Res2NetLite-72: bottlenecks that process quarters of the channels one after the other."""
    cfg.chapter("Backbone: Res2NetLite-72")
    cfg.part("stem, stride 4")
    cfg.conv(32, 3, 2)
    cfg.maxpool(3, 2)
    features: Features = {}
    for stage, count in enumerate((3, 7, 3)):
        stride, width = 8 << stage, 288 << stage
        cfg.part(f"stage at stride {stride}, {width} channels: a bottleneck and {counted(count, 'Res2Net block')}")
        cfg.conv(width // 4)
        cfg.conv(width // 4, 3, 2, groups=2)
        cfg.conv(width)
        features[stride] = blocks.repeat(cfg, partial(blocks.res2, cfg, width), count)
    return features


def _stem(cfg: CfgWriter) -> None:
    cfg.part("stem, stride 4")
    cfg.conv(64, 7, 2)
    cfg.maxpool(2, 2)


def _kind(csp: Csp | None) -> str:
    return "cross stage partial, " if csp else ""
