"""Counting lines and zones of a video, by the library `supervision`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from darknet_py.data.images import Image
from darknet_py.inference.detections import Detections, LineCount
from darknet_py.optional import require

Points = NDArray[np.float64]  # (N, 2), relative to the image


class RegionCounter:
    """Counts objects that cross lines, and those that stand in zones, in one video.

    An object is in a zone where the middle of its lower edge is. It crosses a line when all four corners of its box
    have; `into` counts those that end on the left side, seen from the line's start to its end, on the screen.

    Args:
        lines: Start and end of each line, relative to the image. They need detections with `track_ids`.
        zones: The corners of each zone, relative to the image.
        size: (width, height) of the frames in pixels.

    Raises:
        MissingExtra: `supervision` is not installed.
    """

    def __init__(self, lines: Sequence[Points], zones: Sequence[Points], size: tuple[int, int]):
        library = require("supervision", "supervision", "lines and zones")
        pixels = np.array(size, np.float64)
        self._lines = [
            library.LineZone(*(library.Point(*point) for point in (line * pixels).tolist())) for line in lines
        ]
        self._zones = [library.PolygonZone(np.rint(zone * pixels).astype(np.int64)) for zone in zones]
        self._zone_annotators = [library.PolygonZoneAnnotator(zone) for zone in self._zones]
        self._line_annotator = library.LineZoneAnnotator(custom_in_text="into", custom_out_text="out")

    def update(self, found: Detections) -> tuple[list[LineCount], list[int]]:
        """The counts of the lines until now, and those of the zones in this frame."""
        rows = found.to_supervision()
        if found.track_ids.size:
            tracked = rows[found.track_ids > 0]
            for line in self._lines:
                line.trigger(tracked)
        for zone in self._zones:
            zone.trigger(rows)
        crossed: list[LineCount] = [{"into": line.in_count, "out": line.out_count} for line in self._lines]
        return crossed, [int(zone.current_count) for zone in self._zones]

    def draw(self, image: Image) -> Image:
        """The frame with lines, zones and their counts, as of the last `update`."""
        drawn = image.copy()
        for annotator in self._zone_annotators:
            drawn = annotator.annotate(drawn)
        for line in self._lines:
            drawn = self._line_annotator.annotate(drawn, line)
        return np.asarray(drawn, np.uint8)
