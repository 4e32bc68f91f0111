"""Necks: how the features of several strides are joined. Each writes the heads as it comes to them.

All start from the last layer, the features of the largest stride. width: channels of a level per pixel of its
stride; 16 for the big networks (512 channels at stride 32), 8 for the light ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from darknet_py.zoo import blocks
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.heads import YoloHeads
from darknet_py.zoo.residual import Features

Body = Callable[[CfgWriter, int], int]
_CHAPTER = "Neck and heads: "


def fpn(
    cfg: CfgWriter,
    features: Features,
    head: YoloHeads,
    *,
    top: Body = blocks.conv_set,
    width: int = 16,
    lateral: bool = False,
) -> None:
    """YOLOv3's feature pyramid: from coarse to fine, each level joins the upsampled coarser one (concatenation).

    top: works on the coarsest level, where the others have a set of convolutions. lateral: the backbone's features
    are narrowed before they are joined.
    """
    cfg.chapter(f"{_CHAPTER}feature pyramid")
    branch = -1
    for stride in reversed(head.strides):
        channels = width * stride
        _top_down_part(cfg, stride)
        if branch >= 0:
            upsampled = _up(cfg, branch, channels)
            joined = features[stride]
            if lateral:
                cfg.route(joined)
                joined = upsampled
                cfg.conv(channels)
            cfg.note("Joined with the coarser level")
            cfg.route(cfg.last, joined)
            branch = blocks.conv_set(cfg, channels)
        else:
            branch = top(cfg, channels)
        cfg.conv(2 * channels, 3)
        head.write(cfg, stride)


def spp_fpn(cfg: CfgWriter, features: Features, head: YoloHeads, *, lateral: bool = False) -> None:
    """YOLOv3-SPP's pyramid: pooling on top. lateral: the backbone's features are narrowed before they are joined."""
    fpn(cfg, features, head, top=blocks.spp_set, lateral=lateral)


def tiny_fpn(
    cfg: CfgWriter, features: Features, head: YoloHeads, *, narrow: Sequence[int] = (256, 128, 64), wide: int = 16
) -> None:
    """The pyramid of the tiny networks: one convolution at each level.

    narrow: channels of a level before it is upsampled, the coarsest first. wide: of its 3x3 convolution, per pixel of
    its stride.
    """
    cfg.chapter(f"{_CHAPTER}small feature pyramid")
    branch = -1
    for stride, channels in zip(reversed(head.strides), narrow, strict=False):
        _top_down_part(cfg, stride)
        if branch >= 0:
            _up(cfg, branch, channels)
            cfg.route(cfg.last, features[stride])
            branch = cfg.conv(wide * stride, 3)
        else:
            branch = cfg.conv(channels)
            cfg.conv(wide * stride, 3)
        head.write(cfg, stride)


def added_fpn(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: int = 256) -> None:
    """The first feature pyramid (Lin et al., 2017): levels of one width, joined by addition, then 3x3."""
    cfg.chapter(f"{_CHAPTER}feature pyramid, joined by addition")
    level = -1
    for stride in reversed(head.strides):
        _top_down_part(cfg, stride)
        if level >= 0:
            cfg.note("Back to the coarser level, before its head")
            cfg.route(level)
            upsampled = cfg.upsample()
            cfg.route(features[stride])
            cfg.conv(width, activation="linear")
            level = cfg.shortcut(upsampled, cfg.activation)
        else:
            level = cfg.conv(width)
        cfg.conv(width, 3)
        head.write(cfg, stride)


def passthrough(cfg: CfgWriter, features: Features, *, width: int = 1024) -> None:
    """YOLOv2's neck: cells of the finer stride, 2 x 2 as channels of one, beside two convolutions of the largest."""
    cfg.chapter("Neck and head")
    fine, coarse = sorted(features)[-2:]
    cfg.part(f"stride {coarse}")
    cfg.conv(width, 3)
    top = cfg.conv(width, 3)
    cfg.part(f"passthrough: 2 x 2 cells of stride {fine} as channels of one cell")
    cfg.route(features[fine])
    cfg.conv(width // 16)
    cells = cfg.section("reorg", width // 4, stride=2)
    cfg.route(cells, top)
    cfg.conv(width, 3)


def light_fpn(cfg: CfgWriter, features: Features, head: YoloHeads) -> None:
    """Yolo-Fastest's pyramid of two levels: pooling on top, then depthwise separable 5x5 convolutions."""
    cfg.chapter(f"{_CHAPTER}light feature pyramid")
    fine, coarse = head.strides
    _top_down_part(cfg, coarse)
    blocks.spp(cfg, (3, 5, 9))
    top = cfg.conv(96)
    _separable(cfg, 96)
    head.write(cfg, coarse)
    _top_down_part(cfg, fine)
    cfg.route(top)
    cfg.upsample()
    cfg.route(cfg.last, features[fine])
    _separable(cfg, 120)
    head.write(cfg, fine)


def prn(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: int = 8) -> None:
    """Partial residual network: levels are joined by adding what channels they share, instead of concatenation."""
    cfg.chapter(f"{_CHAPTER}partial residual")
    active = cfg.activation
    branch = -1
    for stride in reversed(head.strides):
        channels = width * max(stride, 16)
        cfg.part(f"stride {stride}")
        if branch < 0:
            x = cfg.conv(channels)
            branch = cfg.conv(channels, 3)
            cfg.shortcut(x, active)
        else:
            cfg.note("Back to the coarser level, before its sum")
            cfg.route(branch)
            cfg.conv(channels)
            x = cfg.upsample()
            cfg.note(f"The first {channels} channels of the backbone's features are added, here and again below")
            cfg.shortcut(features[stride], active)
            branch = cfg.conv(channels, 3)
            cfg.shortcut(x, active)
            cfg.shortcut(features[stride], active)
        head.write(cfg, stride)


def gfm(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: int = 8) -> None:
    """Global fusion model (ThunderNet, Qin et al., 2019): all scales are added at once, every head reads the sum.

    The sum has the resolution of the middle stride, and `width` times 32 channels.
    """
    cfg.chapter(f"{_CHAPTER}global fusion")
    channels = 32 * width
    strides = head.strides
    middle = strides[len(strides) // 2]
    coarsest = cfg.last
    scaled: list[int] = []
    for stride in strides:
        cfg.part(f"stride {stride} to the common size")
        _back(cfg, coarsest if stride == strides[-1] else features[stride])
        cfg.conv(channels, activation="linear")
        _resize(cfg, stride, middle)
        scaled.append(cfg.last)
    cfg.part(f"sum of all scales, at stride {middle}")
    for layer in scaled[:-2]:
        cfg.shortcut(layer)
    fused = cfg.shortcut(scaled[-2], cfg.activation) if len(scaled) > 1 else cfg.last
    for stride in reversed(strides):
        cfg.part(f"head at stride {stride}")
        _back(cfg, fused)
        _resize(cfg, middle, stride)
        cfg.conv(channels // 2)
        cfg.conv(channels, 3)
        head.write(cfg, stride)


def efm(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: int = 8) -> None:
    """Exact fusion model (CSPNet): a head sees its own scale, the next finer and the next coarser one, and no other.

    First every two neighboring scales are fused, the coarser one upsampled; then, bottom-up, every level with the
    finer one below it. What is handed to a neighbor is compressed by Maxout before it is concatenated. As a level's
    channels grow with its stride, each 3x3 convolution costs the same.
    """
    cfg.chapter(f"{_CHAPTER}exact fusion")
    strides = head.strides
    coarsest = cfg.last
    levels: dict[int, int] = {}
    for stride in reversed(strides):
        cfg.part(f"scale of stride {stride}")
        _back(cfg, coarsest if stride == strides[-1] else features[stride])
        cfg.conv(2 * width * stride)
        levels[stride] = cfg.maxout(width * stride)
    scales = dict(levels)
    for coarse, stride in zip(strides[1:], strides, strict=False):
        cfg.part(f"stride {stride} with the coarser scale")
        _back(cfg, scales[coarse])
        cfg.maxout(width * stride)
        _resize(cfg, coarse, stride)
        cfg.route(cfg.last, scales[stride])
        cfg.conv(width * stride)
        levels[stride] = cfg.conv(width * stride, 3)
    for finer, stride in zip([0, *strides], strides, strict=False):
        cfg.part(f"bottom-up, stride {stride}")
        _back(cfg, levels[finer or stride])
        if finer:
            cfg.note("The finer level, compressed")
            cfg.maxout(width * finer // 2)
            _resize(cfg, finer, stride)
            cfg.route(cfg.last, levels[stride])
        cfg.conv(width * stride)
        cfg.conv(width * stride, 3)
        blocks.attend(cfg)
        head.write(cfg, stride)


def panet(cfg: CfgWriter, features: Features, head: YoloHeads, *, top: Body = blocks.spp_set, width: int = 16) -> None:
    """PANet, with pooling on top as YOLOv4 has it."""
    widths = {stride: width * stride for stride in head.strides}
    _path_aggregation(cfg, features, head, top, blocks.conv_set, "PANet", widths)


def csp_panet(
    cfg: CfgWriter,
    features: Features,
    head: YoloHeads,
    *,
    width: int = 16,
    widths: Mapping[int, int] | None = None,
    pairs: int = 2,
    top_pairs: int = 1,
    **layout: Any,
) -> None:
    """PANet whose sets of convolutions are cross stage partial (Scaled-YOLOv4).

    widths: stride → channels, where they are not `width` times the stride. pairs: of convolutions in a set, and after
    the pooling. layout: of `_path_aggregation`.
    """
    widths = widths or {stride: width * stride for stride in head.strides}
    body, top = partial(blocks.csp_set, pairs=pairs), partial(blocks.csp_spp, pairs=top_pairs)
    _path_aggregation(cfg, features, head, top, body, "CSP PANet with spatial pyramid pooling", widths, **layout)


def elan_panet(cfg: CfgWriter, features: Features, head: YoloHeads) -> None:
    """YOLOv7-tiny's PANet: its backbone's blocks at each level."""
    widths = {stride: 8 * stride for stride in head.strides}
    name = "PANet of ELAN blocks"
    _path_aggregation(cfg, features, head, blocks.tiny_csp_spp, _half_elan, name, widths, heads_last=True)


def _half_elan(cfg: CfgWriter, width: int) -> int:
    return blocks.elan(cfg, width // 2)


def _path_aggregation(
    cfg: CfgWriter,
    features: Features,
    head: YoloHeads,
    top: Body,
    body: Body,
    name: str,
    widths: Mapping[int, int],
    *,
    heads_last: bool = False,
    wide: Mapping[int, int] | None = None,
    attention: bool = False,
    stop_backward: int = 0,
) -> None:
    """Coarse to fine as in a feature pyramid, then fine to coarse again; the heads are on the second way.

    top, body: what works on the coarsest level, and on the joined ones; given the number of channels. heads_last: the
    heads follow both ways. wide: stride → channels of the convolution before a head, if not twice the level's.
    attention: there are two 1x1 ones with SAM between them instead of one 3x3. stop_backward: updates after which the
    first way and the backbone learn too.
    """
    cfg.chapter(_CHAPTER + name)
    *finer, coarsest = head.strides
    cfg.part(f"stride {coarsest}")
    levels = {coarsest: top(cfg, widths[coarsest])}
    for stride in reversed(finer):
        _top_down_part(cfg, stride)
        upsampled = _up(cfg, cfg.last, widths[stride])
        cfg.route(features[stride])
        cfg.conv(widths[stride])
        cfg.note("Joined with the coarser level")
        cfg.route(cfg.last, upsampled)
        levels[stride] = body(cfg, widths[stride])
    if stop_backward:
        cfg.also(stopbackward=stop_backward)

    def predict(stride: int) -> None:
        channels = wide[stride] if wide else 2 * widths[stride]
        if attention:
            cfg.conv(channels)
            blocks.sam(cfg)
            cfg.conv(channels)
        else:
            cfg.conv(channels, 3)
        head.write(cfg, stride)

    level = cfg.last
    outputs: dict[int, int] = {}
    for stride in head.strides:
        if stride > head.strides[0]:
            cfg.part(f"bottom-up, stride {stride}")
            if not heads_last:
                cfg.route(level)
            cfg.conv(widths[stride], 3, 2)
            cfg.note("Joined with the same level of the way down")
            cfg.route(cfg.last, levels[stride])
            level = body(cfg, widths[stride])
        outputs[stride] = level
        if not heads_last:
            predict(stride)
    for stride in head.strides if heads_last else ():
        cfg.part(f"head at stride {stride}")
        cfg.route(outputs[stride])
        predict(stride)


def _top_down_part(cfg: CfgWriter, stride: int) -> None:
    cfg.part(f"top-down, stride {stride}")


def _back(cfg: CfgWriter, layer: int) -> None:
    """Goes on from a layer, wherever the last one is."""
    if layer != cfg.last:
        cfg.route(layer)


def _up(cfg: CfgWriter, layer: int, width: int) -> int:
    """Narrows a layer to `width` channels and upsamples it."""
    if layer != cfg.last:
        cfg.note("Back to the coarser level, before its head")
        cfg.route(layer)
    cfg.conv(width)
    return cfg.upsample()


def _resize(cfg: CfgWriter, stride: int, expected: int) -> int:
    """The last layer from one stride to another: repeated pixels to the finer, maxima to the coarser."""
    while stride > expected:
        cfg.upsample()
        stride //= 2
    while stride < expected:
        cfg.maxpool(2, 2)
        stride *= 2
    return cfg.last


def _separable(cfg: CfgWriter, channels: int) -> None:
    """Two 5x5 convolutions, each as a depthwise and a 1x1 one."""
    for _ in range(2):
        cfg.depthwise(channels, 5)
        cfg.conv(channels, activation="linear")
