"""What stages and necks are made of. Each block continues from the last layer and gives the index of its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from darknet_py.zoo.text import Cfg


def darknet(cfg: Cfg, width: int, inner: int) -> int:
    """Residual block of Darknet-53: narrow to `inner` channels, 3x3 back to `width`, add."""
    x = cfg.last
    cfg.conv(inner)
    cfg.conv(width, 3)
    return cfg.shortcut(x)


def bottleneck(cfg: Cfg, width: int, inner: int, stride: int = 1, groups: int = 1) -> int:
    """Residual block of ResNet: narrow to `inner`, 3x3, widen to `width`, add, activate. ResNeXt: 3x3 in groups."""
    x = cfg.last
    cfg.conv(inner)
    cfg.conv(inner, 3, stride, groups=groups)
    cfg.conv(width, activation="linear")
    return cfg.shortcut(x, cfg.activation)


def inverted(cfg: Cfg, width: int, expanded: int, stride: int = 1) -> int:
    """Block of MobileNet-v2: widen to `expanded`, filter each channel by itself, narrow to `width`."""
    cfg.conv(expanded)
    cfg.depthwise(expanded, 3, stride)
    return cfg.conv(width, activation="linear")


def inverted_residual(cfg: Cfg, width: int, expanded: int, dropout: float) -> int:
    """An inverted block whose input is added, after dropout."""
    x = cfg.last
    inverted(cfg, width, expanded)
    cfg.section("dropout", probability=dropout)
    return cfg.shortcut(x)


def repeat(cfg: Cfg, block: Callable[[], int], count: int) -> int:
    for number in range(count):
        cfg.note(f"Block {number + 1} of {count}")
        block()
    return cfg.last


def csp(
    cfg: Cfg,
    block: Callable[[], int],
    count: int,
    width: int,
    out: int,
    *,
    second: int | None = None,
    split: str | None = None,
) -> int:
    """Cross stage partial: one part goes through `count` blocks, the other skips them, both are joined at the end.

    The split is two 1x1 convolutions, the closing transition (before and after joining) one each. width: channels of
    a part. out: of the result. second: of the part with the blocks where they start from another width. split:
    activation of the splitting convolutions.
    """
    x = cfg.last
    cfg.note("Split: the part that skips the blocks ...")
    skipped = cfg.conv(width, activation=split)
    cfg.route(x)
    cfg.note("... and the part that goes through them")
    cfg.conv(second or width, activation=split)
    repeat(cfg, block, count)
    cfg.note("Transition of that part, then both are joined")
    through = cfg.conv(width)
    cfg.route(through, skipped)
    cfg.note("Transition of the stage")
    return cfg.conv(out)


def csp_tiny(cfg: Cfg, width: int) -> int:
    """CSP stage of the tiny networks: two 3x3 convolutions on half of the channels, both kept. Doubles the channels.

    The split takes the second half of the channels as they are. The stage's output is the whole input followed by
    the convolution that closes the block; that convolution's index is given, for it is what necks read.
    """
    x = cfg.conv(width, 3)
    cfg.note("Split: half of the channels goes through the block")
    cfg.route_half(x, 1)
    first = cfg.conv(width // 2, 3)
    second = cfg.conv(width // 2, 3)
    cfg.route(second, first)
    closing = cfg.conv(width)
    cfg.note("Joined with all channels from before the split")
    cfg.route(x, closing)
    return closing


def spp(cfg: Cfg, sizes: Sequence[int] = (5, 9, 13)) -> int:
    """Spatial pyramid pooling: maxima over windows of several sizes, beside the input itself."""
    x = cfg.last
    pools: list[int] = []
    for size in sizes:
        if pools:
            cfg.route(x)
        else:
            cfg.note(f"Spatial pyramid pooling over windows of {', '.join(map(str, sizes))}")
        pools.append(cfg.maxpool(size, 1))
    return cfg.route(*reversed(pools), x)


def conv_set(cfg: Cfg, width: int, count: int = 5) -> int:
    """`count` convolutions, in turn 1x1 to `width` channels and 3x3 to twice as many."""
    for number in range(count):
        if number % 2:
            cfg.conv(2 * width, 3)
        else:
            cfg.conv(width)
    return cfg.last


def csp_set(cfg: Cfg, width: int) -> int:
    """What a CSP neck has in place of `conv_set`: two pairs of 1x1 and 3x3 convolutions on one part."""
    x = cfg.conv(width)
    cfg.note("Split: the part that skips the convolutions")
    skipped = cfg.conv(width)
    cfg.route(x)
    for _ in range(2):
        cfg.conv(width)
        cfg.conv(width, 3)
    cfg.route(cfg.last, skipped)
    return cfg.conv(width)


def csp_spp(cfg: Cfg, width: int) -> int:
    """Spatial pyramid pooling inside one of two parts, split from the last layer."""
    x = cfg.last
    cfg.note("Split: the part that skips the pooling")
    skipped = cfg.conv(width)
    cfg.route(x)
    for size in (1, 3, 1):
        cfg.conv(width, size)
    spp(cfg)
    cfg.conv(width)
    cfg.conv(width, 3)
    cfg.route(cfg.last, skipped)
    return cfg.conv(width)
