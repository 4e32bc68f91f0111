"""Splits the text of a cfg into sections, with line numbers (Darknet's `read_cfg`, `read_option`)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

from darknet_py.counted import counted
from darknet_py.errors import SHOWN_PROBLEMS, CfgError, Problem


class Option(NamedTuple):
    """One `key=value` line.

    Attributes:
        key: without white space.
        value: without white space and without a comment that follows it.
        line: the number of the line.
        written: the value with the white space inside it, or the comment that stands in its place; empty where it has
            neither.
    """

    key: str
    value: str
    line: int
    written: str = ""


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
        self.errors.append(self._problem(line, where, message))

    def warn(self, line: int, where: str, message: str) -> None:
        """Records a warning; an error with `strict`."""
        (self.errors if self.strict else self.warnings).append(self._problem(line, where, message))

    def _problem(self, line: int, where: str, message: str) -> Problem:
        cut = message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + " …"
        return Problem(self.path, line, where[:_MAX_MESSAGE], cut)

    @property
    def hints(self) -> bool:
        """Whether problems still get hints, which take a while to find: not beyond those that are shown."""
        return len(self.errors) + len(self.warnings) < SHOWN_PROBLEMS

    def raise_errors(self) -> None:
        """Raises one CfgError with all errors so far, in line order; does nothing where there are none."""
        if self.errors:
            by_line = [sorted(problems, key=lambda problem: problem.line) for problems in (self.errors, self.warnings)]
            raise CfgError(*by_line)


LAYER_LIMIT = 10_000  # the largest network known has 1,000
_FAULTY_LINES = 1_000
_MAX_MESSAGE = 1_000  # characters
_SPACES = " \t\r\n\v\f"
_NO_SPACES = str.maketrans("", "", _SPACES)
# A comment after a value. Darknet reads numbers up to it; hank-ai's Darknet cuts it.
_COMMENT = re.compile(r"[ \t][#;].*", re.DOTALL)
# What may be meant as an option: `width: 64`, `width 64`.
_MISSPELLED_SECTION = re.compile(r"\W?\s*([A-Za-z]\w*)\s*[]\W]")  # `(yolo)`, `yolo]`
_MISSPELLED_OPTION = re.compile(r"([A-Za-z]\w*)(?:\s*[:=]\s*|\s+(?=[-+.\d]))(.*)")


def clean_line(line: str) -> str:
    """A line as Darknet's `strip` leaves it: without white space, and cut at a zero byte, where a C string ends."""
    return line.partition("\0")[0].translate(_NO_SPACES)


def parse_option(line: str, number: int) -> Option | None:
    """Reads a `key=value` line.

    Args:
        line: the line.
        number: its number.

    Returns:
        The option, without white space and without a comment after ` #` or ` ;`; None for any other line.
    """
    key, equals, value = line.partition("\0")[0].partition("=")
    key = clean_line(key)
    if not equals or not key or key[0] in "#;[":
        return None
    written = _COMMENT.sub("", value).strip(_SPACES)
    cleaned = clean_line(written)
    return Option(key, cleaned, number, "" if cleaned == written and cleaned else written or value.strip(_SPACES))


def unusual_characters(text: str) -> str:
    """A note to append to a message: which characters of `text` are not what they look like; empty where all are.

    That is white space which Darknet does not drop, invisible characters, and full-width forms of ASCII.
    """
    unusual = [
        character
        for character in dict.fromkeys(text)
        if not character.isascii()
        and (unicodedata.category(character) in ("Zs", "Cf") or unicodedata.normalize("NFKC", character).isascii())
    ]
    names = ", ".join(f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip() for character in unusual)
    return f"; it contains {names}" if names else ""


def parse_sections(text: str, problems: Problems) -> list[Section]:
    """Splits the text of a cfg into sections.

    As in Darknet, white space is dropped anywhere in a line, and a line that begins with `#` or `;` is a comment. A
    comment may follow a section, and a value after white space. Darknet goes on after any other line, an option without
    a value there, and so do we, with a warning. It is an error if the line looks like a misspelled option or section.

    Args:
        text: the cfg.
        problems: where faults are recorded.

    Returns:
        The sections, in file order.
    """
    sections: list[tuple[str, int, list[Option]]] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if len(problems.errors) + len(problems.warnings) >= _FAULTY_LINES or len(sections) > LAYER_LIMIT + 1:
            what = (
                counted(LAYER_LIMIT, "layer", ",")
                if len(sections) > LAYER_LIMIT + 1
                else f"{_FAULTY_LINES:,} faulty lines"
            )
            problems.error(number, "", f"expected at most {what}, got more; the rest of the file is not read")
            break
        line = raw.strip()  # of all white space: a line that holds nothing else, or a comment, says nothing
        if not clean_line(line) or line[0] in "#;":
            continue
        line = raw.partition("\0")[0].strip(_SPACES)
        option: Option | None
        if line[0] == "[":
            name, bracket, rest = line[1:].partition("]")
            name, rest = clean_line(name), rest.strip(_SPACES)
            if not bracket or not name:
                problems.error(number, "", f"expected a section like [net], got {raw.strip()!r}")
            elif rest and rest[0] not in "#;":
                message = f"expected nothing after [{name}], got {rest!r}{unusual_characters(rest)}"
                problems.error(number, "", message + ("; write one option per line" if "=" in rest else ""))
            sections.append((name, number, []))
            option = parse_option(rest, number)  # so that no further faults follow from its absence
            if option:
                sections[-1][2].append(option)
            continue
        option = parse_option(line, number)
        if not sections and (option or not _spelling_hint(line)):
            problems.error(number, "", f"expected a [net] section first, got {line!r}")
        elif option is None:
            _report_junk(line, number, problems)
        else:
            sections[-1][2].append(option)
    return [Section(name, line, tuple(options)) for name, line, options in sections]


def _report_junk(line: str, number: int, problems: Problems) -> None:
    """A line that is neither a section nor an option."""
    hint = _spelling_hint(line)
    message = f"expected key=value or [section], got {line!r}"
    if hint or line.startswith("="):
        problems.error(number, "", message + hint)
    else:
        problems.warn(number, "", f"{message}, which is ignored, as in C")


def _spelling_hint(line: str) -> str:
    """What a line that is neither a section nor an option may mean: `width: 64`, `(yolo)`, full-width signs."""
    plain = unicodedata.normalize("NFKC", line).strip()
    match = _MISSPELLED_OPTION.fullmatch(plain)
    section = _MISSPELLED_SECTION.fullmatch(plain)
    meant = f"{match[1]}={match[2]}" if match else f"[{section[1]}]" if section else ""
    return unusual_characters(line) + (f"; did you mean {meant!r}?" if meant else "")
