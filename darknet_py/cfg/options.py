"""Typed reading of a section's options, by the rules of Darknet's `option_list.c` (C `atoi` and `atof`)."""

from __future__ import annotations

import builtins
import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TypeVar

from darknet_py.cfg.sections import Option, Problems, Section, unusual_characters

Number = TypeVar("Number", int, float)

# Digits beyond the twentieth do not matter: no option takes such a number, and Python refuses to read thousands.
_INT = re.compile(r"([+-]?)0*(\d{1,20})", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|inf|nan)", re.IGNORECASE | re.ASCII)
_INT_LIMIT = 2**31 - 1
_LONGEST_WORD = 100  # that a similar one is looked for
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+", re.ASCII)
_FRACTION = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


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
        self._dropped_keys: set[str] = set()  # keys with a warning about a part of their value
        self._options: dict[str, Option] = {}
        for option in section.options:
            if not option.value and not option.written:  # `read_option` refuses it, and the program goes on
                problems.warn(option.line, self.where, f"{option.key} has no value; the line is ignored, as in C")
            elif option.key in self._options:
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
        self._problems.error(self.line(key), self.where, message)

    def warn(self, message: str, key: str | None = None) -> None:
        """Records a warning at the line of `key`, or at the section's line."""
        self._problems.warn(self.line(key), self.where, message)

    def text(self, key: str, default: str = "") -> str:
        """The value as it stands, without white space."""
        return self._options[key].value if key in self else default

    def written(self, key: str) -> str:
        """The value for a message: with the white space inside it; empty without the option."""
        option = self._options.get(key)
        return option.written or option.value if option else ""

    def int(self, key: str, default: int = 0, minimum: int = -_INT_LIMIT, maximum: int = _INT_LIMIT) -> int:
        """An integer in [minimum, maximum]."""
        return self._number(key, default, _INT, atoi, "an integer", minimum, maximum)

    def flag(self, key: str, default: bool = False) -> bool:
        """A 0/1 option; any other integer counts as set, as in C."""
        return self.int(key, int(default)) != 0

    def float(self, key: str, default: float = 0.0, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """A finite number in [minimum, maximum]."""
        return self._number(key, default, _FLOAT, atof, "a number", minimum, maximum)

    def ints(self, key: str, default: Sequence[builtins.int] = ()) -> tuple[builtins.int, ...]:
        """A comma-separated list of integers; a `#` ends it."""
        return self._list(key, default, _INT, atoi, "integers")

    def floats(self, key: str, default: Sequence[builtins.float] = ()) -> tuple[builtins.float, ...]:
        """A comma-separated list of finite numbers; a `#` ends it."""
        return self._list(key, default, _FLOAT, atof, "numbers")

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """One of `choices`; any other value is a fault, and its message lists them."""
        value = self.text(key, default)
        if value in choices:
            return value
        hint = did_you_mean(value, choices)
        self.error(f"{key}: expected one of {', '.join(choices)}, got {self.written(key)!r}{hint}", key)
        return default

    def report_unknown(self) -> None:
        """Warns about each key that was not read. Call it once the section is read."""
        known = sorted(self._known_keys)
        for key, option in self._options.items():
            if key not in self._known_keys:
                hint = unusual_characters(key) + did_you_mean(key, known) if self._problems.hints else ""
                self._problems.warn(option.line, self.where, f"unknown key {key!r} is ignored{hint}")

    def line(self, key: str | None) -> builtins.int:
        """The line of `key`, or the section's line without that option."""
        return self._options[key].line if key in self._options else self.section.line

    def _number(
        self,
        key: str,
        default: Number,
        pattern: re.Pattern[str],
        read: Callable[[str], Number | None],
        kind: str,
        minimum: Number,
        maximum: Number,
    ) -> Number:
        if key not in self:
            return default
        text, written = self._options[key].value, self.written(key)
        value = read(text)
        if value is None or not math.isfinite(value):
            self.error(f"{key}: expected {kind}, got {written!r}{_spelling_hint(written, pattern, False)}", key)
            return default
        self._warn_about_dropped(key, pattern, [written], False)
        if not minimum <= value <= maximum:
            bound = f"at least {minimum}" if value < minimum else f"at most {maximum}"
            self.error(f"{key}: expected {kind} of {bound}, got {written!r}", key)
            return default
        return value

    def _warn_about_dropped(self, key: str, pattern: re.Pattern[str], items: Sequence[str], in_list: bool) -> None:
        """Warns once where C reads only the beginning of a number, or joins numbers that white space separates."""
        dropped = [(item, text) for item in map(str.strip, items) if (text := _dropped(item, pattern))]
        if dropped and key not in self._dropped_keys:
            self._dropped_keys.add(key)
            hint = _spelling_hint(dropped[0][0], pattern, in_list)
            self.warn(f"{key}: {', '.join(text for _, text in dropped)}, as in C{hint}", key)

    def _list(
        self,
        key: str,
        default: Sequence[Number],
        pattern: re.Pattern[str],
        read: Callable[[str], Number | None],
        kind: str,
    ) -> tuple[Number, ...]:
        if key not in self:
            return tuple(default)
        text = self._options[key].value
        items = text.partition("#")[0].split(",")
        if len(items) > 1 and not items[-1]:
            items.pop()  # a trailing comma
        values = [value for item in items if (value := read(item)) is not None and math.isfinite(value)]
        if len(values) < len(items):
            hint = _spelling_hint(self.written(key), pattern, True)
            self.error(f"{key}: expected {kind} separated by commas, got {self.written(key)!r}{hint}", key)
            return tuple(default)
        self._warn_about_dropped(key, pattern, self.written(key).partition("#")[0].split(","), True)
        return tuple(values)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint to append to a message: `; did you mean 'x'?`, or nothing. Case and full-width forms do not matter."""
    if len(word) > _LONGEST_WORD:
        return ""
    names = {_folded(name): name for name in known}
    matches = difflib.get_close_matches(_folded(word), names, n=1)
    return f"; did you mean {names[matches[0]]!r}?" if matches else ""


def _dropped(text: str, pattern: re.Pattern[str]) -> str:
    """How C reads a number that is not all of `text`; empty where nothing but a comment or zeros are left out."""
    cleaned = "".join(text.split())
    match = pattern.match(cleaned)
    if match is None:
        return ""
    rest = cleaned[match.end() :]
    if re.match(r"\d*[\d.]\s+[\d.]", text):
        joined = f"{text!r} is read as {match.group()}"
        return joined + (f" and {rest!r} is dropped" if rest else "")
    is_comment = rest[:1] == "#" or re.match(r";(?![\d.+-])[^=]*$", rest) is not None
    if is_comment or not rest.strip(",;") or re.fullmatch(r"\.0*", rest):
        return ""
    return f"{text!r} is read as {match.group()} and {rest!r} is dropped"


def _spelling_hint(text: str, pattern: re.Pattern[str], in_list: bool) -> str:
    """A hint to append to a message: what a value that is not a number (or several, in a list) may mean."""
    plain = unicodedata.normalize("NFKC", text)
    if "=" in plain:
        return unusual_characters(text) + "; write one option per line"
    meant = plain
    fraction = _FRACTION.fullmatch(plain)
    if in_list:
        meant = re.sub(r"(?<=[\d.])[\s;]+(?=[\d.+-])", ",", plain)
    elif pattern is _INT and _THOUSANDS.fullmatch(plain):
        meant = plain.replace(",", "")
    elif pattern is _INT and _FLOAT.fullmatch(plain) and float(plain).is_integer() and abs(float(plain)) <= _INT_LIMIT:
        meant = str(int(float(plain)))
    elif pattern is _FLOAT and fraction and int(fraction[2]):
        meant = f"{int(fraction[1]) / int(fraction[2]):g}"
    elif pattern is _FLOAT and re.fullmatch(r"[+-]?\d*,\d+", plain):
        meant = plain.replace(",", ".")
    return unusual_characters(text) + (f"; did you mean {meant!r}?" if meant != text else "")


def _folded(word: str) -> str:
    return "".join(unicodedata.normalize("NFKC", word).casefold().split())
