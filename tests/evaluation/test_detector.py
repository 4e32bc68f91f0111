"""A network over images, against what C Darknet's commands print and write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import darknet_py
from darknet_py.data.readers.voc import voc_to_darknet
from darknet_py.errors import DarknetError, DataError
from darknet_py.evaluation.detector import EvalOptions, Evaluation, evaluate_detector
from darknet_py.evaluation.result_files import write_voc
from tests.evaluation import make

NAMES = ["a", "b", "c", "d"]


def evaluated(folder: Path, letter_box: int = 0, kind: str = "default", **settings: Any) -> Evaluation:
    net = darknet_py.load(*make.small_network(folder, letter_box, kind))
    return evaluate_detector(net, make.labeled(folder), NAMES, EvalOptions(workers=0, **settings))


@pytest.mark.parametrize(
    "case", make.GOLDEN["cases"], ids=lambda case: f"{case['nms_kind']}-letterbox{case['letter_box']}"
)
def test_equals_c(case: dict[str, Any], tmp_path: Path) -> None:
    result = evaluated(tmp_path, case["letter_box"], case["nms_kind"], iou_thresh=0.4, thresh=0.2, points=101, batch=4)
    ours = result.darknet
    assert ours is not None
    assert [row.tp for row in ours.classes] == case["tp"]
    assert [row.fp for row in ours.classes] == case["fp"]
    assert (ours.fn, ours.detections) == (case["fn"], case["detections"])
    assert [row.ap for row in ours.classes] == pytest.approx(case["ap"], abs=1e-6)
    assert ours.average_iou == pytest.approx(case["average_iou"], abs=1e-6)

    boxes = result.boxes
    files = write_voc(tmp_path / "results", boxes.found["coco"], boxes.paths, boxes.sizes, NAMES)
    lines = [file.read_text().splitlines() for file in files]
    assert [len(part) for part in lines] == case["voc_lines"]
    surest = max((line.split() for line in lines[1] if line.startswith("4 ")), key=lambda line: float(line[1]))
    np.testing.assert_allclose([float(v) for v in surest], [float(v) for v in case["voc_surest_b"].split()], atol=2e-3)


def test_one_protocol_alone_gives_the_same_and_the_network_is_left_as_it_is(tmp_path: Path) -> None:
    both = evaluated(tmp_path)
    assert both.darknet and both.coco
    net = darknet_py.load(*make.small_network(tmp_path, 0, "default")).train()
    paths = make.labeled(tmp_path)
    alone = evaluate_detector(net, paths, NAMES, EvalOptions(protocols=["darknet"], batch=1, workers=0))
    assert alone.darknet is not None and alone.coco is None
    assert alone.darknet.to_json() == both.darknet.to_json()
    assert net.training and all(weight.requires_grad for weight in net.parameters())
    coco = evaluate_detector(net, paths, NAMES, EvalOptions(protocols=["coco"], workers=0))
    assert coco.darknet is None and coco.coco and coco.coco.metrics == both.coco.metrics
    json.dumps(both.to_json())


def test_difficult_objects(tmp_path: Path) -> None:
    paths = make.labeled(tmp_path)
    net = darknet_py.load(*make.small_network(tmp_path, 0, "default"))
    hard = [str(Path(path).with_name(f"difficult_{Path(path).name}")) for path in paths]
    for path, other in zip(paths, hard, strict=True):
        rows = Path(path).with_suffix(".txt").read_text().splitlines(keepends=True)
        Path(other).with_suffix(".txt").write_text("".join(rows[1::2]))
        Path(path).with_suffix(".txt").write_text("".join(rows[::2]))
    with_them = evaluate_detector(
        net, paths, NAMES, EvalOptions(protocols=["darknet"], workers=0), difficult=hard
    ).darknet
    without = evaluate_detector(net, paths, NAMES, EvalOptions(protocols=["darknet"], workers=0)).darknet
    assert with_them and without and with_them.detections < without.detections
    assert with_them.map > without.map
    with pytest.raises(DataError, match="expected one entry per image"):
        evaluate_detector(net, paths, NAMES, EvalOptions(workers=0), difficult=hard[:2])


def test_bad_images_and_labels_are_reported_and_left_out(tmp_path: Path) -> None:
    paths = make.labeled(tmp_path)
    net = darknet_py.load(*make.small_network(tmp_path, 0, "default"))
    Path(paths[1]).write_bytes(b"no image")
    with open(Path(paths[0]).with_suffix(".txt"), "a") as file:
        file.write("99 .5 .5 .1 .1\n")
    result = evaluate_detector(net, [*paths, str(tmp_path / "gone.png")], NAMES, EvalOptions(batch=2, workers=0))
    assert [Path(path).stem for path in result.boxes.paths] == ["0", "2", "3", "4", "5"]
    assert len(result.skipped) >= 3
    assert any("1.png" in line for line in result.skipped) and any("got 99" in line for line in result.skipped)
    with pytest.raises(DataError, match=r"none of the 1 images can be read, the first: .*gone"):
        evaluate_detector(net, [str(tmp_path / "gone.png")], NAMES, EvalOptions(workers=0))


def test_wrong_requests(tmp_path: Path) -> None:
    net = darknet_py.load(*make.small_network(tmp_path, 0, "default"))
    paths = make.labeled(tmp_path)
    with pytest.raises(DataError, match=r"expected at most 4 class names .* got 5"):
        evaluate_detector(net, paths, list("abcde"), EvalOptions(workers=0))
    with pytest.raises(DarknetError, match="protocols: expected some of darknet, coco, recall, got voc"):
        evaluate_detector(net, paths, NAMES, EvalOptions(protocols=["voc"], workers=0))
    assert evaluate_detector(net, paths, options=EvalOptions(protocols=["darknet"], workers=0)).names == (
        "0",
        "1",
        "2",
        "3",
    )


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("stb", [True, False])
def test_bccd_gives_cs_map(reference: Path, tmp_path: Path, stb: bool) -> None:
    """C's 41.96 % where JPEGs are read as C read them, box by box. As OpenCV reads them it is 41.78 %, for C as well
    (its own run on the same pixels as PNG). Tolerances are C's printed digits, or what OpenCV's pixels change."""
    bccd = reference / "bccd"
    expected = json.loads((bccd / "c-darknet.json").read_text())
    names = list(expected["ap"])
    net = darknet_py.load(bccd / "yolo-fastest-bccd.cfg", bccd / "c-darknet-200.weights")
    data = voc_to_darknet(bccd, tmp_path, names).data
    result = evaluate_detector(net, data.valid_images(), data.class_names(), EvalOptions(workers=0, stb=stb))
    ours = result.darknet
    assert ours is not None and result.coco is not None and not result.skipped
    assert ours.map == pytest.approx(expected["mAP50"], abs=1e-6 if stb else 0.005)
    assert [row.ap for row in ours.classes] == pytest.approx(list(expected["ap"].values()), abs=1e-4 if stb else 0.005)
    at = expected["at_conf_025"]
    assert ours.truths == 945 == at["TP"] + at["FN"]
    assert abs(ours.tp - at["TP"]) <= (0 if stb else 5) and abs(ours.fp - at["FP"]) <= (0 if stb else 15)
    assert ours.average_iou == pytest.approx(at["average_iou"], abs=5e-5 if stb else 0.003)
    assert result.coco.metrics["AP50"] == pytest.approx(0.405, abs=0.005)
    assert result.coco.ap == pytest.approx(0.1755, abs=0.01)
