"""Detection in lists of image files: several threads, each of which reads, detects and passes on its own images.

While one thread reads or writes a file another one runs the network, on one core each, so that no core waits for
another. OpenCV and torch release Python's lock while they compute.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from darknet_py.data.image_header import image_header
from darknet_py.data.image_sources import read_image_file
from darknet_py.data.images import Image, decode_image
from darknet_py.errors import DataError
from darknet_py.graph.graph import Graph
from darknet_py.inference.detect import DetectionNetwork, DetectOptions, detect_arrays
from darknet_py.inference.detections import Detections
from darknet_py.layers.base import HIER_THRESH, Predictions

MAX_THREADS = 4  # more would mostly cost memory: each has the network's activations and its photos
_READERS = 3  # threads beside a network that only one of them may use at a time
_IMAGE_BYTES = 96 << 20  # of decoded photos in all threads; a larger one waits until it is alone

Use: TypeAlias = Callable[[str, Image, Detections], None]


class FileResult(NamedTuple):
    """What came of an image file: its detections, or why it could not be read."""

    path: str
    found: Detections | None
    error: DataError | None = None


def detect_files(
    net: DetectionNetwork,
    paths: Sequence[str],
    options: DetectOptions,
    use: Use | None = None,
    *,
    one_at_a_time: bool = False,
    max_threads: int = MAX_THREADS,
) -> Iterator[FileResult]:
    """Detects objects in image files.

    Memory does not grow with the number of files. Large photos are detected in smaller batches than `options.batch`.
    Where the generator is left early, the images that are in work are finished first.

    Args:
        net: A network with detection layers, in evaluation mode.
        paths: Files and web addresses.
        options: Thresholds and the like.
        use: Called with each readable image (RGB) and its detections, in the thread that read it; it may change the
            image. What it raises ends the detection.
        one_at_a_time: Whether the network must not be used by two threads at once (a GPU, another runtime).
        max_threads: With 1 all takes place in the calling thread.

    Yields:
        The results in the order of the paths.
    """
    cores = torch.get_num_threads()
    threads = min(_READERS if one_at_a_time else cores, max_threads)
    size = max(min(options.batch, -(-len(paths) // threads)), 1)  # a short list is divided evenly
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    threads = min(threads, len(batches))
    job = _Job(_Locked(net) if one_at_a_time else net, options, use)
    if threads < 2:
        for batch in batches:
            yield from job.run(batch)
        return
    pending: deque[Future[list[FileResult]]] = deque()
    with _torch_threads(cores if one_at_a_time else cores // threads), ThreadPoolExecutor(threads) as pool:
        try:
            for batch in batches:
                pending.append(pool.submit(job.run, batch))
                if len(pending) > 2 * threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            job.stopped.set()
            for future in pending:
                future.cancel()


class _Job:
    """What each thread does with a batch of files."""

    def __init__(self, net: DetectionNetwork, options: DetectOptions, use: Use | None):
        self.net, self.options, self.use = net, options, use
        self.memory = _Budget(_IMAGE_BYTES)
        self.stopped = threading.Event()

    def run(self, paths: Sequence[str]) -> list[FileResult]:
        """The results in the order of the paths; those of the first ones where it was stopped."""
        channels = self.net.graph.net.channels
        results: dict[str, FileResult] = {}
        images: dict[str, Image] = {}
        held = 0
        try:
            for path in paths:
                if self.stopped.is_set():
                    break
                try:
                    data = read_image_file(path)
                except DataError as error:
                    results[path] = FileResult(path, None, error)
                    continue
                size = _decoded_bytes(data, channels)
                if not self.memory.take(size, wait=not images):
                    self._detect(images, results)
                    self.memory.give(held)
                    held = 0
                    self.memory.take(size)
                held += size
                try:
                    images[path] = decode_image(data, channels, path, self.options.stb)
                except DataError as error:
                    self.memory.give(size)
                    held -= size
                    results[path] = FileResult(path, None, error)
            self._detect(images, results)
        finally:
            self.memory.give(held)
        return [results[path] for path in paths if path in results]

    def _detect(self, images: dict[str, Image], results: dict[str, FileResult]) -> None:
        """Moves images to the results."""
        if not images:
            return
        for path, found in zip(list(images), detect_arrays(self.net, list(images.values()), self.options), strict=True):
            results[path] = FileResult(path, replace(found, path=path))
            if self.use is None:
                del images[path]
            else:
                self.use(path, images.pop(path), found)


class _Budget:
    """Bytes that several threads share. One that holds some must not wait for more."""

    def __init__(self, size: int):
        self._size, self._used = size, 0
        self._changed = threading.Condition()

    def take(self, size: int, wait: bool = True) -> bool:
        """Takes bytes, more than there are only where nobody else has any. False: they are in use; with wait never."""
        with self._changed:
            if not wait and not self._fits(size):
                return False
            self._changed.wait_for(lambda: self._fits(size))
            self._used += size
            return True

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self._size

    def give(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify_all()


class _Locked:
    """A network that one thread at a time uses."""

    def __init__(self, net: DetectionNetwork):
        self._net, self._lock = net, threading.Lock()

    @property
    def graph(self) -> Graph:
        return self._net.graph

    @property
    def names(self) -> Sequence[str]:
        return self._net.names

    @property
    def device(self) -> torch.device:
        return self._net.device

    @property
    def nms_kind(self) -> tuple[str, float]:
        return self._net.nms_kind

    def predict(self, x: Tensor, hier: float = HIER_THRESH) -> Predictions:
        with self._lock:
            return self._net.predict(x, hier)


def _decoded_bytes(data: bytes, channels: int) -> int:
    """The size of an image file in memory, by its header."""
    header = image_header(data)
    return len(data) if header is None else header.width * header.height * channels


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Sets how many cores torch uses for an operation; threads that start meanwhile use as many."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
