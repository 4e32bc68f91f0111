"""Data sets of any format: found, converted once, and converted into each other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.cli import main
from darknet_py.data import open_dataset as formats
from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.labels import check_labels, find_labels, label_path, load_labels
from darknet_py.data.link_images import link_images, unique_names
from darknet_py.data.open_dataset import detect_format, open_dataset
from darknet_py.data.writers import export
from darknet_py.errors import DataError

NAMES = ["Hund", "chat & chien", "dont_show 'x': \"y\" # é"]
ROWS = {
    "1": "0 0.25 0.5 0.3 0.2\n2 0.5 0.5 1 1\n",
    "2 b": "",
    "3.é": "1 0.1 0.9 0.2 0.2\n",
    "4": "0 0.125 0.25 0.25 0.5\n",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))
    return tmp_path / "user cache" / "darknet_py" / "data"


@pytest.fixture
def darknet(tmp_path: Path) -> Path:
    """Three images to train on, one to validate on; labels beside them; 80 x 40 pixels."""
    folder = tmp_path / "Fotos é"
    folder.mkdir()
    for number, (stem, rows) in enumerate(ROWS.items()):
        _, data = cv2.imencode(".png", np.full((40, 80, 3), 40 * number, np.uint8))
        (folder / f"{stem}.png").write_bytes(data.tobytes())
        (folder / f"{stem}.txt").write_text(rows)
    paths = [str(folder / f"{stem}.png") for stem in ROWS]
    write_list(tmp_path / "train.txt", paths[:3])
    write_list(tmp_path / "val.txt", paths[3:])
    write_list(tmp_path / "x.names", NAMES)
    lines = [
        f"{key} = {tmp_path / name}"
        for key, name in (("train", "train.txt"), ("valid", "val.txt"), ("names", "x.names"))
    ]
    write_list(tmp_path / "x.data", ["classes = 3", *lines])
    return tmp_path / "x.data"


def rows(data: DataFile) -> dict[str, np.ndarray]:
    """Boxes by image, all splits."""
    images = data.train_images() + (data.valid_images() if data.valid != data.train else [])
    assert all(Path(image).is_file() and Path(find_labels(image)).is_file() for image in images)
    return {Path(image).name: load_labels(find_labels(image)).boxes[:, :5] for image in images}


def same(first: DataFile, second: DataFile) -> None:
    assert first.class_names() == second.class_names()
    assert list(map(os.path.basename, first.train_images())) == list(map(os.path.basename, second.train_images()))
    mine, other = rows(first), rows(second)
    assert mine.keys() == other.keys()
    for name in mine:
        np.testing.assert_allclose(mine[name], other[name], atol=2e-5)


def test_arrays_of_five_channels_have_a_size_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 30, 5), np.uint8))
    (tmp_path / "a.txt").write_text("0 .5 .5 .5 .5\n")
    write_list(tmp_path / "x.names", ["ant"])
    write_list(tmp_path / "t.txt", [str(tmp_path / "a.npy")])
    write_list(tmp_path / "x.data", [f"train={tmp_path}/t.txt", f"names={tmp_path}/x.names"])
    assert main(["data", str(tmp_path / "x.data"), str(tmp_path / "o"), "--to", "coco"]) == 0
    (found,) = (json.loads(path.read_text()) for path in (tmp_path / "o").rglob("*.json"))
    assert (found["images"][0]["width"], found["images"][0]["height"]) == (30, 20)


@pytest.mark.parametrize("to", ["darknet", "coco", "voc", "yolo"])
def test_there_and_back(darknet: Path, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out é" / to
    assert main(["data", str(darknet), str(out), "--to", to]) == 0
    text = capsys.readouterr().out
    assert f"4 images with 4 boxes, from darknet to {to}\n" in text
    assert all(Path(line).exists() for line in text.splitlines()[1:])
    if to == "voc":  # knows classes by their names
        write_list(out / "x.names", NAMES)
    back = open_dataset(out / "obj.data" if to == "darknet" else out, names=NAMES if to == "voc" else ())
    same(open_dataset(darknet), back)
    check_labels(back.train_images(), 3)
    # C Darknet finds the labels too.
    assert all(Path(label_path(image)).is_file() for image in back.train_images())


@pytest.mark.parametrize("first", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("second", ["coco", "voc", "yolo", "darknet"])
def test_each_into_each(darknet: Path, tmp_path: Path, cache: Path, first: str, second: str) -> None:
    export(open_dataset(darknet), tmp_path / "one", first)
    command = ["data", str(tmp_path / "one"), str(tmp_path / "two"), "--to", second]
    assert main([*command, "--names", str(tmp_path / "x.names")]) == 0
    assert not cache.exists()  # a conversion leaves nothing there
    two = tmp_path / "two" / "obj.data" if second == "darknet" else tmp_path / "two"
    same(open_dataset(darknet), open_dataset(two, names=NAMES if second == "voc" else ()))


def test_json_and_what_was_left_out(darknet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Fotos é"
    (folder / "1.png").write_bytes(b"no image")
    (folder / "4.txt").write_text("0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n")
    assert main(["data", str(darknet), str(tmp_path / "o"), "--to", "coco", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["from"], report["to"], report["images"], report["boxes"]) == ("darknet", "coco", 3, 2)
    assert len(report["problems"]) == 2 and "1.png" in report["problems"][0] and "4.txt:2" in report["problems"][1]
    content = json.loads(Path(report["files"][0]).read_text())
    assert [image["file_name"] for image in content["images"]] == ["2 b.png", "3.é.png"]
    assert [category["name"] for category in content["categories"]] == NAMES


def test_refusals(darknet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: object) -> str:
        assert main(["data", *map(str, arguments)]) == (2 if "--names" in arguments else 1)
        return capsys.readouterr().err

    assert "expected a new or empty folder" in refused(darknet, tmp_path, "--to", "voc")
    assert "data set not found" in refused(tmp_path / "no", tmp_path / "o", "--to", "voc")
    assert "--names is for other formats" in refused(
        darknet, tmp_path / "o", "--to", "voc", "--names", tmp_path / "x.names"
    )
    (tmp_path / "empty").mkdir()
    assert "expected a VOC folder (Annotations/*.xml), COCO files" in refused(
        tmp_path / "empty", tmp_path / "o", "--to", "coco"
    )
    write_list(tmp_path / "train.txt", ["nowhere.png"])
    write_list(tmp_path / "val.txt", ["nowhere.png"])
    assert "expected images, got no readable one; the first problem: nowhere.png" in refused(
        darknet, tmp_path / "o", "--to", "yolo"
    )
    assert not (tmp_path / "o").exists()


def test_a_conversion_is_kept_until_the_set_changes(darknet: Path, tmp_path: Path, cache: Path) -> None:
    export(open_dataset(darknet), tmp_path / "set", "coco")
    file = tmp_path / "set" / "annotations" / "instances_train.json"
    data = open_dataset(file)
    assert data.path.parent.parent == cache and data.valid != data.train  # the one for val was found beside it
    (data.path.parent / "mark").touch()
    assert (open_dataset(file).path.parent / "mark").exists()
    assert [folder.name for folder in cache.iterdir()] == [data.path.parent.name]  # nothing half done is left
    os.utime(file, ns=(1, 1))
    again = open_dataset(file)
    assert again.path != data.path and data.path.exists()  # who still trains on the old one can
    assert open_dataset(tmp_path / "set").path not in (again.path, data.path)
    times = os.stat(file).st_atime_ns, os.stat(file).st_mtime_ns
    file.write_bytes(file.read_bytes())  # any content of the same size
    os.utime(file, ns=times)
    assert open_dataset(file).path not in (again.path, data.path)


def test_an_interrupted_conversion_leaves_nothing(
    darknet: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(open_dataset(darknet), tmp_path / "set", "voc")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(formats, "convert_to_darknet", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_dataset(tmp_path / "set")
    assert list(cache.iterdir()) == []
    assert open_dataset(tmp_path / "set").train_images()


def test_two_processes_at_once(darknet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is done first: its folder is taken."""
    export(open_dataset(darknet), tmp_path / "set", "voc")
    convert, calls = formats.convert_to_darknet, []

    def slow(source: formats.DataSource, kind: str, out: Path) -> object:
        calls.append(out)
        if len(calls) == 1:
            open_dataset(tmp_path / "set")
        return convert(source, kind, out)

    monkeypatch.setattr(formats, "convert_to_darknet", slow)
    data = open_dataset(tmp_path / "set")
    assert len(calls) == 2 and len(rows(data)) == 4


def test_what_was_left_out_is_told_each_time(darknet: Path, tmp_path: Path) -> None:
    export(open_dataset(darknet), tmp_path / "set", "voc")
    file = tmp_path / "set" / "Annotations" / "1.xml"
    file.write_text(file.read_text().replace("<xmax>80", "<xmax>0"))
    for _ in range(2):
        with pytest.warns(match=r"left out: .*1\.xml: expected a box inside the image"):
            open_dataset(tmp_path / "set")


def test_formats_are_told_apart(darknet: Path, tmp_path: Path) -> None:
    assert detect_format(None) == detect_format(darknet) == "darknet"
    for kind in ("coco", "voc", "yolo"):
        export(open_dataset(darknet), tmp_path / kind, kind)
        assert detect_format(tmp_path / kind) == kind
    assert detect_format(tmp_path / "yolo" / "data.yaml") == "yolo"
    os.rename(tmp_path / "yolo" / "data.yaml", tmp_path / "yolo" / "pets.yml")
    assert detect_format(tmp_path / "yolo") == "yolo" and open_dataset(tmp_path / "yolo").classes == 3


def test_voc_folders_of_other_names(darknet: Path, tmp_path: Path) -> None:
    export(open_dataset(darknet), tmp_path / "voc", "voc")
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in [*(tmp_path / "voc" / "Annotations").iterdir(), *(tmp_path / "voc" / "JPEGImages").glob("*.png")]:
        (flat / file.name).write_bytes(file.read_bytes())
    data = open_dataset(flat)
    assert len(data.train_images()) == 4 and data.class_names() == sorted(NAMES)
    os.rename(tmp_path / "voc" / "Annotations", tmp_path / "voc" / "annotations")
    os.rename(tmp_path / "voc" / "JPEGImages", tmp_path / "voc" / "images")
    assert len(rows(open_dataset(tmp_path / "voc"))) == 4


def test_coco_as_sites_pack_it(darknet: Path, tmp_path: Path) -> None:
    export(open_dataset(darknet), tmp_path / "coco", "coco")
    for split, old in (("train", "train"), ("valid", "val")):
        folder = tmp_path / "packed" / split
        folder.mkdir(parents=True)
        (tmp_path / "coco" / "annotations" / f"instances_{old}.json").rename(folder / "_annotations.coco.json")
        for image in (tmp_path / "Fotos é").glob("*.png"):
            (folder / image.name).write_bytes(image.read_bytes())
    same(open_dataset(darknet), open_dataset(tmp_path / "packed"))
    same(open_dataset(darknet), open_dataset(tmp_path / "packed" / "train" / "_annotations.coco.json"))


def test_coco_images_elsewhere(darknet: Path, tmp_path: Path) -> None:
    export(open_dataset(darknet), tmp_path / "coco", "coco")
    file = tmp_path / "any.json"
    (tmp_path / "coco" / "annotations" / "instances_train.json").rename(file)
    with pytest.raises(DataError, match=r"any.json: image 1.png not found in "):
        open_dataset(file)
    assert len(rows(open_dataset(file, images=tmp_path / "Fotos é"))) == 3
    (tmp_path / "Fotos é").rename(tmp_path / "images")
    assert len(rows(open_dataset(file))) == 3
    file.write_text("{}")
    with pytest.raises(DataError, match=r"any.json: expected COCO JSON with images, got no file_name"):
        open_dataset(file)
    file.write_text("")
    with pytest.raises(DataError, match=r"any.json: expected COCO JSON with images"):
        open_dataset(file)


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for split in ("train", "valid", "more"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
        (root / "images" / split / "notes.md").write_text("not an image")
        (root / "labels" / split / "0.txt").write_text("0 .5 .5 .25 .25\n")
    (root / "labels" / "train" / "1.txt").write_text("1 .1 .2 .5 .2 .5 .6\n0 .5 .5 .5 .5\n4 .5 .5 .1 .1\n")
    (root / "data.yaml").write_text("train: ../set/images/train\nval: images/valid\nnames: [a, b]\n")
    return root / "data.yaml"


def test_yolo(yolo: Path) -> None:
    with pytest.warns(match=r"left out: .*labels/train/1\.txt:3: expected a class of 0 to 1, got 4"):
        data = open_dataset(yolo)
    labels = [load_labels(find_labels(image)) for image in data.train_images()]
    np.testing.assert_allclose(labels[1].boxes[:, :5], [[1, 0.3, 0.4, 0.4, 0.4], [0, 0.5, 0.5, 0.5, 0.5]], atol=1e-6)
    assert labels[0].boxes[0, 0] == 0 and len(data.valid_images()) == 2
    assert not any(load_labels(find_labels(image)).missing for image in data.valid_images())


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nnames:\n  1: b\n  0: a\n",
        "path: ../set\ntrain: [images/train, images/more]\nval: images/valid\nnc: 2\n",
        "path: images\ntrain: train\nval: ../list.txt\nnames:\n- a\n- b\n",
        "train: ../images/train\nval: ../images/valid\ntest: ../images/more\nnames: {0: a, 1: b}\n",
    ],
)
def test_ways_to_write_a_yaml(yolo: Path, text: str) -> None:
    yolo.write_text(text)
    (yolo.parent / "list.txt").write_text("./images/more/0.png\n./images/valid/1.png\n")
    with pytest.warns(match="left out"):
        data = open_dataset(yolo)
    assert len(data.train_images()) == (4 if "[images" in text else 2)
    assert data.class_names() == (["0", "1"] if "nc" in text else ["a", "b"])
    assert len(rows(data)) >= 2 and len({Path(image).name for image in data.train_images()}) == len(data.train_images())
    assert ("list" in text) == (Path(data.valid_images()[0]).name != "0.png" or "list" in text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a]\n", r"data.yaml: expected a line train: \(or val:\), got none"),
        ("train: /\nnc: 1\n", r"^/: expected a folder of images, got the root of the file system"),
        ("train: images/train\nnc: 1000001\n", r"data.yaml: nc: expected at most 1000000, got 1000001"),
        ("train: nowhere\nnames: [a]\n", r"data.yaml: train: expected images at .*nowhere, got nothing there"),
        ("train: {a: b}\nnames: [a]\n", r"data.yaml: train: expected a path, got"),
        ("train: images/train\n", r"data.yaml: expected class names in a line names:, got"),
        ("train: images/train\nnames: {0: a, 2: b}\n", r"data.yaml: names: expected the classes 0 to 1, got 0, 2"),
    ],
)
def test_yolo_errors(yolo: Path, text: str, message: str) -> None:
    yolo.write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(yolo)


def test_classes_in_another_order(yolo: Path) -> None:
    with pytest.warns(match="left out"):
        data = open_dataset(yolo, names=["b", "c", "a"])
    assert data.classes == 3
    assert load_labels(find_labels(data.train_images()[1])).boxes[:, 0].tolist() == [0, 2]
    with pytest.raises(DataError, match="expected its classes among b, c, got a"):
        open_dataset(yolo, names=["b", "c"])


def test_gather(tmp_path: Path) -> None:
    for folder in ("a", "b/a", "c"):
        (tmp_path / folder).mkdir(parents=True)
    paths = ["a/1.jpg", "b/a/1.jpg", "c/1.png", "c/2.jpg"]
    for path in paths:
        (tmp_path / path).write_text(path)
    full = [str(tmp_path / path) for path in paths]
    assert unique_names(["/a/1.jpg", "/b/a/1.jpg", "/c/1.png", "/c/2.jpg"]) == [
        "1.jpg",
        "a_1.jpg",
        "c_1.png",
        "2.jpg",
    ]
    assert unique_names(["/a/1.jpg", "/a/1.jpg"]) == ["1.jpg", "1.jpg"]
    names = link_images(full, tmp_path / "all")
    assert [(tmp_path / "all" / name).read_text() for name in names] == paths
    assert link_images(full, tmp_path / "all") == names  # once more
    assert link_images(full[2:], tmp_path / "one") == ["1.png", "2.jpg"] and (tmp_path / "one").is_symlink()
    with pytest.raises(DataError, match="one: already exists and links to"):
        link_images(full, tmp_path / "one")
    (tmp_path / "all" / "1.jpg").unlink()
    (tmp_path / "all" / "1.jpg").write_text("other")
    with pytest.raises(DataError, match=r"1\.jpg: already exists and is not"):
        link_images(full, tmp_path / "all")


def test_gather_copies_where_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_text(folder)
    names = link_images([str(tmp_path / "a" / "1.jpg"), str(tmp_path / "b" / "1.jpg")], tmp_path / "all")
    assert [(tmp_path / "all" / name).read_text() for name in names] == ["a", "b"]


@pytest.mark.reference
def test_bccd_through_all_formats(reference: Path, tmp_path: Path) -> None:
    """VOC → YOLO → COCO → VOC keeps every box to a hundredth of a pixel."""
    with pytest.warns(match="left out"):
        first = open_dataset(reference / "bccd")
    source = reference / "bccd"
    for kind in ("yolo", "coco", "voc"):
        assert main(["data", str(source), str(tmp_path / kind), "--to", kind]) == 0
        source = tmp_path / kind
    last = open_dataset(source)
    mine, other = rows(first), rows(last)
    assert mine.keys() == other.keys() and sum(map(len, mine.values())) == 4886
    for name in mine:
        np.testing.assert_allclose(
            mine[name][:, 1:] * [640, 480, 640, 480], other[name][:, 1:] * [640, 480, 640, 480], atol=0.01
        )
