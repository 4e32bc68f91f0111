"""Darknet's `-http_post_host`: what a frame shows is posted to a web server (`send_http_post_request`)."""

from __future__ import annotations

import http.client
import logging
import queue
import threading
import time
import urllib.error
import urllib.request

from darknet_py.counted import counted
from darknet_py.inference.detections import Detections

logger = logging.getLogger(__name__)

_SECONDS = 3.0  # of a request, as in `demo`
_WAITING = 16  # messages; further ones are left out while the server is slow


def post_message(found: Detections, source: str, moment: time.struct_time) -> str:
    """The text of a frame: a line per box with its first class, the time and the source; empty without boxes.

    Args:
        found: The visible detections. A box has a row for each of its classes.
        source: Where the video comes from.
        moment: Local time.
    """
    classes: dict[int, int] = {}  # the lowest class by box
    for class_id, candidate in zip(found.class_ids.tolist(), found.candidate_ids.tolist(), strict=True):
        classes[candidate] = min(class_id, classes.get(candidate, class_id))
    if not classes:
        return ""
    names = dict(zip(found.class_ids.tolist(), found.names, strict=True))
    lines = "".join(f"{names[class_id]}, id: {class_id}\n" for class_id in classes.values())
    return f"{lines}\ntime:\n{time.strftime('%A %Y-%m-%d %H:%M:%S', moment)}\nvideosource:\n{source}"


class HttpPoster:
    """Posts messages from a thread of its own, so that frames do not wait for the server.

    Args:
        host: HOST[:PORT][/PATH], or a complete address.
        once: Whether it ends with the first message, as `demo` does with `-time_limit_sec`.
    """

    def __init__(self, host: str, once: bool = False):
        self._url = host if host.startswith(("http://", "https://")) else f"http://{host}"
        self._once, self._posted = once, False
        self._queue: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._failed = self._missed = 0
        self._thread = threading.Thread(target=self._run, name="post", daemon=True)
        self._thread.start()

    def send(self, message: str) -> None:
        """Posts a message, unless it is empty or too many wait."""
        if not message or (self._once and self._posted):
            return
        self._posted = True
        try:
            self._queue.put_nowait(message.encode())
        except queue.Full:
            self._missed += 1

    def close(self) -> None:
        """Waits for what was sent, a few seconds at most."""
        try:
            self._queue.put(None, timeout=_SECONDS)
        except queue.Full:
            self._missed += self._queue.qsize()
        self._thread.join(_SECONDS)
        if self._failed or self._missed:
            failed = counted(self._failed, "message")
            logger.warning("%s: %s failed; left out while the server was slow: %d", self._url, failed, self._missed)

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            request = urllib.request.Request(self._url, message, {"Content-Type": "text/plain"})
            try:
                with urllib.request.urlopen(request, timeout=_SECONDS) as response:
                    response.read(1 << 16)
            except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
                self._failed += 1
                if self._failed == 1:
                    logger.warning("%s: cannot post: %s", self._url, error)
