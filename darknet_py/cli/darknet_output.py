"""Darknet's own lines on standard output, for scripts that read it: `detector test`, `map` and `calc_anchors`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from darknet_py.evaluation.classifier import ClassifierResult
from darknet_py.evaluation.darknet_map import DarknetResult
from darknet_py.evaluation.recall import RecallResult
from darknet_py.graph.graph import Graph
from darknet_py.inference.detections import Detections, JsonFrame
from darknet_py.layers.base import DetectionHeadSpec
from darknet_py.view.draw import is_visible_class

_AVERAGE_SECONDS = 3.0  # of AVG_FPS
_POINTS = """
Set -points flag:
 `-points 101` for MS COCO 
 `-points 11` for PascalVOC 2007 (uncomment `difficult` in voc.data) 
 `-points 0` (AUC) for ImageNet, PascalVOC 2010-2012, your custom dataset"""  # noqa: W291


def detection_layer_lines(graph: Graph) -> Iterator[str]:
    """A line per head, as `test_detector` prints them before each image."""
    for node in graph.layers:
        if isinstance(node.spec, DetectionHeadSpec) and node.spec.c_type:
            yield f" Detection layer: {node.index} - type = {node.spec.c_type} "


def box_lines(found: Detections, ext_output: bool = False) -> Iterator[str]:
    """The boxes of an image as `draw_detections_v3` prints them: from left to right, a line per class of a box.

    Args:
        found: All detections, those of classes called dont_show… too: Darknet names such a class where its box has
            another one.
        ext_output: Whether the lines have pixel coordinates (`-ext_output`).
    """
    boxes: dict[int, list[int]] = {}  # rows by box
    for row, candidate in enumerate(found.candidate_ids.tolist()):
        boxes.setdefault(candidate, []).append(row)
    lines: list[tuple[np.float32, list[str]]] = []
    for rows in boxes.values():
        visible = [row for row in rows if is_visible_class(found.names[row])]
        if not visible:
            continue
        best = max(visible, key=lambda row: (found.confidences[row], -found.class_ids[row]))
        others = sorted((row for row in rows if row != best), key=lambda row: found.class_ids[row])
        place = _coordinates(found.boxes[best], found.image_size) if ext_output else ""
        texts = [
            f"{found.names[row]}: {found.confidences[row] * np.float32(100):.0f}%{place}" for row in (best, *others)
        ]
        lines.append((found.boxes[best][0] - found.boxes[best][2] / 2, texts))
    for _, texts in sorted(lines, key=lambda line: line[0]):
        yield from texts


def _coordinates(box: NDArray[np.float32], size: tuple[int, int]) -> str:
    """Left, top, width and height in pixels. Floats of 32 bits, halves away from zero, as in C."""
    x, y, w, h = box
    width, height = np.float32(size[0]), np.float32(size[1])
    edges = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
    left, top, across, down = (math.copysign(math.floor(abs(float(edge)) + 0.5), edge) for edge in edges)
    return f"\t(left_x: {left:4.0f}   top_y: {top:4.0f}   width: {across:4.0f}   height: {down:4.0f})"


def json_text(frames: Sequence[JsonFrame]) -> str:
    """The JSON file of `-out` as C writes it (`detection_to_json`), with six decimals; names are escaped."""
    return "[\n" + ", \n".join(map(json_frame, frames)) + "\n]"


def json_frame(frame: JsonFrame) -> str:
    """An image or a frame in that JSON."""
    lines = [f'{{\n "frame_id":{frame["frame_id"]}, \n ']
    if "filename" in frame:
        lines.append(f'"filename":{json.dumps(frame["filename"], ensure_ascii=False)}, \n ')
    objects = []
    for entry in frame["objects"]:
        coordinates = ", ".join(f'"{name}":{value:f}' for name, value in entry["relative_coordinates"].items())
        name = json.dumps(entry["name"], ensure_ascii=False)
        objects.append(
            f'  {{"class_id":{entry["class_id"]}, "name":{name}, "relative_coordinates":{{{coordinates}}}, '
            f'"confidence":{entry["confidence"]:f}}}'
        )
    return "".join(lines) + '"objects": [ \n' + ", \n".join(objects) + "\n ] \n}"


class DemoLines:
    """What `demo` prints, without the control characters that clear the screen. A context manager.

    C lists the boxes of a frame in an order that its sorting leaves; here the most confident ones come first.

    Args:
        source: The video file or the number of the camera.
        ext_output: Whether the lines of boxes have pixel coordinates (`-ext_output`).
        writes_video: Whether a video is written.
    """

    def __init__(self, source: str, ext_output: bool, writes_video: bool):
        self._ext_output, self._writes_video = ext_output, writes_video
        self._fps = self._average = 0.0
        self._started = False
        self._counted, self._since = 0, time.perf_counter()
        self._before = self._since
        print("Demo")
        print(f"Webcam index: {source}" if source.isdecimal() else f"video file: {source}")

    def __enter__(self) -> DemoLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            print("Stream closed.\ninput video stream closed. ")
            if self._writes_video:
                print("output_video_writer closed. ")

    def print_frame(self, found: Detections) -> None:
        """The objects of a frame and the frames per second until now."""
        if not self._started:
            print("Video stream: {} x {} ".format(*found.image_size))
            self._started = True
        lines = ["Objects:\n", *self._box_lines(found), f"\nFPS:{self._fps:.1f} \t AVG_FPS:{self._average:.1f}"]
        if self._writes_video:
            lines.append("\n cvWriteFrame ")
        print("\n".join(lines), flush=True)
        now = time.perf_counter()
        self._fps = self._fps * 0.9 + 0.1 / max(now - self._before, 1e-9)
        self._before = now
        self._counted += 1
        if now - self._since >= _AVERAGE_SECONDS:
            self._average = self._counted / (now - self._since)
            self._counted, self._since = 0, now

    def _box_lines(self, found: Detections) -> Iterator[str]:
        rows_by_box: dict[int, list[int]] = {}
        for row, candidate in enumerate(found.candidate_ids.tolist()):
            rows_by_box.setdefault(candidate, []).append(row)
        for rows in rows_by_box.values():
            by_class = sorted(rows, key=lambda row: found.class_ids[row])
            text = ", ".join(f"{found.names[k]}: {found.confidences[k] * np.float32(100):.0f}% " for k in by_class)
            yield text + (_frame_coordinates(found.boxes[rows[0]], found.image_size) if self._ext_output else "")


def _frame_coordinates(box: NDArray[np.float32], size: tuple[int, int]) -> str:
    """Those of `draw_detections_cv_v3`: left and top are whole pixels within the frame, cut off rather than rounded."""
    x, y, w, h = np.minimum(box, np.float32(1))
    left, top = (max(int((float(c) - float(s) / 2) * n), 0) for c, s, n in zip((x, y), (w, h), size, strict=True))
    width, height = w * np.float32(size[0]), h * np.float32(size[1])
    return f"\t(left_x: {left:4}   top_y: {top:4}   width: {width:4.0f}   height: {height:4.0f})"


def map_lines(graph: Graph, result: DarknetResult) -> Iterator[str]:
    """What `validate_detector_map` prints."""
    yield "\n calculation mAP (mean average precision)..."
    yield from detection_layer_lines(graph)
    yield f"\n detections_count = {result.detections}, unique_truth_count = {result.truths}  "
    for number, row in enumerate(result.classes):
        yield (
            f"class_id = {number}, name = {row.name}, ap = {row.ap * 100:2.2f}%   \t (TP = {row.tp}, FP = {row.fp}) "
        )
    precision = result.tp / counted if (counted := result.tp + result.fp) else None
    recall = result.tp / result.truths if result.truths else None
    f1 = None if precision is None or recall is None or not result.tp else 2 * precision * recall / (precision + recall)
    yield (
        f"\n for conf_thresh = {result.thresh:1.2f}, precision = {_ratio(precision)}, recall = {_ratio(recall)}, "
        f"F1-score = {_ratio(f1)} "
    )
    yield (
        f" for conf_thresh = {result.thresh:0.2f}, TP = {result.tp}, FP = {result.fp}, FN = {result.fn}, "
        f"average IoU = {result.average_iou * 100:2.2f} % "
    )
    points = (
        f"used {result.points} Recall-points " if result.points else "used Area-Under-Curve for each unique Recall "
    )
    yield f"\n IoU threshold = {result.iou_thresh * 100:2.0f} %, {points}"
    yield f" mean average precision (mAP@{result.iou_thresh:0.2f}) = {result.map:f}, or {result.map * 100:2.2f} % "
    yield _POINTS


def recall_lines(result: RecallResult) -> Iterator[str]:
    """What `validate_detector_recall` prints: the counts of the images so far, a line for each."""
    for number, row in enumerate(result.rows):
        overlap, recall = (
            f"{100 * value / row.truths:.2f}" if row.truths else "-nan" for value in (row.iou_sum, row.found)
        )
        yield (
            f"{number:5} {row.found:5} {row.truths:5}\tRPs/Img: {row.proposals / (number + 1):.2f}\t"
            f"IOU: {overlap}%\tRecall:{recall}%"
        )


def top_lines(result: ClassifierResult, top: int) -> Iterator[str]:
    """What `validate_classifier_single` prints: the accuracy of the images so far, a line for each."""
    yield " TOP calculation..."
    yield ""
    top = min(top, result.scores.shape[1])
    order = np.argsort(-result.scores, axis=1, kind="stable")[:, :top]
    hits = order == result.labels[:, None]
    first, any_of = np.cumsum(hits[:, 0]), np.cumsum(hits.any(1))
    for number, (best, within) in enumerate(zip(first.tolist(), any_of.tolist(), strict=True)):
        yield f"{number}: top 1: {best / (number + 1):f}, top {top}: {within / (number + 1):f}"


def anchor_lines(
    sizes: tuple[int, int], images: int, boxes: int, counts: Sequence[int], average_iou: float, anchors: str
) -> Iterator[str]:
    """What `calc_anchors` prints, without its progress.

    Args:
        sizes: Width and height of the input.
        images: Number of images.
        boxes: Number of labeled boxes.
        counts: Boxes of each class.
        average_iou: Of the boxes with their best anchors, 0 to 1.
        anchors: As they are written to anchors.txt.
    """
    number = len(anchors.split(",")) // 2
    yield f"\n num_of_clusters = {number}, width = {sizes[0]}, height = {sizes[1]} "
    yield f" read labels from {images} images "
    yield f"\r loaded \t image: {images} \t box: {boxes}\n all loaded. "
    yield "\n calculating k-means++ ...\n"
    yield f"\n{counter_line(counts)}"
    yield f"\n avg IoU = {average_iou * 100:2.2f} % "
    yield f"\nSaving anchors to the file: anchors.txt \nanchors = {anchors}"


def counter_line(counts: Sequence[int]) -> str:
    """The content of counters_per_class.txt."""
    return f"counters_per_class = {', '.join(map(str, counts))}"


def _ratio(value: float | None) -> str:
    """Two decimals; what C prints for 0 / 0 where there is none."""
    return "-nan" if value is None else f"{value:1.2f}"
