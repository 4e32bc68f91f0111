"""Building blocks of stages and necks. Each continues from the last layer and returns the index of its output.

The blocks of stages end with `CfgWriter.attention` and are elastic if `CfgWriter.elastic` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from darknet_py.zoo.cfg_writer import CfgWriter


def repeat(cfg: CfgWriter, block: Callable[[], int], count: int) -> int:
    for number in range(count):
        cfg.note(f"Block {number + 1} of {count}")
        block()
    return cfg.last


# --- residual


def darknet(cfg: CfgWriter, width: int, inner: int) -> int:
    """Residual block of Darknet-53: narrow to `inner` channels, 3x3 back to `width`, add."""

    def body(width: int, inner: int) -> None:
        cfg.conv(inner)
        cfg.conv(width, 3)

    if cfg.elastic:
        return elastic(cfg, lambda: body(width // 2, width // 2), "linear")
    x = cfg.last
    body(width, inner)
    attend(cfg)
    return cfg.shortcut(x)


def basic(cfg: CfgWriter, width: int, stride: int = 1, *, project: bool = False) -> int:
    """Residual block of ResNet-10 … 34: two 3x3 convolutions, add, activate. project: as in `bottleneck`."""
    x = cfg.last
    cfg.conv(width, 3, stride)
    cfg.conv(width, 3, activation="linear")
    attend(cfg)
    return _sum(cfg, x, width, stride, project)


def bottleneck(
    cfg: CfgWriter, width: int, inner: int, stride: int = 1, groups: int = 1, *, project: bool = False
) -> int:
    """Residual block of ResNet: narrow to `inner`, 3x3, widen to `width`, add, activate. ResNeXt: 3x3 in groups.

    project: the skip connection goes through a 1x1 convolution. It has to where the shapes differ: AlexeyAB's Darknet
    refuses to add outputs of different sizes.
    """

    def body(width: int, inner: int, groups: int) -> None:
        cfg.conv(inner)
        cfg.conv(inner, 3, stride, groups=groups)
        cfg.conv(width, activation="linear")

    if cfg.elastic:
        return elastic(cfg, lambda: body(width // 2, width // 2, max(groups // 2, 1)), cfg.activation)
    x = cfg.last
    body(width, inner, groups)
    attend(cfg)
    return _sum(cfg, x, width, stride, project)


def _sum(cfg: CfgWriter, x: int, width: int, stride: int, project: bool) -> int:
    if project:
        body = cfg.last
        cfg.route(x)
        cfg.conv(width, 1, stride, activation="linear")
        x = body
    return cfg.shortcut(x, activation=cfg.activation)


def elastic(cfg: CfgWriter, body: Callable[[], None], activation: str) -> int:
    """Elastic (Wang et al., 2018): half of the channels is processed at half the resolution, which needs even sides."""
    x = cfg.last
    cfg.slice(x, 2, 0)
    body()
    fine = cfg.last
    cfg.note("The other half, at half the resolution")
    cfg.slice(x, 2, 1)
    cfg.maxpool(2, 2)
    body()
    coarse = cfg.upsample()
    cfg.route(fine, coarse)
    attend(cfg)
    return cfg.shortcut(x, activation=activation)


def added_elastic(
    cfg: CfgWriter, width: int, inner: int, stride: int = 1, groups: int = 1, *, project: bool = False
) -> int:
    """Bottleneck of "+Elastic": a second one at half the resolution is added, each with half of the inner channels."""

    def body() -> None:
        cfg.conv(inner // 2)
        cfg.conv(inner // 2, 3, stride, groups=max(groups // 2, 1))
        cfg.conv(width, activation="linear")

    x = cfg.last
    body()
    fine = cfg.last
    cfg.note("At half the resolution")
    cfg.route(x)
    cfg.maxpool(2, 2)
    body()
    cfg.upsample()
    cfg.shortcut(fine)
    attend(cfg)
    return _sum(cfg, x, width, stride, project)


def inverted(cfg: CfgWriter, width: int, expanded: int, stride: int = 1, size: int = 3, squeeze: int = 0) -> int:
    """Block of MobileNet-v2: widen to `expanded`, depthwise convolution, narrow to `width`.

    EfficientNet's block has squeeze and excitation, down to `squeeze` channels, before it narrows.
    """
    cfg.conv(expanded)
    cfg.depthwise(expanded, size, stride)
    if squeeze:
        excite(cfg, squeeze)
    return cfg.conv(width, activation="linear")


def inverted_residual(
    cfg: CfgWriter, width: int, expanded: int, *, size: int = 3, squeeze: int = 0, dropout: float | None = None
) -> int:
    """An inverted block with a skip connection; with dropout before the sum if `dropout` is given."""
    x = cfg.last
    inverted(cfg, width, expanded, size=size, squeeze=squeeze)
    attend(cfg)
    if dropout is not None:
        cfg.section("dropout", probability=dropout)
    return cfg.shortcut(x)


def res2(cfg: CfgWriter, width: int, groups: int = 2) -> int:
    """Residual block of Res2NetLite: quarters of the channels; each one adds the result of the previous quarter."""
    x = cfg.last
    wide = cfg.conv(width)
    parts = [cfg.slice(wide, 4, 0)]
    for number in range(1, 4):
        cfg.slice(wide, 4, number)
        if number > 1:
            cfg.shortcut(parts[-1])
        parts.append(cfg.conv(width // 4, 3, groups=groups))
    cfg.route(*parts)
    cfg.conv(width)
    attend(cfg)
    return cfg.shortcut(x)


# --- dense


def dense(cfg: CfgWriter, growth: int, inner: int) -> int:
    """Layer of DenseNet: narrow to `inner` channels (0: not at all), 3x3 to `growth`, concatenate with the input."""
    x = cfg.last
    if inner:
        cfg.conv(inner)
    cfg.conv(growth, 3)
    attend(cfg, ratio=2)
    return cfg.route(cfg.last, x)


def two_way(cfg: CfgWriter, growth: int, inner: int, groups: int = 1) -> tuple[int, int]:
    """The two branches of a PeleeNet layer: receptive fields of 5x5 and of 3x3 pixels, half of the growth each.

    groups: of the 1x1 convolutions.
    """
    x = cfg.last
    cfg.conv(inner, groups=groups)
    near = cfg.conv(growth // 2, 3)
    cfg.route(x)
    cfg.conv(inner, groups=groups)
    cfg.conv(growth // 2, 3)
    far = cfg.conv(growth // 2, 3)
    return far, near


def two_way_dense(cfg: CfgWriter, growth: int, inner: int, groups: int = 1) -> int:
    """Layer of PeleeNet: the input concatenated with its two branches."""
    x = cfg.last
    far, near = two_way(cfg, growth, inner, groups)
    if not cfg.attention:
        return cfg.route(far, near, x)
    cfg.route(far, near)
    attend(cfg, ratio=2)
    return cfg.route(cfg.last, x)


def elastic_dense(cfg: CfgWriter, growth: int, inner: int, *, halved: bool = True) -> int:
    """Layer of an elastic DenseNet: the sum of two paths, one of them at half the resolution (if `halved`)."""
    x = cfg.last
    cfg.conv(inner)
    fine = cfg.conv(growth, 3)
    cfg.route(x)
    if halved:
        cfg.section("local_avgpool", size=2, stride=2)
    cfg.conv(inner)
    cfg.conv(growth, 3)
    if halved:
        cfg.upsample()
    cfg.shortcut(fine)
    attend(cfg, ratio=2)
    return cfg.route(cfg.last, x)


def tiny_elan(cfg: CfgWriter, width: int) -> int:
    """Block of YOLOv7-tiny: two 1x1 parts, two 3x3 convolutions on one of them; all four are concatenated."""
    x = cfg.last
    parts = [cfg.conv(width)]
    cfg.route(x)
    parts += [cfg.conv(width), cfg.conv(width, 3), cfg.conv(width, 3)]
    cfg.route(*parts)
    return cfg.conv(2 * width)


# --- attention


def attend(cfg: CfgWriter, ratio: int = 16) -> int:
    """Adds `cfg.attention` to the last layer. ratio: its channels divided by the squeezed channels."""
    if cfg.attention == "se":
        return excite(cfg, max(cfg.width() // ratio, 8))
    return sam(cfg) if cfg.attention == "sam" else cfg.last


def excite(cfg: CfgWriter, squeeze: int) -> int:
    """Squeeze and excitation: scales each channel by a function of the channel means."""
    x, width = cfg.last, cfg.width()
    cfg.section("avgpool")
    cfg.conv(squeeze, norm=False)
    cfg.conv(width, norm=False, activation="logistic")
    return cfg.section("scale_channels", **{"from": x - cfg.last - 1})


def sam(cfg: CfgWriter) -> int:
    """Spatial attention of YOLOv4: scales each value by the output of a logistic 1x1 convolution."""
    x = cfg.last
    cfg.conv(cfg.width(), activation="logistic")
    return cfg.section("sam", **{"from": x - cfg.last - 1})


# --- sets of convolutions, for necks


def spp(cfg: CfgWriter, sizes: Sequence[int] = (5, 9, 13), *, input_first: bool = False) -> int:
    """Spatial pyramid pooling: max pooling over several window sizes, concatenated with the input.

    input_first: the input and the smallest window come first; otherwise the largest window.
    """
    x = cfg.last
    pools: list[int] = []
    for size in sizes:
        if pools:
            cfg.route(x)
        else:
            cfg.note(f"Spatial pyramid pooling, window sizes {', '.join(map(str, sizes))}")
        pools.append(cfg.maxpool(size, 1))
    return cfg.route(x, *pools) if input_first else cfg.route(*reversed(pools), x)


def spp_maxout(cfg: CfgWriter, width: int) -> int:
    """Spatial pyramid pooling, compressed to `width` channels by Maxout."""
    spp(cfg)
    return cfg.maxout(width)


def rfb(cfg: CfgWriter, width: int) -> int:
    """Receptive field block (Liu et al., 2018): branches of growing dilation, added to a projection of the input."""
    x = cfg.last
    cfg.note("Receptive field block: 3x3 convolutions with dilation 1, 3 and 5")
    project = cfg.conv(width, activation="linear")
    branches: list[int] = []
    for dilation in (1, 3, 5):
        cfg.route(x)
        cfg.conv(width // 4)
        if dilation > 1:
            cfg.conv(width // 4, 3)
        branches.append(cfg.conv(width // 4, 3, dilation=dilation))
    cfg.route(*branches)
    cfg.conv(width, activation="linear")
    return cfg.shortcut(project, activation=cfg.activation)


def conv_set(cfg: CfgWriter, width: int, count: int = 5) -> int:
    """`count` convolutions, alternating 1x1 to `width` channels and 3x3 to twice as many."""
    for number in range(count):
        if number % 2:
            cfg.conv(2 * width, 3)
        else:
            cfg.conv(width)
    return cfg.last


def spp_set(cfg: CfgWriter, width: int) -> int:
    """A set of convolutions with spatial pyramid pooling in the middle."""
    conv_set(cfg, width, 3)
    spp(cfg)
    return conv_set(cfg, width, 3)


def rfb_set(cfg: CfgWriter, width: int) -> int:
    """A set of convolutions with a receptive field block in the middle."""
    conv_set(cfg, width, 3)
    rfb(cfg, width)
    return conv_set(cfg, width, 3)


def csp_set(cfg: CfgWriter, width: int, pairs: int = 2, *, renormalize: bool = False) -> int:
    """Cross stage partial version of `conv_set`: pairs of 1x1 and 3x3 convolutions on one part.

    renormalize: whether batch norm and activation follow these convolutions once more.
    """
    x = cfg.conv(width)
    cfg.note("Split: the part that skips the convolutions")
    skipped = cfg.conv(width)
    cfg.route(x)
    for _ in range(pairs):
        cfg.conv(width)
        cfg.conv(width, 3)
    if renormalize:
        _renormalize(cfg, width)
    cfg.route(cfg.last, skipped)
    return cfg.conv(width)


def _renormalize(cfg: CfgWriter, width: int) -> None:
    cfg.note("Batch norm and activation alone; the weights are 1")
    cfg.depthwise(width, 1)


def csp_spp(cfg: CfgWriter, width: int, pairs: int = 1, *, input_first: bool = False, renormalize: bool = False) -> int:
    """Cross stage partial version of `spp_set`.

    Args:
        cfg: The cfg.
        width: Channels of each convolution.
        pairs: Pairs of convolutions after the pooling.
        input_first: As in `spp`.
        renormalize: As in `csp_set`.

    Returns:
        Index of the last layer.
    """
    x = cfg.last
    cfg.note("Split: the part that skips the pooling")
    skipped = cfg.conv(width)
    cfg.route(x)
    for size in (1, 3, 1):
        cfg.conv(width, size)
    spp(cfg, input_first=input_first)
    for _ in range(pairs):
        cfg.conv(width)
        cfg.conv(width, 3)
    if renormalize:
        _renormalize(cfg, width)
    cfg.route(cfg.last, skipped)
    return cfg.conv(width)


def tiny_csp_spp(cfg: CfgWriter, width: int) -> int:
    """Pooling block of YOLOv7-tiny: max pooling on one of two parts."""
    x = cfg.last
    skipped = cfg.conv(width)
    cfg.route(x)
    cfg.conv(width)
    spp(cfg)
    cfg.conv(width)
    cfg.route(skipped, cfg.last)
    return cfg.conv(width)
