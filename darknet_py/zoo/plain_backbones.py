"""Backbones of convolutions and max pooling: Darknet-19, Darknet's reference network, those of the tiny detectors.

Each returns its features: stride → index of the layer that necks read.
"""

from __future__ import annotations

from functools import partial

from darknet_py.counted import counted
from darknet_py.zoo import blocks
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.residual import Features
from darknet_py.zoo.stages import Csp, residual


def darknet19(cfg: CfgWriter) -> Features:
    """Darknet-19 (YOLOv2): alternating 3x3 and 1x1 convolutions, max pooling between the stages."""
    cfg.chapter("Backbone: Darknet-19")
    features: Features = {}
    for stage, count in enumerate((1, 1, 3, 3, 5, 5)):
        stride, width = 1 << stage, 32 << stage
        cfg.part(f"stage at stride {stride}, {width} channels: {counted(count, 'convolution')}")
        if stage:
            cfg.maxpool(2, 2)
        for number in range(count):
            if number % 2:
                cfg.conv(width // 2)
            else:
                cfg.conv(width, 3)
        features[stride] = cfg.last
    return features


def reference(cfg: CfgWriter, csp: Csp | None = None) -> Features:
    """Darknet's reference network: seven convolutions that double the channels, with max pooling between them.

    Cross stage partial, from 64 channels on: the split widens instead, and a 3x3 convolution processes one part.
    """
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}Darknet reference")
    features: Features = {}
    for stage in range(7):
        stride, width = 1 << stage, 16 << stage
        partial_csp = csp if width >= 64 else None
        kind = "cross stage partial, a convolution" if partial_csp else "a convolution"
        cfg.part(f"stage at stride {stride}, {width} channels: {kind}")
        if stage:
            cfg.maxpool(2, 2)
        if partial_csp:
            features[stride] = residual(cfg, partial_csp, partial(cfg.conv, size=3), 1, width, width)
        else:
            features[stride] = cfg.conv(width, 3)
    return features


def darknet_tiny(cfg: CfgWriter, top: int) -> Features:
    """Backbone of YOLOv2-tiny and YOLOv3-tiny: 3x3 convolutions and max pooling, the last one with stride 1.

    top: channels of the last convolution, which is the last layer. The features of stride 32 are those before the last
    max pooling.
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


def csp_darknet_tiny(cfg: CfgWriter) -> Features:
    """Backbone of YOLOv4-tiny: three small CSP stages that split the channels in halves.

    A stage has two 3x3 convolutions on half of the channels; a 1x1 convolution of both follows, which necks read. The
    output of the stage is its whole input concatenated with that convolution.
    """
    cfg.chapter("Backbone: tiny CSPDarknet")
    cfg.part("stem, stride 4")
    cfg.conv(32, 3, 2)
    cfg.conv(64, 3, 2)
    features: Features = {}
    for width in (64, 128, 256):
        stride = width // 16
        cfg.part(f"stage at stride {stride}, {width} channels: cross stage partial, two convolutions")
        x = cfg.conv(width, 3)
        cfg.note("Split: half of the channels goes through the blocks")
        cfg.slice(x, 2, 1)
        first = cfg.conv(width // 2, 3)
        second = cfg.conv(width // 2, 3)
        cfg.route(second, first)
        features[stride] = cfg.conv(width)
        cfg.note("Concatenate with all channels before the split")
        cfg.route(x, features[stride])
        cfg.maxpool(2, 2)  # to the next stride
    cfg.part("top, stride 32, 512 channels")
    features[32] = cfg.conv(512, 3)
    return features


def elan_tiny(cfg: CfgWriter) -> Features:
    """Backbone of YOLOv7-tiny: ELAN blocks with max pooling between them."""
    cfg.chapter("Backbone: tiny ELAN")
    cfg.part("stem, stride 4")
    cfg.conv(32, 3, 2)
    cfg.conv(64, 3, 2)
    features: Features = {}
    for stage in range(4):
        stride, width = 4 << stage, 32 << stage
        cfg.part(f"stage at stride {stride}, {2 * width} channels")
        if stage:
            cfg.maxpool(2, 2)
        features[stride] = blocks.tiny_elan(cfg, width)
    return features
