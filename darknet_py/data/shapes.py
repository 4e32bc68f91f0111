"""The built-in detection set: six shapes on textured backgrounds, drawn by this file on first use.

The same pixels on every machine: random numbers are raw bits of PCG64, and drawing uses only operations that IEEE 754
defines exactly (no sine, no sums in an order that depends on the processor). Only the JPEG encoder is OpenCV's.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.images import Image, resize
from darknet_py.data.labels import save_labels
from darknet_py.errors import DataError

T = TypeVar("T")
Field = NDArray[Any]  # float32

NAMES = ("circle", "square", "triangle", "star", "ring", "cross")
TRAIN, VALID = 600, 120
# Most objects wear their class's colour, so that a network learns something within minutes; the rest, and the finer
# figures, take the shape.
_COLOURS = ((214, 48, 44), (52, 96, 224), (236, 196, 44), (204, 60, 204), (44, 176, 72), (52, 204, 220))
_OWN_COLOUR = 0.9
_VERSION = "2"
_SIZES = ((320, 240), (240, 320), (288, 288))
_NEGATIVES = 0.06
_LEAST_VISIBLE = 0.5  # an object is never covered further than this
_QUALITY = 92


class Picture(NamedTuple):
    """image: uint8 (H, W, 3) RGB. rows: (class, cx, cy, w, h) relative to it."""

    image: Image
    rows: list[tuple[float, ...]]


class _Stroke(NamedTuple):
    """One thing to draw within its window: how far each pixel is covered, and its colour."""

    top: int
    left: int
    cover: Field
    paint: Field  # (h, w, 3)


def open_data(path: str | os.PathLike[str] | None = None) -> DataFile:
    """Reads a `.data` file; None and our own `shapes.data` mean the built-in set, generated if need be."""
    if path is None:
        return ensure_shapes()
    path = Path(path)
    if path.name == "shapes.data" and path.is_file() and _is_ours(path):
        ensure_shapes(path.parent / "shapes")
    return DataFile.read(path)


def ensure_shapes(
    folder: str | os.PathLike[str] | None = None,
    *,
    train: int = TRAIN,
    valid: int = VALID,
    progress: Callable[[int, int], None] | None = None,
) -> DataFile:
    """Generates the set in `folder` unless it is there already, and says where it is.

    folder: by default data/shapes of a checkout, else a folder in the user's cache. It appears complete or not at
    all, whatever happens and however many processes ask at once. Raises DataError where it cannot be written.
    """
    folder = Path(folder).absolute() if folder is not None else default_folder()
    stamp = f"{_VERSION} {train} {valid}\n"
    data = DataFile(
        path=folder / "shapes.data",
        classes=len(NAMES),
        train=folder / "train.txt",
        valid=folder / "valid.txt",
        names=folder / "shapes.names",
        eval="coco",
    )
    try:
        if not _complete(folder, stamp):
            _generate(folder, stamp, {"train": train, "valid": valid}, progress)
        _write_lists(folder, {"train": train, "valid": valid})
    except OSError as error:
        raise DataError(f"{folder}: cannot write the built-in data: {error.strerror or error}") from None
    return data


def default_folder() -> Path:
    """data/shapes of the checkout this file lies in, else a folder in the user's cache."""
    checkout = Path(__file__).resolve().parents[2] / "data"
    if (checkout / "shapes.data").is_file() and os.access(checkout, os.W_OK):
        return checkout / "shapes"
    return cache_folder() / "shapes"


def cache_folder() -> Path:
    """Where data that can be made again is kept: in the user's cache, else among temporary files."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    if not os.access(cache, os.W_OK):
        cache = Path(tempfile.gettempdir())
    return cache / "darknet_py"


def draw_picture(split: str, number: int) -> Picture:
    """Picture `number` of the split "train" or "valid": a pure function."""
    dice = _Dice(2020, ("train", "valid").index(split), number)
    width, height = dice.pick(_SIZES)
    canvas = _background(dice, width, height)
    owner = np.full((height, width), -1)  # which object a pixel shows
    areas: list[int] = []
    rows: list[tuple[float, ...]] = []
    wanted = 0 if dice.number() < _NEGATIVES else 1 + dice.below(6)
    hard = dice.number() < 0.15  # low contrast and more in the way
    for _ in range(wanted):
        kind, stroke = _object(dice, canvas, hard)
        solid = stroke.cover >= 0.5
        window = owner[stroke.top : stroke.top + solid.shape[0], stroke.left : stroke.left + solid.shape[1]]
        if not solid.any() or _hides(window, solid, owner, areas):
            continue
        _blend(canvas, stroke)
        window[solid] = len(areas)
        areas.append(int(np.count_nonzero(solid)))
        rows.append((kind, *_box(stroke, solid, width, height)))
    for _ in range(dice.below(4) if hard else dice.below(2)):
        bar = _bar(dice, width, height)
        if not _hides(owner, bar.cover >= 0.5, owner, areas):
            _blend(canvas, bar)
            owner[bar.cover >= 0.5] = -1
    canvas += dice.grain(canvas.shape)
    return Picture(np.clip(canvas, 0, 255, out=canvas).astype(np.uint8), rows)


class _Dice:
    """Random numbers from raw bits, which numpy promises never to change."""

    def __init__(self, *key: int):
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def numbers(self, *shape: int) -> Field:
        """Uniform in 0..1, 1 excluded."""
        raw = np.asarray(self._bits.random_raw(math.prod(shape)))
        return ((raw >> np.uint64(40)) * 2.0**-24).astype(np.float32).reshape(shape)

    def grain(self, shape: tuple[int, ...]) -> Field:
        """Uniform noise of -8 to 8, eight values from one draw."""
        count = math.prod(shape)
        raw = np.asarray(self._bits.random_raw(-(-count // 8))).astype("<u8").view(np.uint8)
        return (raw[:count].astype(np.float32) * np.float32(1 / 16) - np.float32(8)).reshape(shape)

    def number(self, low: float = 0, high: float = 1) -> float:
        return low + float(self.numbers(1)[0]) * (high - low)

    def below(self, count: int) -> int:
        return int(self.number() * count)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]


def _background(dice: _Dice, width: int, height: int) -> Field:
    """A muted colour that changes slowly, with lightness noise on two finer scales and sometimes stripes."""
    canvas = resize(dice.numbers(4, 4, 3) * 30 + dice.numbers(3) * 30 + dice.number(40, 170), width, height)
    light = resize(dice.numbers(9, 9, 1) * 60 - 30, width, height)
    light += resize(dice.numbers(32, 32, 1) * 32 - 16, width, height)
    if dice.number() < 0.3:
        period, across, down = 8 + dice.below(24), dice.below(3), 1 + dice.below(2)
        place = (np.arange(width) * across + np.arange(height)[:, None] * down) % period
        light += np.where(place < period // 2, np.float32(dice.number(-18, 18)), np.float32(0))[:, :, None]
    canvas += light
    return canvas


def _object(dice: _Dice, canvas: Field, hard: bool) -> tuple[int, _Stroke]:
    """One shape: mostly of middling size, some tiny, some up to half of the image."""
    height, width = canvas.shape[:2]
    kind = dice.below(len(NAMES))
    size = dice.number()
    if size < 0.1:
        radius = dice.number(5, 12)
    elif size < 0.85:
        radius = dice.number(18, 52)
    else:
        radius = dice.number(52, 76)
    margin = radius * 0.6  # up to a fifth of it may lie outside
    x, y = dice.number(margin, width - margin), dice.number(margin, height - margin)
    turn = dice.number(-1, 1) * (0.25 if NAMES[kind] in ("square", "cross") else 1)
    stretch = dice.number(0.85, 1.18)
    reach = int(radius * 1.5) + 2
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    rows = np.arange(top, min(int(y) + reach, height), dtype=np.float32)[:, None]
    columns = np.arange(left, min(int(x) + reach, width), dtype=np.float32)
    cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    dx, dy = (columns + 0.5 - x) / radius, (rows + 0.5 - y) / radius
    u, v = (dx * cos + dy * sin) / stretch, (dy * cos - dx * sin) * stretch
    distance = _DISTANCE[NAMES[kind]](u, v) * radius
    local = canvas[int(y), int(x)]
    own = not hard and dice.number() < _OWN_COLOUR
    colour = np.array(_COLOURS[kind], np.float32) + (dice.numbers(3) * 40 - 20) if own else dice.numbers(3) * 255
    fill = _contrast(dice, local, colour, 28 if hard else 40)
    paint = np.broadcast_to(fill, (*u.shape, 3)).copy()
    look = dice.below(4)
    if look == 1:
        paint += (v * 22)[:, :, None]
    elif look == 2:
        paint += ((np.floor(u * 3) % 2) * 26 - 13)[:, :, None]
    elif look == 3:
        paint = np.where((distance > -max(radius * 0.12, 1.2))[:, :, None], fill * np.float32(0.55), paint)
    return kind, _Stroke(top, left, np.clip(0.5 - distance, 0, 1), paint)


def _bar(dice: _Dice, width: int, height: int) -> _Stroke:
    """A thin line across the picture: something in front that is no object."""
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    turn = dice.number(-1, 1)
    cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    x, y = dice.number(0, width), dice.number(0, height)
    distance = abs((columns - x) * sin + (rows - y) * cos) - dice.number(1, 4)
    return _Stroke(0, 0, np.clip(0.5 - distance, 0, 1), np.broadcast_to(dice.numbers(3) * 200, (height, width, 3)))


def _contrast(dice: _Dice, local: Field, colour: Field, least: float) -> Field:
    """`colour`, lighter or darker where its lightness is not `least` away from the background's."""
    level = float(local[0]) * 0.3 + float(local[1]) * 0.6 + float(local[2]) * 0.1
    own = float(colour[0]) * 0.3 + float(colour[1]) * 0.6 + float(colour[2]) * 0.1
    gap = least + dice.number() * 30
    if abs(own - level) >= gap:
        return np.clip(colour, 0, 255)
    goal = level - gap if (own < level and level - gap > 10) or level + gap > 245 else level + gap
    return np.clip(colour + (goal - own), 0, 255)


def _hides(window: NDArray[np.int_], solid: NDArray[np.bool_], owner: NDArray[np.int_], areas: list[int]) -> bool:
    """Whether drawing over `solid` would leave too little of an object that is there already."""
    for number in set(window[solid].tolist()) - {-1}:
        lost = np.count_nonzero(window[solid] == number)
        if np.count_nonzero(owner == number) - lost < areas[number] * _LEAST_VISIBLE:
            return True
    return False


def _blend(canvas: Field, stroke: _Stroke) -> None:
    part = canvas[stroke.top : stroke.top + stroke.cover.shape[0], stroke.left : stroke.left + stroke.cover.shape[1]]
    touched = stroke.cover > 0
    part[touched] += (stroke.paint[touched] - part[touched]) * stroke.cover[touched][:, None]


def _box(stroke: _Stroke, solid: NDArray[np.bool_], width: int, height: int) -> tuple[float, ...]:
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    top, bottom = stroke.top + int(rows[0]), stroke.top + int(rows[-1]) + 1
    left, right = stroke.left + int(columns[0]), stroke.left + int(columns[-1]) + 1
    return (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height


def _circle(u: Field, v: Field) -> Field:
    return np.sqrt(u * u + v * v) - 0.95


def _ring(u: Field, v: Field) -> Field:
    return abs(np.sqrt(u * u + v * v) - 0.76) - 0.2


def _square(u: Field, v: Field) -> Field:
    return np.maximum(abs(u), abs(v)) - 0.8


def _triangle(u: Field, v: Field) -> Field:
    return np.maximum(v, abs(u) * 0.8660254037844386 - v * 0.5) - 0.5


def _cross(u: Field, v: Field) -> Field:
    across = np.maximum(abs(u) - 0.95, abs(v) - 0.3)
    return np.minimum(across, np.maximum(abs(u) - 0.3, abs(v) - 0.95))


def _star(u: Field, v: Field) -> Field:
    """Five points: inside at least four of the five half planes whose borders make a pentagram."""
    first = second = np.full_like(u, -np.inf)
    for x, y in _PENTAGON:
        side = u * x + v * y
        second = np.maximum(second, np.minimum(first, side))
        first = np.maximum(first, side)
    return second - 0.36


_PENTAGON = (
    (0.0, 1.0),
    (0.9510565162951535, 0.30901699437494745),
    (-0.9510565162951535, 0.30901699437494745),
    (0.5877852522924731, -0.8090169943749475),
    (-0.5877852522924731, -0.8090169943749475),
)
_DISTANCE: dict[str, Callable[[Field, Field], Field]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}


def _generate(folder: Path, stamp: str, counts: dict[str, int], progress: Callable[[int, int], None] | None) -> None:
    """Draws everything beside `folder` and moves it there in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        done, total = 0, sum(counts.values())
        for split, count in counts.items():
            (work / split).mkdir()
            for number in range(count):
                image, rows = draw_picture(split, number)
                _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
                (work / split / f"{number:05}.jpg").write_bytes(data.tobytes())
                save_labels(work / split / f"{number:05}.txt", rows)
                done += 1
                if progress:
                    progress(done, total)
        write_list(work / "shapes.names", NAMES)
        (work / "complete").write_text(stamp)
        work.chmod(0o755)  # mkdtemp's folders are private
        for _ in range(3):
            with suppress(OSError):  # another process may be moving its own copy there
                if folder.exists() and not _complete(folder, stamp):
                    folder.rename(work.with_suffix(".old"))
                    shutil.rmtree(work.with_suffix(".old"), ignore_errors=True)
                work.rename(folder)
            if _complete(folder, stamp):
                return
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_lists(folder: Path, counts: dict[str, int]) -> None:
    """The lists name absolute paths, for any tool in any folder; they are made anew when the set has moved."""
    for split, count in counts.items():
        path = folder / f"{split}.txt"
        lines = [str(folder / split / f"{number:05}.jpg") for number in range(count)]
        if path.is_file() and path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() == lines:
            continue
        write_list(path, lines)
    if not (folder / "shapes.data").is_file():
        lines = [f"{key} = {folder / name}" for key, name in (("train", "train.txt"), ("valid", "valid.txt"))]
        lines = [f"classes = {len(NAMES)}", *lines, f"names = {folder / 'shapes.names'}", "eval = coco"]
        write_list(folder / "shapes.data", lines)


def _complete(folder: Path, stamp: str) -> bool:
    with suppress(OSError):
        return (folder / "complete").read_text() == stamp
    return False


def _is_ours(path: Path) -> bool:
    """Whether a shapes.data lists the built-in set (and not somebody's own)."""
    with suppress(OSError):
        return "data/shapes/train.txt" in path.read_text(encoding="utf-8", errors="replace")
    return False
