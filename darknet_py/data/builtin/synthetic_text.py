"""The built-in text: scenes of shapes and sums, told by rule on first use, for networks that learn to write.

Half of it follows from what was said before (who stands on the other side, which color, what a sum makes), which a
network can only know from its memory. Each choice is one of equally likely ones and can be read off the text, so what
the best possible model needs is known: `SyntheticTextFiles.bits`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from darknet_py.data.builtin import drawing
from darknet_py.data.builtin import store as builtin
from darknet_py.data.datafile import DataFile
from darknet_py.errors import DataError

T = TypeVar("T")

NAME = "tale"
TRAIN, VALID = 300_000, 30_000  # bytes, and the rest of the last paragraph
_VERSION = "1"
_NUMBERS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
)
_SIZES = ("small", "large", "thin", "old")
_COLORS = ("red", "blue", "green", "yellow", "black", "white")
_VERBS = ("stand", "wait", "sleep")
_ACROSS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", "beside": "beside"}


class SyntheticTextFiles(NamedTuple):
    """bits: of information in the text; no model can need fewer on average."""

    text: bytes
    bits: float


def ensure_synthetic_text(
    folder: str | os.PathLike[str] | None = None, *, train: int = TRAIN, valid: int = VALID
) -> DataFile:
    """Writes the text in `folder` unless it is there already: train.txt, and valid.txt to measure on.

    folder: by default data/tale of a checkout, else a folder in the user's cache. Raises DataError where it cannot be
    written.
    """
    folder = Path(folder).absolute() if folder is not None else builtin.home(NAME)
    lengths = {"train": train, "valid": valid}
    try:
        builtin.make(folder, f"{_VERSION} {train} {valid}\n", partial(_write, lengths=lengths))
    except OSError as error:
        raise DataError(f"{folder}: cannot write the built-in data: {error.strerror or error}") from None
    return DataFile(path=folder, train=folder / "train.txt", valid=folder / "valid.txt")


def tell(split: str, length: int) -> SyntheticTextFiles:
    """Paragraphs of at least `length` bytes in all, of the split "train" or "valid": a pure function. ASCII."""
    teller = _Teller(("train", "valid").index(split))
    paragraphs: list[str] = []
    while length > 0:
        paragraphs.append(teller.paragraph())
        length -= len(paragraphs[-1])
    return SyntheticTextFiles("".join(paragraphs).encode("ascii"), teller.bits)


class _Teller:
    def __init__(self, split: int):
        self.bits = 0.0
        self._dice = drawing.Rng(2022, split)

    def paragraph(self) -> str:
        return f"{self._scene()} {self._pick((self._sum, self._countdown))()}\n"

    def _pick(self, choices: Sequence[T]) -> T:
        self.bits += math.log2(len(choices))
        return self._dice.pick(choices)

    def _scene(self) -> str:
        """Who stands where, the same seen from the other side, and a question with its answer."""
        shape = self._pick(drawing.NAMES)
        shapes = shape, self._pick([other for other in drawing.NAMES if other != shape])
        colors = self._pick(_COLORS), self._pick(_COLORS)
        counts = [self._pick((1, 2, 3, 4)) for _ in shapes]
        size, verb, place = self._pick(_SIZES), self._pick(_VERBS), self._pick(tuple(_ACROSS))
        first = _some(counts[0], f"{size} {colors[0]} {shapes[0]}")
        second = _some(counts[1], f"{colors[1]} {shapes[1]}")
        asked = self._pick((0, 1))
        are = "is" if counts[asked] == 1 else "are"
        return (
            f"{first.capitalize()} {_does(verb, counts[0])} {place} {second}. "
            f"So {second} {_does(verb, counts[1])} {_ACROSS[place]} {first}. "
            f"What colour {are} the {_plural(shapes[asked], counts[asked])}? {colors[asked].capitalize()}."
        )

    def _sum(self) -> str:
        a, b = self._pick(range(1, 10)), self._pick(range(1, 10))
        return f"{_NUMBERS[a].capitalize()} and {_NUMBERS[b]} make {_NUMBERS[a + b]}."

    def _countdown(self) -> str:
        start = self._pick(range(2, 10))
        steps = ", ".join(_NUMBERS[number] for number in range(start, 0, -1))
        return f"{steps.capitalize()}, gone."


def _some(count: int, thing: str) -> str:
    return f"{_NUMBERS[count]} {_plural(thing, count)}"


def _plural(thing: str, count: int) -> str:
    return thing if count == 1 else thing + ("es" if thing.endswith("s") else "s")


def _does(verb: str, count: int) -> str:
    return verb + "s" if count == 1 else verb


def _write(folder: Path, lengths: dict[str, int]) -> None:
    for split, length in lengths.items():
        (folder / f"{split}.txt").write_bytes(tell(split, length).text)
