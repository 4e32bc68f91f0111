"""Darknet's mAP: by hand, against a slow re-telling, and at the edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darknet_py.errors import DataError
from darknet_py.evaluation.darknet_map import Curve, average_precision, darknet_map
from darknet_py.evaluation.types import GroundTruth, iou_matrix
from darknet_py.inference.detections import Detections
from tests.call_count import count_calls
from tests.evaluation import make, oracle

NAMES = ["a", "b", "c", "d"]
BOX = [0.5, 0.5, 0.2, 0.2]
FAR = [0.1, 0.1, 0.1, 0.1]


def found(*rows: tuple[list[float], int, float]) -> Detections:
    boxes, ids, scores = zip(*rows, strict=True) if rows else ([], [], [])
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(ids, int), np.array(scores, np.float32))


def truth(*rows: tuple[list[float], int]) -> GroundTruth:
    boxes, ids = zip(*rows, strict=True) if rows else ([], [])
    return GroundTruth(np.array(boxes, np.float32).reshape(-1, 4), np.array(ids, int))


def test_by_hand() -> None:
    """Two truths of class a: hit at .9, a miss at .8, a second box on the same truth at .7, the other hit at .3."""
    hits = [found((BOX, 0, 0.9), (FAR, 0, 0.8), (BOX, 0, 0.7)), found((BOX, 0, 0.3))]
    result = darknet_map(hits, [truth((BOX, 0)), truth((BOX, 0))], ["a"])
    # precision/recall by rank: 1/.5, 1/2 /.5, 1/3 /.5, 2/4 /1 → area .5·1 + .5·.5
    assert result.map == pytest.approx(0.75)
    assert (result.tp, result.fp, result.fn, result.truths, result.detections) == (2, 2, 0, 2, 4)
    assert result.precision == 0.5 and result.recall == 1 and result.f1 == pytest.approx(2 / 3)
    assert result.average_iou == pytest.approx(0.5)
    eleven = darknet_map(hits, [truth((BOX, 0)), truth((BOX, 0))], ["a"], points=11)
    assert eleven.map == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    above = darknet_map(hits, [truth((BOX, 0)), truth((BOX, 0))], ["a"], thresh=0.3)
    assert (above.tp, above.fp, above.fn) == (1, 2, 1)


def test_first_box_on_a_truth_takes_it_even_below_the_threshold() -> None:
    hits = [found((BOX, 0, 0.1), (BOX, 0, 0.9))]
    result = darknet_map(hits, [truth((BOX, 0))], ["a"])
    assert (result.tp, result.fp, result.map) == (0, 1, 1.0)


def test_wrong_class_and_iou_equal_to_the_threshold_are_misses() -> None:
    half = [0.5, 0.5, 0.2, 0.4]
    assert iou_matrix(np.array([BOX], np.float32), np.array([half], np.float32))[0, 0] == pytest.approx(0.5)
    exact = [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.25]
    result = darknet_map([found((exact[0], 0, 0.9))], [truth((exact[1], 0))], ["a"])
    assert (result.map, result.tp, result.fp) == (0.0, 0, 1)
    assert darknet_map([found((BOX, 1, 0.9))], [truth((BOX, 0))], NAMES).tp == 0


def test_difficult_objects_are_free_on_the_curve_and_wrong_at_the_threshold() -> None:
    hits = [found((FAR, 0, 0.95), (BOX, 0, 0.9))]
    hard = [truth((FAR, 0))]
    result = darknet_map(hits, [truth((BOX, 0))], ["a"], difficult=hard)
    assert (result.map, result.tp, result.fp, result.detections) == (1.0, 1, 1, 1)
    assert darknet_map(hits, [truth((BOX, 0))], ["a"]).map == 0.5


GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "evaluate_map.json").read_text())


@pytest.mark.parametrize(
    "case", CASES["cases"], ids=lambda case: f"{case['iou_thresh']}-{case['points']}-{case['difficult']}"
)
def test_equals_c_on_the_boxes_that_c_compared(case: dict[str, Any]) -> None:
    data = np.load(GOLDEN / "evaluate_map.npz")
    hits = [
        Detections(data["found"][rows, 1:], data["class_id"][rows].astype(int), data["found"][rows, 0])
        for rows in (data["image"] == image for image in range(4))
    ]
    easy, hard = (
        [
            GroundTruth(rows[:, 2:], rows[:, 1].astype(int))
            for rows in (table[table[:, 0] == image] for image in range(4))
        ]
        for table in (data["truth"], data["difficult"])
    )
    settings = {key: case[key] for key in ("points", "iou_thresh", "thresh")}
    result = darknet_map(hits, easy, CASES["names"], difficult=hard if case["difficult"] else None, **settings)
    assert result.map == pytest.approx(case["map"], abs=1e-6)
    assert [row.ap for row in result.classes] == pytest.approx(case["ap"], abs=1e-9)
    assert [row.tp for row in result.classes] == case["tp"]
    assert [row.fp for row in result.classes] == case["fp"]
    assert (result.fn, result.detections) == (case["fn"], case["detections"])
    assert result.average_iou == pytest.approx(case["average_iou"], abs=1e-6)


def test_classes_without_truth_count_as_zero() -> None:
    result = darknet_map([found((BOX, 0, 0.9), (BOX, 1, 0.9))], [truth((BOX, 0))], NAMES)
    assert [row.ap for row in result.classes] == [1, 0, 0, 0]
    assert result.map == 0.25


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("points", [0, 11, 101])
def test_equals_the_slow_oracle(seed: int, points: int) -> None:
    hits, labels = make.dataset(seed, ties=seed % 2 == 0)
    hard = make.dataset(seed + 1000)[1] if seed % 3 == 0 else None
    kind = {"iou_thresh": [0.5, 0.3, 0.75][seed % 3], "points": points, "thresh": [0.25, 0.505][seed % 2]}
    ours = darknet_map(hits, labels, NAMES, difficult=hard, **kind)
    slow = oracle.darknet_map(hits, labels, 4, difficult=hard, **kind)
    assert ours.map == pytest.approx(slow["map"], abs=1e-12)
    assert [row.ap for row in ours.classes] == pytest.approx(slow["ap"], abs=1e-12)
    assert [row.tp for row in ours.classes] == slow["tp"]
    assert [row.fp for row in ours.classes] == slow["fp"]
    assert ours.fn == slow["fn"] and ours.detections == slow["detections"]
    assert ours.average_iou == pytest.approx(slow["average_iou"], abs=1e-6)


def test_nothing_found_and_nothing_to_find() -> None:
    assert darknet_map([], [], NAMES).map == 0
    assert darknet_map([found()], [truth((BOX, 2))], NAMES).fn == 1
    result = darknet_map([found((BOX, 0, 0.5))], [truth()], NAMES, points=101)
    assert (result.map, result.fp, result.recall) == (0, 1, 0)


def test_recall_points_compare_as_in_c() -> None:
    """3/10 recall meets the point 3/10 although neither is exact in binary."""
    recall = np.arange(1, 11) / 10
    assert average_precision(Curve(np.ones(10), np.ones(10), recall), 11) == pytest.approx(1.0)


def test_bad_records_are_refused() -> None:
    with pytest.raises(DataError, match=r"image 0: expected classes 0 to 3, got 7"):
        darknet_map([found((BOX, 7, 0.5))], [truth()], NAMES)
    with pytest.raises(DataError, match="got 0 for 1 image"):
        darknet_map([found()], [], NAMES)
    with pytest.raises(DataError, match="points"):
        darknet_map([], [], NAMES, points=1)


def test_to_json_is_plain_and_labeled() -> None:
    hits, labels = make.dataset(3)
    text = json.loads(json.dumps(darknet_map(hits, labels, NAMES, points=101).to_json()))
    assert text["protocol"] == "Darknet `detector map`: mAP@0.50, 101 recall points, thresh 0.005, NMS 0.45"
    assert [row["name"] for row in text["classes"]] == NAMES


def test_work_grows_linearly() -> None:
    hits, labels = make.dataset(1, images=50)
    once, often = (count_calls(lambda k=k: darknet_map(hits * k, labels * k, NAMES)) for k in (1, 20))
    assert often < 20 * 1.2 * once
