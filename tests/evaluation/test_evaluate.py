"""`darknet_py.evaluate`: the kind of network decides what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

import darknet_py
from darknet_py.errors import DarknetError
from darknet_py.evaluation.detector import EvalOptions, Evaluation, evaluate_detector
from tests.evaluation import make


def test_a_detector_by_files_and_by_network(tmp_path: Path) -> None:
    cfg, weights = make.small_network(tmp_path, 0, "default")
    paths = make.labeled(tmp_path)
    by_files = darknet_py.evaluate(cfg, weights=weights, images=paths, protocols=["darknet"], workers=0)
    network = darknet_py.load(cfg, weights)
    by_network = darknet_py.evaluate(network, images=paths, protocols=["darknet"], workers=0)
    expected = evaluate_detector(network, paths, options=EvalOptions(["darknet"], workers=0)).darknet
    assert isinstance(by_files, Evaluation) and isinstance(by_network, Evaluation)
    assert by_files.darknet == by_network.darknet == expected and expected is not None


def test_random_weights_are_refused(tmp_path: Path) -> None:
    cfg, _ = make.small_network(tmp_path, 0, "default")
    with pytest.raises(DarknetError, match="expected trained weights"):
        darknet_py.evaluate(cfg)
