"""Typed reading of a section's options, by the rules of Darknet's `option_list.c` (C `atoi` and `atof`)."""

from __future__ import annotations

import builtins
import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from darknet_py.cfg.sections import Option, Problems, Section

T = TypeVar("T")

# Digits beyond the twentieth do not matter: no option takes such a number, and Python refuses to read thousands.
_INT = re.compile(r"([+-]?)0*(\d{1,20})", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
_INT_LIMIT = 2**31 - 1


def atoi(text: str) -> int | None:
    """The leading integer of `text`, as C `atoi` reads it; None where C would silently say 0."""
    match = _INT.match(text)
    return int(match[1] + match[2]) if match else None


def atof(text: str) -> float | None:
    """The leading number of `text`, as C `atof` reads it; None where C would silently say 0."""
    match = _FLOAT.match(text)
    return float(match.group()) if match else None


class Options:
    """Reads one section and remembers which keys were asked for.

    Faults go to `problems` and the default is returned, so that one pass finds them all. As in Darknet the first
    of two equal keys counts.
    """

    def __init__(self, section: Section, index: int | None, problems: Problems):
        self.section = section
        self.where = f"[{section.name}]" + ("" if index is None else f" #{index}")
        self._problems = problems
        self._asked: set[str] = set()
        self._options: dict[str, Option] = {}
        for option in section.options:
            if option.key in self._options:
                problems.warn(option.line, self.where, f"{option.key} is set twice; the first counts, as in Darknet")
            else:
                self._options[option.key] = option

    def __contains__(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._options

    def error(self, message: str, key: str | None = None) -> None:
        """Records a fault at `key`'s line, or at the section's."""
        line = self._options[key].line if key in self._options else self.section.line
        self._problems.error(line, self.where, message)

    def warn(self, message: str, key: str | None = None) -> None:
        line = self._options[key].line if key in self._options else self.section.line
        self._problems.warn(line, self.where, message)

    def text(self, key: str, default: str = "") -> str:
        return self._options[key].value if key in self else default

    def int(self, key: str, default: int = 0, minimum: int = -_INT_LIMIT, maximum: int = _INT_LIMIT) -> int:
        """An integer in [minimum, maximum]."""
        return self._number(key, default, atoi, "an integer", minimum, maximum)

    def flag(self, key: str, default: bool = False) -> bool:
        """A 0/1 option; any other integer counts as set, as in C."""
        return self.int(key, int(default)) != 0

    def float(self, key: str, default: float = 0.0, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """A finite number in [minimum, maximum]."""
        return self._number(key, default, atof, "a number", minimum, maximum)

    def ints(self, key: str, default: Sequence[builtins.int] = ()) -> tuple[builtins.int, ...]:
        """A comma separated list; a `#` ends it."""
        return self._list(key, default, atoi, "integers")

    def floats(self, key: str, default: Sequence[builtins.float] = ()) -> tuple[builtins.float, ...]:
        return self._list(key, default, atof, "numbers")

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """One of `choices`; anything else is a fault that names them."""
        value = self.text(key, default)
        if value in choices:
            return value
        self.error(f"{key}: expected one of {', '.join(choices)}, got {value!r}{did_you_mean(value, choices)}", key)
        return default

    def report_unknown(self) -> None:
        """Warns about each key that nobody asked for. Call once the section is read."""
        for key, option in self._options.items():
            if key not in self._asked:
                hint = did_you_mean(key, sorted(self._asked))
                self._problems.warn(option.line, self.where, f"unknown key {key!r} is ignored{hint}")

    def _number(self, key: str, default: T, read: Callable[[str], T | None], what: str, minimum: T, maximum: T) -> T:
        if key not in self:
            return default
        text = self._options[key].value
        value = read(text)
        if value is None or not math.isfinite(value):  # type: ignore[arg-type]
            self.error(f"{key}: expected {what}, got {text!r}", key)
            return default
        if not minimum <= value <= maximum:  # type: ignore[operator]
            near = f"at least {minimum}" if value < minimum else f"at most {maximum}"  # type: ignore[operator]
            self.error(f"{key}: expected {what} of {near}, got {text!r}", key)
            return default
        return value

    def _list(self, key: str, default: Sequence[T], read: Callable[[str], T | None], what: str) -> tuple[T, ...]:
        if key not in self:
            return tuple(default)
        text = self._options[key].value
        items = text.partition("#")[0].split(",")
        if len(items) > 1 and not items[-1]:
            items.pop()  # a trailing comma
        values = [read(item) for item in items]
        if any(value is None or not math.isfinite(value) for value in values):  # type: ignore[arg-type]
            self.error(f"{key}: expected {what} separated by commas, got {text!r}", key)
            return tuple(default)
        return tuple(value for value in values if value is not None)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint to append to a message: `; did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
