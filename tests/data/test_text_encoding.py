"""Guessing the encoding of names and lists."""

from __future__ import annotations

import pytest

from darknet_py.data.text_encoding import decode_any


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        ("red\nblue", "ascii", ""),
        ("café\n犬", "utf-8", ""),
        ("café", "utf-8-sig", ""),
        ("犬\n猫", "utf-16", ""),
        ("苹果\n香蕉\nperson", "gbk", "gb18030"),
        ("été\nélève\ncafé", "latin-1", "cp1252"),
        ("Hündin\nKatze", "latin-1", "cp1252"),
        ("кошка\nсобака\nмышь", "cp1251", "cp1251"),
        ("ネコ\nイヌ\n犬", "shift_jis", "shift_jis"),
    ],
)
def test_encodings(text: str, encoding: str, guess: str) -> None:
    assert decode_any(text.encode(encoding)) == (text, guess)


def test_any_bytes_are_decoded() -> None:
    assert decode_any(bytes(range(128, 256)))[1]
