"""What `detect` writes: tables, crops, labels, and how an interrupted run goes on."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.cli.detect_results import DetectResults
from darknet_py.data.images import load_image
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.open_dataset import open_dataset
from darknet_py.inference.detections import Detections
from tests.ranks import finish_ranks, start_ranks

CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=7\nsize=1\nstride=8\n"
    "[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
)
COUNT = 5


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a network, names of classes (one has a slash) and images."""
    monkeypatch.chdir(tmp_path)
    Path("x.cfg").write_text(CFG)
    Path("x.names").write_text("N/A\ndog\n")
    torch.manual_seed(0)
    darknet_py.load("x.cfg", random_weights=True).save_weights("x.weights")
    Path("photos").mkdir()
    for number in range(COUNT):
        image = np.random.default_rng(number).integers(0, 255, (20, 30, 3), np.uint8)
        cv2.imwrite(f"photos/{number + 1}.png", image)
    return tmp_path


def words(*options: str) -> list[str]:
    return ["detect", "x.cfg", "photos", "--weights", "x.weights", "--names", "x.names", "--thresh", "0.3", *options]


def run(*options: str) -> int:
    return main(words(*options))


def expected() -> list[Detections]:
    net = darknet_py.load("x.cfg", "x.weights", names=["N/A", "dog"])
    return net.detect("photos", 0.3)


def test_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--no-images", "--json", "a.json", "--csv", "a.csv", "--coco", "a.coco.json") == 0
    said = capsys.readouterr().out
    assert all(f"detections in {name}\n" in said for name in ("a.json", "a.csv", "a.coco.json"))
    assert not Path("predictions").exists() and not list(folder.glob("*.partial"))
    found = expected()
    total = sum(map(len, found))
    frames = json.loads(Path("a.json").read_text())
    assert [frame["frame_id"] for frame in frames] == list(range(1, COUNT + 1))
    assert [frame["filename"] for frame in frames] == [image.path for image in found]
    for frame, image in zip(frames, found, strict=True):
        assert frame["objects"] == image.to_json()
    rows = list(csv.DictReader(Path("a.csv").read_text().splitlines()))
    assert len(rows) == total > 0 and {row["name"] for row in rows} == {"N/A", "dog"}
    np.testing.assert_allclose(
        [[float(row[side]) for side in ("left", "top", "right", "bottom")] for row in rows],
        np.concatenate([image.xyxy for image in found]),
        atol=0.005,
    )
    coco = json.loads(Path("a.coco.json").read_text())
    assert coco["categories"] == [{"id": 1, "name": "N/A"}, {"id": 2, "name": "dog"}]
    assert [(image["id"], image["file_name"]) for image in coco["images"]] == [(n, f"{n}.png") for n in range(1, 6)]
    assert coco["images"][0]["width"] == 30 and coco["images"][0]["height"] == 20
    results = [row for number, image in enumerate(found, 1) for row in image.to_coco(number)]
    assert [{key: row[key] for key in results[0]} for row in coco["annotations"]] == results
    assert [row["id"] for row in coco["annotations"]] == list(range(1, total + 1))


def test_the_coco_file_is_a_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` and `train` read it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert run("--no-images", "--coco", "photos/train.json") == 0
    data = open_dataset("photos/train.json")
    assert data.class_names() == ["N/A", "dog"] and len(data.train_images()) == COUNT
    for image, found in zip(data.train_images(), expected(), strict=True):
        labels = load_labels(find_labels(image)).boxes
        inside = [row for row in found.to_coco(1) if min(row["bbox"][2:]) > 0]
        assert len(labels) == len(inside) > 0


def test_standard_output_has_the_table_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--no-images", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == COUNT


def test_crops_have_a_folder_for_each_class(folder: Path) -> None:
    assert run("--no-images", "--crops", "cut") == 0
    found = expected()
    assert sorted(path.name for path in Path("cut").iterdir()) == ["N_A", "dog"]
    assert len(list(Path("cut").glob("*/*.jpg"))) == sum(map(len, found))
    first = found[0]
    crop = load_image(f"cut/{'dog' if first.class_ids[0] else 'N_A'}/1_1.jpg")
    assert crop.shape == first.crops()[0].shape


def test_labels_that_exist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/2.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    command = ("--no-images", "--save-labels")
    assert run(*command) == 1 and "photos/2.txt: there are labels already" in capsys.readouterr().err
    assert len(list(Path("photos").glob("*.txt"))) == 1
    assert run(*command, "--existing-labels", "skip") == 0
    assert len(list(Path("photos").glob("*.txt"))) == COUNT
    assert Path("photos/2.txt").read_text() == "1 0.5 0.5 0.5 0.5\n"
    assert run(*command, "--existing-labels", "replace", "--class-thresh", "dog=1") == 0
    for number, image in enumerate(expected(), 1):
        rows = [line.split()[0] for line in Path(f"photos/{number}.txt").read_text().splitlines()]
        assert rows == ["0"] * len(image.filter("N/A"))


def test_an_interrupted_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--json", "a.json", "--csv", "a.csv", "--resume")
    record_one, done = DetectResults.record, []

    def interrupted(results: DetectResults, path: str, found: Detections) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        record_one(results, path, found)

    with monkeypatch.context() as patch:
        patch.setattr(DetectResults, "record", interrupted)
        assert run(*options) == 130
    assert "the images so far are in a.json.partial; --resume goes on from there" in capsys.readouterr().err
    assert not Path("a.json").exists()
    record = Path("a.json.partial").read_bytes()
    assert record.count(b"\n") == 3
    Path("a.json.partial").write_bytes(record + b'{"path": "photos/3')  # a line that is not complete
    assert run(*options, "--nms", "0.3") == 1
    assert "a.json.partial: expected the record of a run with the same options" in capsys.readouterr().err
    assert run(*options) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[:3]] == [
        f"photos/{number}.png" for number in (3, 4, 5)
    ]
    assert [frame["objects"] for frame in json.loads(Path("a.json").read_text())] == [i.to_json() for i in expected()]
    assert len(Path("a.csv").read_text().splitlines()) == 1 + sum(map(len, expected()))
    assert not Path("a.json.partial").exists() and len(list(Path("predictions").iterdir())) == COUNT


@pytest.mark.parametrize(
    "line",
    [
        b"not JSON\n",
        b'{"path": "photos/2.png", "size": [1, 2], "rows": [[0]]}\n',
        b'{"path": "photos/2.png", "size": "ab", "rows": []}\n',
        b'{"path": "photos/2.png", "size": [1, 2], "rows": [[NaN, 0, 0, 0, 0, 0]]}\n',
        b'{"path": "photos/1.png", "size": [1, 2], "rows": []}\n',  # once more
        b'{"path": "other.png", "size": [1, 2], "rows": []}\n',
        b"[1]\n",
    ],
)
def test_what_follows_a_damaged_line_of_a_record_is_done_again(
    line: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(results: DetectResults) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DetectResults, "_write_tables", interrupted)
        assert run("--no-images", "--json", "a.json") == 130
    lines = Path("a.json.partial").read_bytes().splitlines(keepends=True)
    Path("a.json.partial").write_bytes(b"".join([*lines[:2], line, *lines[3:]]))
    assert run("--no-images", "--json", "a.json", "--resume") == 0
    assert [frame["objects"] for frame in json.loads(Path("a.json").read_text())] == [i.to_json() for i in expected()]


def test_without_tables_the_images_tell_what_is_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    Path("predictions/4.jpg").unlink()
    capsys.readouterr()
    assert run("--resume") == 0
    assert next(line for line in capsys.readouterr().out.splitlines() if ".png" in line).startswith("photos/4.png")


@pytest.mark.parametrize("text", ["dog", "dog=2", "=0.5", "dog=x"])
def test_thresholds_that_are_none(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--class-thresh", text) == 2
    assert "--class-thresh" in capsys.readouterr().err


def test_heat_map(folder: Path) -> None:
    """Over the last image; the boxes of all images count."""
    assert run("--no-images", "--heat-map", "heat.png") == 0
    drawn = load_image("heat.png")
    last = load_image(sorted(Path().glob("photos/*"))[-1])
    assert drawn.shape == last.shape and (drawn != last).any()


_TABLES = ("--no-images", "--json", "a.json", "--csv", "a.csv", "--coco", "a.coco.json")


def tables() -> list[str]:
    return [Path(name).read_text() for name in ("a.json", "a.csv", "a.coco.json")]


def test_shares_of_a_list_make_the_tables_of_one_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*_TABLES) == 0
    whole = tables()
    for name in ("a.json", "a.csv", "a.coco.json"):
        Path(name).unlink()
    Path("photos/3.png").write_bytes(b"no image")  # of the third share, which has one image
    assert run(*_TABLES) == 1
    without = tables()
    Path("a.json").unlink()
    for number in (2, 3, 1):
        capsys.readouterr()
        assert not Path("a.json").exists()
        assert run(*_TABLES, "--shard", f"{number}/3") == (number == 3)
    assert tables() == without != whole
    assert "detections in a.json" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir() if path.name.startswith("a.")} == {"a.json", "a.csv", "a.coco.json"}


def test_shares_that_are_killed_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills while a share is searched, after it is finished, and while the shares are joined."""
    assert run(*_TABLES) == 0
    whole = tables()
    Path("a.json").unlink()
    searched: list[str] = []
    record = DetectResults.record

    def note(self: DetectResults, path: str, found: Detections) -> None:
        if path in killing:
            raise KeyboardInterrupt
        searched.append(path)
        record(self, path, found)

    monkeypatch.setattr(DetectResults, "record", note)
    killing = {"photos/3.png"}
    with suppress(KeyboardInterrupt):
        run(*_TABLES, "--shard", "1/2", "--resume")
    assert Path("a.json.shard-1-of-2.partial").exists()
    killing.clear()
    assert run(*_TABLES, "--shard", "2/2", "--resume") == 0
    assert run(*_TABLES, "--shard", "2/2", "--resume") == 0  # started again after it had finished
    with monkeypatch.context() as patch:
        patch.setattr(DetectResults, "_write_tables", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*_TABLES, "--shard", "1/2", "--resume")
    assert run(*_TABLES, "--shard", "2/2", "--resume") == 0
    assert not Path("a.json").exists()
    assert run(*_TABLES, "--shard", "1/2", "--resume") == 0
    assert tables() == whole
    assert sorted(searched) == [f"photos/{number}.png" for number in range(1, COUNT + 1)]  # each once


def test_shares_of_other_options_are_not_joined(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*_TABLES, "--shard", "2/2") == 0
    assert run(*_TABLES, "--shard", "1/2", "--nms", "0.3") == 1
    assert "expected the record of a run with the same options" in capsys.readouterr().err
    assert not Path("a.json").exists()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_a_wrong_share(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"--shard={text}") == 2
    assert "expected K/N with K from 1 to N" in capsys.readouterr().err


def test_processes_of_torchrun_share_the_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(*_TABLES) == 0
    whole = tables()
    Path("a.json").unlink()
    said = folder / "said.txt"
    assert finish_ranks(start_ranks([words(*_TABLES)] * 4, said)) == [0] * 4, said.read_text()
    assert tables() == whole
    Path("photos/3.png").write_bytes(b"no image")  # torchrun would start all again for an exit code
    assert finish_ranks(start_ranks([words(*_TABLES)] * 2, said)) == [0] * 2, said.read_text()
    assert "some files could not be read; the others are done" in said.read_text()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert run(*_TABLES) == 1  # without the address that torchrun sets
    assert run("--json", "-", "--shard", "1/4") == 2
