"""Pascal VOC and COCO → Darknet, and back."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.data.images import load_image
from darknet_py.data.labels import check_labels, find_labels, label_path, load_labels
from darknet_py.data.readers.coco import coco_to_darknet, darknet_to_coco
from darknet_py.data.readers.coco_files import coco_files
from darknet_py.data.readers.darknet_layout import write_labels
from darknet_py.data.readers.ultralytics import yolo_to_darknet
from darknet_py.data.readers.voc import voc_to_darknet
from darknet_py.data.yamlfile import read_yaml
from darknet_py.errors import DataError

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def write_image(path: Path, width: int = 100, height: int = 50) -> None:
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
        write_image(root / "JPEGImages" / f"{stem}.png")
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
        voc_to_darknet(voc / "ImageSets", tmp_path / "out")
    annotate(voc, "a", OBJECT.format("dog", 0, "x", 5, 30, 25))
    with pytest.raises(DataError, match=r"a.xml: <object>: bndbox/xmin: expected a number, got 'x'"):
        voc_to_darknet(voc, tmp_path / "out")
    (voc / "Annotations" / "a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"a.xml: expected a VOC annotation, got no XML"):
        voc_to_darknet(voc, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    annotate(voc, "a")
    write_image(tmp_path / "out" / "JPEGImages" / "other.png")
    with pytest.raises(DataError, match="already exists and is not"):
        voc_to_darknet(voc, tmp_path / "out")


def test_voc_folders_of_a_data_set(voc: Path, tmp_path: Path) -> None:
    other = tmp_path / "VOC2012"
    write_image(other / "JPEGImages" / "a.png")  # another image of the same name
    annotate(other, "a", OBJECT.format("cat", 0, 0, 0, 50, 50))
    (other / "ImageSets" / "Main").mkdir(parents=True)
    (other / "ImageSets" / "Main" / "trainval.txt").write_text("a\n")
    data, images, boxes, problems = voc_to_darknet(tmp_path, tmp_path / "out")
    assert (images, boxes, problems) == (4, 3, [])
    train = [Path(path).relative_to(tmp_path / "out") for path in data.train_images()]
    assert [str(path) for path in train] == [
        "VOC 2007/JPEGImages/a.png",
        "VOC 2007/JPEGImages/b.c.png",
        "VOC2012/JPEGImages/a.png",
    ]
    assert [load_labels(find_labels(path)).boxes[:, 0].tolist() for path in data.train_images()] == [[1], [0], [0]]
    assert [Path(path).name for path in data.valid_images()] == ["d.png"]


def test_annotations_beside_images_of_each_split(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("valid", 1), ("test", 1)):
        for number in range(count):
            write_image(tmp_path / "set" / split / f"{number}.jpg")
            annotate(tmp_path, f"{number}", OBJECT.format("dog", 0, 10, 5, 30, 25))
            (tmp_path / "Annotations" / f"{number}.xml").rename(tmp_path / "set" / split / f"{number}.xml")
    data, images, boxes, problems = voc_to_darknet(tmp_path / "set", tmp_path / "out")
    assert (images, boxes, problems) == (4, 4, [])
    assert [len(data.train_images()), len(data.valid_images())] == [2, 1]
    assert data.valid_images()[0].endswith("/valid/JPEGImages/0.jpg")
    assert len(load_labels(find_labels(data.valid_images()[0])).boxes) == 1


@pytest.mark.parametrize("folder", ["JPEGImages", "Annotations"])
def test_folder_of_a_voc_folder(voc: Path, tmp_path: Path, folder: str) -> None:
    result = voc_to_darknet(voc / folder, tmp_path / "out")
    assert (result.images, result.boxes) == (3, 2) and len(result.data.valid_images()) == 1


@pytest.mark.reference
def test_bccd(reference: Path, tmp_path: Path) -> None:
    data, images, boxes, problems = voc_to_darknet(reference / "bccd", tmp_path, ["RBC", "WBC", "Platelets"])
    assert (images, boxes, len(problems)) == (364, 4886, 2)  # two boxes have no extent
    assert len(data.train_images()) == 292 and len(data.valid_images()) == 72
    check_labels(data.train_images(), 3)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for name in ("7.png", "sub/9.png"):
        write_image(tmp_path / "photos" / name)
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
    with pytest.raises(DataError, match=r"none.json: cannot read the COCO file: No such file"):
        coco_to_darknet({"train": (tmp_path / "none.json", tmp_path)}, tmp_path / "out")


def photo(path: Path, orientation: int) -> None:
    """100 x 60 pixels as stored; one rectangle is white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((60, 100, 3), np.uint8)
    image[10:30, 20:70] = 255
    jpeg = bytes(cv2.imencode(".jpg", image)[1])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, orientation, 0, 0)
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])


def white_box(path: Path) -> tuple[float, ...]:
    """Center and size of the white rectangle in the upright image."""
    image = load_image(path)[:, :, 0] > 128
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    height, width = image.shape
    (y0, y1), (x0, x1) = (rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)
    return (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height


@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_boxes_of_stored_images_turn_with_exif(tmp_path: Path, kind: str, orientation: int) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg", orientation)
    if kind == "voc":
        annotate(tmp_path, "a", OBJECT.format("red", 0, 20, 10, 70, 30), size="100 60")
        result = voc_to_darknet(tmp_path, tmp_path / "out")
        label = tmp_path / "out" / "labels" / "a.txt"
    else:
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 60}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [20, 10, 50, 20]}],
            "categories": [{"id": 1, "name": "red"}],
        }
        (tmp_path / "x.json").write_text(json.dumps(content))
        result = coco_to_darknet({"train": (tmp_path / "x.json", tmp_path / "JPEGImages")}, tmp_path / "out")
        label = tmp_path / "out" / "train" / "labels" / "a.txt"
    assert not result.problems
    row = load_labels(label).boxes[0, 1:5]
    np.testing.assert_allclose(row, white_box(tmp_path / "JPEGImages" / "a.jpg"), atol=0.021)
    if orientation == 6:
        np.testing.assert_allclose(row, [0.666667, 0.45, 0.333333, 0.5], atol=1e-6)


def test_sizes_of_annotations(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg", 6)
    annotate(tmp_path, "a", OBJECT.format("red", 0, 20, 10, 30, 50), size="60 100")  # as it is shown
    result = voc_to_darknet(tmp_path, tmp_path / "out")
    assert not result.wrong_sizes
    assert (tmp_path / "out" / "labels" / "a.txt").read_text() == "0 0.416667 0.300000 0.166667 0.400000\n"
    annotate(tmp_path, "a", OBJECT.format("red", 0, 20, 10, 30, 50), size="200 120")
    (line,) = voc_to_darknet(tmp_path, tmp_path / "other").wrong_sizes
    assert "a.xml: expected the size of" in line and line.endswith("60 x 100, got 200 x 120")


def test_reference_photo(reference: Path, tmp_path: Path) -> None:
    voc_to_darknet(reference / "bugs/formats/voc", tmp_path / "out", ["red", "blue"])
    assert (tmp_path / "out/labels/a.txt").read_text() == "0 0.666667 0.450000 0.333333 0.500000\n"
    assert voc_to_darknet(reference / "bugs/formats/voc1", tmp_path / "1").wrong_sizes


def small_coco(tmp_path: Path, **changes: object) -> Path:
    photo(tmp_path / "images" / "a.jpg", 1)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 60}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [20, 10, 50, 20]}],
        "categories": [{"id": 1, "name": "red"}],
    }
    (tmp_path / "x.json").write_text(json.dumps(content | changes))
    return tmp_path / "x.json"


@pytest.mark.parametrize("name", ["../victim.jpg", "/etc/victim.jpg", "..\\victim.jpg", "a/../../victim.jpg", "a\nb"])
def test_file_names_that_lead_out(tmp_path: Path, name: str) -> None:
    photo(tmp_path / "victim.jpg", 1)
    file = small_coco(tmp_path, images=[{"id": 1, "file_name": name}, {"id": 2, "file_name": "a.jpg"}])
    result = coco_to_darknet({"train": (file, tmp_path / "images")}, tmp_path / "out" / "deep")
    assert result.images == 1 and repr(name) in result.problems[0]
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["a.txt", "train.txt"]
    with pytest.raises(DataError, match=r"leads out|is not a file name"):
        write_labels({name: []}, tmp_path / "labels")


def test_reference_file_names(reference: Path, tmp_path: Path) -> None:
    root = reference / "bugs/hostile/coco_overwrite/set"
    splits = {"train": (root / "annotations/instances_train.json", root / "images")}
    result = coco_to_darknet(splits, tmp_path / "a" / "b")
    assert result.images == 1 and "'../victim/requirements.txt' leads out" in result.problems[0]
    assert [path for path in tmp_path.rglob("*") if path.name in ("notes.txt", "requirements.txt")] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"images": [{"id": None, "file_name": "a.jpg"}]},
        {"images": [{"id": 1, "file_name": 1e308}]},
        {"images": [{"id": 1, "file_name": "a.jpg", "height": True}]},
        {"images": [{"id": [1], "file_name": "a.jpg"}]},
        {"annotations": [{"image_id": {"id": 1}, "category_id": 1, "bbox": []}]},
        {"annotations": [{"image_id": 1, "category_id": [[1]], "bbox": []}]},
        {"annotations": [{"image_id": 1, "category_id": 1, "bbox": {}}]},
        {"categories": [{"id": 1, "name": {}}]},
        {"categories": [{"id": 1, "name": "a"}, {"id": "/", "name": "b"}]},
        {"categories": [{"id": 1, "name": "\ud800"}]},
        {"categories": {}},
    ],
)
def test_coco_of_wrong_types(tmp_path: Path, changes: dict[str, object]) -> None:
    file = small_coco(tmp_path, **changes)
    with pytest.raises(DataError) as error:
        coco_to_darknet({"train": (file, tmp_path / "images")}, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_reference_coco_of_wrong_types(reference: Path, tmp_path: Path) -> None:
    for file in sorted((reference / "bugs/hostile").glob("data_coco_*.bin")):
        with pytest.raises(DataError, match=rf"{file.name}: .*expected"):
            coco_to_darknet({"train": (file, tmp_path)}, tmp_path / "out")


def test_yaml_aliases(reference: Path) -> None:
    with pytest.raises(DataError, match="aliases expand to more than a million values"):
        read_yaml(reference / "bugs/hostile/yaml_alias_names/data.yaml")


def test_class_names_take_one_line_each(tmp_path: Path) -> None:
    file = small_coco(tmp_path, categories=[{"id": 1, "name": "red\ncar"}, {"id": 2, "name": "blue"}])
    result = coco_to_darknet({"train": (file, tmp_path / "images")}, tmp_path / "out")
    assert result.data.class_names() == ["red car", "blue"]


def test_lines_about_what_is_left_out_stay_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    image = {"id": "1\n2", "file_name": "b\u2028.jpg"}
    file.write_text(json.dumps({"images": [image], "annotations": [], "categories": [{"id": 1, "name": "x"}]}))
    result = coco_to_darknet({"train": (file, tmp_path)}, tmp_path / "out")
    assert result.left_out == [f"{file}: image 1 2: {tmp_path}/b .jpg not found"]
    with pytest.raises(DataError, match=r"image b \.jpg not found in"):
        coco_files(file)


@pytest.mark.parametrize("entry", ["9" * 5000, r'"a\nb"'])
def test_yaml_paths_that_cannot_be(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(f"train: {entry}\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"train: expected images at .*, got nothing there") as error:
        yolo_to_darknet(file, tmp_path / "out")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
