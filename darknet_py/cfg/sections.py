"""Text to sections: a pure parser that keeps line numbers (Darknet's `read_cfg`, `read_option`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from darknet_py.errors import CfgError, Problem


class Option(NamedTuple):
    """One `key=value` line. White space is already removed, as Darknet's `strip` does."""

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
    """Collects the faults of one cfg, so that they are raised all at once.

    With `strict`, a warning counts as an error.
    """

    def __init__(self, path: str, strict: bool = False):
        self.path = path
        self.strict = strict
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, line: int, where: str, message: str) -> None:
        self.errors.append(Problem(self.path, line, where, message))

    def warn(self, line: int, where: str, message: str) -> None:
        (self.errors if self.strict else self.warnings).append(Problem(self.path, line, where, message))

    def raise_errors(self) -> None:
        """Raises one CfgError with all errors so far, in line order; nothing when there is none."""
        if self.errors:
            raise CfgError(sorted(self.errors, key=lambda problem: problem.line))


_WHITE_SPACE = str.maketrans("", "", " \t\r\n\v\f")


def clean_line(line: str) -> str:
    """A line as Darknet's `strip` leaves it: without white space, and cut at a zero byte, where a C string ends."""
    return line.partition("\0")[0].translate(_WHITE_SPACE)


def parse_sections(text: str, problems: Problems) -> list[Section]:
    """Splits cfg text into sections.

    As in Darknet all white space in a line is dropped, and `#` or `;` opens a comment line. A line that is
    neither is a problem (Darknet prints it and goes on).
    """
    found: list[tuple[str, int, list[Option]]] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = clean_line(raw)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            name, bracket, _ = line[1:].partition("]")
            if not bracket or not name:
                problems.error(number, "", f"expected a section like [net], got {raw.strip()!r}")
            found.append((name, number, []))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key:
            problems.error(number, "", f"expected key=value or [section], got {raw.strip()!r}")
        elif not found:
            problems.error(number, "", f"expected a [net] section first, got {raw.strip()!r}")
        else:
            found[-1][2].append(Option(key, value, number))
    return [Section(name, line, tuple(options)) for name, line, options in found]
