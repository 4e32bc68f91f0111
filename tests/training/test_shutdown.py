"""Ctrl-C and SIGTERM during training."""

from __future__ import annotations

import logging
import signal

import pytest

from darknet_py.training.shutdown import GracefulShutdown


def test_a_second_signal_stops_at_once(log: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGINT)
    with GracefulShutdown() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        assert log.record_tuples == [
            (
                "darknet_py.training.shutdown",
                logging.WARNING,
                "stopping after this iteration; press Ctrl-C again to quit immediately",
            )
        ]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
