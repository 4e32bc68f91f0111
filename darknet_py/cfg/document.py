"""A cfg as a document: its text, its sections and the edits made to it. The text is parsed once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from darknet_py.cfg.sections import Option, Problems, Section, clean_line, parse_option, parse_sections
from darknet_py.errors import CfgError, Problem
from darknet_py.shipped import find
from darknet_py.untrusted import read_text

# A line that sets an option. An edit keeps the comment after a value.
_OPTION_LINE = re.compile(r"(?P<start>[^=]*=[ \t]*)(?P<value>[^#]*?)(?P<end>[ \t]*(?:#.*|(?<=[ \t]);.*)?)", re.DOTALL)


class CfgEdit(NamedTuple):
    """A new value of one option.

    Attributes:
        section: 0 is `[net]`, k + 1 is layer k.
        key: the option's key.
        value: its new value, as text.
        reason: why the value changes, for printing; empty where the user asked for it.
    """

    section: int
    key: str
    value: str
    reason: str = ""


@dataclass(frozen=True)
class CfgDocument:
    """The text and the sections of a cfg, with edits.

    `read` and `from_text` parse the text; edits change text and sections together, so that it is never parsed again.
    A document does not change: `set` and `with_edits` return a new one, and `build_graph(document)` gives its graph.
    An edit replaces a value and nothing else: comments, spaces, line endings and bytes that are not UTF-8 stay as they
    are. An option that its section does not have becomes the section's first option.

    Attributes:
        path: the file's path, used in messages.
        sections: `[net]` and the layers, with the edits applied. Line numbers are those of the text that was parsed;
            an option that was added has the line of its section.
        edits: the edits that changed a value, in order.
        syntax_errors: faults of the text, which `build_graph` raises together with those of the options.
        syntax_warnings: lines of the text that Darknet ignores.
    """

    path: str
    sections: tuple[Section, ...]
    edits: tuple[CfgEdit, ...] = ()
    syntax_errors: tuple[Problem, ...] = ()
    syntax_warnings: tuple[Problem, ...] = ()
    # Per line of the parsed text: that line, and after a section's name the options added to the section.
    _lines: tuple[tuple[str, ...], ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, path: str | Path) -> CfgDocument:
        """Reads and parses a cfg file.

        Args:
            path: the file, or a shipped one by its bare name (`yolov4.cfg`). Bytes that are not UTF-8 are kept (as
                surrogate escapes).

        Returns:
            The document, without edits.

        Raises:
            DataError: the file cannot be read.
        """
        path = find(path, "cfg")
        return cls.from_text(read_text(path, "cfg", keep_bytes=True), str(path))

    @classmethod
    def from_text(cls, text: str, path: str | Path = "<text>") -> CfgDocument:
        """Parses the text of a cfg.

        Args:
            text: the cfg.
            path: what messages call it.

        Returns:
            The document, without edits.
        """
        problems = Problems(str(path))
        sections = parse_sections(text, problems)
        equal: dict[str, tuple[str]] = {}  # lines repeat; each is kept once
        lines = tuple(equal.setdefault(line, (line,)) for line in text.splitlines(keepends=True))
        return cls(str(path), tuple(sections), (), tuple(problems.errors), tuple(problems.warnings), lines)

    @property
    def text(self) -> str:
        """The cfg with all edits applied."""
        return "".join(line for lines in self._lines for line in lines)

    @property
    def content(self) -> bytes:
        """The bytes of the cfg file with all edits applied."""
        return self.text.encode("utf-8", "surrogateescape")

    @property
    def layers_hash(self) -> str:
        """A SHA-256 fingerprint of the layers' options, in hexadecimal.

        It comes from the parsed sections, so that it is cheap. Comments, spaces and `[net]` do not count: a resumed
        training may change its schedule.
        """
        layers = [
            (section.name, [(option.key, option.value.partition("#")[0]) for option in section.options])
            for section in self.sections[1:]
        ]
        return hashlib.sha256(repr(layers).encode("utf-8", "backslashreplace")).hexdigest()

    def set(self, section: int, key: str, value: str, reason: str = "") -> CfgDocument:
        """A new document with one more edit.

        Args:
            section: 0 is `[net]`, k + 1 is layer k.
            key: the option's key.
            value: its new value.
            reason: why it changes.

        Returns:
            The new document; this one where the option has that value already.

        Raises:
            CfgError: the value has more than one line.
        """
        return self.with_edits([CfgEdit(section, key, value, reason)])

    def with_edits(self, edits: Iterable[CfgEdit]) -> CfgDocument:
        """A new document with more edits.

        Args:
            edits: the edits, applied in order. An edit that gives an option the value it has is left out.

        Returns:
            The new document; this one where nothing changes.

        Raises:
            CfgError: a value has more than one line.
        """
        sections, lines, applied = list(self.sections), list(self._lines), list(self.edits)
        for edit in edits:
            section = sections[edit.section]
            if len(edit.value.splitlines()) > 1:
                where = f"[{section.name}]" + (f" #{edit.section - 1}" if edit.section else "")
                message = f"{edit.key}: expected a value on one line, got {edit.value!r}"
                raise CfgError([Problem(self.path, section.line, where, message)])
            number = next((option.line for option in section.options if option.key == edit.key), section.line)
            changed = _edit_lines(lines[number - 1], edit)
            if changed != lines[number - 1]:
                lines[number - 1] = changed
                sections[edit.section] = _edit_section(section, _parsed_option(changed, edit.key, number))
                applied.append(edit)
        if len(applied) == len(self.edits):
            return self
        return replace(self, sections=tuple(sections), edits=tuple(applied), _lines=tuple(lines))


def _edit_lines(lines: Sequence[str], edit: CfgEdit) -> tuple[str, ...]:
    """A line of the parsed text and those added after it, with one option replaced or added."""
    for position, line in enumerate(lines):
        if _key(line) != edit.key:
            continue
        body = _body(line)
        match = _OPTION_LINE.fullmatch(body)
        assert match is not None  # a line with a key has an equals sign
        if clean_line(match["value"]) == clean_line(edit.value):
            return tuple(lines)
        gap = " " if match["end"] and not match["value"] else ""  # `key= ;comment`: the space goes before the value
        replaced = match["start"] + edit.value + gap + match["end"] + line[len(body) :]
        return (*lines[:position], replaced, *lines[position + 1 :])
    last = lines[-1]
    ending = last[len(_body(last)) :]
    if ending:
        return (*lines, f"{edit.key}={edit.value}{ending}")
    return (*lines[:-1], f"{last}\n", f"{edit.key}={edit.value}")


def _edit_section(section: Section, option: Option) -> Section:
    """The section with one option replaced, or added after those that were added before."""
    options = list(section.options)
    position = next((i for i, other in enumerate(options) if other.key == option.key), None)
    if position is not None:
        options[position] = option
    else:
        options.insert(sum(other.line == section.line for other in options), option)
    return replace(section, options=tuple(options))


def _body(line: str) -> str:
    """The line without its line ending, as `parse_sections` splits lines."""
    return line.splitlines()[0]


def _key(line: str) -> str:
    option = parse_option(_body(line), 0)
    return option.key if option else ""


def _parsed_option(lines: Sequence[str], key: str, number: int) -> Option:
    options = (parse_option(_body(line), number) for line in lines)
    return next(option for option in options if option and option.key == key)
