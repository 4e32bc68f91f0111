"""Backbones of dense layers: DenseNet, PeleeNet and the small reference networks, plain or cross stage partial.

Each returns its features: stride → index of the layer that necks read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from darknet_py.counted import counted
from darknet_py.zoo import blocks
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.residual import Features
from darknet_py.zoo.stages import Csp

_PELEE_INNER = (1, 2, 4, 4)  # channels of PeleeNet's bottlenecks by stage, in halves of the growth


def densenet201(cfg: CfgWriter, csp: Csp | None = None) -> Features:
    """DenseNet-201 as in Darknet, with few channels after the transitions; elastic as in the Elastic paper.

    Cross stage partial: the first transition leaves as many channels as the dense layers got from the split, so that
    both parts are concatenated with the widths of the split.
    """
    counts, outs = ((10, 20, 40, 30), (192, 416, 848)) if cfg.elastic else ((6, 12, 48, 32), (128, 256, 512))
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}DenseNet-201{' with Elastic' if cfg.elastic else ''}")
    return _densenet(cfg, csp, counts, outs)


def densenet264(cfg: CfgWriter, csp: Csp | None = None) -> Features:
    """DenseNet-264 with growth 32, with the transitions of Darknet's DenseNet-201."""
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}DenseNet-264")
    return _densenet(cfg, csp, (6, 12, 64, 48), (128, 256, 512))


def _densenet(cfg: CfgWriter, csp: Csp | None, counts: Sequence[int], outs: Sequence[int]) -> Features:
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
    first: int = 0,
    pool: str = "before",
    groups: int = 1,
) -> Features:
    """PeleeNet (Wang et al., 2018): a stem of two branches, two-way dense layers, transitions that keep the channels.

    Max pooling replaces average pooling, as in the published Darknet cfgs. first: index of the first stage that is
    cross stage partial. pool: where the pooling of these stages is relative to their last transition. groups: of the
    1x1 convolutions in the layers from stride 8 on (PeleeNeXt).
    """
    cfg.chapter(f"Backbone: {'CSP' if csp else ''}Pelee{'Net' if groups == 1 else 'NeXt'}")
    _pelee_stem(cfg, growth)
    return _stages(cfg, csp, counts, _two_way(cfg, growth, groups), growth, first=first, pool=pool)


def sparse_peleenet(cfg: CfgWriter) -> Features:
    """SparsePeleeNet: a layer reads the outputs 1, 2, 4, … layers before it instead of all (Zhu et al., 2018).

    The transition reads the outputs of all layers and the input of the stage.
    """
    cfg.chapter("Backbone: SparsePeleeNet")
    _pelee_stem(cfg, 32)
    features: Features = {}
    for stage, count in enumerate((3, 4, 8, 6)):
        stride = 4 << stage
        cfg.part(f"stage at stride {stride}, {cfg.width()} channels: {counted(count, 'layer')}, sparsely aggregated")
        outputs: list[tuple[int, ...]] = [(cfg.last,)]  # the input of the stage, then the two branches of each layer
        for number in range(1, count + 1):
            cfg.note(f"Layer {number} of {count}")
            read = [layer for step in range(number.bit_length()) for layer in outputs[number - (1 << step)]]
            if read != [cfg.last]:
                cfg.route(*read)
            outputs.append(blocks.two_way(cfg, 32, _PELEE_INNER[stage] * 32 // 2))
        cfg.route(*(layer for output in reversed(outputs) for layer in output))
        cfg.note("Transition")
        features[stride] = cfg.conv(cfg.width())
        if stage < 3:
            cfg.maxpool(2, 2)
    return features


def _pelee_stem(cfg: CfgWriter, growth: int) -> None:
    cfg.part("stem, stride 4")
    x = cfg.conv(growth, 3, 2)
    cfg.conv(growth // 2)
    strided = cfg.conv(growth, 3, 2)
    cfg.route(x)
    pooled = cfg.maxpool(2, 2)
    cfg.route(pooled, strided)
    cfg.conv(growth)


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


def _two_way(cfg: CfgWriter, growth: int, groups: int = 1) -> Callable[[int], int]:
    """Writer of a PeleeNet layer, given the stage. groups: of the bottleneck, from the second stage on."""
    return lambda stage: blocks.two_way_dense(cfg, growth, _PELEE_INNER[stage] * growth // 2, groups if stage else 1)


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
    first: int = 0,
    pool: str = "before",
) -> Features:
    """Stages of dense layers from stride 4 on, with 1x1 convolutions (transitions) and max pooling between them.

    layer: writes one layer, given the index of the stage. outs: channels after the transitions (default: all). close:
    channels after the transition of the last stage (0: a plain last stage has none); size: its kernel size. first,
    pool: as in `peleenet`.
    """
    features: Features = {}
    for stage, count in enumerate(counts):
        stride, base = 4 << stage, cfg.width()
        last = stage == len(counts) - 1
        total = base + count * growth
        out = (close or total) if last else (outs[stage] if outs else total)
        partial_csp = csp if stage >= first else None
        kind = "cross stage partial, " if partial_csp else ""
        cfg.part(f"stage at stride {stride}, {base} to {total} channels: {kind}{counted(count, 'dense layer')}")
        skipped = partial_csp.divide(cfg, base) if partial_csp else -1
        part = cfg.width()
        blocks.repeat(cfg, partial(layer, stage), count)
        if partial_csp is None:
            if not last or close != 0:
                cfg.note("Transition")
                cfg.conv(out, size if last else 1)
            features[stride] = cfg.last
            if not last:
                cfg.maxpool(2, 2)
            continue
        narrow = part if outs and not last else cfg.width()
        if partial_csp.fusion == "last" and not last:
            narrow = out - (base - part)
        features[stride] = partial_csp.join(
            cfg, skipped, narrow, out, pool="" if last else pool, size=size if last else 1
        )
    return features
