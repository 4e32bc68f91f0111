"""The detections of one image, from non-maximum suppression to evaluation, drawing and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import NamedTuple, TypedDict, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import NotRequired

from darknet_py.data.images import Image
from darknet_py.view.draw import draw, is_visible_class


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


class JsonFrame(TypedDict):
    """An image or frame in Darknet's JSON; frames of a video have no file name."""

    frame_id: int
    filename: NotRequired[str]
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
    """

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    confidences: NDArray[np.float32]
    class_names: Sequence[str] = ()
    image_size: tuple[int, int] = (1, 1)
    objectness: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    candidate_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    path: str = ""

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
        centers, sizes = np.split(self.xywh, 2, 1)
        return np.concatenate([centers - sizes / 2, centers + sizes / 2], 1)

    def visible(self) -> Detections:
        """Those that Darknet names and draws: not the classes whose names start with dont_show."""
        hidden = {k for k, name in enumerate(self.class_names) if not is_visible_class(name)}
        return self[~np.isin(self.class_ids, list(hidden))] if hidden else self

    def plot(self, image: Image) -> Image:
        """Draws the boxes with their names and confidences.

        Args:
            image: uint8 (H, W, 3) RGB, or (H, W) gray. Its size may differ from `image_size`.

        Returns:
            A copy of the image with the boxes, uint8 (H, W, 3).

        Raises:
            DataError: It is not such an image.
        """
        return draw(image, self)

    def to_json(self) -> list[JsonObject]:
        """The list of objects that Darknet's JSON holds for an image (`detection_to_json`)."""
        return [
            {
                "class_id": class_id,
                "name": name,
                "relative_coordinates": {"center_x": x, "center_y": y, "width": w, "height": h},
                "confidence": confidence,
            }
            for class_id, name, confidence, (x, y, w, h) in self
        ]

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
