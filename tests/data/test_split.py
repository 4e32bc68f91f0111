"""Holding images out: duplicates on one side, each class in both parts, by content and seed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.data.split import hold_out
from darknet_py.errors import DataError


def photo(path: Path, seed: int, quality: int = 95) -> str:
    """An image of random blocks, so that no two look alike."""
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(blocks, (64, 48), interpolation=cv2.INTER_NEAREST), [1, quality])
    return str(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    return [photo(folder / f"{number}.jpg", number) for number in range(60)]


def test_each_class_has_its_share_in_both_parts(photos: list[str]) -> None:
    # 40 images of class 0, 10 of class 1 (half of them with class 0 too), 10 without objects, 5 of class 2
    classes = [[0]] * 35 + [[0, 1, 1]] * 5 + [[1]] * 5 + [[2]] * 5 + [[]] * 10
    parts = hold_out(photos, classes, 0.2)
    held = [classes[photos.index(path)] for path in parts.valid]
    assert sorted(parts.train + parts.valid) == sorted(photos) and parts.duplicates == 0
    assert [sum(number in found for found in held) for number in (0, 1, 2)] == [8, 2, 1]
    assert held.count([]) == 2


def test_the_parts_follow_from_content_and_seed(photos: list[str], tmp_path: Path) -> None:
    classes = [[number % 3] for number in range(60)]
    parts = hold_out(photos, classes, 0.1)
    assert hold_out(photos[::-1], classes[::-1], 0.1).valid == parts.valid[::-1]
    assert hold_out(photos, classes, 0.1, seed=1).valid != parts.valid
    renamed = []
    for number, path in enumerate(photos):
        renamed.append(str(tmp_path / f"x{60 - number}.jpg"))
        Path(renamed[-1]).write_bytes(Path(path).read_bytes())
    assert [renamed.index(path) for path in hold_out(renamed, classes, 0.1).valid] == [
        photos.index(path) for path in parts.valid
    ]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_duplicates_stay_on_one_side(share: float, seed: int, photos: list[str], tmp_path: Path) -> None:
    copies = []
    for number in range(20):  # the same file, and the same image compressed again
        copies.append(str(tmp_path / f"copy{number}.jpg"))
        Path(copies[-1]).write_bytes(Path(photos[number]).read_bytes())
        copies.append(photo(tmp_path / f"again{number}.jpg", number, quality=60))
    paths = [*photos[:30], *copies]
    parts = hold_out(paths, [[0]] * len(paths), share, seed)
    assert parts.duplicates == 40 and parts.train and parts.valid
    for number in range(20):
        same = {photos[number], *copies[2 * number : 2 * number + 2]}
        assert same <= set(parts.train) or same <= set(parts.valid)


def test_neither_part_is_empty(photos: list[str]) -> None:
    for share in (0.001, 0.999):
        parts = hold_out(photos[:3], [[0], [1], [2]], share)
        assert len(parts.train) + len(parts.valid) == 3 and parts.train and parts.valid


def test_one_image_cannot_be_split(photos: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(Path(photos[0]).read_bytes())
    with pytest.raises(DataError, match="expected at least 2 different images to hold some out, got 1 in a list of 2"):
        hold_out([photos[0], str(copy)], [[0], [0]], 0.1)


def test_unreadable_images_are_no_duplicates(photos: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = [*photos[:10], str(tmp_path / "broken.jpg"), str(tmp_path / "missing.jpg")]
    calls: list[int] = []
    parts = hold_out(paths, [[0]] * 12, 0.25, progress=calls.append)
    assert len(parts.valid) == 3 and parts.duplicates == 0 and sum(calls) == 12
