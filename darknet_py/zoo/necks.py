"""Necks: they fuse the features of several strides and write the heads.

All start from the last layer, which has the features of the largest stride. width: channels of a level divided by its
stride: 16 for large networks (512 channels at stride 32), 8 for light ones. It may be a multiple of 1/4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from darknet_py.zoo import blocks
from darknet_py.zoo.aggregation import dense_elan, halve
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.heads import YoloHeads
from darknet_py.zoo.residual import Features

Body = Callable[[CfgWriter, int], int]
_CHAPTER = "Neck and heads: "


def _channels(width: float, stride: int) -> int:
    return round(width * stride)


def fpn(
    cfg: CfgWriter,
    features: Features,
    head: YoloHeads,
    *,
    top: Body = blocks.conv_set,
    width: float = 16,
    lateral: bool = False,
) -> None:
    """Feature pyramid of YOLOv3: from coarse to fine, concatenates each level with the upsampled coarser level.

    top: the block at the coarsest level, instead of a set of convolutions. lateral: 1x1 convolutions narrow the
    features of the backbone before the concatenation.
    """
    cfg.chapter(f"{_CHAPTER}feature pyramid")
    branch = -1
    for stride in reversed(head.strides):
        channels = _channels(width, stride)
        _top_down_part(cfg, stride)
        if branch >= 0:
            upsampled = _up(cfg, branch, channels)
            skip = features[stride]
            if lateral:
                cfg.route(skip)
                skip = upsampled
                cfg.conv(channels)
            cfg.note("Concatenate with the coarser level")
            cfg.route(cfg.last, skip)
            branch = blocks.conv_set(cfg, channels)
        else:
            branch = top(cfg, channels)
        cfg.conv(2 * channels, 3)
        head.write(cfg, stride)


def spp_fpn(cfg: CfgWriter, features: Features, head: YoloHeads, *, lateral: bool = False) -> None:
    """Feature pyramid of YOLOv3-SPP, with pooling on top. lateral: as in `fpn`."""
    fpn(cfg, features, head, top=blocks.spp_set, lateral=lateral)


def tiny_fpn(
    cfg: CfgWriter,
    features: Features,
    head: YoloHeads,
    *,
    narrow: Sequence[int] = (256, 128, 64),
    wide: int = 16,
    deep: bool = False,
) -> None:
    """Feature pyramid of the tiny networks: one convolution per level.

    narrow: channels of each level before upsampling, coarsest first. wide: channels of the 3x3 convolutions divided by
    the stride. deep: a 1x1 and a 3x3 convolution follow (Pelee-YOLOv3).
    """
    cfg.chapter(f"{_CHAPTER}small feature pyramid")
    branch = -1
    for stride, channels in zip(reversed(head.strides), narrow, strict=False):
        _top_down_part(cfg, stride)
        if branch >= 0:
            _up(cfg, branch, channels)
            cfg.route(cfg.last, features[stride])
            branch = cfg.conv(wide * stride, 3)
            if deep:
                branch = cfg.conv(wide * stride)
                cfg.conv(wide * stride, 3)
        else:
            branch = cfg.conv(channels)
            cfg.conv(wide * stride, 3)
        head.write(cfg, stride)


def added_fpn(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: int = 256) -> None:
    """The original feature pyramid (Lin et al., 2017): levels of the same width, added, then a 3x3 convolution."""
    cfg.chapter(f"{_CHAPTER}feature pyramid with addition")
    level = -1
    for stride in reversed(head.strides):
        _top_down_part(cfg, stride)
        if level >= 0:
            cfg.note("Branch off the coarser level, before its head")
            cfg.route(level)
            upsampled = cfg.upsample()
            cfg.route(features[stride])
            cfg.conv(width, activation="linear")
            level = cfg.shortcut(upsampled, activation=cfg.activation)
        else:
            level = cfg.conv(width)
        cfg.conv(width, 3)
        head.write(cfg, stride)


def passthrough(cfg: CfgWriter, features: Features, *, width: int = 1024) -> None:
    """Neck of YOLOv2: space-to-depth of the finer stride, concatenated with two convolutions of the largest stride."""
    cfg.chapter("Neck and head")
    fine, coarse = sorted(features)[-2:]
    cfg.part(f"stride {coarse}")
    cfg.conv(width, 3)
    top = cfg.conv(width, 3)
    cfg.part(f"passthrough: stride {fine}, 2 x 2 cells to channels")
    cfg.route(features[fine])
    cfg.conv(width // 16)
    cells = cfg.section("reorg", width // 4, stride=2)
    cfg.route(cells, top)
    cfg.conv(width, 3)


def light_fpn(cfg: CfgWriter, features: Features, head: YoloHeads) -> None:
    """Feature pyramid of Yolo-Fastest: two levels, pooling on top, depthwise separable 5x5 convolutions."""
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


def prn(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: float = 8) -> None:
    """Partial residual network: adds levels over their common channels instead of concatenating them."""
    cfg.chapter(f"{_CHAPTER}partial residual")
    activation = cfg.activation
    branch = -1
    for stride in reversed(head.strides):
        channels = _channels(width, max(stride, 16))
        cfg.part(f"stride {stride}")
        if branch < 0:
            x = cfg.conv(channels)
            branch = cfg.conv(channels, 3)
            cfg.shortcut(x, activation=activation)
        else:
            cfg.note("Branch off the coarser level, before its sum")
            cfg.route(branch)
            cfg.conv(channels)
            x = cfg.upsample()
            cfg.note(f"Add the first {channels} channels of the backbone, here and once more below")
            cfg.shortcut(features[stride], activation=activation)
            branch = cfg.conv(channels, 3)
            cfg.shortcut(x, activation=activation)
            cfg.shortcut(features[stride], activation=activation)
        head.write(cfg, stride)


def gfm(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: float = 8) -> None:
    """Global fusion model (ThunderNet, Qin et al., 2019): adds all scales; every head reads the sum.

    The sum has the resolution of the middle stride and 32 times `width` channels. In the heads channels grow with the
    stride, as in `efm`, so that all 3x3 convolutions have the same cost.
    """
    cfg.chapter(f"{_CHAPTER}global fusion")
    channels = _channels(width, 32)
    strides = head.strides
    middle = strides[len(strides) // 2]
    coarsest = cfg.last
    scaled: list[int] = []
    for stride in strides:
        cfg.part(f"stride {stride} resized to stride {middle}")
        _back(cfg, coarsest if stride == strides[-1] else features[stride])
        cfg.conv(channels, activation="linear")
        _resize(cfg, stride, middle)
        scaled.append(cfg.last)
    cfg.part(f"sum of all scales, at stride {middle}")
    for layer in scaled[:-2]:
        cfg.shortcut(layer)
    fused = cfg.shortcut(scaled[-2], activation=cfg.activation) if len(scaled) > 1 else cfg.last
    for stride in reversed(strides):
        cfg.part(f"head at stride {stride}")
        _back(cfg, fused)
        _resize(cfg, middle, stride)
        cfg.conv(_channels(width, stride))
        cfg.conv(_channels(width, stride), 3)
        head.write(cfg, stride)


def cem(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: int = 8, channels: int = 245) -> None:
    """Context enhancement module (ThunderNet, Qin et al., 2019): adds the two coarsest scales and the global mean.

    All three have `channels` channels; the sum has the finer of both resolutions, and every head reads it. The global
    mean is repeated over the map by an upsampling whose factor is the width of the map: the cfg is for a square input
    of one size.
    """
    cfg.chapter(f"{_CHAPTER}context enhancement")
    fine, coarse = sorted(features)[-2:]
    coarsest = cfg.last
    cfg.part("global mean")
    cfg.section("avgpool")
    cfg.conv(channels, activation="linear")
    context = cfg.section("upsample", stride=cfg.size // fine)
    cfg.part(f"stride {fine}")
    cfg.route(features[fine])
    middle = cfg.conv(channels, activation="linear")
    cfg.part(f"stride {coarse} resized to stride {fine}")
    cfg.route(coarsest)
    cfg.conv(channels, activation="linear")
    _resize(cfg, coarse, fine)
    cfg.part(f"sum of all scales, at stride {fine}")
    cfg.shortcut(middle)
    fused = cfg.shortcut(context, activation=cfg.activation)
    for stride in reversed(head.strides):
        cfg.part(f"head at stride {stride}")
        _back(cfg, fused)
        _resize(cfg, fine, stride)
        cfg.conv(width * stride)
        cfg.conv(32 * width, 3)
        head.write(cfg, stride)


def efm(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: float = 8, top: Body | None = None) -> None:
    """Exact fusion model (CSPNet): each head reads its own scale, the next finer and the next coarser one.

    First each scale is fused with the upsampled coarser one; then, bottom-up, each level with the finer one. Maxout
    compresses features before they are concatenated. Channels grow with the stride, so that all 3x3 convolutions have
    the same cost. top: the block at the coarsest scale, after it is compressed.
    """
    cfg.chapter(f"{_CHAPTER}exact fusion")
    strides = head.strides
    coarsest = cfg.last
    levels: dict[int, int] = {}
    for stride in reversed(strides):
        cfg.part(f"scale of stride {stride}")
        _back(cfg, coarsest if stride == strides[-1] else features[stride])
        cfg.conv(2 * _channels(width, stride))
        levels[stride] = cfg.maxout(_channels(width, stride))
        if top and stride == strides[-1]:
            levels[stride] = top(cfg, _channels(width, stride))
    scales = dict(levels)
    for coarse, stride in zip(strides[1:], strides, strict=False):
        cfg.part(f"stride {stride} fused with the coarser scale")
        _back(cfg, scales[coarse])
        cfg.maxout(_channels(width, stride))
        _resize(cfg, coarse, stride)
        cfg.route(cfg.last, scales[stride])
        cfg.conv(_channels(width, stride))
        levels[stride] = cfg.conv(_channels(width, stride), 3)
    for finer, stride in zip([0, *strides], strides, strict=False):
        cfg.part(f"bottom-up, stride {stride}")
        _back(cfg, levels[finer or stride])
        if finer:
            cfg.note("Compress the finer level by Maxout")
            cfg.maxout(_channels(width, finer) // 2)
            _resize(cfg, finer, stride)
            cfg.route(cfg.last, levels[stride])
        cfg.conv(_channels(width, stride))
        cfg.conv(_channels(width, stride), 3)
        head.write(cfg, stride)


def panet(
    cfg: CfgWriter, features: Features, head: YoloHeads, *, top: Body = blocks.spp_set, width: float = 16
) -> None:
    """PANet of YOLOv4, with pooling on top."""
    widths = {stride: _channels(width, stride) for stride in head.strides}
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
    heads_last: bool = False,
    wide: Mapping[int, int] | None = None,
    attention: bool = False,
    renormalize: bool = False,
    stop_backward: int = 0,
) -> None:
    """PANet with cross stage partial sets of convolutions (Scaled-YOLOv4).

    Args:
        cfg: The cfg.
        features: Stride → index of the features of the backbone.
        head: The heads.
        width: Channels of a level divided by its stride.
        widths: Stride → channels of the level; default: by `width`.
        pairs: Pairs of convolutions in a set.
        top_pairs: Pairs of convolutions after the pooling at the coarsest level.
        heads_last: Whether the heads follow both paths instead of the bottom-up steps.
        wide: Stride → channels of the convolution before a head; default: twice the channels of the level.
        attention: Whether two 1x1 convolutions with SAM between them replace the 3x3 convolution before a head.
        renormalize: As in `csp_set`.
        stop_backward: Iterations during which the top-down path and the backbone are frozen.
    """
    widths = widths or {stride: width * stride for stride in head.strides}
    body = partial(blocks.csp_set, pairs=pairs, renormalize=renormalize)
    top = partial(blocks.csp_spp, pairs=top_pairs, renormalize=renormalize)
    _path_aggregation(
        cfg,
        features,
        head,
        top,
        body,
        "CSP PANet with spatial pyramid pooling",
        widths,
        heads_last=heads_last,
        wide=wide,
        attention=attention,
        stop_backward=stop_backward,
    )


def tiny_pan(cfg: CfgWriter, features: Features, head: YoloHeads, *, narrow: bool = False) -> None:
    """PANet of Pelee-PAN: two levels, one 3x3 convolution per step, 128 and 256 channels.

    narrow: the heads have the channels of their level instead of twice as many (Pelee-PAN2).
    """
    cfg.chapter(f"{_CHAPTER}small PANet")
    fine, coarse = head.strides
    _top_down_part(cfg, coarse)
    top = cfg.conv(256)
    _top_down_part(cfg, fine)
    upsampled = cfg.upsample()
    cfg.route(features[fine])
    cfg.conv(128)
    cfg.note("Concatenate with the coarser level")
    cfg.route(cfg.last, upsampled)
    cfg.conv(128)
    level = cfg.conv(128, 3)
    if not narrow:
        cfg.conv(256, 3)
    head.write(cfg, fine)
    cfg.part(f"bottom-up, stride {coarse}")
    cfg.route(level)
    cfg.conv(256, 3, 2)
    cfg.note("Concatenate with the same level of the top-down path")
    cfg.route(cfg.last, top)
    cfg.conv(256)
    cfg.conv(256 if narrow else 512, 3)
    head.write(cfg, coarse)


def elan_panet(cfg: CfgWriter, features: Features, head: YoloHeads) -> None:
    """PANet of YOLOv7-tiny: an ELAN block per level."""
    widths = {stride: 8 * stride for stride in head.strides}
    name = "PANet of ELAN blocks"
    _path_aggregation(cfg, features, head, blocks.tiny_csp_spp, _half_elan, name, widths, heads_last=True)


def dense_elan_panet(cfg: CfgWriter, features: Features, head: YoloHeads, *, width: int = 16) -> None:
    """PANet of YOLOv7: an ELAN block per level, pooling on top, the heads at the end."""
    cfg.chapter(f"{_CHAPTER}PANet of ELAN blocks")
    *finer, coarsest = head.strides
    cfg.part(f"stride {coarsest}")
    levels = {coarsest: blocks.csp_spp(cfg, width * coarsest, input_first=True)}
    for stride in reversed(finer):
        _top_down_part(cfg, stride)
        upsampled = _up(cfg, cfg.last, width * stride)
        cfg.route(features[stride])
        cfg.conv(width * stride)
        cfg.note("Concatenate with the coarser level")
        cfg.route(cfg.last, upsampled)
        levels[stride] = dense_elan(cfg, width * stride)
    for stride in head.strides[1:]:
        cfg.part(f"bottom-up, stride {stride}")
        branches = halve(cfg, cfg.width())
        cfg.note("Concatenate with the same level of the top-down path")
        cfg.route(*branches, levels[stride])
        levels[stride] = dense_elan(cfg, width * stride)
    for stride in head.strides:
        cfg.part(f"head at stride {stride}")
        cfg.route(levels[stride])
        cfg.conv(2 * width * stride, 3)
        head.write(cfg, stride)


def _half_elan(cfg: CfgWriter, width: int) -> int:
    return blocks.tiny_elan(cfg, width // 2)


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
    """Top-down as in a feature pyramid, then bottom-up; the heads are on the bottom-up path.

    top, body: the blocks at the coarsest level and after each concatenation, given the number of channels. Other
    arguments: as in `csp_panet`.
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
        cfg.note("Concatenate with the coarser level")
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
            cfg.note("Concatenate with the same level of the top-down path")
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
    """Continues from a layer."""
    if layer != cfg.last:
        cfg.route(layer)


def _up(cfg: CfgWriter, layer: int, width: int) -> int:
    """Narrows a layer to `width` channels and upsamples it."""
    if layer != cfg.last:
        cfg.note("Branch off the coarser level, before its head")
        cfg.route(layer)
    cfg.conv(width)
    return cfg.upsample()


def _resize(cfg: CfgWriter, stride: int, target: int) -> int:
    """Resizes the last layer from one stride to another, by upsampling or max pooling."""
    while stride > target:
        cfg.upsample()
        stride //= 2
    while stride < target:
        cfg.maxpool(2, 2)
        stride *= 2
    return cfg.last


def _separable(cfg: CfgWriter, channels: int) -> None:
    """Two depthwise separable 5x5 convolutions."""
    for _ in range(2):
        cfg.depthwise(channels, 5)
        cfg.conv(channels, activation="linear")
