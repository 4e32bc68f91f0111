"""Folders of images with label files, as tools pack them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.cli import main
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.open_dataset import detect_format, open_dataset
from darknet_py.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def add(folder: Path, stem: str, rows: str, labels: Path | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (labels or folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{stem}.jpg"), np.zeros((20, 20, 3), np.uint8))
    ((labels or folder) / f"{stem}.txt").write_text(rows)


ROW = "1 0.5 0.5 0.2 0.2\n"


def test_labelimg(tmp_path: Path) -> None:
    add(tmp_path / "set", "a", ROW)
    add(tmp_path / "set", "b", "")
    (tmp_path / "set" / "classes.txt").write_text("dog\ncat\n")
    (tmp_path / "set" / "environment.yml").write_text("name: darknet\ndependencies:\n- python\n")
    assert detect_format(tmp_path / "set") == "folder"
    data = open_dataset(tmp_path / "set")
    assert data.class_names() == ["dog", "cat"] and len(data.train_images()) == 2
    assert len(load_labels(find_labels(data.train_images()[0])).boxes) == 1


@pytest.mark.parametrize("layout", ["{split}", "{split}/images", "images/{split}"])
def test_splits(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "set"
    for split in ("train", "valid", "test"):
        images = root / layout.format(split=split)
        labels = root / layout.format(split=split).replace("images", "labels")
        for stem in {"train": "abc", "valid": "de", "test": "f"}[split]:
            add(images, stem, ROW, labels)
    (root / "train").mkdir(exist_ok=True)
    (root / "train" / "_darknet.labels").write_text("dog\ncat\n")
    data = open_dataset(root)
    assert (len(data.train_images()), len(data.valid_images())) == (3, 2)
    assert data.class_names() == ["dog", "cat"]
    boxes = [load_labels(find_labels(image), 2) for image in data.train_images() + data.valid_images()]
    assert all(len(labels.boxes) == 1 and not labels.problems for labels in boxes)


def test_without_names(tmp_path: Path) -> None:
    add(tmp_path / "set", "a", ROW)
    assert open_dataset(tmp_path / "set").class_names() == ["0", "1"]
    (tmp_path / "set" / "a.txt").unlink()
    with pytest.raises(DataError, match="or images with label files, got none"):
        open_dataset(tmp_path / "set")


def test_a_folder_with_a_data_file(tmp_path: Path) -> None:
    add(tmp_path / "set" / "obj_train_data", "a", ROW)
    (tmp_path / "set" / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data\\obj.names\n")
    (tmp_path / "set" / "train.txt").write_text("data\\obj_train_data\\a.jpg\n")
    (tmp_path / "set" / "obj.names").write_text("dog\ncat\n")
    data = open_dataset(tmp_path / "set")
    assert data.train_images() == [str(tmp_path / "set" / "obj_train_data" / "a.jpg")]
    assert data.class_names() == ["dog", "cat"]


def test_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(tmp_path / "set", "a", ROW)
    assert main(["data", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "coco"]) == 0
    assert "1 image with 1 box, from folder to coco" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/annotations/instances_train.json").read_text())["annotations"][0]["bbox"]


def test_roboflow(reference: Path, tmp_path: Path) -> None:
    data = open_dataset(reference / "bugs/formats/rf")
    assert (len(data.train_images()), len(data.valid_images())) == (6, 6)
    assert data.class_names() == ["red", "blue"] and len((data.path.parent / "test.txt").read_text().splitlines()) == 6
