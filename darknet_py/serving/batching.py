"""Dynamic batching: images that arrive together go through the network in one pass."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.data.images import Image
from darknet_py.errors import DarknetError
from darknet_py.inference.detect import DetectionNetwork, DetectOptions, detect_prepared, prepare
from darknet_py.inference.detections import Detections

logger = logging.getLogger(__name__)

_FIRST_GUESS = 0.1  # seconds of an image, before one was measured


class QueueFull(DarknetError):
    """As many images wait as may."""


class ShuttingDown(DarknetError):
    """The server ends: it finishes what waits and takes nothing more."""


class _Waiting(NamedTuple):
    """An image in the queue. x: (C, height, width), the network's input. size: (width, height) of the image."""

    x: Tensor
    size: tuple[int, int]
    options: DetectOptions
    answer: Future[Detections]


class Batcher:
    """Runs a network on up to `batch` waiting images at a time.

    With several threads, each computes batches of its own on one core, so that no core waits for another that decodes
    an image or belongs to another process; what comes alone is computed on all cores.

    An image needs a place: `reserve`, then `submit`, or `release` where it cannot be read. A place is free again when
    the network is done with the image, so that the memory of what waits is bounded.

    Args:
        net: A network with detection layers.
        batch: The most images in a forward pass.
        wait: Seconds that the first image of a batch waits for others that have places; it does not where none has.
        queue_size: The most images that are decoded, wait or are computed.
        on_batch: Called after each forward pass with the number of images and the seconds it took; by one thread at a
            time.
        threads: Threads that use the network at once.
    """

    def __init__(
        self,
        net: DetectionNetwork,
        batch: int = 8,
        wait: float = 0.005,
        queue_size: int = 64,
        on_batch: Callable[[int, float], None] = lambda images, seconds: None,
        threads: int = 1,
    ):
        self._net, self._batch, self._wait, self._queue_size, self._on_batch = net, batch, wait, queue_size, on_batch
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._taken = 0
        self._computing = 0  # of those, in the batches of the threads
        self._cores = torch.get_num_threads()
        self._seconds = _FIRST_GUESS
        self._closing = False
        self._workers = [threading.Thread(target=self._run, name="network", daemon=True) for _ in range(threads)]
        for worker in self._workers:
            worker.start()

    @property
    def taken(self) -> int:
        """Number of images with a place."""
        return self._taken

    @property
    def is_closing(self) -> bool:
        """Whether no place is given any more."""
        return self._closing

    @property
    def is_full(self) -> bool:
        """Whether all places are taken."""
        return self._taken >= self._queue_size

    def full(self) -> QueueFull:
        """What a request for a place is answered where none is free."""
        return QueueFull(f"all {self._queue_size} places of the queue are taken")

    @property
    def retry_after(self) -> int:
        """Whole seconds, from 1 on, after which the images that have a place are probably done."""
        return max(1, math.ceil(self._taken * self._seconds))

    def reserve(self) -> None:
        """Takes a place. Raises QueueFull, ShuttingDown."""
        with self._lock:
            if self._closing:
                raise ShuttingDown("the server is shutting down")
            if self.is_full:
                raise self.full()
            self._taken += 1

    def release(self) -> None:
        """Gives a place back that no `submit` follows."""
        with self._lock:
            self._taken -= 1

    def submit(self, image: Image, options: DetectOptions) -> Future[Detections]:
        """Hands over an image that has a place; boxes of the result are relative to the image.

        Args:
            image: uint8 (H, W, C), as `as_array` gives it.
            options: Its thresholds; `letter_box` and `hier` must be those of all other images.
        """
        answer: Future[Detections] = Future()
        x = prepare(self._net.graph, image, options.letter_box)
        self._queue.put(_Waiting(x, (image.shape[1], image.shape[0]), options, answer))
        return answer

    def stop_taking(self) -> None:
        """No place is given any more; images that have one are finished. May be called by a signal handler."""
        self._closing = True

    def close(self) -> None:
        """Waits for the images that were submitted, and ends the threads."""
        self._closing = True
        self._queue.put(None)
        for worker in self._workers:
            worker.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            if self._workers[1:]:
                torch.set_num_threads(self._cores if self._taken == len(batch) else 1)  # of this thread
            self._answer(batch)
        self._queue.put(None)  # for the next thread

    def _next_batch(self) -> list[_Waiting]:
        """Waits for images; there are none at the end."""
        batch: list[_Waiting] = []
        end = 0.0
        while len(batch) < self._batch and (not batch or self._taken > self._computing):
            try:
                following = self._queue.get(timeout=max(end - time.monotonic(), 0) if batch else None)
            except queue.Empty:
                break
            if following is None:
                if batch:
                    self._queue.put(None)
                break
            end = end or time.monotonic() + self._wait
            batch.append(following)
            with self._lock:
                self._computing += 1
        return batch

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        wanted = [waiting for waiting in batch if waiting.answer.set_running_or_notify_cancel()]
        try:
            if wanted:
                self._detect(wanted)
        finally:
            with self._lock:
                self._taken -= len(batch)
                self._computing -= len(batch)

    def _detect(self, batch: Sequence[_Waiting]) -> None:
        start = time.perf_counter()
        try:
            x = torch.stack([waiting.x for waiting in batch]).to(self._net.device)
            sizes = [waiting.size for waiting in batch]
            results = detect_prepared(self._net, x, sizes, [waiting.options for waiting in batch])
        except Exception as error:  # such as out of memory: these images have no answer, the next ones may have one
            logger.exception("the network failed on %s", counted(len(batch), "image"))
            for waiting in batch:
                waiting.answer.set_exception(error)
            return
        seconds = time.perf_counter() - start
        with self._lock:
            self._seconds += 0.1 * (seconds / len(batch) / len(self._workers) - self._seconds)
            self._on_batch(len(batch), seconds)
        for waiting, found in zip(batch, results, strict=True):
            waiting.answer.set_result(found)
