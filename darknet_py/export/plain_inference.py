"""Images to results in plain torch: the base classes of standalone networks, whose source the export copies.

Nothing here may use another part of the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Detector(nn.Module):
    """A network whose forward pass gives boxes (B, N, 4), objectness (B, N) and scores (B, N, classes)."""

    size = (416, 416)  # width, height of the input
    names: Sequence[str] = ()  # of the classes
    letter_box = False  # whether images keep their aspect ratio
    beta_nms = 0.0  # the distance of two boxes counts in suppression, to this power; 0: not at all

    @torch.no_grad()
    def detect(self, image: Tensor, thresh: float = 0.25, nms: float = 0.45) -> list[tuple[str, float, list[float]]]:
        """Detects objects in an image, uint8 (H, W, C) in RGB.

        Returns (name, confidence, [left, top, right, bottom] in pixels), the most confident first.
        """
        height, width = image.shape[:2]
        pixels = image.permute(2, 0, 1)[None].float() / 255
        inner = fit_into(width, height, *self.size) if self.letter_box else self.size
        x = F.interpolate(pixels, inner[::-1], mode="bilinear", align_corners=True)
        left, top = (self.size[0] - inner[0]) // 2, (self.size[1] - inner[1]) // 2
        right, bottom = self.size[0] - inner[0] - left, self.size[1] - inner[1] - top
        boxes, objectness, scores = (part[0] for part in self(F.pad(x, (left, right, top, bottom), value=0.5)))
        rows, labels = ((scores > thresh) & (objectness > thresh)[:, None]).nonzero(as_tuple=True)
        boxes, confidence = boxes[rows], scores[rows, labels]
        share = torch.tensor(inner * 2) / torch.tensor(self.size * 2)  # of the input that the image takes
        boxes = torch.cat((boxes[:, :2] - (1 - share[:2]) / 2, boxes[:, 2:]), 1) / share
        found = []
        for k in suppress(boxes, labels, confidence, nms, self.beta_nms):
            x, y, w, h = (boxes[k] * torch.tensor((width, height) * 2)).tolist()
            label = int(labels[k])
            name = self.names[label] if label < len(self.names) else str(label)
            found.append((name, float(confidence[k]), [x - w / 2, y - h / 2, x + w / 2, y + h / 2]))
        return found


class Classifier(nn.Module):
    """A network whose forward pass gives a probability for each class."""

    size = (224, 224)  # width, height of the input
    names: Sequence[str] = ()  # of the classes

    @torch.no_grad()
    def classify(self, image: Tensor, top: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of an image, uint8 (H, W, C) in RGB: (name, probability)."""
        height, width = image.shape[:2]
        pixels = image.permute(2, 0, 1)[None].float() / 255
        side = self.size[0]  # of the shorter side; the middle is cropped
        resized = (height * side // width, side) if width < height else (side, width * side // height)
        x = F.interpolate(pixels, resized, mode="bilinear", align_corners=True)
        rows = torch.arange(self.size[1]) + int((resized[0] - self.size[1]) / 2)
        columns = torch.arange(side) + int((resized[1] - side) / 2)
        x = x[:, :, rows.clamp(0, resized[0] - 1)][..., columns.clamp(0, resized[1] - 1)]
        probability, labels = self(x)[0].sort(descending=True)
        names = [self.names[k] if k < len(self.names) else str(k) for k in labels[:top].tolist()]
        return list(zip(names, probability[:top].tolist(), strict=True))


def fit_into(image_width: int, image_height: int, width: int, height: int) -> tuple[int, int]:
    """The width and height of an image that fits into a frame and keeps its aspect ratio."""
    if width / image_width < height / image_height:
        return width, max(image_height * width // image_width, 1)
    return max(image_width * height // image_height, 1), height


def suppress(boxes: Tensor, labels: Tensor, confidence: Tensor, limit: float, beta: float) -> list[int]:
    """Non-maximum suppression within each class: the rows that stay, by falling confidence.

    boxes: (N, 4) center x, center y, width, height. beta: (distance of the centers / diagonal around both)² to this
    power is subtracted from the IoU; 0 for the IoU alone.
    """
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    area = boxes[:, 2] * boxes[:, 3]
    remaining: list[int] = []
    rest = confidence.argsort(descending=True, stable=True)
    while len(rest):
        best, rest = rest[0], rest[1:]
        remaining.append(int(best))
        common = torch.minimum(high[rest], high[best]) - torch.maximum(low[rest], low[best])
        shared = common.clamp(min=0).prod(1)
        overlap = shared / (area[rest] + area[best] - shared).clamp(min=1e-12)
        if beta:
            around = torch.maximum(high[rest], high[best]) - torch.minimum(low[rest], low[best])
            distance = (boxes[rest, :2] - boxes[best, :2]).square().sum(1)
            overlap = overlap - (distance / around.square().sum(1).clamp(min=1e-12)) ** beta
        rest = rest[~((overlap > limit) & (labels[rest] == labels[best]))] if limit else rest
    return remaining
