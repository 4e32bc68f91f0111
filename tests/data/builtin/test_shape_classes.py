"""The built-in classification data: same pixels on every machine, a folder per class, random colors."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from darknet_py.data import open_classification
from darknet_py.data.builtin import shape_classes
from darknet_py.data.datafile import DataFile
from darknet_py.data.images import load_image
from darknet_py.data.open_classification import open_classifier_data
from darknet_py.errors import DataError

HASH = "63834a79bae0d0bbbb6d8762770086163ede90076ffa43c1833425f1cbf602bd"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DataFile:
    folder = tmp_path_factory.mktemp("data") / "star" / "shape-classes"  # a class's name on the way must not matter
    return shape_classes.ensure_shape_classes(folder, train=24, valid=12)


def test_pixels_are_the_same_everywhere() -> None:
    pixels = b"".join(shape_classes.draw_example("train", number)[1].tobytes() for number in range(12))
    assert hashlib.sha256(pixels).hexdigest() == HASH
    assert not np.array_equal(shape_classes.draw_example("valid", 0)[1], shape_classes.draw_example("train", 0)[1])


def test_color_is_independent_of_the_class() -> None:
    """Classification by the mean color of the center is hardly better than chance."""
    found = [shape_classes.draw_example("train", number) for number in range(480)]
    kinds = np.array([kind for kind, _ in found])
    colors = np.array([np.median(image[12:20, 12:20], (0, 1)) for _, image in found])
    means = np.array([colors[:240][kinds[:240] == kind].mean(0) for kind in range(6)])
    guesses = ((colors[240:, None] - means) ** 2).sum(2).argmin(1)
    assert (guesses == kinds[240:]).mean() < 0.3  # chance is 1/6


def test_folder_per_class_and_darknet_lists(made: DataFile) -> None:
    builtin = shape_classes.ensure_shape_classes(made.path, train=24, valid=12)
    folder = open_classifier_data(made.path)
    assert folder.names == shape_classes.NAMES and folder.separate
    assert len(folder.train) == 24 and len(folder.valid) == 12
    assert sorted(folder.train.paths) == sorted(builtin.train_images())
    assert [folder.train.classes_in_path(folder.train.paths[number]) for number in range(24)] == [
        [number // 4] for number in range(24)
    ]
    assert builtin.labels is not None and builtin.labels.read_text().splitlines()[0] == "/circle/"
    for number, path in enumerate(builtin.valid_images()):
        kind, image = shape_classes.draw_example("valid", number)
        assert np.array_equal(load_image(path), image)  # PNG
        assert Path(path).parent.name == shape_classes.NAMES[kind]


def test_created_once_and_lists_follow_a_move(made: DataFile, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "set")
    moved = shape_classes.ensure_shape_classes(tmp_path / "set", train=24, valid=12)
    first = Path(moved.train_images()[0])
    assert first.is_relative_to(tmp_path) and first.read_bytes() == Path(made.train_images()[0]).read_bytes()
    first.unlink()
    assert not Path(shape_classes.ensure_shape_classes(tmp_path / "set", train=24, valid=12).train_images()[0]).exists()
    other = shape_classes.ensure_shape_classes(tmp_path / "set", train=30, valid=12)  # another version: created again
    assert all(Path(path).is_file() for path in other.train_images()) and len(other.train_images()) == 30
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/set: cannot write the built-in data"):
        shape_classes.ensure_shape_classes(tmp_path / "file" / "set")


def test_open_builtin_data(made: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(open_classification, "ensure_shape_classes", lambda *folder: asked.append(folder) or made)
    data = open_classifier_data(None, limit=6)
    assert asked == [()] and data.names == shape_classes.NAMES
    assert [data.train.classes_in_path(data.train.paths[number]) for number in range(6)] == [
        [number] for number in range(6)
    ]  # one of each
    copy = tmp_path / "data" / "shape-classes.data"
    copy.parent.mkdir()
    shutil.copy(Path(__file__).parents[3] / "data" / "shape-classes.data", copy)
    assert len(open_classifier_data(copy).valid) == 12 and asked[1] == (tmp_path / "data" / "shape-classes",)
    own = tmp_path / "shape-classes.data"
    own.write_text(f"classes = 6\ntrain = {made.train}\nlabels = {made.labels}\n")
    assert open_classifier_data(own).names[0] == "/circle/" and len(asked) == 2
