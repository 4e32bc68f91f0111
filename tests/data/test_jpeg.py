"""JPEGs read as stb_image reads them, against its own pixels (tests/golden/jpeg.npz, by tools/golden/jpeg.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_py.data.images import load_image
from darknet_py.data.jpeg import read_stb
from darknet_py.errors import DataError, MissingExtra

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "jpeg.npz")
FILES = [name for name in GOLDEN.files if not name.endswith(("_1", "_3"))]
SIZED = GOLDEN["40x33_420"].tobytes(), GOLDEN["17x9_420_progressive"].tobytes()


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_stb_images(name: str) -> None:
    for channels in (1, 3):
        pixels = read_stb(GOLDEN[name].tobytes(), channels)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, GOLDEN[f"{name}_{channels}"])


def test_opencv_reads_nearly_the_same() -> None:
    ours = read_stb(SIZED[0]).astype(int)
    theirs = cv2.imdecode(GOLDEN["40x33_420"], cv2.IMREAD_COLOR)[:, :, ::-1]
    assert 0 < abs(ours - theirs).max() <= 3


def test_only_jpegs_are_read_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(SIZED[0])
    np.testing.assert_array_equal(load_image(path, stb=True), GOLDEN["40x33_420_3"])
    assert (load_image(path) != GOLDEN["40x33_420_3"]).any()
    cv2.imwrite(str(path.with_suffix(".png")), GOLDEN["40x33_420_3"])
    np.testing.assert_array_equal(load_image(path.with_suffix(".png"), stb=True)[:, :, ::-1], GOLDEN["40x33_420_3"])


def changed(data: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    for old, new in changes:
        assert data.count(old) == 1 and len(old) == len(new)
        data = data.replace(old, new)
    return data


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xd8\xff\xd9", "corrupt"),
        (SIZED[0][:-100] + b"\xff\xd9", "it is damaged"),
        (b"\x89PNG", "it has no start marker"),
        (SIZED[0][:30], "corrupt"),
        (changed(SIZED[0], (b"\xff\xc0", b"\xff\xc9")), "corrupt"),  # arithmetic coding
        (changed(SIZED[0], (b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")), "corrupt"),  # 12 bits
        (changed(SIZED[0], (b"\xff\xc0\0\x11\x08\0\x21\0\x28", b"\xff\xc0\0\x11\x08\x7d\0\x7d\0")), "too large"),
    ],
)
def test_unreadable_files_are_reported(data: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=rf"photo.jpg: cannot read this JPEG: .*{problem}"):
        read_stb(data, name="photo.jpg")
    with pytest.raises(DataError, match=r"expected 1 or 3 channels for a JPEG, got 4"):
        read_stb(SIZED[0], 4)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(SIZED), st.lists(st.tuples(st.integers(2, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_end_in_one_kind_of_error(data: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    size = (data.find(b"\xff\xc0") if b"\xff\xc0" in data else data.index(b"\xff\xc2")) + 5
    for place, value in changes:
        if place % len(data) not in range(size, size + 4):  # a larger one takes long, and may be right
            damaged[max(place % len(data), 2)] = value
    try:
        assert read_stb(bytes(damaged)).shape[2] == 3
    except DataError as error:
        assert "cannot read this JPEG" in str(error)


def test_without_libstb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libstb", None)
    with pytest.raises(MissingExtra, match=r"\(--stb\) needs the package 'libstb'.*\[stb\]"):
        read_stb(SIZED[0])
