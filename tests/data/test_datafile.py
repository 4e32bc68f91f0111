""".data files, names, lists and labels."""

from __future__ import annotations

import os
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
    with pytest.warns(CfgWarning, match=r"x.names: expected 5 names, got 3"):
        found = DataFile.read(write(data, "classes=5\nnames=x.names\n")).class_names()
    assert found == ["hot dog", "", "café", "3", "4"]
    with pytest.raises(DataError, match="expected class names"):
        read_names(write(tmp_path / "e.names", "\n"))


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("\nred\nblue\n", ["red", "blue"], "3 lines, 2 names"),
        ("# my classes\nred\n\nblue\n", ["red", "blue"], "4 lines, 2 names"),
        ("red\n", ["red", "1"], "expected 2 names, got 1; the other classes are named by their numbers"),
        ("red\nblue\ngreen\n", ["red", "blue"], "expected 2 names, got 3; using the first 2"),
        ("red blue", ["red", "blue"], "one line with 2 names"),
        ("red, light blue\n", ["red", "light blue"], "one line with 2 names"),
        ("['red', 'blue']\n", ["red", "blue"], "one line with 2 names"),
        ("紅色\n藍色\n".replace("紅", "红").replace("藍", "蓝").encode("gbk"), ["红色", "蓝色"], "decoded as gb18030"),
        ("élève\ncafé".encode("latin-1"), ["élève", "café"], "decoded as cp1252"),
        ("names:\n  - red\n  - 'blue'\n", ["red", "blue"], "got 3 lines with 2 listed names"),
        ("nc: 2\nnames:\n  0: red\n  1: blue\n", ["red", "blue"], "got 4 lines with 2 listed names"),
        ("item {\n  name: 'red'\n}\nitem {\n  name: 'blue'\n}\n", ["red", "blue"], "got 6 lines with 2 listed names"),
        ("#\n$\n", ["#", "$"], ""),
        ("red\rblue\r", ["red", "blue"], ""),
        ("red\nblue\n".encode("utf-16"), ["red", "blue"], ""),
    ],
)
def test_names_of_two_classes(tmp_path: Path, text: str | bytes, names: list[str], message: str) -> None:
    """However the file is written, no name moves to another class, and both counts are said."""
    path = write(tmp_path / "x.names", text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_names(path, 2) == names
    assert [message in str(warning.message) for warning in caught] == [True] * bool(message)


def test_names_without_a_known_number(tmp_path: Path) -> None:
    with pytest.warns(CfgWarning, match="2 lines, 1 name"):
        assert read_names(write(tmp_path / "x.names", "\nhot dog\n")) == ["hot dog"]
    with pytest.warns(CfgWarning, match="one line with 3 names"):
        assert read_names(write(tmp_path / "x.names", "a,b,c\n")) == ["a", "b", "c"]


def test_the_networks_number_of_classes_counts(tmp_path: Path) -> None:
    write(tmp_path / "x.names", "red\nblue\n")
    data = DataFile.read(write(tmp_path / "x.data", "classes=1\nnames=x.names\n"))
    with pytest.warns(CfgWarning, match=r"x.data: classes=1, but net.cfg has 2; using 2"):
        data = data.for_network(2, "net.cfg")
    assert (data.classes, data.class_names()) == (2, ["red", "blue"])


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


def test_lists_as_tools_write_them(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg.jpg"):
        write(tmp_path / "obj" / name, "")
    found = [str(tmp_path / "obj" / name) for name in ("a.jpg", "b.jpg", "c.jpg.jpg")]
    missing = str(tmp_path / "obj" / "gone.jpg")
    for text in (
        "obj/a.jpg\nobj/b.jpg\nobj/c.jpg.jpg\n",
        "obj/a.jpg\robj/b.jpg\robj/c.jpg.jpg",  # old Macintosh
        "obj\\a.jpg\r\nobj\\b.jpg\r\nobj\\c.jpg.jpg\r\n",  # Windows
        "data/obj/a.jpg\ndata/obj/b.jpg\ndata/obj/c.jpg.jpg\n",  # CVAT
        "C:\\me\\obj\\a.jpg\nC:\\me\\obj\\b.jpg\nC:\\me\\obj\\c.jpg.jpg\n",
    ):
        assert read_list(write(tmp_path / "l.txt", text)) == found
    # The first image alone does not decide.
    assert read_list(write(tmp_path / "l.txt", "obj/gone.jpg\nobj/a.jpg\n")) == [missing, found[0]]
    many = [f"obj/gone{k}.jpg" for k in range(300)]
    assert read_list(write(tmp_path / "l.txt", "\n".join([*many, "obj/a.jpg"])))[-1] == found[0]
    # Images of different folders never become one.
    assert read_list(write(tmp_path / "obj" / "l.txt", "x/a.jpg\ny/a.jpg\n")) == ["x/a.jpg", "y/a.jpg"]


@pytest.mark.parametrize("text", ["img/0.jpgimg/1.jpg", "a.jpg b.jpg", "/x/0.PNG/x/1.PNG/x/2.PNG", "0.jpg1.jpg2.jpg"])
def test_lists_without_line_ends(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"l.txt:1: expected one image path a line, got [23] in one line"):
        read_list(write(tmp_path / "l.txt", text))
    assert read_list(write(tmp_path / "l.txt", "a/x.jpg_large.jpg\n")) == ["a/x.jpg_large.jpg"]


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b"])
def test_paths_that_the_system_refuses(tmp_path: Path, path: str) -> None:
    for read in (read_list, read_names, DataFile.read):
        with pytest.raises(DataError):
            read(path)
    assert load_labels(path).missing
    with pytest.raises(DataError):
        check_labels([f"{path}.jpg"], 1)


def test_long_paths_in_files(tmp_path: Path) -> None:
    long = "x" * 5000
    assert read_list(write(tmp_path / "l.txt", f"{long}.jpg")) == [f"{long}.jpg"]
    data = DataFile.read(write(tmp_path / "x.data", f"classes=1\ntrain={long}\nnames={long}\n"))
    for read in (data.train_images, data.class_names):
        with pytest.raises(DataError):
            read()


def test_folders_list_images_only(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.npy", "b.npy", "c.jfif", "._a.jpg", "d.txt", "e.JPG"):
        write(tmp_path / name, "")
    assert [Path(image).name for image in read_list(tmp_path)] == ["a.jpg", "b.npy", "c.jfif", "e.JPG"]


@pytest.mark.parametrize("root", ["/", "//", "/usr/..", "link"])
def test_the_whole_file_system_is_no_folder_of_images(tmp_path: Path, root: str) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(DataError, match="expected a folder of images, got the root of the file system"):
        read_list(tmp_path / root)


def test_folders_of_images_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that vanishes is an error; a subfolder without permission, such as lost+found, is passed over."""
    write(tmp_path / "a.jpg", "")
    (tmp_path / "lost").mkdir()
    refused: dict[str, OSError] = {}
    scandir = os.scandir

    def scan(path: str | os.PathLike[str]) -> object:
        if os.path.basename(path) in refused:
            error = refused[os.path.basename(path)]
            error.filename = os.fspath(path)
            raise error
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    refused["lost"] = PermissionError(13, "Permission denied")
    assert read_list(tmp_path) == [str(tmp_path / "a.jpg")]
    for folder, error in {"lost": FileNotFoundError(2, "gone"), tmp_path.name: PermissionError(13, "denied")}.items():
        refused.clear()
        refused[folder] = error
        with pytest.raises(DataError, match=r"cannot list the images: (gone|denied)"):
            read_list(tmp_path)


def test_too_many_classes(tmp_path: Path) -> None:
    """A few bytes cannot ask for as many names as fit into memory, or more."""
    write(tmp_path / "x.names", "a\n")
    with pytest.raises(DataError, match=r"x.data:2: classes: expected at most 1000000, got 2999999999$"):
        DataFile.read(write(tmp_path / "x.data", "names=x.names\nclasses=2999999999\n"))
    labels = load_labels(write(tmp_path / "x.txt", "1e30 .5 .5 .1 .1\n999999 .5 .5 .1 .1\n"))
    assert labels.boxes[:, 0].tolist() == [999999]
    assert labels.problems == [f"{tmp_path / 'x.txt'}:1: expected a class of 0 to 999999, got 1e30"]


def test_paths_of_many_folders(tmp_path: Path) -> None:
    """Up to 64 folders that are not there are left out; a path of a million takes no longer than its length says."""
    write(tmp_path / "a.jpg", "")
    for folders, found in ((64, str(tmp_path / "a.jpg")), (65, "x/" * 65 + "a.jpg"), (10**6, "x/" * 10**6 + "a.jpg")):
        assert read_list(write(tmp_path / "l.txt", "x/" * folders + "a.jpg")) == [found]
        data = DataFile.read(write(tmp_path / "x.data", f"train={'x/' * folders}a.jpg\n"))
        assert data.train == Path(found)


def test_reference_lists(reference: Path) -> None:
    with pytest.raises(DataError, match=r"glued.txt:1: expected one image path a line, got \d+ in one line"):
        DataFile.read(reference / "bugs/lists/glued.data").train_images()
    data = DataFile.read(reference / "bugs/formats/task_12/obj.data")
    images = data.train_images()
    assert data.class_names() == ["red", "blue"] and len(images) == 6
    assert sum(len(load_labels(find_labels(image), 2).boxes) for image in images) == 6


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
    with pytest.raises(DataError, match=r"c.jpg: image not found; none of the 1 images exists"):
        check_labels(images[2:], 2)
    write(tmp_path / "c.jpg", "")
    with pytest.raises(DataError, match="none of the 1 images has labels"):
        check_labels(images[2:], 2)
    missing = load_labels(tmp_path / "c.txt", 2)
    assert missing.missing and missing.problems[0].endswith("c.txt: no label file; the image counts as a negative")
