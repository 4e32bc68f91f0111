"""A detector as a server: the network's thread, the application, and uvicorn until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from darknet_py.inference.detect import DetectionNetwork, DetectOptions
from darknet_py.serving.app import PATHS, create_app
from darknet_py.serving.batching import Batcher
from darknet_py.serving.early_refusal import DETECT, EarlyRefusal
from darknet_py.serving.listen import listen
from darknet_py.serving.metrics import Metrics
from darknet_py.serving.serve_options import ServeOptions

logger = logging.getLogger(__name__)

_CONNECTIONS = 512  # beyond them 503
_HEAD_SECONDS = 10.0  # for the head of a request, from the connection or the previous answer on, or a refused body
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(net: DetectionNetwork, name: str, defaults: DetectOptions, options: ServeOptions) -> int:
    """Serves a detector until SIGINT or SIGTERM, then answers the requests that are under way.

    Args:
        net: A network with detection layers.
        name: Of the model, for the page.
        defaults: How images are read, and the thresholds of requests that name none.
        options: Where it listens, and its limits.

    Returns:
        The number of images.

    Raises:
        DarknetError: It cannot listen at the address.
    """
    listening = listen(options.host, options.port)
    images = 0

    def count(size: int, seconds: float) -> None:
        nonlocal images
        images += size
        metrics.count_batch(size, seconds)

    batcher = Batcher(net, options.batch, options.wait, options.queue, count, options.threads)
    metrics = Metrics(PATHS, lambda: batcher.taken)
    app = create_app(net, batcher, name, defaults, options, metrics)
    host, port = listening.getsockname()[:2]
    logger.info("serving %s at http://%s:%d/ (Ctrl-C ends it)", name, f"[{host}]" if ":" in host else host, port)
    refusal = EarlyRefusal(batcher, options, metrics.count_request)
    _run(app, listening, options.seconds, batcher.stop_taking, refusal)
    batcher.close()
    return images


def _run(
    app: ASGIApp, listening: socket.socket, seconds: float, on_stop: Callable[[], None], refusal: EarlyRefusal
) -> None:
    """Serves until a signal comes, calls `on_stop`, and gives the requests under way that many seconds."""
    config = uvicorn.Config(
        app,
        http=type("Protocol", (_Protocol,), {"refusal": refusal}),  # uvicorn makes one for each connection
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(seconds)),
    )
    asyncio.run(_Server(config, on_stop).serve([listening]))


class _Server(uvicorn.Server):
    """Ends with exit code 0: uvicorn would raise the signal again when all is done."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]):
        super().__init__(config)
        self._on_stop = on_stop

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)


class _Protocol(H11Protocol):
    """Refuses uploads early, and closes connections that do not send a head, or the body of a refused one, in time."""

    refusal: EarlyRefusal
    _timer: asyncio.TimerHandle | None = None
    _unread = 0  # bytes of a refused body that are still to come
    _closes = False  # whether the connection ends after them

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if not self._unread and self._expects_request:
            start = time.perf_counter()
            refusal = self.refusal.of(data, self.server_state.default_headers)
            if refusal:
                self._unset_keepalive_if_required()
                self._start_timer()
                self.transport.write(refusal.answer)
                self.refusal.count(DETECT, 429, time.perf_counter() - start)
                self._unread, self._closes = refusal.body, refusal.closes
                return self._drop(data[refusal.head :])
        if self._unread:
            return self._drop(data)
        super().data_received(data)

    @property
    def _expects_request(self) -> bool:
        """Whether the parser is at the start of a request."""
        conn = self.conn
        return conn.our_state is h11.IDLE and conn.their_state is h11.IDLE and not conn.trailing_data[0]

    def _drop(self, data: bytes) -> None:
        """Takes bytes of a refused body, and goes on with what follows it."""
        following = data[self._unread :]
        self._unread = max(self._unread - len(data), 0)
        if self._unread:
            return
        if self._closes:
            self.transport.close()
        elif following:
            self.data_received(following)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(_HEAD_SECONDS, self._check_request)

    def _check_request(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if not answered or self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and not self._unread:
            self.transport.write(_TOO_SLOW)
        self.transport.close()
