"""Cross stage partial (CSPNet, Wang et al., 2019): how the channels of a stage are split and concatenated again.

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
_SKIP_NOTE = "Split: the part that skips the blocks"
_BLOCKS_NOTE = "The part that goes through the blocks"


@dataclass(frozen=True)
class Csp:
    """How stages are made cross stage partial.

    Attributes:
        gamma: Fraction of the channels that skips the blocks.
        fusion: One of `FUSIONS`.
        split: "conv", by two 1x1 convolutions, or "groups", by `[route] groups=…`, where gamma is a multiple of 1/8.

    Raises:
        DarknetError: A value is out of range.
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
        fraction = Fraction(self.gamma).limit_denominator(8)
        return fraction if 8 % fraction.denominator == 0 and abs(fraction - self.gamma) < 1e-6 else None

    def parts(self, width: int) -> tuple[int, int]:
        """Channels that skip the blocks and channels that go through them; multiples of 8 from 32 channels on."""
        step = 8 if width >= 32 else 1
        skipped = min(max(round(self.gamma * width / step), 1) * step, width - step)
        return skipped, width - skipped

    def divide(self, cfg: CfgWriter, width: int, *, through: int | None = None, activation: str | None = None) -> int:
        """Splits the last layer; afterwards the last layer is the part that goes through the blocks.

        Args:
            cfg: The cfg.
            width: Channels of both parts together.
            through: Channels of the part that goes through the blocks; default: by `parts`.
            activation: Activation of the 1x1 convolutions; default: `cfg.activation`.

        Returns:
            Index of the part that skips the blocks.
        """
        x = cfg.last
        if self.split == "groups":
            return self._slice(cfg, x if cfg.width(x) == width else cfg.conv(width))
        skip_width, block_width = self.parts(width)
        cfg.note(_SKIP_NOTE)
        skipped = cfg.conv(skip_width, activation=activation)
        cfg.route(x)
        cfg.note(_BLOCKS_NOTE)
        cfg.conv(through or block_width, activation=activation)
        return skipped

    def _slice(self, cfg: CfgWriter, x: int) -> int:
        fraction = self._eighths
        assert fraction is not None
        if cfg.width(x) % fraction.denominator:
            expected = f"a multiple of {fraction.denominator} channels to split by groups"
            raise DarknetError(f"gamma={self.gamma:g}: expected {expected}, got {cfg.width(x)}")
        cfg.note(_SKIP_NOTE)
        skipped = _slices(cfg, x, fraction.denominator, range(fraction.numerator))
        cfg.note(_BLOCKS_NOTE)
        _slices(cfg, x, fraction.denominator, range(fraction.numerator, fraction.denominator))
        return skipped

    def join(self, cfg: CfgWriter, skipped: int, narrow: int, out: int, *, pool: str = "", size: int = 1) -> int:
        """Concatenates the last layer, the output of the blocks, with the part that skipped them.

        Args:
            cfg: The cfg.
            skipped: Index of the part that skipped the blocks.
            narrow: Channels after the first transition.
            out: Channels after the last transition.
            pool: "before" or "after": where a max pooling that halves width and height is relative to the last
                transition; default: none.
            size: Kernel size of the last transition.

        Returns:
            Index of the features of the stage, the last layer before the pooling.
        """
        if self.fusion != "first":
            cfg.note("Transition of this part")
            cfg.conv(narrow)
        cfg.note("Concatenate both parts")
        features = cfg.route(cfg.last, skipped)
        if pool == "before":
            cfg.maxpool(2, 2)
        if self.fusion != "last":
            cfg.note("Transition of the stage")
            cfg.conv(out, size)
        if pool == "before":
            return features
        features = cfg.last
        if pool:
            cfg.maxpool(2, 2)
        return features


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
    """A cross stage partial stage of residual blocks.

    Args:
        cfg: The cfg.
        csp: How the stage is split and concatenated.
        block: Writes one block, given its number of channels.
        count: Number of blocks.
        width: Channels of both parts together.
        out: Channels after the last transition.
        through: As in `Csp.divide`.
        activation: As in `Csp.divide`.

    Returns:
        Index of the features of the stage.
    """
    skipped = csp.divide(cfg, width, through=through, activation=activation)
    part = csp.parts(width)[1]
    blocks.repeat(cfg, lambda: block(part), count)
    return csp.join(cfg, skipped, part, out)
