"""`Detections`: rows as items and as arrays, boxes in pixels, JSON, drawing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from darknet_py.data.images import load_image
from darknet_py.errors import DataError, MissingExtra
from darknet_py.inference.detections import Detection, Detections
from darknet_py.view.draw import save_image


def detections() -> Detections:
    boxes = np.array([[0.5, 0.5, 0.5, 0.25], [0.25, 0.75, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    confidences = np.array([0.875, 0.5, 0.25], np.float32)
    return Detections(boxes, np.array([1, 0, 7]), confidences, ("dont_show cat", "dog"), (200, 100))


def test_items_in_order() -> None:
    found = detections()
    assert len(found) == 3 and found.names == ["dog", "dont_show cat", "7"]
    assert next(iter(found)) == found[0] == Detection(1, "dog", 0.875, (0.5, 0.5, 0.5, 0.25))
    assert found[-1].name == "7"
    with pytest.raises(IndexError):
        found[3]


def test_pixels() -> None:
    found = detections()
    assert found.xywh.tolist()[0] == [100, 50, 100, 25]
    assert found.xyxy.tolist()[:2] == [[50, 37.5, 150, 62.5], [0, 50, 100, 100]]


def test_selection() -> None:
    found = detections()
    assert found[found.confidences > 0.4].class_ids.tolist() == [1, 0]
    assert found[1:].class_ids.tolist() == [0, 7] and found[[2, 0]].names == ["7", "dog"]
    assert len(found[[]]) == 0 and found[[]].xyxy.shape == (0, 4)
    assert found.visible().names == ["dog", "7"]


def test_json_is_darknets() -> None:
    found = detections()[:1]
    (entry,) = json.loads(json.dumps(found.to_json()))
    assert entry == {
        "class_id": 1,
        "name": "dog",
        "relative_coordinates": {"center_x": 0.5, "center_y": 0.5, "width": 0.5, "height": 0.25},
        "confidence": 0.875,
    }
    assert list(found.to_frame(3, "a.jpg")) == ["frame_id", "filename", "objects"]
    assert "filename" not in found.to_frame(3)


def test_plot_leaves_the_image() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    plotted = detections().plot(image)
    assert (image == 90).all() and plotted.shape == image.shape and (plotted != 90).any()
    assert repr(detections()[:1]) == "<Detections: dog 88%>"
    tracked = replace(detections(), track_ids=np.array([7, 0, 2]))
    assert (tracked.plot(image) != plotted).any()


def test_filter() -> None:
    found = detections()
    assert found.filter("dog").class_ids.tolist() == found.filter([1]).class_ids.tolist() == [1]
    assert found.filter(["dog", 7]).class_ids.tolist() == [1, 7]
    assert found.filter(confidence=0.25).class_ids.tolist() == [1, 0]  # not the one at 0.25 itself
    assert found.filter(0, 0.6).names == [] and len(found.filter([])) == 0
    with pytest.raises(DataError, match="class 'cow': expected one of dont_show cat, dog"):
        found.filter("cow")


def test_relative_corners_and_track_ids_follow_the_rows() -> None:
    found = replace(detections(), track_ids=np.array([7, 0, 2]))
    assert found.xyxyn.tolist()[:2] == [[0.25, 0.375, 0.75, 0.625], [0, 0.5, 0.5, 1]]
    assert found[1:].track_ids.tolist() == [0, 2]
    assert [entry["track_id"] for entry in found.to_json()] == [7, 0, 2]


def test_dict_csv_and_coco() -> None:
    found = replace(detections(), path="a,b.jpg")
    content = json.loads(json.dumps(found.to_dict()))
    assert (content["path"], content["width"], content["height"]) == ("a,b.jpg", 200, 100)
    assert content["detections"][0] == {
        "class_id": 1,
        "name": "dog",
        "confidence": 0.875,
        "box": [0.5, 0.5, 0.5, 0.25],
        "xyxy": [50, 37.5, 150, 62.5],
    }
    assert found[:1].to_csv() == (
        'image,class_id,name,confidence,left,top,right,bottom\n"a,b.jpg",1,dog,0.875000,50.00,37.50,150.00,62.50\n'
    )
    assert found.to_csv(header=False).count("\n") == 3
    outside = replace(found[:1], boxes=np.array([[0.05, 0.9, 0.2, 0.4]], np.float32))  # beyond the left and lower edge
    (row,) = outside.to_coco(9)
    assert (row["image_id"], row["category_id"], row["score"]) == (9, 2, 0.875)
    assert row["bbox"] == pytest.approx([0, 70, 30, 30], abs=1e-5)
    of_coco = replace(found, class_names=[str(number) for number in range(80)], class_ids=np.array([79, 11, 0]))
    assert [row["category_id"] for row in of_coco.to_coco(1)] == [90, 13, 1]  # COCO skips ten numbers
    assert [row["category_id"] for row in found.to_coco(1, [4, 5, 6])] == [5, 4, 8]  # 7: no such category


def test_crops() -> None:
    """The pixels that a box touches; of one beside the image the nearest."""
    image = np.arange(100 * 200 * 3, dtype=np.int64).reshape(100, 200, 3).astype(np.uint8)
    boxes = np.array([[0.5, 0.5, 0.5, 0.25], [0.5, 0.5, 0.0, 0.0], [2, 2, 0.1, 0.1], [0, 0, 1, 1]], np.float32)
    found = Detections(boxes, np.zeros(4, np.int64), np.ones(4, np.float32), (), (200, 100))
    crops = found.crops(image)
    assert (crops[0] == image[37:63, 50:150]).all() and crops[0].base is None
    assert crops[1].tolist() == image[50:51, 100:101].tolist() and crops[2].tolist() == image[99:, 199:].tolist()
    assert (crops[3] == image[:50, :100]).all()


def test_the_image_is_read_again(tmp_path: Path) -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    save_image(tmp_path / "a.png", image)
    found = replace(detections(), path=str(tmp_path / "a.png"))
    assert (found.plot() == found.plot(image)).all() and len(found.crops()) == 3
    assert found.save(tmp_path / "b.png") == tmp_path / "b.png"
    assert (load_image(tmp_path / "b.png") == found.plot(image)).all()
    with pytest.raises(DataError, match="expected the image"):
        detections().plot()


def test_pandas() -> None:
    pytest.importorskip("pandas")
    table = replace(detections(), path="a.jpg").to_pandas()
    assert list(table.columns) == detections().to_csv().splitlines()[0].split(",")
    assert table.iloc[0].tolist() == ["a.jpg", 1, "dog", 0.875, 50, 37.5, 150, 62.5]
    assert len(detections()[[]].to_pandas()) == 0


@pytest.mark.filterwarnings("ignore")  # of the library
def test_supervision() -> None:
    pytest.importorskip("supervision")
    found = replace(detections(), track_ids=np.array([7, 0, 2])).to_supervision()
    assert found.xyxy.tolist()[0] == [50, 37.5, 150, 62.5] and found.class_id is not None
    assert found.class_id.tolist() == [1, 0, 7] and found.data["class_name"].tolist() == ["dog", "dont_show cat", "7"]
    assert found.tracker_id is not None and found.tracker_id.tolist() == [7, 0, 2]
    assert detections()[[]].to_supervision().tracker_id is None


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_without_the_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'darknet-torch\[{package}\]'"):
        getattr(detections(), f"to_{package}")()
