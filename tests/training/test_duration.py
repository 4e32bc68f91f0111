"""Durations: what people write, and what is printed."""

from __future__ import annotations

import pytest

from darknet_py.training.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("2d", 172800), ("1.5h", 5400), ("15 min", 900), ("1h 5s", 3605)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "0m", "-5m", "30m1h", "1h30", "soon", "1e3s", "١٠x"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 20m, 1h30m or 90s, got"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0421, "0.042 s"),
        (45, "45 s"),
        (59.7, "1 min"),
        (750, "12 min 30 s"),
        (3599.9, "1 h"),
        (11100, "3 h 5 min"),
        (86400, "1 day"),
        (90000, "1 day 1 h"),
        (187200, "2 days 4 h"),
    ],
)
def test_durations_are_printed(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
