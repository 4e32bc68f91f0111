"""The files of an evaluation: JSON, the confusion matrix as CSV, plots, and Darknet's result files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from darknet_py.data.datafile import DataFile
from darknet_py.evaluation.detector import Evaluation
from darknet_py.evaluation.result_files import COCO_NAME, VOC_PREFIX, write_coco, write_voc
from darknet_py.evaluation.types import Ints
from darknet_py.files import make_folder, write_atomically
from darknet_py.view.evaluation_plots import evaluation_plots
from darknet_py.view.figure import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_files(
    folder: str, report: Mapping[str, object], evaluation: Evaluation, matrix: Ints, data: DataFile | None
) -> None:
    """The files of --out; the result files in the layout that the .data file's `eval` names (coco, else VOC)."""
    boxes, names = evaluation.boxes, evaluation.names
    title, curves = "predicted boxes", []
    if evaluation.darknet:
        title = f"mAP@{evaluation.darknet.iou_thresh:.2f} = {evaluation.darknet.map:.2%}"
        curves = [(curve.precision, curve.recall) for curve in evaluation.curves()]
    out = write_report(folder, report, names, matrix, evaluation_plots(title, names, matrix, curves))
    if "coco" in boxes.found:
        write_results(out, evaluation, data)


def write_results(folder: Path, evaluation: Evaluation, data: DataFile | None, name: str = "") -> list[Path]:
    """Darknet's result files of an evaluation by the protocol coco.

    Args:
        folder: Where the files go.
        evaluation: The detections.
        data: Its `eval` names the layout: coco, else VOC.
        name: Of the file (coco), or the start of the names of all files (VOC), instead of Darknet's.

    Returns:
        The files.
    """
    boxes = evaluation.boxes
    if data and data.eval == "coco":
        file = folder / f"{name or COCO_NAME}.json"
        write_coco(file, boxes.found["coco"], boxes.paths, boxes.sizes, len(evaluation.names))
        return [file]
    return write_voc(folder, boxes.found["coco"], boxes.paths, boxes.sizes, evaluation.names, name or VOC_PREFIX)


def write_report(
    folder: str,
    report: Mapping[str, object],
    names: Sequence[str],
    matrix: Ints,
    plots: Mapping[str, Figure],
) -> Path:
    """evaluation.json, confusion.csv and the plots. matrix: of confusion; a row after the names is background."""
    out = make_folder(folder)
    write_atomically(out / "evaluation.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    columns = [*names, "background"][: len(matrix)]
    rows.writerow(["label \\ predicted", *columns])
    rows.writerows([name, *counts] for name, counts in zip(columns, matrix.tolist(), strict=True))
    write_atomically(out / "confusion.csv", table.getvalue().encode())
    for name, figure in plots.items():
        save_figure(out / f"{name}.png", figure)
    return out
