"""Lists of files: order, errors, memory and ends, with a network that finds the brightness of an image."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from darknet_py.data.images import Image
from darknet_py.errors import DataError
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.inference.detect import DetectOptions
from darknet_py.inference.detect_files import FileResult, _Budget, detect_files
from darknet_py.inference.detections import Detections
from darknet_py.layers.base import Predictions

GRAPH = parse_text(
    "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=7\n[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
)


class Brightness:
    """One box per image, whose width is the mean of its values."""

    graph: Graph = GRAPH
    names: Sequence[str] = ("dark", "light")
    device = torch.device("cpu")
    nms_kind = ("default", 0.6)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.inside = self.most_inside = 0
        self.lock = threading.Lock()

    def predict(self, x: Tensor, hier: float = 0.5) -> Predictions:
        with self.lock:
            self.batches.append(len(x))
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        mean = x.mean((1, 2, 3))
        boxes = torch.full((len(x), 1, 4), 0.5)
        boxes[:, 0, 2] = mean
        with self.lock:
            self.inside -= 1
        return Predictions(boxes, torch.ones(len(x), 1), torch.tensor([0.0, 1.0]).expand(len(x), 1, 2))


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Twelve gray images of value 10 · number, of which the sixth is cut off and the ninth is missing."""
    names = [str(tmp_path / f"{number}.png") for number in range(12)]
    for number, name in enumerate(names):
        cv2.imwrite(name, np.full((6, 4, 3), 10 * number, np.uint8))
    Path(names[5]).write_bytes(b"\x89PNG")
    Path(names[8]).unlink()
    return names


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def check(results: list[FileResult], paths: list[str]) -> None:
    assert [result.path for result in results] == paths
    for number, result in enumerate(results):
        if number in (5, 8):
            assert result.found is None and isinstance(result.error, DataError) and paths[number] in str(result.error)
        else:
            assert result.found is not None and result.error is None and result.found.path == paths[number]
            assert result.found.image_size == (4, 6)
            assert result.found.boxes[0, 2] == pytest.approx(10 * number / 255, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 5, 16])
@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_results_are_in_order_and_errors_in_their_place(paths: list[str], batch: int, one_at_a_time: bool) -> None:
    net, used = Brightness(), dict[str, float]()

    def use(path: str, image: Image, found: Detections) -> None:
        used[path] = float(image.mean()) / 255 - float(found.boxes[0, 2])

    results = list(detect_files(net, paths, DetectOptions(batch=batch), use, one_at_a_time=one_at_a_time))
    check(results, paths)
    assert sum(net.batches) == 10 and max(net.batches) <= batch
    assert sorted(used) == sorted(path for k, path in enumerate(paths) if k not in (5, 8))
    assert max(map(abs, used.values())) < 1e-6
    assert net.most_inside == 1 or not one_at_a_time


def test_one_thread_is_the_callers(paths: list[str]) -> None:
    threads = set[threading.Thread]()
    options = DetectOptions()
    results = detect_files(
        Brightness(), paths, options, lambda *_: threads.add(threading.current_thread()), max_threads=1
    )
    check(list(results), paths)
    assert threads == {threading.current_thread()}


def test_large_photos_are_detected_one_by_one(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darknet_py.inference.detect_files._IMAGE_BYTES", 6 * 4 * 3 * 2)
    net = Brightness()
    check(list(detect_files(net, paths, DetectOptions(batch=16), max_threads=1)), paths)
    assert net.batches == [2] * 5
    monkeypatch.setattr("darknet_py.inference.detect_files._IMAGE_BYTES", 5)  # no photo fits
    net = Brightness()
    check(list(detect_files(net, paths, DetectOptions(batch=4))), paths)
    assert net.batches == [1] * 10 and net.most_inside == 1


def test_photos_in_memory_are_bounded(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    size = 6 * 4 * 3
    monkeypatch.setattr("darknet_py.inference.detect_files._IMAGE_BYTES", 2 * size)
    most: list[int] = []
    take = _Budget.take

    def recorded(budget: _Budget, *args: int, **options: bool) -> bool:
        taken = take(budget, *args, **options)
        most.append(budget._used)
        return taken

    monkeypatch.setattr(_Budget, "take", recorded)
    check(list(detect_files(Brightness(), paths, DetectOptions(batch=2))), paths)
    assert max(most) == 2 * size


def test_what_a_writer_raises_ends_the_detection(paths: list[str]) -> None:
    seen: list[str] = []

    def full_disk(path: str, image: Image, found: Detections) -> None:
        seen.append(path)
        if path == paths[2]:
            raise DataError("no space left")

    results = detect_files(Brightness(), paths * 1, DetectOptions(), full_disk)
    got = []
    with pytest.raises(DataError, match="no space left"):
        got.extend(result.path for result in results)
    assert len(set(seen)) < 12


def test_an_early_end_leaves_no_thread_behind(paths: list[str]) -> None:
    before = threading.active_count()
    results = detect_files(Brightness(), paths, DetectOptions())
    assert next(results).path == paths[0]
    results.close()
    assert threading.active_count() == before


def test_what_is_found_does_not_depend_on_threads(paths: list[str]) -> None:
    options = replace(DetectOptions(), thresh=0.5)
    one, three = (list(detect_files(Brightness(), paths, options, max_threads=count)) for count in (1, 3))
    for first, second in zip(one, three, strict=True):
        assert (first.found is None) == (second.found is None)
        if first.found is not None and second.found is not None:
            np.testing.assert_array_equal(first.found.boxes, second.found.boxes)
