"""Backbones of dense layers: DenseNet, PeleeNet and the small reference networks, plain or cross stage partial.

Each returns its features: stride → index of the layer that necks read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from darknet_py.zoo import blocks
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.residual import Features, plural
from darknet_py.zoo.stages import Csp


def densenet201(cfg: CfgWriter, csp: Csp | None = None) -> Features:
    """DenseNet-201 as in Darknet, with few channels after the transitions; elastic as in the Elastic paper.

    Cross stage partial: the first transition leaves as many channels as the dense layers got from the split, so that
    both parts are concatenated with the widths of the split.
    """
    counts, outs = ((10, 20, 40, 30), (192, 416, 848)) if cfg.elastic else ((6, 12, 48, 32), (128, 256, 512))
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}DenseNet-201{' with Elastic' if cfg.elastic else ''}")
    cfg.part("stem, stride 4")
    cfg.conv(64, 7, 2)
    cfg.maxpool(2, 2)

    def layer(stage: int) -> int:
        if cfg.elastic:  # the 7 x 7 pixels of the last stage cannot be halved
            return blocks.elastic_dense(cfg, 32, 64, halved=stage < 3)
        return blocks.dense(cfg, 32, 128)

    return _stages(cfg, csp, counts, layer, 32, outs=outs, close=0)


def peleenet(
    cfg: CfgWriter,
    csp: Csp | None = None,
    *,
    counts: Sequence[int] = (3, 4, 8, 6),
    growth: int = 32,
) -> Features:
    """PeleeNet (Wang et al., 2018): a stem of two branches, two-way dense layers, transitions that keep the channels.

    Max pooling replaces average pooling, as in the published Darknet cfgs.
    """
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}PeleeNet")
    cfg.part("stem, stride 4")
    x = cfg.conv(growth, 3, 2)
    cfg.conv(growth // 2)
    strided = cfg.conv(growth, 3, 2)
    cfg.route(x)
    pooled = cfg.maxpool(2, 2)
    cfg.route(pooled, strided)
    cfg.conv(growth)
    return _stages(cfg, csp, counts, _two_way(cfg, growth), growth)


def pelee_reference(cfg: CfgWriter, csp: Csp | None = None, *, top: int = 3) -> Features:
    """The layers of PeleeNet after the first two convolutions of Darknet's reference network.

    top: kernel size of the last convolution; 1 is the variant "b".
    """
    _reference_stem(cfg, "PeleeNet", csp)
    return _stages(cfg, csp, (3, 5, 5, 5), _two_way(cfg, 32), 32, close=448, size=top)


def dense_reference(cfg: CfgWriter, csp: Csp | None = None, *, top: int = 3) -> Features:
    """Dense layers after the first two convolutions of Darknet's reference network. top: as in `pelee_reference`."""
    _reference_stem(cfg, "DenseNet", csp)
    return _stages(cfg, csp, (1, 4, 5, 5), lambda _: blocks.dense(cfg, 32, 32), 32, close=512, size=top)


def _two_way(cfg: CfgWriter, growth: int) -> Callable[[int], int]:
    """Writer of a PeleeNet layer, given the stage. The bottleneck has half of the growth to twice the growth."""
    inner = (growth // 2, growth, 2 * growth, 2 * growth)
    return lambda stage: blocks.two_way_dense(cfg, growth, inner[stage])


def _reference_stem(cfg: CfgWriter, name: str, csp: Csp | None) -> None:
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}{name} reference")
    cfg.part("stem, stride 4")
    cfg.conv(16, 3)
    cfg.maxpool(2, 2)
    cfg.conv(32, 3)
    cfg.maxpool(2, 2)


def _stages(
    cfg: CfgWriter,
    csp: Csp | None,
    counts: Sequence[int],
    layer: Callable[[int], int],
    growth: int,
    *,
    outs: Sequence[int] = (),
    close: int | None = None,
    size: int = 1,
) -> Features:
    """Stages of dense layers from stride 4 on, with 1x1 convolutions (transitions) and max pooling between them.

    layer: writes one layer, given the index of the stage. outs: channels after the transitions (default: all). close:
    channels after the transition of the last stage (0: a plain last stage has none); size: its kernel size. Cross stage
    partial: the last transition of a stage follows the max pooling.
    """
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, base = 4 << stage, cfg.width()
        last = stage == len(counts) - 1
        total = base + count * growth
        out = (close or total) if last else (outs[stage] if outs else total)
        kind = "cross stage partial, " if csp else ""
        cfg.part(f"stage at stride {stride}, {base} to {total} channels: {kind}{plural(count, 'dense layer')}")
        skipped = csp.divide(cfg, base) if csp else -1
        part = cfg.width()
        blocks.repeat(cfg, partial(layer, stage), count)
        if csp is None:
            if not last or close != 0:
                cfg.note("Transition")
                cfg.conv(out, size if last else 1)
            features[stride] = cfg.last
            if not last:
                cfg.maxpool(2, 2)
            continue
        narrow = part if outs and not last else cfg.width()
        if csp.fusion == "last" and not last:
            narrow = out - (base - part)
        features[stride] = csp.join(cfg, skipped, narrow, out, pool=not last, size=size if last else 1)
    return features
