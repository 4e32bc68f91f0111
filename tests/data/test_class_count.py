from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darknet_py.cli import main
from darknet_py.data.class_count import count_classes
from darknet_py.data.datafile import DataFile

CFG = """[net]
width=32
height=32
channels=3
batch=2
max_batches=1
burn_in=0
[convolutional]
filters=24
size=1
stride=16
activation=linear
[yolo]
mask=0,1,2
anchors=4,4, 8,8, 16,16
num=3
classes=3
"""


def dataset(folder: Path, labels: str, header: str = "") -> Path:
    """Two images with these labels, a .data file and `t.cfg`, whose head has 3 classes."""
    for name in ("a", "b"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(labels)
    (folder / "list.txt").write_text("a.png\nb.png\n")
    (folder / "t.cfg").write_text(CFG)
    (folder / "t.data").write_text(f"{header}train=list.txt\nvalid=list.txt\n")
    return folder / "t.data"


@pytest.mark.parametrize(
    ("header", "labels", "classes"),
    [
        ("classes=1\n", "0 .5 .5 .4 .4\n", 1),
        ("classes=1\n", "2 .5 .5 .4 .4\n", 3),
        ("classes=1\n", "", 1),
        ("classes=2\n", "1 .5 .5 .4 .4\n", 2),
        ("classes=3\n", "0 .5 .5 .4 .4\n", 3),
        ("classes=5\n", "4 .5 .5 .4 .4\n", 5),  # more than the head: the caller refuses it
        ("", "0 .5 .5 .4 .4\n", 3),
    ],
)
def test_the_number_that_counts(header: str, labels: str, classes: int, tmp_path: Path) -> None:
    data = DataFile.read(dataset(tmp_path, labels, header))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert count_classes(data, 3, "t.cfg", data.train_images()).classes == classes
    assert [str(warning.message) for warning in caught] == (
        [f"{data.path}: classes=1, but t.cfg has 3; using 3"] if (header, classes) == ("classes=1\n", 3) else []
    )


@pytest.mark.parametrize(
    "command",
    [
        ["train", "t.cfg", "--map", "off", "--max-batches", "1", "--workers", "0", "--out", "out"],
        ["evaluate", "t.cfg", "--random-weights"],
        ["check", "t.cfg"],
        ["anchors", "t.cfg", "--out", "out"],
    ],
    ids=lambda command: command[0],
)
def test_all_commands_have_one_rule(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    dataset(tmp_path, "0 .5 .5 .4 .4\n", "classes=1\n")
    main([*command, "--data", "t.data"])
    assert "note: t.cfg has classes=3, t.data 1; only those are used" in caplog.messages
    dataset(tmp_path, "2 .5 .5 .4 .4\n", "classes=1\n")
    caplog.clear()
    main([*command, "--data", "t.data"])
    messages = " ".join(caplog.messages)
    assert "t.data: classes=1, but t.cfg has 3; using 3" in messages and "only those are used" not in messages
