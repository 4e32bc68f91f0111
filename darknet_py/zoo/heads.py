"""Detection and classification heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from darknet_py.zoo.blocks import attend
from darknet_py.zoo.cfg_writer import CfgWriter, Value

COCO_V2 = (0.57273, 0.677385, 1.87446, 2.06253, 3.33843, 5.47434, 7.88282, 3.52778, 9.77052, 9.16828)  # in cells
COCO_V3 = (10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326)  # in pixels, so are the next
COCO_V4 = (12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401)
COCO_TINY = (10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319)
COCO_FASTEST = (12, 18, 37, 49, 52, 132, 115, 73, 119, 199, 242, 238)

THREE_SCALES = {8: (0, 1, 2), 16: (3, 4, 5), 32: (6, 7, 8)}
TWO_SCALES = {16: (0, 1, 2), 32: (3, 4, 5)}
OVERLAPPING = {16: (1, 2, 3), 32: (3, 4, 5)}  # as published: anchor 3 at both strides, anchor 0 at none

V3_LOSS: Mapping[str, Value] = {"jitter": 0.3, "ignore_thresh": 0.7, "truth_thresh": 1, "random": 1}
# YOLOv4: CIoU loss, more than one anchor per object, NMS by DIoU
CIOU: Mapping[str, Value] = {
    "iou_loss": "ciou",
    "iou_normalizer": 0.07,
    "cls_normalizer": 1.0,
    "nms_kind": "greedynms",
    "beta_nms": 0.6,
}
V4_LOSS: Mapping[str, Value] = {"jitter": 0.3, "ignore_thresh": 0.7, "truth_thresh": 1, "iou_thresh": 0.213, **CIOU}
V4_SCALES: dict[int, dict[str, Value]] = {
    8: {"scale_x_y": 1.2},
    16: {"scale_x_y": 1.1},
    32: {"scale_x_y": 1.05, "random": 1},  # Darknet reads `random` of the last head only
}
# Scaled-YOLOv4: the convolution before the head is logistic; box sides are (2 sigma)^2 times the anchor
CSP_LOSS: Mapping[str, Value] = {
    "new_coords": 1,
    "scale_x_y": 2.0,
    "jitter": 0.1,
    "resize": 1.5,
    "ignore_thresh": 0.7,
    "truth_thresh": 1,
    "iou_thresh": 0.2,
    "iou_loss": "ciou",
    "iou_normalizer": 0.05,
    "cls_normalizer": 0.5,
    "nms_kind": "diounms",
    "beta_nms": 0.6,
}


@dataclass(frozen=True)
class YoloHeads:
    """`[yolo]` heads, one per stride.

    Attributes:
        classes: Number of classes.
        anchors: Widths and heights of all anchors, in pixels.
        masks: Stride → indices of the anchors of its head.
        options: Loss options of all heads.
        at: Stride → loss options of one head.
        activation: Activation of the convolution before the head.
    """

    classes: int
    anchors: Sequence[float]
    masks: Mapping[int, tuple[int, ...]]
    options: Mapping[str, Value]
    at: Mapping[int, Mapping[str, Value]] = field(default_factory=dict)
    activation: str = "linear"

    @property
    def strides(self) -> list[int]:
        """The strides of the heads, finest first."""
        return sorted(self.masks)

    def write(self, cfg: CfgWriter, stride: int) -> None:
        """Writes the head of a stride, after `CfgWriter.attention` of the features that it reads."""
        attend(cfg)
        mask = self.masks[stride]
        cfg.note(
            f"Head at stride {stride}: {len(mask)} anchors x (4 coordinates + objectness + {self.classes} classes)"
        )
        cfg.conv(len(mask) * (5 + self.classes), activation=self.activation, norm=False)
        cfg.section(
            "yolo",
            mask=mask,
            anchors=self.anchors,
            classes=self.classes,
            num=len(self.anchors) // 2,
            **{**self.options, **self.at.get(stride, {})},
        )


def masks(strides: Sequence[int], anchors: int) -> dict[int, tuple[int, ...]]:
    """Divides the anchors equally: stride → indices, the smallest anchors for the finest stride."""
    count = anchors // len(strides)
    return {stride: tuple(range(i * count, (i + 1) * count)) for i, stride in enumerate(sorted(strides))}


def region(
    cfg: CfgWriter,
    classes: int,
    *,
    anchors: Sequence[float] = COCO_V2,
    jitter: float = 0.3,
    rescore: int = 1,
    random: int = 1,
) -> None:
    """Head of YOLOv2: anchors in cells, classes by softmax."""
    boxes = len(anchors) // 2
    cfg.note(f"{boxes} anchors x (4 coordinates + objectness + {classes} classes)")
    cfg.conv(boxes * (5 + classes), activation="linear", norm=False)
    cfg.section(
        "region",
        anchors=anchors,
        bias_match=1,
        classes=classes,
        coords=4,
        num=boxes,
        softmax=1,
        jitter=jitter,
        rescore=rescore,
        object_scale=5,
        noobject_scale=1,
        class_scale=1,
        coord_scale=1,
        absolute=1,
        thresh=0.6,
        random=random,
    )


def classifier(cfg: CfgWriter, classes: int, *, pool_first: bool = True, dropout: float = 0.0) -> None:
    """Average pooling, a 1x1 convolution to the classes, softmax. Pooling may also follow the convolution."""
    cfg.chapter("Classifier")
    cfg.part(f"{classes} classes")
    if pool_first:
        cfg.section("avgpool")
    if dropout:
        cfg.section("dropout", probability=dropout)
    cfg.conv(classes, activation="linear", norm=False)
    if not pool_first:
        cfg.section("avgpool")
    cfg.section("softmax", groups=1)
