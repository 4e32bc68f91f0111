"""Darknet's own command lines print what C Darknet prints, line by line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darknet_py.cli import darknet_compat, main
from darknet_py.cli.darknet_output import box_lines, counter_line
from darknet_py.data.images import load_image
from darknet_py.inference.detections import Detections
from tests.conftest import tool

golden = tool("golden/darknet_lines")
CASES = json.loads((Path(__file__).parents[1] / "golden" / "darknet_lines.json").read_text())


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['command']} {case['flags']}")
def test_the_lines_of_c(
    case: dict[str, Any],
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The C program here was built without OpenCV; with --stb JPEGs have its pixels."""
    golden.write_data(reference, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(golden.PHOTOS.format(reference=reference)))
    words = darknet_compat.translate(golden.arguments(case["command"], case["flags"], reference, tmp_path))
    assert main([*words, *(["--stb"] if words[0] in ("detect", "evaluate", "classify") else [])]) == 0
    output = capsys.readouterr()
    lines = golden.cleaned(output.out, reference)
    if case["command"].startswith("detector valid"):
        assert_rows_of_c(golden.result_lines(tmp_path / "results"), case["lines"])
        return
    if words[0] == "video":
        assert_frames_of_c(lines, case["lines"])
        return
    if "recall" in words:
        lines = [line for line in output.err.split("\n") if "RPs/Img" in line]
    if words[0] == "classify":  # by other orders of summation: the last of six decimals may differ
        assert probabilities(lines) == pytest.approx(probabilities(case["lines"]), abs=2e-6)
        lines = [PROBABILITY.sub(": P", line) for line in lines]
        case["lines"] = [PROBABILITY.sub(": P", line) for line in case["lines"]]
    assert "\n".join(lines).rstrip() == "\n".join(case["lines"]).rstrip()
    if words[0] == "train":
        assert load_image("chart.png").shape == load_image("chart_squares.png").shape
    if words[0] == "detect":
        assert load_image("predictions.jpg").shape == load_image(reference / "real" / "horses.jpg").shape
    if words[0] == "anchors":
        assert Path("counters_per_class.txt").read_text() == next(
            line for line in case["lines"] if line.startswith("counters")
        )
        assert f"anchors = {Path('anchors.txt').read_text()}" in case["lines"]


def assert_rows_of_c(lines: Sequence[str], lines_of_c: Sequence[str]) -> None:
    """The same rows of image and class; by other orders of summation, scores within 1e-5, boxes within 0.002 pixels."""
    ours, of_c = rows_by_key(lines), rows_by_key(lines_of_c)
    assert ours.keys() == of_c.keys() and len(lines) == len(lines_of_c) > 100
    for key, values in of_c.items():
        rows = ours[key]
        assert rows.shape == values.shape
        difference = abs(rows[:, None] - values[None]) / ROW_TOLERANCES
        nearest = difference.max(2).argmin(1)
        assert sorted(nearest) == list(range(len(values))) and difference[range(len(rows)), nearest].max() < 1


NUMBER = r"-?\d+\.\d{6}"
ROW_TOLERANCES = np.array([0.002, 0.002, 0.002, 0.002, 1e-5])


def rows_by_key(lines: Sequence[str]) -> dict[str, Any]:
    """(N, 5) box and score, by what else the rows have."""
    rows: dict[str, list[list[float]]] = {}
    for line in lines:
        values = [float(text) for text in re.findall(NUMBER, line)]
        rows.setdefault(re.sub(NUMBER, "", line), []).append(values if "bbox" in line else [*values[1:], values[0]])
    return {key: np.array(values) for key, values in rows.items()}


def assert_frames_of_c(lines: Sequence[str], lines_of_c: Sequence[str]) -> None:
    """C says nothing of the first two frames and of the last one, and lists the boxes of a frame in another order."""
    ours, of_c = frames(lines), frames(lines_of_c)
    assert (len(ours), of_c[0], len(of_c)) == (6, [], 4)
    assert ours[2:-1] == of_c[1:] and all(of_c[1:])
    assert lines[:2] == lines_of_c[:2] and lines[-3:] == lines_of_c[-3:]


def frames(lines: Sequence[str]) -> list[list[str]]:
    """The sorted lines of each frame's boxes."""
    return [sorted(re.findall(r"^.+%.*$", part, re.MULTILINE)) for part in "\n".join(lines).split("Objects:")[1:]]


PROBABILITY = re.compile(r": (0\.\d{6})$")


def probabilities(lines: Sequence[str]) -> list[float]:
    return [float(match[1]) for line in lines if (match := PROBABILITY.search(line))]


def test_box_lines() -> None:
    """Left to right; the best class first, then the box's other classes in their order; hidden ones not alone."""
    boxes = np.array([[0.5, 0.5, 0.2, 0.2]] * 3 + [[0.25, 0.5, 0.5, 0.25]] + [[0.05, 0.5, 0.2, 0.5]] * 2, np.float32)
    found = Detections(
        boxes,
        np.array([2, 0, 1, 0, 3, 0]),
        np.array([0.9, 0.8, 0.7, 0.445, 0.99, 0.3], np.float32),
        ("cat", "dog", "fox", "dont_show tree"),
        (100, 50),
        candidate_ids=np.array([7, 7, 7, 3, 5, 5]),
    )
    assert list(box_lines(found)) == [
        "cat: 30%",
        "dont_show tree: 99%",
        "cat: 44%",  # 44.5 is rounded to even, as printf does
        "fox: 90%",
        "cat: 80%",
        "dog: 70%",
    ]
    assert next(iter(box_lines(found, ext_output=True))) == (
        "cat: 30%\t(left_x:   -5   top_y:   13   width:   20   height:   25)"  # 12.5: away from zero
    )
    assert list(box_lines(found[4:5])) == []
    assert counter_line([3, 0]) == "counters_per_class = 3, 0"
