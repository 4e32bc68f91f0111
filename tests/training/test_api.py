"""`darknet_py.train`: its signature and what it hands on."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

import darknet_py
from darknet_py.training.train_options import TrainOptions


def test_every_option_is_a_parameter_with_the_same_default() -> None:
    parameters = inspect.signature(darknet_py.train).parameters
    for field in dataclasses.fields(TrainOptions):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[field.name].default == field.default, field.name
        assert parameters[field.name].annotation == field.type, field.name
    assert not [name for name, each in parameters.items() if "Any" in str(each.annotation)]


def test_options_and_keys_of_net_reach_the_training(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    result = darknet_py.train(
        cfg, shapes, out=tmp_path, workers=0, device="cpu", quiet=True, map=False, chart=False, max_batches=2,
        steps=1, scales=0.5, mosaic=False, jitter=0.1, learning_rate=0.002, burn_in=0,
    )  # fmt: skip
    assert result.iterations == 2 and result.chart is None and result.map is None
    rates = [row.split(",")[3] for row in result.log.read_text().splitlines()[1:]]
    assert rates == ["0.001", "0.001"]


def test_an_unknown_option_is_an_error_with_a_hint(cfg: Path, shapes: Path) -> None:
    with pytest.raises(darknet_py.TrainError, match=r"got 'bacth' \(did you mean 'batch'\?\)|did you mean 'batch'"):
        darknet_py.train(cfg, shapes, bacth=3)  # type: ignore[call-arg]
