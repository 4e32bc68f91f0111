"""The batcher: batches of what has arrived, bounded places, one thread or several."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from darknet_py.graph.graph import parse_text
from darknet_py.inference.detect import DetectOptions, detect
from darknet_py.layers.base import HIER_THRESH, Predictions
from darknet_py.model.network import Network
from darknet_py.serving.batching import Batcher, QueueFull, ShuttingDown
from tests.small_detector import CFG

IMAGES = [np.full((20 + 3 * k, 40, 3), 40 * k, np.uint8) for k in range(6)]


class GatedNetwork(Network):
    """Waits in `predict` until it may go on, and remembers the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__(parse_text(CFG), ["a", "b"])
        self.gate, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def predict(self, x: Tensor, hier: float = HIER_THRESH) -> Predictions:
        self.batches.append(len(x))
        self.entered.set()
        assert self.gate.wait(30)
        return super().predict(x, hier)


@pytest.fixture
def net() -> Iterator[GatedNetwork]:
    torch.manual_seed(0)
    net = GatedNetwork()
    yield net
    net.gate.set()


def submit(batcher: Batcher, image: np.ndarray, options: DetectOptions):  # type: ignore[no-untyped-def]
    batcher.reserve()
    return batcher.submit(image, options)


def test_what_arrives_meanwhile_is_one_batch_with_thresholds_of_its_own(net: GatedNetwork) -> None:
    batcher = Batcher(net, batch=4)
    options = [DetectOptions(thresh, nms) for thresh in (0.1, 0.3, 0.5) for nms in (0.0, 0.45)]
    answers = [submit(batcher, IMAGES[0], options[0])]
    assert net.entered.wait(30)  # the first runs alone: no other was on its way
    answers += [submit(batcher, image, own) for image, own in zip(IMAGES[1:], options[1:], strict=True)]
    net.gate.set()
    found = [answer.result(30) for answer in answers]
    batcher.close()
    assert net.batches == [1, 4, 1]
    for image, own, result in zip(IMAGES, options, found, strict=True):
        (expected,) = detect(net, image, own)
        np.testing.assert_allclose(result.boxes, expected.boxes, atol=1e-6)
        assert result.class_ids.tolist() == expected.class_ids.tolist()
        assert result.image_size == (40, len(image)) and list(result.class_names) == ["a", "b"]
    assert len({len(result) for result in found}) > 1


def test_places_are_bounded_and_come_back(net: GatedNetwork) -> None:
    batcher = Batcher(net, batch=2, queue_size=3)
    answers = [submit(batcher, IMAGES[0], DetectOptions()) for _ in range(3)]
    with pytest.raises(QueueFull, match="all 3 places"):
        batcher.reserve()
    assert batcher.taken == 3 and batcher.retry_after == 1
    net.gate.set()
    for answer in answers:
        answer.result(30)
    batcher.reserve()  # the place of an image that cannot be read
    batcher.release()
    batcher.stop_taking()
    with pytest.raises(ShuttingDown):
        batcher.reserve()
    batcher.close()
    assert batcher.taken == 0


def test_close_finishes_what_waits(net: GatedNetwork) -> None:
    batcher = Batcher(net, batch=2)
    answers = [submit(batcher, image, DetectOptions()) for image in IMAGES]
    unwanted = answers.pop()
    assert unwanted.cancel()
    threading.Timer(0.1, net.gate.set).start()
    batcher.close()
    assert all(answer.done() and answer.exception() is None for answer in answers)
    assert sum(net.batches) == len(answers)


def test_threads_compute_batches_of_their_own(net: GatedNetwork) -> None:
    batcher = Batcher(net, batch=1, threads=2)
    answers = [submit(batcher, image, DetectOptions(0.1)) for image in IMAGES]
    for _ in range(300):
        if len(net.batches) == 2:
            break
        time.sleep(0.1)
    assert net.batches == [1, 1]  # both wait at the gate, the others in the queue
    assert batcher.taken == len(IMAGES)
    net.gate.set()
    for image, answer in zip(IMAGES, answers, strict=True):
        (expected,) = detect(net, image, DetectOptions(0.1))
        np.testing.assert_allclose(answer.result(30).boxes, expected.boxes, atol=1e-6)
    batcher.close()
    assert batcher.taken == 0


def test_a_failing_pass_fails_its_images_alone(
    net: GatedNetwork, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    net.gate.set()
    batcher = Batcher(net)
    with monkeypatch.context() as patch:
        patch.setattr("darknet_py.serving.batching.detect_prepared", lambda *_: 1 / 0)
        assert isinstance(submit(batcher, IMAGES[0], DetectOptions()).exception(30), ZeroDivisionError)
    assert submit(batcher, IMAGES[0], DetectOptions()).result(30).image_size == (40, 20)
    batcher.close()
    assert "the network failed on 1 image" in caplog.text
