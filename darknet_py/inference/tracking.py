"""The same number for the same object in all frames of a video, by the library `trackers` (arXiv 2110.06864)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from darknet_py.inference.detections import Detections
from darknet_py.optional import require


class ObjectTracker:
    """Follows the objects of one video.

    Args:
        rate: Frames per second of the detections.

    Raises:
        MissingExtra: `trackers` is not installed.
    """

    def __init__(self, rate: float):
        self._tracker = require("trackers", "track", "tracking").ByteTrackTracker(frame_rate=rate)

    def update(self, found: Detections) -> Detections:
        """The detections of the next frame with `track_ids`, in the same order."""
        rows = found.to_supervision()
        rows.data = {"row": np.arange(len(found))}
        tracked = self._tracker.update(rows)
        ids = np.zeros(len(found), np.int64)
        if len(tracked):
            ids[tracked.data["row"]] = tracked.tracker_id + 1  # the library's −1 is an object that is not tracked yet
        return replace(found, track_ids=ids)
