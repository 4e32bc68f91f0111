"""CSV files with a box a line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.open_dataset import detect_format, open_dataset
from darknet_py.errors import DataError

HEAD = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The layout of the tutorials: images/train, images/test, train_labels.csv, test_labels.csv."""
    for split in ("train", "test"):
        (tmp_path / "set" / "images" / split).mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            cv2.imwrite(str(tmp_path / "set" / "images" / split / name), np.zeros((50, 100, 3), np.uint8))
    (tmp_path / "set" / "train_labels.csv").write_text(
        HEAD + "a.jpg,100,50,dog,10,10,30,20\na.jpg,100,50,cat,0,0,100,50\nb.jpg,100,50,dog,50,0,60,50\n"
    )
    (tmp_path / "set" / "test_labels.csv").write_text(HEAD + "b.jpg,100,50,cat,20,0,40,25\n")
    return tmp_path / "set"


def boxes(image: str) -> list[list[float]]:
    return [[round(value, 4) for value in row[:5]] for row in load_labels(find_labels(image)).boxes.tolist()]


def test_folder_and_file(folder: Path) -> None:
    assert detect_format(folder) == detect_format(folder / "train_labels.csv") == "csv"
    for path in (folder, folder / "train_labels.csv"):
        data = open_dataset(path)
        train, valid = data.train_images(), data.valid_images()
        assert data.class_names() == ["cat", "dog"] and [Path(image).name for image in valid] == ["b.jpg"]
        assert [boxes(image) for image in train] == [
            [[1, 0.2, 0.3, 0.2, 0.2], [0, 0.5, 0.5, 1, 1]],
            [[1, 0.55, 0.5, 0.1, 1]],
        ]
        assert boxes(valid[0]) == [[0, 0.3, 0.25, 0.2, 0.5]]


def test_what_cannot_be_used(folder: Path) -> None:
    (folder / "test_labels.csv").unlink()
    (folder / "train_labels.csv").write_text(
        HEAD + "a.jpg,100,50,dog,10,10,30,20\ngone.jpg,1,1,dog,1,1,2,2\n../../x.jpg,1,1,dog,1,1,2,2\n"
        "b.jpg,200,100,dog,20,20,60,40\nb.jpg,200,100,dog,x,1,2,2\n"
    )
    with pytest.warns() as caught:
        data = open_dataset(folder)
    text = "\n".join(str(warning.message) for warning in caught)
    assert "gone.jpg not found (and 2 more" in text
    assert "wrong size: " in text and "100 x 50, got 200 x 100" in text
    assert boxes(data.train_images()[1]) == [[0, 0.2, 0.3, 0.2, 0.2]]
    problems = (data.path.parent / "problems.txt").read_text()
    assert "'../../x.jpg' leads out of the image folder" in problems and "['x', '1', '2', '2']" in problems


def test_other_columns(folder: Path) -> None:
    file = folder / "train_labels.csv"
    file.write_text("xmin;ymin;xmax;ymax;class;filename\n10;10;30;20;dog;a.jpg\n")
    assert boxes(open_dataset(file).train_images()[0])[0] == [1, 0.2, 0.3, 0.2, 0.2]  # the class `cat` is in the test
    for text, message in (
        ("a,b\n1,2\n", ":1: expected the columns filename, class, xmin, ymin, xmax, ymax, got 'a,b'"),
        (HEAD, "expected a box a line, got none"),
        (HEAD + "a.jpg,1\n", ":2: expected 8 values, got 2"),
        ("", ":1: expected the columns"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            open_dataset(file)


def test_keras_retinanet(folder: Path) -> None:
    cv2.imwrite(str(folder / "empty.jpg"), np.zeros((50, 100, 3), np.uint8))
    (folder / "train_labels.csv").unlink()
    (folder / "test_labels.csv").unlink()
    file = folder / "annotations.csv"
    file.write_text(
        "images/train/a.jpg,10,10,30,20,dog\nimages/train/a.jpg,0,0,100,50,cat\nempty.jpg,,,,,\n"
        "images/train/b.jpg,50,0,60,50,dog\n"
    )
    assert detect_format(folder) == "csv"
    data = open_dataset(folder)
    assert data.class_names() == ["cat", "dog"]
    assert [boxes(image) for image in data.train_images()] == [
        [[1, 0.2, 0.3, 0.2, 0.2], [0, 0.5, 0.5, 1, 1]],
        [],
        [[1, 0.55, 0.5, 0.1, 1]],
    ]
    file.write_text("image_path,label,x1,y1,x2,y2\nimages/train/a.jpg,dog,10,10,30,20\n")
    assert boxes(open_dataset(file).train_images()[0]) == [[0, 0.2, 0.3, 0.2, 0.2]]
