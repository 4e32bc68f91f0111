"""Durations as people write them: `20m`, `1h30m`, `90s`."""

from __future__ import annotations

import re

_PARTS = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
_SECONDS = (86400, 3600, 60, 1)


def parse_duration(text: str) -> float:
    """Reads a duration.

    Args:
        text: Numbers with the units d, h, m (or min) and s, the larger before the smaller.

    Returns:
        Seconds.

    Raises:
        ValueError: The text is no duration, or one of no length.
    """
    match = _PARTS.fullmatch("".join(text.split()).lower())
    seconds = (
        sum(float(part) * unit for part, unit in zip(match.groups(), _SECONDS, strict=True) if part) if match else 0
    )
    if not seconds:
        raise ValueError(f"expected a duration such as 20m, 1h30m or 90s, got {text!r}")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """A duration with its two largest units: `45 s`, `12 min 30 s`, `3 h 5 min`, `2 days 4 h`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for large, small, names in ((86400, 3600, ("days", "h")), (3600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if whole >= large:
            count, rest = divmod(round(whole / small), large // small)
            name = "day" if names[0] == "days" and count == 1 else names[0]
            return f"{count} {name} {rest} {names[1]}" if rest else f"{count} {name}"
    return f"{whole} s"
