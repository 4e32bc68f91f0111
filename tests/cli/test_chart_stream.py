"""The chart of a training over HTTP."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from darknet_py.cli import chart_stream
from darknet_py.cli.chart_stream import ChartStream
from darknet_py.serving.listen import listen
from darknet_py.training.callbacks import EvaluationEvent, IterationEvent
from darknet_py.training.plan import TrainingPlan


def charts(data: bytes) -> list[Any]:
    """The images of a stream."""
    parts = data.split(b"--mjpegstream\r\n")[1:]
    return [cv2.imdecode(np.frombuffer(part.split(b"\r\n\r\n", 1)[1], np.uint8), cv2.IMREAD_COLOR) for part in parts]


def test_a_reader_gets_the_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all iterations, those before it came too; another one at once after an evaluation, and at the end."""
    free = listen("127.0.0.1", 0)
    port = free.getsockname()[1]
    free.close()
    plan = SimpleNamespace(files=SimpleNamespace(name="net"), net=SimpleNamespace(max_batches=10, max_chart_loss=20.0))
    drawn: list[tuple[int, int]] = []
    draw = chart_stream.LossChart.draw

    def counted_draw(chart: chart_stream.LossChart) -> Any:
        drawn.append((len(chart.losses), len(chart.maps)))
        return draw(chart)

    monkeypatch.setattr(chart_stream.LossChart, "draw", counted_draw)
    stream = ChartStream(cast(TrainingPlan, plan), "127.0.0.1", port)
    stream.on_start(0)
    stream.on_iteration(IterationEvent(1, 5.0, 5.0, 0.1, 4, 1.0, 4.0))
    assert drawn == []  # nobody looks
    with socket.create_connection(("127.0.0.1", port)) as reader:
        reader.settimeout(30)
        reader.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert stream._server
        while not stream._server.readers:
            time.sleep(0.01)
        for number in (2, 3):  # the second one within a second
            stream.on_iteration(IterationEvent(number, 4.0, 4.5, 0.1, 4 * number, 1.0, 4.0))
        stream.on_evaluation(EvaluationEvent(3, "map", 0.5, 0.5, 2.0, {}, ()))
        stream.on_end()
        received = b""
        while data := reader.recv(1 << 16):
            received += data
    assert drawn == [(2, 0), (3, 1), (3, 1)]
    images = charts(received)
    assert len(images) == 3 and {image.shape for image in images} == {(800, 1200, 3)}
    assert (images[0] != images[1]).any()
