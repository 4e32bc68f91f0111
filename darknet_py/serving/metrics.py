"""What the server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Requests, batches and the queue.

    Args:
        paths: Paths that are counted by their names; others count as "other", whatever clients ask for.
        waiting: Gives the number of images with a place in the queue.
    """

    def __init__(self, paths: Sequence[str], waiting: Callable[[], float]):
        registry = self._registry = CollectorRegistry()
        self._paths = frozenset(paths)
        self._requests = Counter("darknet_requests", "Answered requests", ("path", "code"), registry=registry)
        self._latency = Histogram(
            "darknet_request_seconds",
            "From the head of a request to its answer",
            ("path",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._images = Histogram("darknet_batch_images", "Images of a forward pass", registry=registry, buckets=_IMAGES)
        self._network = Histogram(
            "darknet_network_seconds", "A forward pass with its decoding", registry=registry, buckets=_SECONDS
        )
        queue = Gauge("darknet_queue_images", "Images that are decoded, wait or are computed", registry=registry)
        queue.set_function(waiting)
        ProcessCollector(registry=registry)

    def count_batch(self, images: int, seconds: float) -> None:
        """Counts a forward pass."""
        self._images.observe(images)
        self._network.observe(seconds)

    def count_request(self, path: str, code: int, seconds: float) -> None:
        """Counts an answer."""
        self._requests.labels(path, code).inc()
        self._latency.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All values in Prometheus's text format."""
        return generate_latest(self._registry)

    def measured(self, app: ASGIApp) -> ASGIApp:
        """An application whose requests are counted."""

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return await app(scope, receive, send)
            path = scope["path"] if scope["path"] in self._paths else "other"
            start, code = time.perf_counter(), 500

            async def counted_send(message: Message) -> None:
                nonlocal code
                if message["type"] == "http.response.start":
                    code = message["status"]
                await send(message)

            try:
                await app(scope, receive, counted_send)
            finally:
                self.count_request(path, code, time.perf_counter() - start)

        return run
