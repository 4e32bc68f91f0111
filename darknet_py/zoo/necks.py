"""Necks: how the features of several strides are joined. Each writes the heads as it comes to them.

All start from the last layer, the features of the largest stride.
"""

from __future__ import annotations

from collections.abc import Callable

from darknet_py.zoo import blocks
from darknet_py.zoo.backbones import Features
from darknet_py.zoo.heads import Yolo
from darknet_py.zoo.text import Cfg

_CHAPTER = "Neck and heads: "


def fpn(cfg: Cfg, features: Features, head: Yolo, *, spp: bool = False) -> None:
    """YOLOv3's feature pyramid: from coarse to fine, each level joins the upsampled coarser one (concatenation)."""
    cfg.chapter(f"{_CHAPTER}feature pyramid")
    branch = -1
    for stride in reversed(head.strides):
        width = 16 * stride
        _top_down_part(cfg, stride)
        if branch >= 0:
            _up(cfg, branch, width)
            cfg.route(cfg.last, features[stride])
            branch = blocks.conv_set(cfg, width)
        else:
            branch = _spp_set(cfg, width) if spp else blocks.conv_set(cfg, width)
        cfg.conv(2 * width, 3)
        head.write(cfg, stride)


def tiny_fpn(cfg: Cfg, features: Features, head: Yolo) -> None:
    """The pyramid of the tiny networks: one convolution at each level."""
    cfg.chapter(f"{_CHAPTER}small feature pyramid")
    branch = -1
    for stride in reversed(head.strides):
        width = 8 * stride
        _top_down_part(cfg, stride)
        if branch >= 0:
            _up(cfg, branch, width)
            cfg.route(cfg.last, features[stride])
            branch = cfg.conv(2 * width, 3)
        else:
            branch = cfg.conv(width)
            cfg.conv(2 * width, 3)
        head.write(cfg, stride)


def light_fpn(cfg: Cfg, features: Features, head: Yolo) -> None:
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


def prn(cfg: Cfg, features: Features, head: Yolo) -> None:
    """Partial residual network: levels are joined by adding what channels they share, instead of concatenation."""
    cfg.chapter(f"{_CHAPTER}partial residual")
    fine, coarse = head.strides
    active = cfg.activation
    cfg.part(f"stride {coarse}")
    cfg.shortcut(features[coarse], active)
    x = cfg.conv(256)
    branch = cfg.conv(256, 3)
    cfg.shortcut(x, active)
    head.write(cfg, coarse)
    cfg.part(f"stride {fine}")
    cfg.note("Back to the coarser level, before its sum")
    cfg.route(branch)
    cfg.conv(128)
    x = cfg.upsample()
    cfg.note("The first 128 channels of the backbone's features are added, here and again below")
    cfg.shortcut(features[fine], active)
    cfg.conv(128, 3)
    cfg.shortcut(x, active)
    cfg.shortcut(features[fine], active)
    head.write(cfg, fine)


def panet(cfg: Cfg, features: Features, head: Yolo) -> None:
    """PANet with pooling on top, as YOLOv4 has it."""
    _path_aggregation(cfg, features, head, _spp_set, blocks.conv_set, "PANet with spatial pyramid pooling")


def csp_panet(cfg: Cfg, features: Features, head: Yolo) -> None:
    """PANet whose sets of convolutions are cross stage partial (Scaled-YOLOv4)."""
    _path_aggregation(cfg, features, head, blocks.csp_spp, blocks.csp_set, "CSP PANet with spatial pyramid pooling")


def _path_aggregation(
    cfg: Cfg,
    features: Features,
    head: Yolo,
    top: Callable[[Cfg, int], int],
    body: Callable[[Cfg, int], int],
    name: str,
) -> None:
    """Coarse to fine as in a feature pyramid, then fine to coarse again; the heads are on the second way.

    top, body: what works on the coarsest level, and on the joined ones; given the number of channels.
    """
    cfg.chapter(_CHAPTER + name)
    *finer, coarsest = head.strides
    cfg.part(f"stride {coarsest}")
    levels = {coarsest: top(cfg, 16 * coarsest)}
    for stride in reversed(finer):
        width = 16 * stride
        _top_down_part(cfg, stride)
        upsampled = _up(cfg, cfg.last, width)
        cfg.route(features[stride])
        cfg.conv(width)
        cfg.note("Joined with the coarser level")
        cfg.route(cfg.last, upsampled)
        levels[stride] = body(cfg, width)
    level = cfg.last
    for stride in head.strides:
        width = 16 * stride
        if stride > head.strides[0]:
            cfg.part(f"bottom-up, stride {stride}")
            cfg.route(level)
            cfg.conv(width, 3, 2)
            cfg.note("Joined with the same level of the way down")
            cfg.route(cfg.last, levels[stride])
            level = body(cfg, width)
        cfg.conv(2 * width, 3)
        head.write(cfg, stride)


def _top_down_part(cfg: Cfg, stride: int) -> None:
    cfg.part(f"top-down, stride {stride}")


def _up(cfg: Cfg, layer: int, width: int) -> int:
    """Narrows a layer to `width` channels and upsamples it."""
    if layer != cfg.last:
        cfg.note("Back to the coarser level, before its head")
        cfg.route(layer)
    cfg.conv(width)
    return cfg.upsample()


def _spp_set(cfg: Cfg, width: int) -> int:
    """A set of convolutions with spatial pyramid pooling in the middle."""
    blocks.conv_set(cfg, width, 3)
    blocks.spp(cfg)
    return blocks.conv_set(cfg, width, 3)


def _separable(cfg: Cfg, channels: int) -> None:
    """Two 5x5 convolutions, each as a depthwise and a 1x1 one."""
    for _ in range(2):
        cfg.depthwise(channels, 5)
        cfg.conv(channels, activation="linear")
