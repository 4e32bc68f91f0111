"""Cross stage partial (CSPNet, Wang et al., 2019): how a stage's channels are divided and joined again.

x ─┬─ γ of the channels ──────────────────────────────┐
   └─ the others ── blocks ── transition ─ concatenate ┴─ transition      fusion "csp": both transitions
                                                          "first": concatenate → transition, the last one only
                                                          "last":  transition → concatenate, the first one only
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from darknet_py.errors import DarknetError
from darknet_py.zoo import blocks
from darknet_py.zoo.cfg_writer import CfgWriter

FUSIONS = ("csp", "first", "last")
SPLITS = ("conv", "groups")


@dataclass(frozen=True)
class Csp:
    """How stages are made cross stage partial.

    gamma: the share of the channels that skips the blocks. split: "conv", by two 1x1 convolutions, or "groups", by
    `[route] groups=…`, which needs gamma to be a number of eighths. A backbone whose stages are plain has None for it.

    Raises DarknetError for what it is not.
    """

    gamma: float = 0.5
    fusion: str = "csp"
    split: str = "conv"

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise DarknetError(f"fusion: expected one of {', '.join(FUSIONS)}, got {self.fusion!r}")
        if self.split not in SPLITS:
            raise DarknetError(f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}")
        if not 0 < self.gamma < 1:
            raise DarknetError(f"gamma: expected a number between 0 and 1, got {self.gamma:g}")
        if self.split == "groups" and not self._eighths:
            raise DarknetError(f"gamma: expected 1/8 … 7/8 for a split by groups, got {self.gamma:g}")

    @property
    def _eighths(self) -> Fraction | None:
        share = Fraction(self.gamma).limit_denominator(8)
        return share if 8 % share.denominator == 0 and abs(share - self.gamma) < 1e-6 else None

    def parts(self, width: int) -> tuple[int, int]:
        """Channels that skip the blocks, and those that go through them. Multiples of 8 where there are enough."""
        step = 8 if width >= 32 else 1
        skipped = min(max(round(self.gamma * width / step), 1) * step, width - step)
        return skipped, width - skipped

    def divide(self, cfg: CfgWriter, width: int, *, through: int | None = None, activation: str | None = None) -> int:
        """Splits the last layer, with `width` channels in both parts together. Gives the part that skips the blocks.

        The last layer is then the other part. through: its channels, where the blocks start from another number.
        activation: of the splitting convolutions.
        """
        x = cfg.last
        if self.split == "groups":
            return self._slice(cfg, x if cfg.width(x) == width else cfg.conv(width))
        skipping, going = self.parts(width)
        cfg.note("Split: the part that skips the blocks ...")
        skipped = cfg.conv(skipping, activation=activation)
        cfg.route(x)
        cfg.note("... and the part that goes through them")
        cfg.conv(through or going, activation=activation)
        return skipped

    def _slice(self, cfg: CfgWriter, x: int) -> int:
        share = self._eighths
        assert share is not None
        if cfg.width(x) % share.denominator:
            expected = f"a multiple of {share.denominator} channels to split by groups"
            raise DarknetError(f"gamma={self.gamma:g}: expected {expected}, got {cfg.width(x)}")
        cfg.note("Split: the part that skips the blocks ...")
        skipped = _slices(cfg, x, share.denominator, range(share.numerator))
        cfg.note("... and the part that goes through them")
        _slices(cfg, x, share.denominator, range(share.numerator, share.denominator))
        return skipped

    def join(self, cfg: CfgWriter, skipped: int, narrow: int, out: int, *, pool: bool = False, size: int = 1) -> int:
        """Joins the last layer, where the blocks end, with the part that skipped them.

        narrow: channels after the first transition. out: after the last one, a convolution of `size`. pool: the last
        one works behind a maximum that halves width and height. Gives the stage's features: the last layer, or the
        joined ones that the maximum reads.
        """
        if self.fusion != "first":
            cfg.note("Transition of that part")
            cfg.conv(narrow)
        cfg.note("Both are joined")
        joined = cfg.route(cfg.last, skipped)
        if pool:
            cfg.maxpool(2, 2)
        if self.fusion != "last":
            cfg.note("Transition of the stage")
            cfg.conv(out, size)
        return joined if pool else cfg.last


def _slices(cfg: CfgWriter, x: int, groups: int, chosen: range) -> int:
    parts = [cfg.slice(x, groups, group) for group in chosen]
    return cfg.route(*parts) if len(parts) > 1 else parts[0]


def residual(
    cfg: CfgWriter,
    csp: Csp,
    block: Callable[[int], int],
    count: int,
    width: int,
    out: int,
    *,
    through: int | None = None,
    activation: str | None = None,
) -> int:
    """A cross stage partial stage of residual blocks: each has the channels of its part, `width` is that of both.

    block: writes one block, given its channels. out: channels of the stage's result, where it ends in a transition.
    """
    skipped = csp.divide(cfg, width, through=through, activation=activation)
    part = csp.parts(width)[1]
    blocks.repeat(cfg, lambda: block(part), count)
    return csp.join(cfg, skipped, part, out)
