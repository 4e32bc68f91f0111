"""Backbones of inverted residual blocks: MobileNet-v2, EfficientNet-B0, Yolo-Fastest, plain or cross stage partial.

Each returns its features: stride → index of the layer that necks read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from darknet_py.counted import counted
from darknet_py.zoo import blocks
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.residual import Features
from darknet_py.zoo.stages import Csp, residual


class _Stage(NamedTuple):
    """One block of stride `stride` and `depth` - 1 residual blocks."""

    expanded: int  # channels inside the first block
    stride: int
    width: int
    depth: int
    size: int = 3
    first_squeeze: int = 0
    squeeze: int = 0


_MOBILENET = (
    _Stage(32, 1, 16, 1),
    _Stage(96, 2, 24, 2),
    _Stage(144, 2, 32, 3),
    _Stage(192, 1, 64, 4),
    _Stage(384, 2, 96, 3),
    _Stage(576, 2, 160, 3),
    _Stage(960, 1, 320, 1),
)
_EFFICIENTNET = (
    _Stage(32, 1, 16, 1, 3, 8),
    _Stage(96, 2, 24, 2, 3, 16, 8),
    _Stage(144, 2, 40, 2, 5, 8, 16),
    _Stage(192, 1, 80, 3, 3, 16, 24),
    _Stage(384, 2, 112, 3, 5, 24, 32),
    _Stage(576, 2, 192, 4, 5, 32, 64),
    _Stage(960, 1, 320, 1, 3, 64),
)


def mobilenet_v2(cfg: CfgWriter, csp: Csp | None = None) -> Features:
    """MobileNet-v2 as in Darknet, whose fourth stage has 28 x 28 pixels instead of 14 x 14. Use with relu.

    Cross stage partial: the residual blocks of a stage process one part, with an expansion of six. The published
    CSPMobileNet-v2 is a different network: `csp_mobilenet_v2`.
    """
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}MobileNet-v2")
    return _inverted_stages(cfg, csp, _MOBILENET, None)


def efficientnet_b0(cfg: CfgWriter, csp: Csp | None = None, *, dropout: float = 0.2) -> Features:
    """EfficientNet-B0 as in Darknet, with an expansion below six at some stages. Use with swish."""
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}EfficientNet-B0")
    return _inverted_stages(cfg, csp, _EFFICIENTNET, dropout)


def _inverted_stages(cfg: CfgWriter, csp: Csp | None, stages: Sequence[_Stage], dropout: float | None) -> Features:
    cfg.part("stem, stride 2")
    cfg.conv(32, 3, 2)
    features: Features = {}
    stride = 2
    for number, stage in enumerate(stages):
        stride *= stage.stride
        partial_csp = csp if stage.depth > 1 else None
        kind = "cross stage partial, " if partial_csp else ""
        cfg.part(f"stage at stride {stride}, {stage.width} channels: {kind}{counted(stage.depth, 'inverted block')}")
        blocks.inverted(cfg, stage.width, stage.expanded, stage.stride, stage.size, stage.first_squeeze)
        block = partial(blocks.inverted_residual, size=stage.size, squeeze=stage.squeeze, dropout=dropout)
        if partial_csp:
            partial_block = partial(_sixfold, cfg, block)
            residual(cfg, partial_csp, partial_block, stage.depth - 1, stage.width, stage.width)
        elif stage.depth > 1:
            blocks.repeat(cfg, partial(block, cfg, stage.width, stages[number + 1].expanded), stage.depth - 1)
        features[stride] = cfg.last
    cfg.part(f"top, stride {stride}, 1280 channels")
    features[stride] = cfg.conv(1280)
    return features


def _sixfold(cfg: CfgWriter, block: partial[int], width: int) -> int:
    return block(cfg, width, 6 * width)


def csp_mobilenet_v2(cfg: CfgWriter) -> Features:
    """The published CSPMobileNet-v2.

    A stage expands its input to half of the channels; a depthwise convolution of them is the part that skips the
    blocks. The depthwise convolutions of the blocks double the channels, so that the 1x1 convolutions expand half as
    far.
    """
    cfg.chapter("Backbone: CSPMobileNet-v2")
    cfg.part("stem, stride 2")
    x = cfg.conv(32, 3, 2)
    cfg.part("stage at stride 2")
    skipped = cfg.depthwise(16)
    cfg.route(x)
    blocks.inverted(cfg, 16, 32)
    cfg.route(cfg.last, skipped)
    features: Features = {}
    for stride, groups in (
        (4, ((48, 24, 1), (72, 24, 1))),
        (8, ((72, 32, 1), (96, 32, 2), (96, 64, 1), (192, 64, 3))),
        (16, ((192, 96, 1), (288, 96, 2))),
        (32, ((288, 160, 1), (480, 160, 2), (480, 320, 1))),
    ):
        cfg.part(f"stage at stride {stride}")
        x = cfg.conv(groups[0][0])
        cfg.note("Split: the part that skips the blocks")
        skipped = cfg.depthwise(groups[0][0], 3, 2)
        cfg.route(x)
        cfg.note("The part that goes through the blocks")
        for number, (expanded, width, count) in enumerate(groups):
            for _ in range(count):
                before = cfg.last
                if number:
                    cfg.conv(expanded)
                cfg.depthwise(2 * expanded, 3, 1 if number else 2)
                cfg.conv(width, activation="linear")
                if number and cfg.width(before) == width:
                    cfg.shortcut(before)
        cfg.note("Concatenate both parts")
        features[stride] = cfg.route(cfg.last, skipped)
    cfg.part("top, stride 32, 640 channels")
    features[32] = cfg.conv(640)
    return features


def fastest(cfg: CfgWriter) -> Features:
    """Backbone of Yolo-Fastest 1.1: inverted residual blocks with few channels."""
    cfg.chapter("Backbone: inverted residual blocks")
    cfg.part("stem, stride 2")
    cfg.conv(8, 3, 2)
    features: Features = {}
    stride = 2
    # inner channels of the first block, its stride, channels of the stage, residual blocks, their inner channels
    for first, step, width, count, expanded in (
        (8, 1, 4, 1, 8),
        (24, 2, 8, 2, 32),
        (32, 2, 8, 2, 48),
        (48, 1, 16, 4, 96),
        (96, 2, 24, 4, 136),
        (136, 2, 48, 5, 224),
    ):
        stride *= step
        cfg.part(f"stage at stride {stride}, {width} channels: {counted(count, 'inverted residual block')}")
        blocks.inverted(cfg, width, first, step)
        block = partial(blocks.inverted_residual, cfg, width, expanded, dropout=0.15)
        features[stride] = blocks.repeat(cfg, block, count)
    return features
