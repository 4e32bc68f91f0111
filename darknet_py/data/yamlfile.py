"""Reading the YAML that data sets are described in.

With PyYAML (the extra `yaml`) any YAML. Without it what such files are made of: nested mappings and lists, in blocks or
in brackets, with quoted or plain words and comments. Every scalar is a str, so that a class named `no` stays that.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from darknet_py.errors import DataError, MissingExtra

try:
    import yaml  # type: ignore
except ImportError:
    yaml = None

_KEY = re.compile(r"""(?P<key>"[^"]*"|'[^']*'|[^\s"'\[\]{}#&*!|>%@`,][^:#]*?)\s*:(?:\s+(?P<value>.*))?$""")
_TOKEN = re.compile(
    r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[\[\]{},]|:(?=[\s,\]}])|(?:[^\s,:\[\]{}]|:(?=\S)|[ ](?=\S))+)"""
)


class _Unknown(Exception):
    """YAML beyond the reader of this file."""


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a YAML file holds; values are str, list or dict.

    Raises DataError, and MissingExtra for YAML that only PyYAML understands.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror or error}") from None
    if yaml is None:
        try:
            content = parse_simple(text)
        except _Unknown as problem:
            raise MissingExtra("pyyaml", "yaml", f"{path}: {problem}: this YAML") from None
    else:
        try:
            content = yaml.load(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise DataError(f"{path}: expected YAML, got: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected `key: value` lines, got {str(content)[:60]!r}")
    return content


def parse_simple(text: str) -> Any:
    """What this file's docstring calls YAML."""
    lines = [
        (number, len(line) - len(line.lstrip(" ")), line.strip())
        for number, line in enumerate(map(_without_comment, text.splitlines()), 1)
        if line.strip() and line.strip() not in ("---", "...")
    ]
    value, rest = _block(lines)
    if rest:
        raise _Unknown(f"line {rest[0][0]}")
    return value


_Lines = list[tuple[int, int, str]]


def _block(lines: _Lines) -> tuple[Any, _Lines]:
    """The mapping or list that starts with the first line, and the lines after it."""
    if not lines:
        return {}, []
    number, indent, first = lines[0]
    if first.startswith("- ") or first == "-":
        items = []
        while lines and lines[0][1] == indent and (lines[0][2].startswith("- ") or lines[0][2] == "-"):
            item = lines[0][2][1:].strip()
            if not item or _KEY.match(item):
                raise _Unknown(f"line {lines[0][0]}")
            value, lines = _value(item, lines[1:], lines[0][0])
            items.append(value)
        return items, lines
    found: dict[str, Any] = {}
    while lines and lines[0][1] == indent:
        number, _, line = lines[0]
        match = _KEY.match(line)
        if not match:
            raise _Unknown(f"line {number}")
        text, lines = (match["value"] or "").strip(), lines[1:]
        key = _scalar(match["key"], number)
        if text[:1] in ("|", ">"):  # a block of text, such as a script that downloads the data
            end = next((k for k, line in enumerate(lines) if line[1] <= indent), len(lines))
            value, lines = "\n".join(line[2] for line in lines[:end]), lines[end:]
        elif text:
            value, lines = _value(text, lines, number)
        elif lines and (lines[0][1] > indent or (lines[0][1] == indent and lines[0][2].startswith("- "))):
            value, lines = _block(lines)
        else:
            value = ""
        found[key] = value
    if lines and lines[0][1] > indent:
        raise _Unknown(f"line {lines[0][0]}")
    return found, lines


def _value(text: str, lines: _Lines, number: int) -> tuple[Any, _Lines]:
    """A scalar, or something in brackets, which may go on in the next lines."""
    if text[0] not in "[{":
        return _scalar(text, number), lines
    used = 0
    while True:
        tokens = _TOKEN.findall(text)
        depth = sum((token in ("[", "{")) - (token in ("]", "}")) for token in tokens)
        if depth <= 0 or used == len(lines):
            break
        text += " " + lines[used][2]
        used += 1
    if depth or "".join(tokens).replace(" ", "") != text.replace(" ", ""):
        raise _Unknown(f"line {number}")
    value, rest = _flow(tokens, number)
    if rest:
        raise _Unknown(f"line {number}")
    return value, lines[used:]


def _flow(tokens: list[str], number: int) -> tuple[Any, list[str]]:
    if not tokens:
        raise _Unknown(f"line {number}")
    first, rest = tokens[0], tokens[1:]
    if first not in "[{":
        return _scalar(first.strip(), number), rest
    close = "]" if first == "[" else "}"
    items: list[Any] = []
    keys: list[str] = []
    while rest and rest[0] != close:
        item, rest = _flow(rest, number)
        if close == "}":
            if not rest or rest[0] != ":" or not isinstance(item, str):
                raise _Unknown(f"line {number}")
            keys.append(item)
            item, rest = _flow(rest[1:], number)
        items.append(item)
        if rest and rest[0] == ",":
            rest = rest[1:]
        elif not rest or rest[0] != close:
            raise _Unknown(f"line {number}")
    return (items if close == "]" else dict(zip(keys, items, strict=True))), rest[1:]


def _scalar(text: str, number: int) -> str:
    if text[0] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            raise _Unknown(f"line {number}") from None
    if text[0] == "'":
        if len(text) < 2 or text[-1] != "'":
            raise _Unknown(f"line {number}")
        return text[1:-1].replace("''", "'")
    if text[0] in "&*!|>%@`[]{}," or ": " in text:
        raise _Unknown(f"line {number}")
    return text


def _without_comment(line: str) -> str:
    """The line up to a # that stands alone or after white space, outside quotes."""
    quote, escaped = "", False
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and quote == '"' and not escaped
        elif letter in "\"'" and (place == 0 or line[place - 1] in " \t[{,:-"):
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place]
    return line
