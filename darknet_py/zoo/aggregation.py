"""Backbones of blocks after CSPNet: OSA, ELAN, E-ELAN, GELAN, CSPStackRep, C3 and C2f.

Each returns its features: stride → index of the layer that necks read. ELAN, GELAN, CSPStackRep, C3 and C2f divide and
concatenate by themselves and take no `Csp`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from darknet_py.counted import counted
from darknet_py.zoo import blocks
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.residual import Features
from darknet_py.zoo.stages import Csp

# --- blocks


def osa(cfg: CfgWriter, width: int, out: int, count: int = 5) -> int:
    """One-shot aggregation (VoVNet, Lee et al., 2019): 3x3 convolutions, all concatenated at the end."""
    outputs = [cfg.last]
    for _ in range(count):
        outputs.append(cfg.conv(width, 3))
    cfg.route(*reversed(outputs))
    cfg.conv(out)
    return blocks.attend(cfg)


def elan(cfg: CfgWriter, width: int, out: int) -> int:
    """ELAN (YOLOv7, Wang et al., 2022): two 1x1 parts, on one of them two pairs of 3x3 convolutions; all joined."""
    x = cfg.last
    parts = [cfg.conv(width)]
    cfg.route(x)
    parts.append(cfg.conv(width))
    for _ in range(2):
        cfg.conv(width, 3)
        parts.append(cfg.conv(width, 3))
    cfg.route(*reversed(parts))
    cfg.conv(out)
    return blocks.attend(cfg)


def dense_elan(cfg: CfgWriter, width: int) -> int:
    """ELAN of YOLOv7's neck: two 1x1 parts and the outputs of four 3x3 convolutions of half of their channels."""
    x = cfg.last
    parts = [cfg.conv(width)]
    cfg.route(x)
    parts.append(cfg.conv(width))
    for _ in range(4):
        parts.append(cfg.conv(width // 2, 3))
    cfg.route(*reversed(parts))
    return cfg.conv(width)


def extended_elan(cfg: CfgWriter, width: int, out: int) -> int:
    """E-ELAN (YOLOv7-E6E): two ELAN blocks side by side, added: its paper's expanded and merged groups."""
    x = cfg.last
    first = elan(cfg, width, out)
    cfg.route(x)
    elan(cfg, width, out)
    return cfg.shortcut(first)


def gelan(cfg: CfgWriter, width: int, inner: int, out: int, count: int = 1) -> int:
    """GELAN block of YOLOv9 (RepNCSPELAN4): ELAN with CSP blocks instead of convolutions.

    width: channels of the 1x1 convolution whose halves are the first two parts. inner: channels of the others. count:
    residual blocks of each CSP block. The re-parameterized 3x3 convolutions are single ones, as deployed.
    """
    x = cfg.conv(width)
    parts = [cfg.slice(x, 2, 0), cfg.slice(x, 2, 1)]
    for _ in range(2):
        c3(cfg, inner, count, size=3)
        parts.append(cfg.conv(inner, 3))
    cfg.route(*parts)
    cfg.conv(out)
    return blocks.attend(cfg)


def gelan_elan(cfg: CfgWriter, width: int, inner: int, out: int) -> int:
    """GELAN block of YOLOv9-t's first stage (ELAN1): as `gelan`, with one convolution per step."""
    x = cfg.conv(width)
    parts = [cfg.slice(x, 2, 0), cfg.slice(x, 2, 1)]
    for _ in range(2):
        parts.append(cfg.conv(inner, 3))
    cfg.route(*parts)
    cfg.conv(out)
    return blocks.attend(cfg)


def c3(cfg: CfgWriter, out: int, count: int, *, size: int = 1, shortcut: bool = True) -> int:
    """C3 of YOLOv5: residual blocks on one of two 1x1 parts, concatenated, a 1x1 convolution.

    size: of the first convolution of a residual block. shortcut: whether the blocks add their input.
    """
    x, width = cfg.last, out // 2
    skipped = cfg.conv(width)
    cfg.route(x)
    cfg.conv(width)
    for _ in range(count):
        _bottleneck(cfg, width, size, shortcut)
    cfg.route(cfg.last, skipped)
    cfg.conv(out)
    return blocks.attend(cfg)


def c2f(cfg: CfgWriter, out: int, count: int, *, shortcut: bool = True) -> int:
    """C2f of YOLOv8: halves of a 1x1 convolution; residual blocks on one of them, each of them concatenated."""
    width = out // 2
    x = cfg.conv(out)
    parts = [cfg.slice(x, 2, 0), cfg.slice(x, 2, 1)]
    for _ in range(count):
        parts.append(_bottleneck(cfg, width, 3, shortcut))
    cfg.route(*parts)
    cfg.conv(out)
    return blocks.attend(cfg)


def _bottleneck(cfg: CfgWriter, width: int, size: int, shortcut: bool) -> int:
    x = cfg.last
    cfg.conv(width, size)
    cfg.conv(width, 3)
    return cfg.shortcut(x) if shortcut else cfg.last


def rep(cfg: CfgWriter, width: int, *, deploy: bool) -> int:
    """Re-parameterized convolution (RepVGG, Ding et al., 2021): the sum of a 3x3 and a 1x1 convolution and, where the
    width stays, of the normalized input; or the merged convolution.

    `darknet-py merge` turns trained weights of the sum into those of the single convolution. C Darknet's `[batchnorm]`
    overwrites the gradient of the layer before it (`backward_batchnorm_layer`): a `[route]` that nothing else reads.
    """
    if deploy:
        return cfg.section("convolutional", width, filters=width, size=3, stride=1, pad=1, activation=cfg.activation)
    x = cfg.last
    parts = [cfg.conv(width, 3, activation="linear")]
    cfg.route(x)
    parts.append(cfg.conv(width, activation="linear"))
    if cfg.width(x) == width:
        cfg.route(x)
        parts.append(cfg.section("batchnorm"))
    return cfg.shortcut(*reversed(parts[:-1]), activation=cfg.activation)


def csp_stackrep(cfg: CfgWriter, out: int, count: int, *, deploy: bool = False) -> int:
    """CSPStackRep (YOLOv6, Li et al., 2022): residual blocks of two `rep` convolutions on one of two parts."""
    x, width = cfg.last, out // 2
    skipped = cfg.conv(width)
    cfg.route(x)
    cfg.conv(width)
    for _ in range(count):
        before = cfg.last
        rep(cfg, width, deploy=deploy)
        rep(cfg, width, deploy=deploy)
        cfg.shortcut(before)
    cfg.route(cfg.last, skipped)
    cfg.conv(out)
    return blocks.attend(cfg)


# --- backbones


def vovnet(cfg: CfgWriter, csp: Csp | None = None, *, counts: Sequence[int] = (1, 1, 2, 2)) -> Features:
    """VoVNet-39: stages of one-shot aggregation. Use with relu.

    Cross stage partial (CSP-OSA): a stage's block works on one part, with convolutions narrower by the same share.
    """
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}VoVNet-39")
    cfg.part("stem, stride 4")
    cfg.conv(64, 3, 2)
    cfg.conv(64, 3)
    cfg.conv(128, 3, 2)
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, width, out = 4 << stage, 128 + 32 * stage, 256 * (stage + 1)
        cfg.part(f"stage at stride {stride}, {out} channels: {counted(count, 'OSA block')}")
        if stage:
            cfg.maxpool(2, 2)
        if csp is None:
            blocks.repeat(cfg, partial(osa, cfg, width, out), count)
        else:
            base = cfg.width()
            skipped = csp.divide(cfg, base)
            part = csp.parts(out)[1]
            narrow = csp.parts(width)[1]
            blocks.repeat(cfg, partial(osa, cfg, narrow, part), count)
            csp.join(cfg, skipped, part, out)
        features[stride] = cfg.last
    return features


def elan_net(cfg: CfgWriter, csp: Csp | None = None, *, block: Callable[[CfgWriter, int, int], int] = elan) -> Features:
    """Backbone of YOLOv7, of ELAN blocks or, with `extended_elan`, of E-ELAN blocks. Use with swish."""
    cfg.chapter(f"Backbone: {'ELAN' if block is elan else 'E-ELAN'}")
    cfg.part("stem, stride 4")
    cfg.conv(32, 3)
    cfg.conv(64, 3, 2)
    cfg.conv(64, 3)
    cfg.conv(128, 3, 2)
    features: Features = {}
    for stage, (width, out) in enumerate(((64, 256), (128, 512), (256, 1024), (256, 1024))):
        stride = 4 << stage
        cfg.part(f"stage at stride {stride}, {out} channels")
        if stage:
            cfg.route(*halve(cfg, cfg.width() // 2))
        features[stride] = block(cfg, width, out)
    return features


def halve(cfg: CfgWriter, width: int) -> tuple[int, int]:
    """Two branches at half of the resolution (YOLOv7), of `width` channels each: a strided convolution, max pooling."""
    x = cfg.last
    cfg.maxpool(2, 2)
    pooled = cfg.conv(width)
    cfg.route(x)
    cfg.conv(width)
    return cfg.conv(width, 3, 2), pooled


def gelan_c(cfg: CfgWriter, csp: Csp | None = None) -> Features:
    """Backbone of YOLOv9-c: GELAN blocks of CSP blocks. Use with swish."""
    cfg.chapter("Backbone: GELAN-C")
    cfg.part("stem, stride 4")
    cfg.conv(64, 3, 2)
    cfg.conv(128, 3, 2)
    features: Features = {}
    for stage, (width, inner, out) in enumerate(((128, 64, 256), (256, 128, 512), (512, 256, 512), (512, 256, 512))):
        stride = 4 << stage
        cfg.part(f"stage at stride {stride}, {out} channels")
        if stage:
            _pooled_transition(cfg)
        features[stride] = gelan(cfg, width, inner, out)
    return features


def _pooled_transition(cfg: CfgWriter) -> int:
    """ADown of YOLOv9: a mean over 2 x 2 pixels with stride 1; then half of the channels each through a strided 3x3
    convolution and through max pooling and a 1x1 convolution."""
    width = cfg.width() // 2
    x = cfg.section("local_avgpool", size=2, stride=1, padding=1)
    cfg.slice(x, 2, 0)
    strided = cfg.conv(width, 3, 2)
    cfg.slice(x, 2, 1)
    cfg.section("maxpool", size=3, stride=2)
    cfg.conv(width)
    return cfg.route(strided, cfg.last)


def gelan_t(cfg: CfgWriter, csp: Csp | None = None) -> Features:
    """Backbone of YOLOv9-t: an ELAN block, then GELAN blocks of three residual blocks per CSP block. Use with swish."""
    cfg.chapter("Backbone: GELAN-T")
    cfg.part("stem, stride 4")
    cfg.conv(16, 3, 2)
    cfg.conv(32, 3, 2)
    cfg.part("stage at stride 4, 32 channels")
    features: Features = {4: gelan_elan(cfg, 32, 16, 32)}
    for stage, width in enumerate((64, 96, 128)):
        stride = 8 << stage
        cfg.part(f"stage at stride {stride}, {width} channels")
        cfg.section("local_avgpool", size=2, stride=1, padding=1)
        cfg.conv(width, 3, 2)
        features[stride] = gelan(cfg, width, width // 2, width, 3)
    return features


def stages_of(
    cfg: CfgWriter,
    csp: Csp | None = None,
    *,
    name: str,
    block: Callable[[CfgWriter, int, int], int],
    stem: int,
    counts: Sequence[int],
    top: bool = True,
) -> Features:
    """A strided convolution and a block per stage, with channels that double: YOLOv5, YOLOv6 and YOLOv8.

    Args:
        cfg: The cfg.
        csp: None; the blocks are cross stage partial already.
        name: Of the backbone.
        block: Writes a block, given its channels and the number of its residual blocks.
        stem: Channels of the first convolution.
        counts: Residual blocks of each stage.
        top: Whether fast spatial pyramid pooling follows the last stage (SPPF).

    Returns:
        Stride → index of the features.
    """
    cfg.chapter(f"Backbone: {name}")
    cfg.part("stem, stride 2")
    cfg.conv(stem, 3, 2)
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, width = 4 << stage, stem << (stage + 1)
        cfg.part(f"stage at stride {stride}, {width} channels: {counted(count, 'residual block')}")
        cfg.conv(width, 3, 2)
        features[stride] = block(cfg, width, count)
    if top:
        stride = max(features)
        cfg.part(f"fast pyramid pooling, stride {stride}")
        features[stride] = sppf(cfg, cfg.width())
    return features


def sppf(cfg: CfgWriter, out: int) -> int:
    """Fast spatial pyramid pooling (YOLOv5): one window of 5 three times over is like windows of 5, 9 and 13."""
    parts = [cfg.conv(cfg.width() // 2)]
    for _ in range(3):
        parts.append(cfg.maxpool(5, 1))
    cfg.route(*parts)
    return cfg.conv(out)


C3_SMALL = partial(stages_of, name="C3", block=c3, stem=32, counts=(1, 2, 3, 1))
C2F_SMALL = partial(stages_of, name="C2f", block=c2f, stem=32, counts=(1, 2, 2, 1))
STACKREP = partial(stages_of, name="CSPStackRep", block=csp_stackrep, stem=32, counts=(1, 2, 3, 1))
STACKREP_DEPLOY = partial(STACKREP, block=partial(csp_stackrep, deploy=True))
