"""The built-in text: same on every machine, of known entropy, complete or absent."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from pathlib import Path

import pytest

from darknet_py.data.builtin import synthetic_text
from darknet_py.errors import DataError

HASH = "e20010669508571330d45b2790b7a452b6ef9166a9f4d276a1ae92e1b56a370d"
NUMBERS = {word: number for number, word in enumerate(synthetic_text._NUMBERS)}


def test_text_is_the_same_everywhere() -> None:
    assert hashlib.sha256(synthetic_text.generate_text("train", 5000).text).hexdigest() == HASH
    assert synthetic_text.generate_text("train", 9000).text.startswith(synthetic_text.generate_text("train", 5000).text)
    assert synthetic_text.generate_text("valid", 300).text != synthetic_text.generate_text("train", 300).text


def test_implied_sentences_are_correct() -> None:
    text = synthetic_text.generate_text("train", 40_000).text.decode("ascii")
    sums = re.findall(r"(\w+) and (\w+) make (\w+)\.", text)
    assert len(sums) > 50
    for a, b, c in sums:
        assert NUMBERS[a.lower()] + NUMBERS[b] == NUMBERS[c]
    scenes = re.findall(
        r"^(\w+) (\w+) (\w+) (\w+) (\w+) ([\w ]+?) (\w+) (\w+) (\w+)\. So (.+?)\. "
        r"What colour (\w+) the (\w+)\? (\w+)\.",
        text,
        re.MULTILINE,
    )
    assert len(scenes) == text.count("\n")
    for n, size, color, shape, verb, place, m, other, others, so, are, asked, answer in scenes:
        does = verb.removesuffix("s") + ("s" if m == "one" else "")
        back = {"left": "right", "right": "left", "above": "below", "below": "above", "beside": "beside"}
        first, *of = place.split()
        there = " ".join([back[first], *of])
        assert so == f"{m} {other} {others} {does} {there} {n.lower()} {size} {color} {shape}"
        assert answer.lower() == (color if asked == shape else other) and asked in (shape, others)
        assert (are == "is") == ((n.lower() if asked == shape else m) == "one")


def test_entropy_is_far_below_that_of_bigrams() -> None:
    train, valid = synthetic_text.generate_text("train", 300_000), synthetic_text.generate_text("valid", 30_000)
    assert valid.bits / len(valid.text) == pytest.approx(0.150, abs=5e-4)
    pairs, triples = Counter(zip(train.text, train.text[1:], strict=False)), Counter[tuple[int, ...]]()
    triples.update(zip(train.text, train.text[1:], train.text[2:], strict=False))
    bits = 0.0
    for a, b, c in zip(valid.text, valid.text[1:], valid.text[2:], strict=False):
        bits -= math.log2((triples[a, b, c] + 0.01) / (pairs[a, b] + 0.64))
    assert bits / (len(valid.text) - 2) == pytest.approx(1.168, abs=5e-4)


def test_created_once(tmp_path: Path) -> None:
    made = synthetic_text.ensure_synthetic_text(tmp_path / "text", train=900, valid=300)
    assert made.train is not None and made.train.read_bytes() == synthetic_text.generate_text("train", 900).text
    assert made.valid is not None and made.valid.read_bytes() == synthetic_text.generate_text("valid", 300).text
    made.train.write_text("somebody's own")
    synthetic_text.ensure_synthetic_text(tmp_path / "text", train=900, valid=300)
    assert made.train.read_text() == "somebody's own"
    synthetic_text.ensure_synthetic_text(tmp_path / "text", train=901, valid=300)
    assert made.train.read_bytes() == synthetic_text.generate_text("train", 901).text
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/text: cannot write the built-in data"):
        synthetic_text.ensure_synthetic_text(tmp_path / "file" / "text")
