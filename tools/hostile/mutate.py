"""Mutations of bytes, of texts and of JSON. The same random state gives the same result."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

_INTEGERS = (0, 1, -1, 7, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, -(1 << 31), 1 << 24)
_WORDS = (
    "", "0", "-0", "1", "-1", "2", "3", "0.5", "-0.5", "1.5", "1e-45", "1e38", "1e400", "nan", "inf", "-inf", "NaN",
    "Infinity", "9" * 30, "9" * 5000, "2147483648", "-2147483649", "0x10", "1_0", "٣", "½", "é", "日本", "a b", "\0",
    "\x1b[31m", "\x1b]0;x\a", "\u2028", "\u202e", "\ufeff", "\ud800", "/", "..", "../", "../../victim.txt", "/dev/null",
    "/dev/zero", "/etc/passwd", "C:\\x.jpg", "~", "x" * 300, "x/" * 2000, "null", "true", "no", "[]", "{}", "*", "&a",
    "*a", "!!python/object/apply:os.system", "<<", "|", ">", "- ", ": ", "#", "%", "\t", "=", ";", ",", "\"", "'",
    "<a>", "&lt;", "<![CDATA[", "]]>", "<!DOCTYPE x [<!ENTITY a \"aa\">]>", "&a;", "--", "\r", "\r\n",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1 << 31, 1 << 70, -(1 << 70), 0.5, 1e308, float("nan"), float("inf"), "", "a",
    "../a.jpg", "/etc/passwd", "a\0b", "a\nb", "\ud800", "x" * 300, [], {}, [[]], [1], {"id": 1}, [None] * 4, "1",
    [1, 2, 3, 4],
)  # fmt: skip
_DEEP = 2000


def mutate_bytes(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """Some changes of a file. other: another file of this kind, parts of which may be taken."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 8))):
        rng.choice(_BYTE_CHANGES)(rng, data, other)
    return bytes(data)


def mutate_values(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """As `mutate_bytes`, but five of six times the length stays: most lengths are refused by one and the same check."""
    if not rng.randrange(6):
        return mutate_bytes(rng, content, other)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        rng.choice(_BYTE_CHANGES[:7])(rng, data, other)
    return bytes(data[: len(content)])


def _flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _set_early(rng: random.Random, data: bytearray, other: bytes) -> None:
    """In the header, where sizes and types are."""
    if data:
        data[rng.randrange(min(len(data), 64))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _integer(rng: random.Random, data: bytearray, other: bytes) -> None:
    value, kind = rng.choice(_INTEGERS), rng.choice(("<h", ">h", "<i", ">i", "<q", ">q"))
    bits = 8 * struct.calcsize(kind)
    packed = ((value + (1 << (bits - 1))) % (1 << bits)) - (1 << (bits - 1))
    at = rng.randrange(len(data) + 1)
    if rng.randrange(2):
        at = min(at, rng.randrange(128))
    data[at : at + bits // 8] = struct.pack(kind, packed)


def _insert(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 64)))


def _delete(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 2, 4, 8, 64, len(data)))]


def _double(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = data[at : at + rng.choice((1, 4, 16, 256))]


def _cut(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _cross(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


def _append(rng: random.Random, data: bytearray, other: bytes) -> None:
    data += rng.choice((b"\0" * rng.randrange(1, 64), rng.randbytes(rng.randrange(1, 64)), other))


_ByteChange = Callable[[random.Random, bytearray, bytes], None]
_BYTE_CHANGES: tuple[_ByteChange, ...] = (
    *(_flip, _flip, _set, _set_early, _set_early, _integer, _integer),
    *(_insert, _delete, _double, _cut, _cross, _append),
)


def mutate_text(rng: random.Random, content: bytes, other: bytes, words: Sequence[str] = ()) -> bytes:
    """Changes of words and lines, and now and then of bytes. words: what a word may become besides odd ones."""
    if not rng.randrange(4):
        return mutate_bytes(rng, content, other)
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    others = other.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(rng.choice((1, 1, 2, 3, 9))):
        at = rng.randrange(len(lines)) if lines else 0
        kind = rng.randrange(8)
        if kind == 0 or not lines:
            lines.insert(at, rng.choice(others))
        elif kind == 1:
            del lines[at]
        elif kind == 2:
            lines[at:at] = [lines[at]] * rng.choice((1, 2, 50))
        elif kind == 3:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        else:
            lines[at] = _change_word(rng, lines[at], words)
    return "\n".join(lines).encode("utf-8", "surrogatepass" if rng.randrange(2) else "replace")


def _change_word(rng: random.Random, line: str, words: Sequence[str]) -> str:
    word = rng.choice(words) if words and rng.randrange(2) else rng.choice(_WORDS)
    if not rng.randrange(3):
        word = str(rng.randrange(-3, 20) if rng.randrange(2) else rng.uniform(-2, 2))
    parts = line.split(" ")
    at = rng.randrange(len(parts))
    if rng.randrange(3):
        parts[at] = word
    else:
        place = rng.randrange(len(parts[at]) + 1)
        parts[at] = parts[at][:place] + word + parts[at][place:]
    return " ".join(parts)


def mutate_json(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """Changes of values, keys and types in the tree, and now and then of bytes."""
    if not rng.randrange(5):
        return mutate_text(rng, content, other)
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        tree = _change_tree(rng, tree)
    text = json.dumps(tree)
    if not rng.randrange(200):
        text = "[" * _DEEP * 100 + text if rng.randrange(2) else text[:-1] + ',"x":' + "[" * _DEEP + "]" * _DEEP + "}"
    return text.encode()


def _change_tree(rng: random.Random, tree: Any) -> Any:
    """Walks down at random and changes what is there."""
    if isinstance(tree, (dict, list)) and tree and rng.randrange(6):
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = rng.choice(keys)
        kind = rng.randrange(14)
        if kind == 0:
            del tree[key]
        elif kind == 1 and isinstance(tree, list):
            tree.insert(key, tree[key])
        elif kind == 1 and isinstance(tree, dict):
            tree[rng.choice(("id", "name", "bbox", "x", "file_name", "\0"))] = tree.pop(key)
        else:
            tree[key] = _change_tree(rng, tree[key])
        return tree
    kind = rng.randrange(5)
    if kind == 0:
        return [tree]
    if kind == 1 and isinstance(tree, (int, float)) and not isinstance(tree, bool):
        return rng.choice((-tree, tree + 1, tree * 1000, str(tree), float(tree)))
    if kind == 2 and isinstance(tree, str):
        return _change_word(rng, tree, ())
    return copy.deepcopy(rng.choice(_VALUES))  # it may be changed further
