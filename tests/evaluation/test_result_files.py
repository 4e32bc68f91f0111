"""Result files in Darknet's layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from darknet_py.errors import DataError
from darknet_py.evaluation.result_files import image_ids, write_coco, write_voc
from darknet_py.inference.detections import Detections, coco_category_ids

NONE = Detections(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, np.float32))
ONE = Detections(
    np.array([[0.5, 0.5, 0.5, 0.5], [0.125, 0.25, 0.5, 0.25]], np.float32),
    np.array([1, 0]),
    np.array([0.75, 0.5], np.float32),
)


def test_coco_json_in_darknets_layout(tmp_path: Path) -> None:
    file = tmp_path / "coco_results.json"
    write_coco(file, [NONE, ONE], ["x/000000000009.jpg", "x/000000000042.jpg"], [(10, 10), (64, 32)], 80)
    assert file.read_text() == (
        "[\n"
        '{"image_id":42, "category_id":2, "bbox":[16.000000, 8.000000, 32.000000, 16.000000], "score":0.750000},\n'
        '{"image_id":42, "category_id":1, "bbox":[0.000000, 4.000000, 24.000000, 8.000000], "score":0.500000}\n'
        "]\n"
    )
    write_coco(file, [NONE], ["a.jpg"], [(10, 10)], 3)
    assert json.loads(file.read_text()) == []


def test_voc_files(tmp_path: Path) -> None:
    files = write_voc(
        tmp_path / "new", [NONE, ONE], ["a.jpg", "b/BloodImage_00007.jpg"], [(9, 9), (64, 32)], ["x", "y"]
    )
    assert [file.name for file in files] == ["comp4_det_test_x.txt", "comp4_det_test_y.txt"]
    assert files[0].read_text() == "BloodImage_00007 0.500000 1.000000 5.000000 25.000000 13.000000\n"
    assert files[1].read_text() == "BloodImage_00007 0.750000 17.000000 9.000000 49.000000 25.000000\n"


def test_category_numbers_are_cocos() -> None:
    ids = coco_category_ids(80)
    assert (ids[0], ids[11], ids[79], len(ids)) == (1, 13, 90, 80)
    assert list(coco_category_ids(3)) == [1, 2, 3]


def test_image_numbers() -> None:
    assert image_ids(["a/000000000139.jpg", "b/000000000285.jpg"]) == [139, 285]
    assert image_ids(["COCO_val2014_000000000042.jpg", "COCO_val2014_000000000073.jpg"]) == [42, 73]
    assert image_ids(["a.jpg", "b7.jpg"]) == [1, 2]
    assert image_ids(["x/1.jpg", "y/1.jpg"]) == [1, 2]


def test_unwritable_places_give_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*cannot write: No such file"):
        write_coco(tmp_path / "nowhere" / "f.json", [], [], [], 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot make this folder"):
        write_voc(tmp_path / "file", [], [], [], ["a"])


def test_names_that_are_no_file_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """C's file name where it is possible; the others stay in the folder, and none replaces another's."""
    caplog.set_level("INFO", "darknet_py")
    names = ["dog", "dog", "N/A", "../up", "x" * 300, "x" * 300, "dog_1", "\t\x1b", ".", "é" * 200, "N/A", "a b", ""]
    found = Detections(np.full((13, 4), 0.5, np.float32), np.arange(13), np.linspace(0.1, 0.7, 13, dtype=np.float32))
    files = write_voc(tmp_path / "out", [found], ["a.jpg"], [(10, 10)], names)
    assert [file.name.removeprefix("comp4_det_test_").removesuffix(".txt") for file in files] == [
        "dog",
        "dog_14",  # dog_1 is the name of class 6
        "N_A",
        ".._up",
        "x" * (255 - 15 - 4),
        "x" * (255 - 15 - 4 - 2) + "_5",
        "dog_1",
        "__",
        ".",
        "é" * ((255 - 15 - 4) // 2),
        "N_A_10",
        "a b",
        "",
    ]
    for file, score in zip(files, np.linspace(0.1, 0.7, 13), strict=True):
        assert (
            file.parent == tmp_path / "out" and file.read_text() == f"a {score:f} 3.500000 3.500000 8.500000 8.500000\n"
        )
    assert len(list(tmp_path.iterdir())) == 1
    assert "note: the results of class 2, 'N/A', are in comp4_det_test_N_A.txt" in caplog.messages
    assert len(caplog.messages) == 8
