"""Typed reading of a section's options, by the rules of Darknet's `option_list.c` (C `atoi` and `atof`)."""

from __future__ import annotations

import builtins
import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from darknet_py.cfg.sections import Option, Problems, Section

Number = TypeVar("Number", int, float)

# Digits beyond the twentieth do not matter: no option takes such a number, and Python refuses to read thousands.
_INT = re.compile(r"([+-]?)0*(\d{1,20})", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
_INT_LIMIT = 2**31 - 1


def atoi(text: str) -> int | None:
    """The leading integer of `text`, as C `atoi` reads it; None where C would silently give 0."""
    match = _INT.match(text)
    return int(match[1] + match[2]) if match else None


def atof(text: str) -> float | None:
    """The leading number of `text`, as C `atof` reads it; None where C would silently give 0."""
    match = _FLOAT.match(text)
    return float(match.group()) if match else None


class Options:
    """Reads the options of one section and remembers which keys were read.

    A faulty value is recorded as a problem and its default is returned, so that one pass finds all faults. Where a
    key is set twice, the first value counts, as in Darknet.

    Args:
        section: the section.
        index: its layer's index; None for `[net]`.
        problems: where faults and warnings are recorded.
    """

    def __init__(self, section: Section, index: int | None, problems: Problems):
        self.section = section
        self.where = f"[{section.name}]" + ("" if index is None else f" #{index}")
        self._problems = problems
        self._known_keys: set[str] = set()
        self._options: dict[str, Option] = {}
        for option in section.options:
            if option.key in self._options:
                problems.warn(option.line, self.where, f"{option.key} is set twice; the first counts, as in Darknet")
            else:
                self._options[option.key] = option

    def __contains__(self, key: str) -> bool:
        self._known_keys.add(key)
        return key in self._options

    def accept(self, *keys: str) -> None:
        """Marks keys that Darknet knows and that have no effect here; they are not reported as unknown."""
        self._known_keys.update(keys)

    def error(self, message: str, key: str | None = None) -> None:
        """Records a fault at the line of `key`, or at the section's line."""
        self._problems.error(self._line(key), self.where, message)

    def warn(self, message: str, key: str | None = None) -> None:
        """Records a warning at the line of `key`, or at the section's line."""
        self._problems.warn(self._line(key), self.where, message)

    def text(self, key: str, default: str = "") -> str:
        """The value as it stands, without white space."""
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
        """A comma-separated list of integers; a `#` ends it."""
        return self._list(key, default, atoi, "integers")

    def floats(self, key: str, default: Sequence[builtins.float] = ()) -> tuple[builtins.float, ...]:
        """A comma-separated list of finite numbers; a `#` ends it."""
        return self._list(key, default, atof, "numbers")

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """One of `choices`; any other value is a fault, and its message lists them."""
        value = self.text(key, default)
        if value in choices:
            return value
        self.error(f"{key}: expected one of {', '.join(choices)}, got {value!r}{did_you_mean(value, choices)}", key)
        return default

    def report_unknown(self) -> None:
        """Warns about each key that was not read. Call it once the section is read."""
        for key, option in self._options.items():
            if key not in self._known_keys:
                hint = did_you_mean(key, sorted(self._known_keys))
                self._problems.warn(option.line, self.where, f"unknown key {key!r} is ignored{hint}")

    def _line(self, key: str | None) -> builtins.int:
        return self._options[key].line if key in self._options else self.section.line

    def _number(
        self,
        key: str,
        default: Number,
        read: Callable[[str], Number | None],
        kind: str,
        minimum: Number,
        maximum: Number,
    ) -> Number:
        if key not in self:
            return default
        text = self._options[key].value
        value = read(text)
        if value is None or not math.isfinite(value):
            self.error(f"{key}: expected {kind}, got {text!r}", key)
            return default
        if not minimum <= value <= maximum:
            bound = f"at least {minimum}" if value < minimum else f"at most {maximum}"
            self.error(f"{key}: expected {kind} of {bound}, got {text!r}", key)
            return default
        return value

    def _list(
        self, key: str, default: Sequence[Number], read: Callable[[str], Number | None], kind: str
    ) -> tuple[Number, ...]:
        if key not in self:
            return tuple(default)
        text = self._options[key].value
        items = text.partition("#")[0].split(",")
        if len(items) > 1 and not items[-1]:
            items.pop()  # a trailing comma
        values = [value for item in items if (value := read(item)) is not None and math.isfinite(value)]
        if len(values) < len(items):
            self.error(f"{key}: expected {kind} separated by commas, got {text!r}", key)
            return tuple(default)
        return tuple(values)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint to append to a message: `; did you mean 'x'?`, or nothing."""
    matches = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
