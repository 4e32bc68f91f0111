""".data files, names, lists and labels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from darknet_py.data.datafile import DataFile, read_list, read_names, write_list
from darknet_py.data.labels import check_labels, find_labels, label_path, load_labels, save_labels
from darknet_py.errors import CfgWarning, DataError

ROOT = Path(__file__).parents[2]


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_data_file_with_everything(tmp_path: Path) -> None:
    write(tmp_path / "my set" / "train list.txt", "a.jpg\n")
    path = write(
        tmp_path / "x.data",
        "\ufeff# comment\r\n; another\r\n\r\nclasses = 3 of them\r\ntrain  = my set/train list.txt \r\n"
        "names=x.names\r\nbackup = /some where/b\r\ntop=2\r\neval=coco\r\n",
    )
    data = DataFile.read(path)
    assert data.classes == 3 and data.eval == "coco"
    assert data.train == data.valid == tmp_path / "my set" / "train list.txt"
    assert data.names == Path("x.names") and data.backup == Path("/some where/b")


def test_paths_count_from_the_current_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "here" / "data" / "t.txt", "x")
    write(tmp_path / "repo" / "data" / "t.txt", "x")
    path = write(tmp_path / "repo" / "data" / "x.data", "train=data/t.txt\n")
    assert DataFile.read(path).train == tmp_path / "repo" / "data" / "t.txt"
    monkeypatch.chdir(tmp_path / "here")
    assert DataFile.read(path).train == Path("data/t.txt")


def test_faults_of_a_data_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.data:2: expected key = value, got 'train'"):
        DataFile.read(write(tmp_path / "x.data", "classes=1\ntrain\n"))
    with pytest.raises(DataError, match=r"x.data:1: classes: expected a number of at least 0, got 'many'"):
        DataFile.read(write(tmp_path / "x.data", "classes=many\n"))
    with pytest.warns(CfgWarning, match=r"x.data:1: unknown key 'trian' is ignored; did you mean 'train'\?"):
        data = DataFile.read(write(tmp_path / "x.data", "trian=x\n"))
    with pytest.raises(DataError, match="expected a line train=, got none"):
        data.train_images()
    with pytest.raises(DataError, match="expected a line names=, got none"):
        data.class_names()
    with pytest.raises(DataError, match=r".data file not found: .*no.data"):
        DataFile.read(tmp_path / "no.data")


def test_names(tmp_path: Path) -> None:
    names = write(tmp_path / "x.names", "hot dog\r\n\r\ncafé\r\n\r\n")
    assert read_names(names) == ["hot dog", "", "café"]
    data = write(tmp_path / "x.data", "names=x.names\n")
    assert DataFile.read(data).classes == 3
    with pytest.raises(DataError, match=r"x.names: expected 5 names \(classes in .*x.data\), got 3"):
        DataFile.read(write(data, "classes=5\nnames=x.names\n")).class_names()
    with pytest.raises(DataError, match="expected class names"):
        read_names(write(tmp_path / "e.names", "\n"))


@pytest.mark.parametrize(("name", "classes"), [("coco", 80), ("voc", 20), ("shapes", 6)])
def test_our_own_data_files(name: str, classes: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = DataFile.read(ROOT / "data" / f"{name}.data")
    assert data.classes == classes and len(data.class_names()) == classes == len(set(data.class_names()))


def test_lists(tmp_path: Path) -> None:
    path = write(tmp_path / "l.txt", "\ufeff a b/ü.jpg \r\n\r\n/c.jpg\r\n")
    assert read_list(path) == ["a b/ü.jpg", "/c.jpg"]
    write(tmp_path / "a b" / "ü.jpg", "")
    assert read_list(path) == [str(tmp_path / "a b/ü.jpg"), "/c.jpg"]
    odd = write(tmp_path / "odd.txt", b"caf\xe9.jpg\n")
    write_list(tmp_path / "copy.txt", read_list(odd))
    assert (tmp_path / "copy.txt").read_bytes() == b"caf\xe9.jpg\n"
    assert read_list(tmp_path) == [str(tmp_path / "a b/ü.jpg")]
    with pytest.raises(DataError, match=r"empty.txt: expected a list of images, one a line, got none"):
        read_list(write(tmp_path / "empty.txt", "\r\n \n"))
    with pytest.raises(DataError, match="got none in this folder"):
        read_list(write(tmp_path / "none" / "x", "").parent)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/coco/images/train2017/1.jpg", "/coco/labels/train2017/1.txt"),
        ("/coco/images/val2014/1.JPEG", "/coco/labels/val2014/1.txt"),
        ("VOC/JPEGImages/a.b.png", "VOC/JPEGImages/a.b.txt"),
        ("/VOC/JPEGImages/a.b.png", "/VOC/labels/a.b.txt"),
        ("data/obj/x.jpg.jpg", "data/obj/x.jpg.txt"),
        ("/my/images/x.bmp", "/my/images/x.txt"),
        ("/JPEGImages/JPEGImages/x.tif", "/labels/JPEGImages/x.txt"),
    ],
)
def test_label_path_is_darknets(image: str, labels: str) -> None:
    assert label_path(image) == labels.replace("VOC/JPEGImages/a", "VOC/labels/a")


def test_labels_beside_a_folder_of_images(tmp_path: Path) -> None:
    image = str(tmp_path / "images" / "sub" / "x.jpg")
    assert find_labels(image) == str(tmp_path / "images" / "sub" / "x.txt")
    other = write(tmp_path / "labels" / "sub" / "x.txt", "")
    assert find_labels(image) == str(other)
    beside = write(tmp_path / "images" / "sub" / "x.txt", "")  # where Darknet looks comes first
    assert find_labels(image) == str(beside)


def test_good_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", "0 0.5 0.5 0.2 0.1\r\n\n  2\t.25 1e-1 .1 0.05 \n1 0.99 0.5 0.5 1.2")
    labels = load_labels(path, 3)
    assert labels.problems == [] and not labels.missing
    np.testing.assert_allclose(labels.boxes[:, :3], [[0, 0.5, 0.5], [2, 0.25, 0.1], [1, 0.99, 0.5]])
    assert np.diff(labels.boxes[:, 5]).tolist() == [1, 1]
    assert load_labels(write(path, ""), 3).boxes.shape == (0, 6)


def test_bad_rows_are_left_out_and_reported(tmp_path: Path) -> None:
    rows = ["0 .5 .5 .1 .1", "99 .5 .5 .1 .1", "0 nan .5 .1 .1", "0 .5 .5 .1", "-1 .5 .5 .1 .1", "0 0 0 .1 .1"]
    rows += [
        "0 1.5 .5 .2 .2",
        "1.5 .5 .5 .1 .1",
        "cat .5 .5 .1 .1",
        "1 .1 .1 -.1 .1",
        "0 .5 inf .1 .1",
    ]
    path = write(tmp_path / "x.txt", "\n".join([*rows, "1 .2 .2 .1 .1"]))
    labels = load_labels(path, 2)
    assert labels.boxes[:, 0].tolist() == [0, 1]
    expected = [
        "x.txt:2: expected a class of 0 to 1, got 99",
        "x.txt:3: expected finite numbers, got '0 nan .5 .1 .1'",
        "x.txt:4: expected 'class cx cy w h', got '0 .5 .5 .1'",
        "x.txt:5: expected a class of 0 to 1, got -1",
        "x.txt:6: expected a box inside the image, got 0 0 .1 .1",
        "x.txt:7: expected a box inside the image, got 1.5 .5 .2 .2",
        "x.txt:8: expected a class of 0 to 1, got 1.5",
        "x.txt:9: expected 'class cx cy w h', got 'cat .5 .5 .1 .1'",
        "x.txt:10: expected a box inside the image, got .1 .1 -.1 .1",
        "x.txt:11: expected finite numbers, got '0 .5 inf .1 .1'",
    ]
    assert [line.removeprefix(f"{tmp_path}/") for line in labels.problems] == expected


def test_checking_before_a_training(tmp_path: Path) -> None:
    images = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    save_labels(tmp_path / "a.txt", [(1, 0.5, 0.5, 0.25, 1 / 3)])
    assert (tmp_path / "a.txt").read_text() == "1 0.500000 0.500000 0.250000 0.333333\n"
    write(tmp_path / "b.txt", "")
    check_labels(images, 2)  # c has no file: a negative
    write(tmp_path / "b.txt", "0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n0 .5 nan .1 .1\n")
    with pytest.raises(DataError) as error:
        check_labels(images, 2, limit=1)
    assert str(error.value).endswith(
        "b.txt:2: expected a class of 0 to 1, got 2 (and 1 more) (--skip-bad-labels trains without such rows)"
    )
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="none of the 1 images has labels"):
        check_labels(images[2:], 2)
    missing = load_labels(tmp_path / "c.txt", 2)
    assert missing.missing and missing.problems[0].endswith("c.txt: no label file; the image counts as a negative")
