"""The built-in text: sentences about shapes and sums, generated on first use, to train language models.

Half of it follows from the sentences before (the opposite side, a color, the result of a sum), so that a network needs
memory. All choices are equally likely and can be read off the text, so that the entropy of the text is known:
`SyntheticText.bits`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from darknet_py.data.builtin import drawing, store
from darknet_py.data.datafile import DataFile
from darknet_py.errors import DataError

T = TypeVar("T")

NAME = "synthetic-text"
TRAIN, VALID = 300_000, 30_000  # minimum number of bytes; the last paragraph is complete
_VERSION = "1"
_NUMBERS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
)
_SIZES = ("small", "large", "thin", "old")
_COLORS = ("red", "blue", "green", "yellow", "black", "white")
_VERBS = ("stand", "wait", "sleep")
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", "beside": "beside"}


class SyntheticText(NamedTuple):
    """bits: entropy of the text, a lower bound for the cross-entropy of any model."""

    text: bytes
    bits: float


def ensure_synthetic_text(
    folder: str | os.PathLike[str] | None = None, *, train: int = TRAIN, valid: int = VALID
) -> DataFile:
    """Generates the built-in text if missing: train.txt and valid.txt.

    Args:
        folder: Default: data/synthetic-text of a checkout, or a folder in the user's cache.
        train: Minimum number of bytes of the training text.
        valid: Minimum number of bytes of the validation text.

    Returns:
        The data set.

    Raises:
        DataError: The folder cannot be written.
    """
    folder = Path(folder).absolute() if folder is not None else store.dataset_folder(NAME)
    lengths = {"train": train, "valid": valid}
    try:
        store.create_folder(folder, f"{_VERSION} {train} {valid}\n", partial(_write, lengths=lengths))
    except OSError as error:
        raise DataError(f"{folder}: cannot write the built-in data: {error.strerror or error}") from None
    return DataFile(path=folder, train=folder / "train.txt", valid=folder / "valid.txt")


def generate_text(split: str, length: int) -> SyntheticText:
    """ASCII paragraphs of at least `length` bytes in total, of the split "train" or "valid"; deterministic."""
    generator = _Generator(("train", "valid").index(split))
    paragraphs: list[str] = []
    while length > 0:
        paragraphs.append(generator.paragraph())
        length -= len(paragraphs[-1])
    return SyntheticText("".join(paragraphs).encode("ascii"), generator.bits)


class _Generator:
    def __init__(self, split: int):
        self.bits = 0.0
        self._rng = drawing.Rng(2022, split)

    def paragraph(self) -> str:
        return f"{self._scene()} {self._pick((self._sum, self._countdown))()}\n"

    def _pick(self, choices: Sequence[T]) -> T:
        self.bits += math.log2(len(choices))
        return self._rng.pick(choices)

    def _scene(self) -> str:
        """Positions of two shapes, the same from the opposite side, and a question with its answer."""
        shape = self._pick(drawing.NAMES)
        shapes = shape, self._pick([other for other in drawing.NAMES if other != shape])
        colors = self._pick(_COLORS), self._pick(_COLORS)
        counts = [self._pick((1, 2, 3, 4)) for _ in shapes]
        size, verb, relation = self._pick(_SIZES), self._pick(_VERBS), self._pick(tuple(_OPPOSITE))
        first = _some(counts[0], f"{size} {colors[0]} {shapes[0]}")
        second = _some(counts[1], f"{colors[1]} {shapes[1]}")
        asked = self._pick((0, 1))
        are = "is" if counts[asked] == 1 else "are"
        return (
            f"{first.capitalize()} {_does(verb, counts[0])} {relation} {second}. "
            f"So {second} {_does(verb, counts[1])} {_OPPOSITE[relation]} {first}. "
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
        (folder / f"{split}.txt").write_bytes(generate_text(split, length).text)
