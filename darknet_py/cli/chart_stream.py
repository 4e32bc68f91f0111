"""The chart of a training for browsers: `-mjpeg_port` of Darknet's `detector train` (`draw_train_loss`)."""

from __future__ import annotations

import math
import time

import cv2

from darknet_py.serving.listen import listen
from darknet_py.serving.streams import MJPEG_STREAM, StreamServer, mjpeg_part
from darknet_py.training.callbacks import EvaluationEvent, IterationEvent, TrainCallback
from darknet_py.training.plan import TrainingPlan
from darknet_py.view.loss_chart import LossChart

_QUALITY = 90
_SECONDS = 1.0  # between two charts
_SHARE = 20  # of the time, one part of so many is for drawing


class ChartStream(TrainCallback):
    """Sends the loss chart to whoever looks at it, from the iteration on with which the training starts.

    Args:
        plan: What is trained.
        host: Address to listen at.
        port: Port to listen at.

    Raises:
        DarknetError: The port is taken.
    """

    def __init__(self, plan: TrainingPlan, host: str, port: int):
        self._listening = listen(host, port)
        self._server: StreamServer | None = None
        net = plan.net
        self._losses: list[tuple[float, float]] = []
        self._averages: list[tuple[float, float]] = []
        self._rates: list[tuple[float, float]] = []
        self._scores: list[tuple[float, float]] = []
        self._validation: list[tuple[float, float]] = []
        self._chart = LossChart(
            plan.files.name,
            net.max_batches,
            net.max_chart_loss,
            losses=self._losses,
            averages=self._averages,
            rates=self._rates,
            maps=self._scores,
            validation=self._validation,
        )
        self._due = 0.0

    def on_start(self, iteration: int) -> None:
        self._server = StreamServer(self._listening, MJPEG_STREAM, live=True)

    def on_iteration(self, event: IterationEvent) -> None:
        self._losses.append((event.iteration, event.loss))
        self._averages.append((event.iteration, event.average))
        self._rates.append((event.iteration, event.rate))
        if time.monotonic() >= self._due:
            self._send()

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self._scores.append((event.iteration, event.score))
        if not math.isnan(event.loss):
            self._validation.append((event.iteration, event.loss))
        self._send()

    def on_end(self) -> None:
        if self._server:
            self._send()
            self._server.close()

    def _send(self) -> None:
        if self._server is None or not self._server.readers:
            return
        start = time.monotonic()
        image = cv2.cvtColor(self._chart.draw(), cv2.COLOR_RGB2BGR)
        self._server.send(mjpeg_part(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()))
        end = time.monotonic()
        self._due = end + max(_SECONDS, _SHARE * (end - start))
