"""Changing single options of a cfg file; every other byte stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from darknet_py.cfg.sections import Problems, Section, parse_sections

_LINE = re.compile(r"(?P<key>[^=]*=[ \t]*)(?P<value>[^#\r\n]*?)(?P<rest>[ \t]*(?:#[^\r\n]*)?[\r\n]*)", re.DOTALL)


class CfgEdit(NamedTuple):
    """A new value of one option. section: 0 is `[net]`, k + 1 the cfg's layer k."""

    section: int
    key: str
    value: str


def edited(content: bytes, changes: Iterable[CfgEdit]) -> bytes:
    """`edited_text` for a file's content."""
    return edited_text(content.decode("utf-8", "surrogateescape"), changes).encode("utf-8", "surrogateescape")


def edited_text(text: str, changes: Iterable[CfgEdit]) -> str:
    """The cfg with new values. A comment behind a value stays; an option that is not there opens its section."""
    sections = parse_sections(text, Problems("<text>"))
    lines = text.splitlines(keepends=True)
    for section, key, value in changes:
        at = line_of(sections[section], key)
        if at is not None:
            found = _LINE.fullmatch(lines[at - 1])
            assert found
            lines[at - 1] = found["key"] + value + found["rest"]
            continue
        head = lines[sections[section].line - 1]
        ending = head[len(head.rstrip("\r\n")) :]
        # Into the line of the section's name, so that the numbers of the other lines hold for the next change.
        lines[sections[section].line - 1] = f"{head}{key}={value}{ending}" if ending else f"{head}\n{key}={value}"
    return "".join(lines)


def line_of(section: Section, key: str) -> int | None:
    """The line that sets `key`: the first one, as in Darknet."""
    return next((option.line for option in section.options if option.key == key), None)
