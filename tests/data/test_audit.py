"""`check`: each thing that can be wrong is found, once, and told apart; pictures and report are written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.cli import check as command
from darknet_py.cli import main
from darknet_py.data import audit as check
from darknet_py.data.audit import AuditRules, audit
from darknet_py.data.classification import ClassifierDataset
from darknet_py.data.datafile import write_list
from darknet_py.data.duplicates import DuplicateIndex, fingerprint
from darknet_py.view.contact_sheet import Tile, TileBox, class_box, contact_sheet

CFG = (
    "[net]\nwidth=64\nheight=32\nchannels=3\nbatch=2\nhue=.1\nexposure=1.5\n[convolutional]\nfilters=8\nsize=1\nstride=8\n"
    "[yolo]\nnum=1\nmask=0\nclasses=3\nanchors=9,9\nmax=5\njitter=.2\n"
)


def picture(seed: int) -> np.ndarray:
    """160 x 80 pixels that look like no other."""
    cells = np.random.default_rng(seed).integers(0, 255, (8, 16, 3), np.uint8)
    return cv2.resize(cells, (160, 80), interpolation=cv2.INTER_CUBIC)


def add(folder: Path, name: str, rows: str | None = "0 .5 .5 .25 .25\n", seed: int | None = None) -> str:
    """An image with its labels; its path."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    seed = sum(name.encode()) if seed is None else seed
    path.write_bytes(cv2.imencode(path.suffix, picture(seed))[1].tobytes())
    if rows is not None:
        path.with_suffix(".txt").write_text(rows)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "un jeu de données"


def kinds(splits: dict[str, list[str]], **rules: object) -> Counter[str]:
    report = audit(splits, AuditRules(**{"classes": 1, **rules}))  # type: ignore[arg-type]
    return Counter(finding.kind for finding in report.findings)


def test_a_clean_set(folder: Path) -> None:
    splits = {"train": [add(folder, f"{k}.png") for k in range(4)], "valid": [add(folder, "v é.jpg", "")]}
    done: list[int] = []
    report = audit(splits, AuditRules(1), done.append)
    assert report.findings == [] and report.errors == 0 and sum(done) == 5
    train, valid = report.splits.values()
    assert (train.images, train.boxes, train.max_boxes, train.counts.tolist()) == (4, 4, 1, [4])
    assert (valid.images, valid.boxes, valid.negatives, valid.unlabeled) == (1, 0, 1, 0)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("hello", "malformed"),
        ("0 .5 .5 .1", "malformed"),
        ("0 .5 .5 nan .1", "not_finite"),
        ("0 .5 inf .1 .1", "not_finite"),
        ("1 .5 .5 .1 .1", "unknown_class"),
        ("-1 .5 .5 .1 .1", "unknown_class"),
        ("0 1.2 .5 .1 .1", "outside"),
        ("0 40 20 10 10", "outside"),
        ("0 .95 .5 .2 .2", "partly_outside"),
        ("0 .5 .5 .02 .5", "tiny"),
        ("0 .5 .5 .25 .25", "duplicate_box"),
        ("0 .1 .1 .2 .2\n" * 2 + "0 .2 .2 .1 .1\n" * 4, "crowded"),
    ],
)
def test_labels(folder: Path, row: str, kind: str) -> None:
    path = add(folder, "a.png", f"0 .5 .5 .25 .25\n{row}\n")
    report = audit({"train": [path]}, AuditRules(1, max_boxes=5))
    found = [finding for finding in report.findings if finding.kind == kind]
    assert len(found) == 1 and found[0].image == path
    assert {finding.kind for finding in report.findings} <= {kind, "duplicate_box"}
    if kind in ("malformed", "not_finite", "unknown_class", "outside"):
        assert check.KINDS[kind].error and found[0].text.startswith("a.txt:2: expected")


def test_tiny_is_in_network_pixels(folder: Path) -> None:
    path = add(folder, "a.png", "0 .5 .5 .1 .1\n")  # 16 x 8 pixels of 160 x 80
    assert kinds({"train": [path]}) == {}
    assert kinds({"train": [path]}, size=(32, 32)) == {"tiny": 1}
    assert kinds({"train": [path]}, size=(64, 64)) == {}
    assert kinds({"train": [path]}, size=(64, 64), letter_box=True) == {"tiny": 1}
    text = audit({"train": [path]}, AuditRules(1, size=(32, 32))).findings[0].text
    assert text == "1 box, the smallest 3.2 x 3.2 pixels"


def test_images(folder: Path) -> None:
    good, cut, empty = (add(folder, f"{name}.jpg") for name in ("good", "cut", "empty"))
    Path(cut).write_bytes(Path(cut).read_bytes()[:500])
    Path(empty).write_bytes(b"")
    found = kinds({"train": [good, cut, empty, str(folder / "gone.jpg"), str(folder)]})
    assert found == {"missing": 1, "unreadable": 3}
    assert kinds({"train": [good]}, channels=4) == {"unreadable": 1}


def test_labels_that_are_not_there(folder: Path) -> None:
    good, bare = add(folder, "a.png"), add(folder, "b.png", None)
    assert kinds({"train": [good, bare]}) == {"unlabeled": 1}
    assert kinds({"train": [bare]}) == {"unlabeled": 1, "dataset": 1}
    (folder / "b.txt").mkdir()
    assert kinds({"train": [good, bare]}) == {"malformed": 1}


def test_twins_and_leaks(folder: Path) -> None:
    a, b, c = (add(folder, f"{name}.png") for name in "abc")
    same, other = add(folder, "same.png", seed=ord("a") + sum(b".png")), str(folder / "other.jpg")
    small = cv2.resize(picture(sum(b"b.png")), (120, 60), interpolation=cv2.INTER_AREA)
    cv2.imwrite(other, small, [cv2.IMWRITE_JPEG_QUALITY, 60])
    Path(other).with_suffix(".txt").write_text("")
    assert kinds({"train": [a, b, c]}) == {}
    assert kinds({"train": [a, b, a, a]}) == {"duplicate": 1}
    assert kinds({"train": [a, b], "valid": [b, c]}) == {"leak": 1}
    assert kinds({"train": [a, same]}) == {"duplicate": 1}
    assert kinds({"train": [a], "valid": [same]}) == {"leak": 1}
    assert kinds({"train": [b, other]}) == {"near_duplicate": 1}
    report = audit({"train": [b], "valid": [other]}, AuditRules(1))
    assert [(f.kind, f.image, f.other) for f in report.findings] == [("near_leak", other, b)] and not report.errors


def test_alike() -> None:
    rng = np.random.default_rng(0)
    images = [picture(seed) for seed in range(60)]
    index = DuplicateIndex()
    assert [index.near_duplicate(k, fingerprint(b"", image)) for k, image in enumerate(images)] == [None] * 60
    noisy = [np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8) for image in images]
    assert sum(index.near_duplicate(100 + k, fingerprint(b"", image)) == k for k, image in enumerate(noisy)) >= 57
    black, white = (np.full((9, 9, 3), value, np.uint8) for value in (0, 255))
    assert (
        index.near_duplicate(200, fingerprint(b"", black)) is None
        and index.near_duplicate(201, fingerprint(b"", white)) is None
    )
    assert index.near_duplicate(202, fingerprint(b"", black)) == 200
    assert fingerprint(b"", black[:, :, :2]).appearance == fingerprint(b"", black[:, :, :1]).appearance
    gray = fingerprint(b"x", black[:, :, :1])
    assert (
        index.near_duplicate(203, gray) is None
        and index.same_file(203, gray) is None
        and index.same_file(4, gray) == 203
    )


def test_classes_without_boxes(folder: Path) -> None:
    path = add(folder, "a.png", "1 .5 .5 .25 .25\n")
    assert kinds({"train": [path]}, classes=3) == {"unused_class": 2}


def test_classifiers(folder: Path) -> None:
    paths = [add(folder, name, None) for name in ("cat 1.png", "dog.png", "cat dog.png", "x.png")]
    report = audit({"train": paths}, AuditRules(2, classifier=ClassifierDataset(paths, ["cat", "dog"])))
    assert [(Path(f.image).name, f.text) for f in report.findings] == [
        ("cat dog.png", "path names cat, dog"),
        ("x.png", "path names no class"),
    ]
    assert report.splits["train"].counts.tolist() == [2, 2]


@pytest.fixture
def bad(folder: Path, tmp_path: Path) -> Path:
    train = [add(folder, f"{k}.png", f"{k % 3} .5 .5 .25 .25\n") for k in range(6)]
    train += [str(folder / "gone.png"), add(folder, "tiny 'é'.png", "0 .5 .5 .02 .02\n1 .98 .5 .1 .1\n7 .5 .5 .1 .1\n")]
    valid = [add(folder, "v.png"), train[2]]
    write_list(tmp_path / "t.txt", train)
    write_list(tmp_path / "v.txt", valid)
    write_list(tmp_path / "x.names", ["un", "deux é", "dont_show trois"])
    write_list(
        tmp_path / "x.data",
        ["classes=3", f"train={tmp_path}/t.txt", f"valid={tmp_path}/v.txt", f"names={tmp_path}/x.names"],
    )
    (tmp_path / "x.cfg").write_text(CFG)
    return tmp_path / "x.data"


def test_command(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out é"
    arguments = [str(tmp_path / "x.cfg"), "--data", str(bad), "--out", str(out)]
    (out).mkdir()
    (out / "not_finite.jpg").write_text("of an earlier run")
    assert main(["check", *arguments, "--augment", "3"]) == 1
    text = capsys.readouterr().out
    assert "train:  8 images, 8 boxes (at most 2 in one), 0 negatives, 1 without labels" in text
    assert "error: missing images (1)\n" in text and "gone.png: No such file or directory" in text
    assert text.endswith("\n3 errors, 2 warnings\n")
    files = {
        "classes.png",
        "missing.jpg",
        "leak.jpg",
        "unknown_class.jpg",
        "partly_outside.jpg",
        "tiny.jpg",
        "augment.jpg",
        "mosaic.jpg",
    }
    assert {path.name for path in out.iterdir()} == files | {"check.json"}
    assert all(str(out / name) in text for name in files)

    report = json.loads((out / "check.json").read_text())
    assert {kind: found["count"] for kind, found in report["findings"].items()} == {
        "missing": 1, "leak": 1, "unknown_class": 1, "partly_outside": 1, "tiny": 1,
    }  # fmt: skip
    assert report["splits"]["train"]["classes"] == [3, 3, 2] and report["errors"] == 3

    assert main(["check", *arguments, "--json", "--no-images"]) == 1
    assert json.loads(capsys.readouterr().out)["files"] == [str(out / "check.json")]


def test_command_without_errors(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(tmp_path / "t.txt", (tmp_path / "t.txt").read_text().splitlines()[:4])
    write_list(tmp_path / "v.txt", (tmp_path / "v.txt").read_text().splitlines()[:1])
    assert main(["check", "--data", str(bad), "--out", str(tmp_path / "o")]) == 0
    assert capsys.readouterr().out.endswith("\nno problems found\n")
    (tmp_path / "x.cfg").write_text(CFG.replace("classes=3", "classes=2").replace("filters=8", "filters=7"))
    assert main(["check", str(tmp_path / "x.cfg"), "--data", str(bad), "--out", str(tmp_path / "o")]) == 1
    assert "has 3 classes" in capsys.readouterr().out
    assert main(["check", "--data", str(bad), "--augment", "2"]) == 2
    assert "--augment requires CFG" in capsys.readouterr().err


def test_a_classifier_and_its_augmentation(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [add(folder, name, None) for name in ("cat 1.png", "dog.png", "dog 2.png")]
    write_list(tmp_path / "t.txt", paths)
    write_list(tmp_path / "labels.txt", ["cat", "dog"])
    write_list(tmp_path / "c.data", ["classes=2", f"train={tmp_path}/t.txt", f"labels={tmp_path}/labels.txt"])
    net = "[net]\nwidth=32\nheight=32\nchannels=3\nmin_crop=32\nmax_crop=40\n"
    (tmp_path / "c.cfg").write_text(f"{net}[convolutional]\nfilters=2\nsize=1\n[avgpool]\n[softmax]\n")
    arguments = ["--data", str(tmp_path / "c.data"), "--out", str(tmp_path / "o")]
    assert main(["check", *arguments]) == 0
    assert main(["check", str(tmp_path / "c.cfg"), *arguments, "--augment", "4"]) == 0
    assert (tmp_path / "o" / "augment.jpg").is_file() and "mosaic" not in capsys.readouterr().out


def test_a_folder_per_class(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 3), ("valid", 1)):
        for kind in ("cat", "wildcat"):  # the one is part of the other
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                add(folder / split / kind, f"{split} {number}.png", None)
    (tmp_path / "c.cfg").write_text(
        "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=2\nsize=1\n[avgpool]\n[softmax]\n"
    )
    out = tmp_path / "o"
    main(["check", str(tmp_path / "c.cfg"), "--data", str(folder), "--out", str(out), "--augment", "2"])
    report = json.loads((out / "check.json").read_text())
    assert report["splits"]["train"]["classes"] == [3, 3] and report["splits"]["valid"]["classes"] == [1, 1]
    assert "unclassified" not in report["findings"] and (out / "augment.jpg").is_file()


def test_interrupted(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "_count", interrupted)
    assert main(["check", "--data", str(bad), "--out", str(tmp_path / "o")]) == 130
    assert list((tmp_path / "o").iterdir()) == []


def test_many_findings_of_a_kind(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_MAX_TILES", 2)
    write_list(tmp_path / "t.txt", [f"nowhere {k}.png" for k in range(9)])
    assert main(["check", "--data", str(bad), "--out", str(tmp_path / "o")]) == 1
    report = json.loads((tmp_path / "o" / "check.json").read_text())
    assert report["findings"]["missing"]["count"] == 9


def test_sheet() -> None:
    image = np.full((40, 80, 3), 90, np.uint8)
    inside = contact_sheet(
        "one", [Tile(image, [TileBox((0.5, 0.5, 0.5, 0.5), "é", (255, 0, 0))], ["a" * 99])], side=160
    )
    assert inside.dtype == np.uint8 and inside.shape[1] == 420 and (inside == (255, 0, 0)).all(2).any()
    beyond = contact_sheet("one", [Tile(image, [TileBox((1.2, 0.5, 0.1, 0.2), "", (255, 0, 0))], [])], side=160)
    assert (beyond == (255, 0, 0)).all(2).any()  # there is room beside the image
    wild = [TileBox((float("nan"), 0, 1, 1), "", (1, 2, 3)), TileBox((1e30, 0.5, 1e30, 1), "", (1, 2, 3))]
    for odd in (image[:, :, :1], np.concatenate([image, image], 2), None):
        contact_sheet("odd", [Tile(odd, wild, ["x"])] * 5)
    assert contact_sheet("none", []).shape[0] == 40


def test_class_box() -> None:
    names = ["a", "dont_show b"]
    assert class_box((1, 0.5, 0.5, 1, 1), names) is None
    found = class_box((5, 0.1, 0.2, 0.3, 0.4), names)
    assert found and found.name == "5" and found.box == (0.1, 0.2, 0.3, 0.4)


def test_annotations_of_a_wrong_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "voc/JPEGImages/a.jpg"), np.zeros((60, 100, 3), np.uint8))
    box = "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>70</xmax><ymax>30</ymax></bndbox>"
    (tmp_path / "voc/Annotations/a.xml").write_text(
        f"<annotation><size><width>200</width><height>120</height></size><object><name>a</name>{box}</object>"
        f"<object><name>a</name>{box.replace('70', '10')}</object></annotation>"
    )
    assert main(["check", "--data", str(tmp_path / "voc"), "--out", str(tmp_path / "o"), "--no-images"]) == 1
    found = json.loads((tmp_path / "o" / "check.json").read_text())["findings"]
    assert "100 x 60, got 200 x 120" in found["wrong_size"]["items"][0]["text"]
    assert "expected a box inside the image" in found["left_out"]["items"][0]["text"]


def test_missing_and_dark_images(folder: Path) -> None:
    report = audit({"train": [str(folder / "gone.png")]}, AuditRules(1))
    assert [finding.kind for finding in report.findings] == ["missing", "dataset"]
    assert "none of the images of train exists" in report.findings[1].text
    dark = Path(add(folder, "dark.png"))
    cv2.imwrite(str(dark), np.linspace(0, 4095, 160 * 80, dtype=np.uint16).reshape(80, 160))
    with pytest.warns(match="nearly black"):
        assert kinds({"train": [str(dark)]}) == {"dark": 1}
