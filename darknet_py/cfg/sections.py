"""Splits the text of a cfg into sections, with line numbers (Darknet's `read_cfg`, `read_option`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from darknet_py.errors import CfgError, Problem


class Option(NamedTuple):
    """One `key=value` line, without white space."""

    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """A `[name]` line with its options, in file order."""

    name: str
    line: int
    options: tuple[Option, ...]


class Problems:
    """Collects the faults of one cfg, so that they are raised together.

    Args:
        path: the cfg's path, used in messages.
        strict: whether a warning counts as an error.
    """

    def __init__(self, path: str, strict: bool = False):
        self.path = path
        self.strict = strict
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, line: int, where: str, message: str) -> None:
        """Records an error. where: `[section] #index`, or "" outside of sections."""
        self.errors.append(Problem(self.path, line, where, message))

    def warn(self, line: int, where: str, message: str) -> None:
        """Records a warning; an error with `strict`."""
        (self.errors if self.strict else self.warnings).append(Problem(self.path, line, where, message))

    def raise_errors(self) -> None:
        """Raises one CfgError with all errors so far, in line order; does nothing where there are none."""
        if self.errors:
            raise CfgError(sorted(self.errors, key=lambda problem: problem.line))


_WHITE_SPACE = str.maketrans("", "", " \t\r\n\v\f")


def clean_line(line: str) -> str:
    """A line as Darknet's `strip` leaves it: without white space, and cut at a zero byte, where a C string ends."""
    return line.partition("\0")[0].translate(_WHITE_SPACE)


def parse_sections(text: str, problems: Problems) -> list[Section]:
    """Splits the text of a cfg into sections.

    As in Darknet, white space is dropped anywhere in a line, and a line that begins with `#` or `;` is a comment. Any
    other line that is neither a section nor an option is an error (Darknet prints it and goes on).

    Args:
        text: the cfg.
        problems: where faults are recorded.

    Returns:
        The sections, in file order.
    """
    sections: list[tuple[str, int, list[Option]]] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = clean_line(raw)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            name, bracket, _ = line[1:].partition("]")
            if not bracket or not name:
                problems.error(number, "", f"expected a section like [net], got {raw.strip()!r}")
            sections.append((name, number, []))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key:
            problems.error(number, "", f"expected key=value or [section], got {raw.strip()!r}")
        elif not sections:
            problems.error(number, "", f"expected a [net] section first, got {raw.strip()!r}")
        else:
            sections[-1][2].append(Option(key, value, number))
    return [Section(name, line, tuple(options)) for name, line, options in sections]
