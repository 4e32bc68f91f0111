"""Pascal VOC and COCO → Darknet, and back."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.data.labels import check_labels, find_labels, label_path, load_labels
from darknet_py.data.readers.coco import coco_to_darknet, darknet_to_coco
from darknet_py.data.readers.voc import voc_to_darknet
from darknet_py.errors import DataError

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def picture(path: Path, width: int = 100, height: int = 50) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


def annotate(root: Path, stem: str, *objects: str, size: str = "100 50") -> None:
    width, height = size.split()
    text = f"<annotation><size><width>{width}</width><height>{height}</height></size>{''.join(objects)}</annotation>"
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "Annotations" / f"{stem}.xml").write_text(text)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC 2007"
    for stem in ("a", "b.c", "d"):
        picture(root / "JPEGImages" / f"{stem}.png")
    annotate(root, "a", OBJECT.format("dog", 0, 10, 5, 30, 25), OBJECT.format("cat", 1, 0, 0, 100, 50), size="0 0")
    annotate(root, "b.c", OBJECT.format("cat", 0, 90, 40, 120, 60))
    annotate(root, "d")
    main = root / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "trainval.txt").write_text("a\nb.c\n")
    (main / "test.txt").write_text("d\n")
    (main / "dog_train.txt").write_text("a 1\nb.c -1\n")
    return root


def test_voc(voc: Path, tmp_path: Path) -> None:
    data, images, boxes, problems = voc_to_darknet(voc, tmp_path / "out")
    assert (images, boxes, problems) == (3, 2, [])
    assert data.class_names() == ["cat", "dog"] and data.classes == 2 and data.eval == "voc"
    train, valid = data.train_images(), data.valid_images()
    assert [Path(path).name for path in train + valid] == ["a.png", "b.c.png", "d.png"]
    assert all(Path(path).is_file() and Path(label_path(path)).is_file() for path in train + valid)
    check_labels(train + valid, 2)
    a, b, d = (load_labels(find_labels(path)).boxes[:, :5] for path in train + valid)
    np.testing.assert_allclose(a, [[1, 0.2, 0.3, 0.2, 0.4]])
    np.testing.assert_allclose(b, [[0, 0.95, 0.9, 0.1, 0.2]])  # clipped
    assert len(d) == 0
    again = voc_to_darknet(voc, tmp_path / "out", ["dog", "cat"], difficult=True)
    assert again.boxes == 3 and load_labels(find_labels(train[0])).boxes[0, 0] == 0


def test_voc_says_what_it_left_out(voc: Path, tmp_path: Path) -> None:
    (voc / "JPEGImages" / "d.png").unlink()
    annotate(voc, "a", OBJECT.format("bird", 0, 1, 1, 5, 5), OBJECT.format("dog", 0, 7, 7, 7, 9))
    problems = voc_to_darknet(voc, tmp_path / "out", ["dog", "cat"]).problems
    assert len(problems) == 3
    assert problems[0].endswith("d: no image of this name")
    assert "a.xml: expected one of the classes dog, cat, got 'bird'" in problems[1]
    assert "a.xml: expected a box inside the image, got (7.0, 7.0, 7.0, 9.0)" in problems[2]


def test_voc_errors(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a VOC folder, got no Annotations"):
        voc_to_darknet(tmp_path, tmp_path / "out")
    annotate(voc, "a", OBJECT.format("dog", 0, "x", 5, 30, 25))
    with pytest.raises(DataError, match=r"a.xml: <object>: bndbox/xmin: expected a number, got 'x'"):
        voc_to_darknet(voc, tmp_path / "out")
    (voc / "Annotations" / "a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"a.xml: expected a VOC annotation, got no XML"):
        voc_to_darknet(voc, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    annotate(voc, "a")
    picture(tmp_path / "out" / "JPEGImages" / "other.png")
    with pytest.raises(DataError, match="already exists and is not"):
        voc_to_darknet(voc, tmp_path / "out")


@pytest.mark.reference
def test_bccd(reference: Path, tmp_path: Path) -> None:
    data, images, boxes, problems = voc_to_darknet(reference / "bccd", tmp_path, ["RBC", "WBC", "Platelets"])
    assert (images, boxes, len(problems)) == (364, 4886, 2)  # two boxes have no extent
    assert len(data.train_images()) == 292 and len(data.valid_images()) == 72
    check_labels(data.train_images(), 3)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for name in ("7.png", "sub/9.png"):
        picture(tmp_path / "photos" / name)
    content = {
        "images": [
            {"id": 7, "file_name": "7.png", "width": 100, "height": 50},
            {"id": 9, "file_name": "sub/9.png"},
            {"id": 3, "file_name": "gone.png", "width": 9, "height": 9},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 20]},
            {"id": 2, "image_id": 9, "category_id": 2, "bbox": [0, 0, 100, 50], "iscrowd": 0},
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [0, 0, 100, 50], "iscrowd": 1},
            {"id": 4, "image_id": 3, "category_id": 2, "bbox": [0, 0, 5, 5]},
            {"id": 5, "image_id": 8, "category_id": 2, "bbox": [0, 0, 5, 5]},
            {"id": 6, "image_id": 7, "category_id": 4, "bbox": [0, 0, 5, 5]},
            {"id": 7, "image_id": 7, "category_id": 2, "bbox": [200, 0, 5, 5]},
            {"id": 8, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3]},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 2, "name": "bicycle"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco(coco: Path, tmp_path: Path) -> None:
    splits = {"train2017": (coco, tmp_path / "photos")}
    data, images, boxes, problems = coco_to_darknet(splits, tmp_path / "out")
    assert (images, boxes) == (2, 2) and data.class_names() == ["bicycle", "toothbrush"]
    train = data.train_images()
    assert all(Path(path).is_file() and Path(label_path(path)).is_file() for path in train)
    np.testing.assert_allclose(load_labels(find_labels(train[0])).boxes[:, :5], [[1, 0.2, 0.3, 0.2, 0.4]])
    np.testing.assert_allclose(load_labels(find_labels(train[1])).boxes[:, :5], [[0, 0.5, 0.5, 1, 1]])
    assert [line.split("instances.json: ")[1].split(" not found")[0] for line in problems] == [
        f"image 3: {tmp_path / 'photos' / 'gone.png'}",
        "annotation 5: unknown image 8",
        "annotation 6: category 4 is not one of the classes",
        "annotation 7: expected a box inside the image, got [200, 0, 5, 5]",
        "annotation 8: expected a box inside the image, got [1, 2, 3]",
    ]
    assert coco_to_darknet(splits, tmp_path / "out", crowd=True).boxes == 3


def test_there_and_back(coco: Path, tmp_path: Path) -> None:
    data = coco_to_darknet({"train": (coco, tmp_path / "photos")}, tmp_path / "out").data
    content = darknet_to_coco(data.train_images(), data.class_names(), tmp_path / "back.json", category_ids=[2, 90])
    assert content == json.loads((tmp_path / "back.json").read_text())
    assert [image["id"] for image in content["images"]] == [7, 9]
    first = content["annotations"][0]
    assert (first["image_id"], first["category_id"], first["bbox"]) == (7, 90, [10, 5, 20, 20])
    with pytest.raises(DataError, match="expected 2 category ids, one per class, got 1"):
        darknet_to_coco(data.train_images(), data.class_names(), category_ids=[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected COCO JSON, got: "),
        ("[]", "expected COCO JSON with a list 'images', got none"),
        ('{"images": [{"id": 1}]}', r"images\[0\]: expected file_name, got"),
    ],
)
def test_coco_errors(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError, match=f"x.json: {message}"):
        coco_to_darknet({"train": (path, tmp_path)}, tmp_path / "out")
    with pytest.raises(DataError, match=r"none.json: cannot read: No such file"):
        coco_to_darknet({"train": (tmp_path / "none.json", tmp_path)}, tmp_path / "out")
