"""NAME_report.html: the page about a training, written again at every evaluation and save."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from darknet_py.data.images import load_image
from darknet_py.errors import DISTRIBUTION, DarknetError, TrainError
from darknet_py.evaluation.worst_images import WorstImage
from darknet_py.files import write_atomically
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.train_log import TrainLogger
from darknet_py.view.contact_sheet import MARKED, Tile, TileBox, contact_sheet
from darknet_py.view.draw import save_image
from darknet_py.view.figure import save_figure
from darknet_py.view.run_report import RunReport, loss_parts_plot

_PACKAGES = (DISTRIBUTION, "torch", "numpy", "opencv-python", "opencv-python-headless")
_GREEN = (20, 140, 110)
_ORANGE = (235, 130, 0)
# Columns of the table of classes: heading, key of an evaluation's rows, format.
_COLUMNS = (
    ("AP", "ap", ".2%"),
    ("objects", "truths", "d"),
    ("precision", "precision", ".2f"),
    ("recall", "recall", ".2f"),
    ("F1", "f1", ".2f"),
    ("best F1", "best_f1", ".2f"),
    ("at confidence", "best_thresh", ".2f"),
)


class ReportWriter:
    """Writes the page and its contact sheets.

    Args:
        plan: The training.
        words: All of its decisions.
        log: Its rows and evaluations.
        command: The command or call that started it; empty where it is not known.
    """

    def __init__(self, plan: TrainingPlan, words: str, log: TrainLogger, command: str):
        self.plan = plan
        self.log = log
        self.command = command
        self.words = words

    def write(self, best: float, *, is_running: bool) -> None:
        """Writes NAME_report.html. best: the best score, −1 before the first."""
        plan, files, rows = self.plan, self.plan.files, self.log.rows
        iteration = rows[-1].iteration if rows else 0
        chart = files.path("loss_parts.png")
        if self.log.parts and plan.options.chart:
            save_figure(chart, loss_parts_plot(self.log.parts))
        page = RunReport(
            title=f"{files.name}: {plan.task.kind}",
            status=f"iteration {iteration} of {plan.net.max_batches}, {'running' if is_running else 'ended'}",
            is_running=is_running,
            commands=self._commands(),
            results=self._results(best),
            class_columns=["class", *(heading for heading, _, _ in _COLUMNS)],
            class_rows=self._class_rows(),
            images=[
                ("Loss, learning rate and score", files.chart, False),
                ("Parts of the loss", chart, False),
                ("Precision over recall, best evaluation", files.path("precision_recall.png"), False),
                ("Confusion matrix, best evaluation", files.path("confusion.png"), False),
                ("Validation images with most errors, best evaluation", files.path("worst.jpg"), True),
                ("Training images as the network sees them", files.path("samples.jpg"), True),
            ],
            plan=self.words,
            environment=environment(plan.device),
        )
        write_atomically(files.path("report.html"), page.to_html().encode("utf-8", "replace"), TrainError)

    def write_samples(self, tiles: Sequence[Tile]) -> None:
        """Writes NAME_samples.jpg."""
        if tiles:
            sheet = contact_sheet("training images as the network sees them", tiles)
            save_image(self.plan.files.path("samples.jpg"), sheet)

    def write_worst(self, images: Sequence[WorstImage], names: Sequence[str]) -> None:
        """Writes NAME_worst.jpg."""
        if images:
            tiles = [_tile(image, names, self.plan.net.channels) for image in images]
            title = "green: right, red: missed, orange: wrong"
            save_image(self.plan.files.path("worst.jpg"), contact_sheet(title, tiles))

    def _commands(self) -> dict[str, str]:
        if not self.command:
            return {}
        resumes = ("--resume", "resume=True")
        if any(word in self.command for word in resumes):
            resume = self.command
        else:
            resume = f"{self.command[:-1]}, resume=True)" if self.command.endswith(")") else f"{self.command} --resume"
        return {"Repeat": self.command, "Resume": resume, "In the folder": os.getcwd()}

    def _results(self, best: float) -> dict[str, str]:
        plan, rows, evaluations = self.plan, self.log.rows, self.log.evaluations
        results = {"output folder": str(plan.files.folder.resolve()), "data": str(plan.task.file.path)}
        if rows:
            last = rows[-1]
            results["loss"] = f"{last.loss:.4g} (average {last.average:.4g}), learning rate {last.rate:.3g}"
            results["images"] = f"{last.images:,} in {last.seconds / 60:.1f} minutes of training"
        if evaluations:
            label, metrics = plan.task.metric_label, evaluations[-1].metrics
            results[label] = f"{evaluations[-1].value:.2%} at iteration {evaluations[-1].iteration}, best {best:.2%}"
            results["validation loss"] = f"{evaluations[-1].loss:.4f}"
            if metrics.get("best_thresh") is not None:
                results["best F1"] = (
                    f"{metrics['best_f1']:.2f} at confidence {metrics['best_thresh']:.2f} "
                    f"(precision {metrics['best_precision']:.2f}, recall {metrics['best_recall']:.2f})"
                )
                results["--thresh auto"] = (
                    f"{metrics['auto_thresh']:.2f} (precision {metrics['auto_precision']:.2f}, "
                    f"recall {metrics['auto_recall']:.2f})"
                )
        return results

    def _class_rows(self) -> list[list[str]]:
        classes = self.log.evaluations[-1].classes if self.log.evaluations else ()
        return [
            [str(row["name"]), *(_cell(row, key, form) for _, key, form in _COLUMNS)] for row in classes if "ap" in row
        ]


def environment(device: torch.device) -> dict[str, str]:
    """What the training runs on."""
    found = {"Python": platform.python_version(), "system": platform.platform(), "host": socket.gethostname()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return {**found, "device": f"{device} ({name})"}


def _cell(row: Mapping[str, object], key: str, form: str) -> str:
    value = row.get(key)
    return "–" if value is None else format(value, form)


def _tile(image: WorstImage, names: Sequence[str], channels: int) -> Tile:
    try:
        pixels = load_image(image.path, channels)
    except DarknetError:
        pixels = None

    def box(values: Sequence[float], class_id: int, prefix: str, ink: tuple[int, int, int]) -> TileBox:
        name = names[class_id] if class_id < len(names) else str(class_id)
        cx, cy, w, h = (float(value) for value in values)
        return TileBox((cx, cy, w, h), f"{prefix}{name}", ink)

    truth = zip(image.truth.boxes, image.truth.class_ids.tolist(), image.is_missed.tolist(), strict=True)
    boxes = [box(values, class_id, "", MARKED) for values, class_id, is_missed in truth if is_missed]
    found = zip(image.found.boxes, image.found.class_ids.tolist(), image.is_wrong.tolist(), strict=True)
    confidences = image.found.confidences.tolist()
    for (values, class_id, is_wrong), confidence in zip(found, confidences, strict=True):
        boxes.append(box(values, class_id, f"{confidence:.2f} ", _ORANGE if is_wrong else _GREEN))
    missed, wrong = int(image.is_missed.sum()), int(image.is_wrong.sum())
    return Tile(pixels, boxes, [os.path.basename(image.path), f"{missed} missed, {wrong} wrong"])
