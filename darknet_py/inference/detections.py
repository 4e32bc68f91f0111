"""The detections of one image, from non-maximum suppression to evaluation, drawing and tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import NotRequired

from darknet_py.data.image_sources import open_image
from darknet_py.data.images import Image
from darknet_py.errors import DataError
from darknet_py.optional import require
from darknet_py.view.draw import draw, is_visible_class, save_image

if TYPE_CHECKING:
    import pandas
    import supervision

Boxes = TypeVar("Boxes", NDArray[np.float32], NDArray[np.float64])

CSV_COLUMNS = "image", "class_id", "name", "confidence", "left", "top", "right", "bottom"
# COCO numbers its 80 classes 1 to 90 with gaps.
_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_COCO_IDS = np.array([i for i in range(1, 91) if i not in _COCO_GAPS])


class Detection(NamedTuple):
    """One class of one box.

    Attributes:
        class_id: The class, from 0.
        name: Its name; its number as text where the network has no names.
        confidence: Score of the class, 0 to 1.
        box: Center x, center y, width, height, relative to the image.
    """

    class_id: int
    name: str
    confidence: float
    box: tuple[float, float, float, float]


class RelativeCoordinates(TypedDict):
    """A box in Darknet's JSON, relative to the image."""

    center_x: float
    center_y: float
    width: float
    height: float


class JsonObject(TypedDict):
    """A detection in Darknet's JSON (`detection_to_json`)."""

    class_id: int
    name: str
    relative_coordinates: RelativeCoordinates
    confidence: float
    track_id: NotRequired[int]


class CocoDetection(TypedDict):
    """A detection in COCO's results format; `bbox` is left, top, width, height in pixels."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


class DetectionDict(TypedDict):
    """A detection of `Detections.to_dict`; `box` is relative to the image, `xyxy` in pixels."""

    class_id: int
    name: str
    confidence: float
    box: list[float]
    xyxy: list[float]
    track_id: NotRequired[int]


class DetectionsDict(TypedDict):
    """The detections of an image as `Detections.to_dict` gives them."""

    path: str
    width: int
    height: int
    detections: list[DetectionDict]


class LineCount(TypedDict):
    """How many objects have crossed a counting line of a video, see `RegionCounter`."""

    into: int
    out: int


class JsonFrame(TypedDict):
    """An image or frame in Darknet's JSON. Frames have a time, and a file name where there are several videos."""

    frame_id: int
    filename: NotRequired[str]
    seconds: NotRequired[float]
    lines: NotRequired[list[LineCount]]
    zones: NotRequired[list[int]]
    objects: list[JsonObject]


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections of one image: N rows, one per pair of box and class, by falling confidence.

    Iteration and an integer index give `Detection` items; a slice, a boolean mask or an array of indices gives
    `Detections` again: `detections[detections.confidences > 0.5]`.

    Attributes:
        boxes: (N, 4) float32, center x, center y, width, height, relative to the image.
        class_ids: (N,) int64.
        confidences: (N,) float32, scores of the classes (objectness · class probability).
        class_names: Names of the network's classes; may be empty or shorter than the number of classes.
        image_size: Width and height of the image in pixels, for `xyxy` and `xywh`.
        objectness: (N,) float32; empty where it is not known.
        candidate_ids: (N,) int64, index of the box among the network's candidates (`Predictions`); empty where unknown.
            A box with several classes has several rows of one candidate.
        path: The image's file or web address; empty for images that were not read from one.
        track_ids: (N,) int64, the same number for the same object in all frames of a video, from 1; 0 for one that is
            not tracked yet. Empty without a tracker.
    """

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    confidences: NDArray[np.float32]
    class_names: Sequence[str] = ()
    image_size: tuple[int, int] = (1, 1)
    objectness: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    candidate_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    path: str = ""
    track_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.class_ids)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.class_ids.tolist(), self.names, self.confidences.tolist(), self.boxes.tolist(), strict=True)
        for class_id, name, confidence, (x, y, w, h) in rows:
            yield Detection(class_id, name, confidence, (x, y, w, h))

    @overload
    def __getitem__(self, rows: int) -> Detection: ...

    @overload
    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.integer] | Sequence[int]) -> Detections: ...

    def __getitem__(
        self, rows: int | slice | NDArray[np.bool_] | NDArray[np.integer] | Sequence[int]
    ) -> Detection | Detections:
        if isinstance(rows, (int, np.integer)):
            x, y, w, h = self.boxes[rows].tolist()
            class_id = int(self.class_ids[rows])
            return Detection(class_id, self._name(class_id), float(self.confidences[rows]), (x, y, w, h))
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            rows = rows if rows.size else rows.astype(np.int64)
        return replace(
            self,
            boxes=self.boxes[rows],
            class_ids=self.class_ids[rows],
            confidences=self.confidences[rows],
            objectness=self.objectness[rows] if len(self.objectness) else self.objectness,
            candidate_ids=self.candidate_ids[rows] if len(self.candidate_ids) else self.candidate_ids,
            track_ids=self.track_ids[rows] if len(self.track_ids) else self.track_ids,
        )

    def __repr__(self) -> str:
        return f"<Detections: {self.summary()}>"

    @property
    def names(self) -> list[str]:
        """The name of each row's class."""
        return [self._name(class_id) for class_id in self.class_ids.tolist()]

    @property
    def xywh(self) -> NDArray[np.float32]:
        """(N, 4) center x, center y, width, height, in pixels of the image."""
        return self.boxes * np.array(self.image_size * 2, np.float32)

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """(N, 4) left, top, right, bottom, in pixels of the image; not clipped at its edges."""
        return _corners(self.xywh)

    @property
    def xyxyn(self) -> NDArray[np.float32]:
        """(N, 4) left, top, right, bottom, relative to the image; not clipped at its edges."""
        return _corners(self.boxes)

    def filter(
        self, classes: int | str | Iterable[int | str] | None = None, confidence: float | None = None
    ) -> Detections:
        """The rows of some classes, or above a confidence.

        Args:
            classes: Numbers or names of the classes to keep; None keeps all.
            confidence: The rows of a higher confidence are kept; None keeps all.

        Returns:
            The rows in the same order.

        Raises:
            DataError: The network has no class of this name.
        """
        keep = np.ones(len(self), bool)
        if classes is not None:
            chosen = [classes] if isinstance(classes, (int, str)) else classes
            keep &= np.isin(self.class_ids, [class_number(name, self.class_names) for name in chosen])
        if confidence is not None:
            keep &= self.confidences > confidence
        return self[keep]

    def visible(self) -> Detections:
        """Those that Darknet names and draws: not the classes whose names start with dont_show."""
        hidden = {k for k, name in enumerate(self.class_names) if not is_visible_class(name)}
        return self[~np.isin(self.class_ids, list(hidden))] if hidden else self

    def plot(self, image: Image | None = None) -> Image:
        """Draws the boxes with their names and confidences.

        Args:
            image: uint8 (H, W, 3) RGB, or (H, W) gray. Its size may differ from `image_size`. None: the file or web
                address `path` is read again.

        Returns:
            A copy of the image with the boxes, uint8 (H, W, 3).

        Raises:
            DataError: It is not such an image, it cannot be read, or there is none.
        """
        return draw(self._image(image), self, self.track_ids.tolist())

    def save(self, path: str | PathLike[str], image: Image | None = None) -> Path:
        """Writes the image with the boxes.

        Args:
            path: The file to write; its ending chooses the format (.jpg, .png …).
            image: As `plot` takes it.

        Returns:
            The file.

        Raises:
            DataError: As `plot`, or the file cannot be written.
        """
        save_image(fspath(path), self.plot(image))
        return Path(path)

    def crops(self, image: Image | None = None) -> list[Image]:
        """The part of the image in each box.

        Args:
            image: As `plot` takes it.

        Returns:
            A copy for each row, uint8 (h, w, 3): the pixels that the box touches, at least one.

        Raises:
            DataError: As `plot`.
        """
        image = self._image(image)
        height, width = image.shape[:2]
        corners = self.xyxyn.astype(np.float64) * [width, height, width, height]
        low = np.floor(corners[:, :2]).clip(0, [width - 1, height - 1]).astype(int)
        high = np.maximum(np.ceil(corners[:, 2:]).clip(0, [width, height]).astype(int), low + 1)
        return [
            image[top:bottom, left:right].copy()
            for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True)
        ]

    def to_dict(self) -> DetectionsDict:
        """Plain numbers, texts and lists, for `json.dumps`: path and size of the image, and a dict per row."""
        rows: list[DetectionDict] = []
        for number, (found, corners) in enumerate(zip(self, self.xyxy.tolist(), strict=True)):
            row: DetectionDict = {
                "class_id": found.class_id,
                "name": found.name,
                "confidence": found.confidence,
                "box": list(found.box),
                "xyxy": corners,
            }
            if len(self.track_ids):
                row["track_id"] = int(self.track_ids[number])
            rows.append(row)
        width, height = self.image_size
        return {"path": self.path, "width": width, "height": height, "detections": rows}

    def to_json(self) -> list[JsonObject]:
        """The list of objects that Darknet's JSON holds for an image (`detection_to_json`), for `json.dumps`."""
        objects: list[JsonObject] = []
        for number, (class_id, name, confidence, (x, y, w, h)) in enumerate(self):
            entry: JsonObject = {
                "class_id": class_id,
                "name": name,
                "relative_coordinates": {"center_x": x, "center_y": y, "width": w, "height": h},
                "confidence": confidence,
            }
            if len(self.track_ids):
                entry["track_id"] = int(self.track_ids[number])
            objects.append(entry)
        return objects

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[CocoDetection]:
        """The rows in COCO's results format, as pycocotools' `loadRes` reads them.

        Args:
            image_id: Number of the image in the annotations.
            category_ids: Category id of each class. Default: COCO's own for a network of 80 classes (1 to 90 with
                gaps), else from 1 on.

        Returns:
            A dict per row; boxes are clipped at the image's edges (`print_cocos`).
        """
        ids = coco_category_ids(len(self.class_names)) if category_ids is None else np.asarray(category_ids)
        boxes = clipped(self.boxes, self.image_size).tolist()
        rows = zip(self.class_ids.tolist(), boxes, self.confidences.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": _category(class_id, ids), "bbox": box, "score": score}
            for class_id, box, score in rows
        ]

    def to_csv(self, header: bool = True) -> str:
        """The rows as CSV: `image,class_id,name,confidence,left,top,right,bottom`, in pixels.

        Args:
            header: Whether the first line has the names of the columns.

        Returns:
            The lines, each with its line end.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(CSV_COLUMNS)
        for found, corners in zip(self, self.xyxy.tolist(), strict=True):
            numbers = (f"{value:.2f}" for value in corners)
            writer.writerow([self.path, found.class_id, found.name, f"{found.confidence:.6f}", *numbers])
        return text.getvalue()

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a table with the columns of `to_csv`.

        Raises:
            MissingExtra: pandas is not installed.
        """
        module = require("pandas", "pandas", "Detections.to_pandas")
        left, top, right, bottom = self.xyxy.T
        columns = (
            [self.path] * len(self),
            self.class_ids,
            self.names,
            self.confidences,
            left,
            top,
            right,
            bottom,
        )
        table: pandas.DataFrame = module.DataFrame(dict(zip(CSV_COLUMNS, columns, strict=True)))
        return table

    def to_supervision(self) -> supervision.Detections:
        """The rows for Roboflow's supervision (annotators, zones, trackers); `data["class_name"]` has the names.

        Raises:
            MissingExtra: supervision is not installed.
        """
        module = require("supervision", "supervision", "Detections.to_supervision")
        found: supervision.Detections = module.Detections(
            xyxy=self.xyxy,
            confidence=self.confidences,
            class_id=self.class_ids,
            tracker_id=self.track_ids if len(self.track_ids) else None,
            data={"class_name": np.array(self.names, dtype=str)},
        )
        return found

    def to_frame(self, frame_id: int, path: str | PathLike[str] | None = None) -> JsonFrame:
        """The entry of this image in Darknet's JSON.

        Args:
            frame_id: Number of the image, from 1.
            path: The image's file; None for a frame of a video.

        Returns:
            A dict for `json.dumps`.
        """
        if path is None:
            return {"frame_id": frame_id, "objects": self.to_json()}
        return {"frame_id": frame_id, "filename": fspath(path), "objects": self.to_json()}

    def summary(self) -> str:
        """One line: names and confidences."""
        return ", ".join(f"{found.name} {found.confidence:.0%}" for found in self) or "nothing"

    def _name(self, class_id: int) -> str:
        return self.class_names[class_id] if class_id < len(self.class_names) else str(class_id)

    def _image(self, image: Image | None) -> Image:
        """The image that was given, or else the one at `path`."""
        if image is not None:
            return image
        if not self.path:
            raise DataError("expected the image: these detections are of one that was not read from a file")
        return open_image(self.path)


def class_number(name: int | str, names: Sequence[str]) -> int:
    """The number of a class that is given by its name or number. Raises DataError for an unknown name."""
    if isinstance(name, int):
        return name
    if name in names:
        return names.index(name)
    raise DataError(f"class {name!r}: expected one of {', '.join(names) or 'no classes with names'}")


def coco_category_ids(classes: int) -> NDArray[np.int64]:
    """COCO's category id of each class; 1 … classes for data sets other than COCO's 80 classes."""
    return _COCO_IDS if classes == len(_COCO_IDS) else np.arange(1, classes + 1)


def _corners(boxes: Boxes) -> Boxes:
    """(N, 4) center x, center y, width, height → left, top, right, bottom."""
    centers, sizes = np.split(boxes, 2, 1)
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], 1)


def _category(class_id: int, ids: NDArray[np.int64]) -> int:
    """COCO's category id of a class; class_id + 1 where the network has fewer names."""
    return int(ids[class_id]) if class_id < len(ids) else class_id + 1


def corners(boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """(K, 4) relative center boxes → float64 (K, 4) left, top, right, bottom in pixels of an image (width, height)."""
    return _corners(boxes.reshape(-1, 4).astype(np.float64)) * (size * 2)


def clipped(boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """The same, cut at the image's edges, as left, top, width, height (`print_cocos`)."""
    edges = corners(boxes, size)
    low, high = np.maximum(edges[:, :2], 0), np.minimum(edges[:, 2:], size)
    return np.concatenate([low, high - low], 1)
