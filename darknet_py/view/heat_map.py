"""Where objects were found, over many images."""

from __future__ import annotations

import cv2
import numpy as np

from darknet_py.data.images import Image
from darknet_py.inference.detections import Detections

_SIZE = 512  # of the longer side
_OPACITY = 0.6


class HeatMap:
    """Counts, for each place of an image, the boxes that cover it. Boxes are relative, so images may differ in size."""

    def __init__(self) -> None:
        self.counts = np.zeros((_SIZE, _SIZE), np.float32)

    def add(self, found: Detections) -> None:
        """Adds the boxes of an image, each box once, whatever number of classes it has."""
        for x, y, w, h in (np.unique(found.boxes, axis=0) * _SIZE).tolist():
            left, right = (round(min(max(edge, 0), _SIZE)) for edge in (x - w / 2, x + w / 2))
            top, bottom = (round(min(max(edge, 0), _SIZE)) for edge in (y - h / 2, y + h / 2))
            self.counts[top:bottom, left:right] += 1

    def draw(self, image: Image) -> Image:
        """An image, (H, W, 3) RGB, under the colors of the counts: blue for few, red for the most, clear for none."""
        height, width = image.shape[:2]
        share = cv2.resize(self.counts / max(float(self.counts.max()), 1), (width, height))
        colors = cv2.cvtColor(
            cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB
        )
        opacity = (share > 0)[:, :, None] * _OPACITY
        return np.asarray(np.rint(image * (1 - opacity) + colors * opacity), np.uint8)
