"""`bench` measures what it says, on small networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from darknet_py.cli import benchmark, main
from darknet_py.cli.benchmark import CANDIDATES, PeakMemory, Timing, random_truth, threshold
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from darknet_py.model.load import read_trained

DETECTOR = """
[net]
width=64
height=64
channels=3
batch=64
subdivisions=8
learning_rate=0.001
max_batches=500
burn_in=10
[convolutional]
batch_normalize=1
filters=16
size=3
stride=4
pad=1
activation=leaky
[convolutional]
filters=24
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=10,14, 23,27, 37,58
classes=3
num=3
"""

CLASSIFIER = """
[net]
width=16
height=16
channels=3
[convolutional]
filters=4
size=3
activation=relu
[avgpool]
[softmax]
"""


@pytest.fixture
def cfg(tmp_path: Path) -> str:
    (tmp_path / "small.cfg").write_text(DETECTOR)
    return str(tmp_path / "small.cfg")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["bench", *arguments, "--seconds", "0", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_detector(cfg: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(capsys, cfg, "--threads", "1", "--batch", "2", "--width", "96")
    assert (result["width"], result["height"], result["precision"], result["weights"]) == (96, 64, "fp32", None)
    assert "1 thread" in result["machine"]
    found = result["inference"]
    assert found["batch"] == 2 and found["calls"] >= 10
    for part in ("forward", "decode", "nms", "total"):
        assert 0 < found[part]["min"] <= found[part]["median"] <= found[part]["p90"]
    assert "training" not in result


def canned_times(
    functions: Mapping[str, Callable[[], Any]], device: torch.device, seconds: float
) -> dict[str, list[float]]:
    """The functions run once each; the times are made up: 10, 20 … 110 ms times a factor per function."""
    for function in functions.values():
        function()
    factors = {"forward": 1.0, "decode": 0.1, "nms": 0.5, "total": 2.0, "step": 4.0}
    return {name: [0.01 * factors[name] * k for k in range(1, 12)] for name in functions}


def test_speeds_follow_from_the_times(
    cfg: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "time_in_turns", canned_times)
    result = bench(capsys, cfg, "--batch", "2", "--train")
    inference, training = result["inference"], result["training"]
    # 11 calls of 10 … 110 ms: the median is 60 ms, nine tenths of the calls take at most 100 ms.
    assert inference["forward"] == {"median": 60, "p90": 100, "min": 10}
    assert inference["nms"] == {"median": 30, "p90": 50, "min": 5}
    assert inference["decode"] == {"median": 6, "p90": 10, "min": 1}
    assert (inference["batch"], inference["calls"]) == (2, 11)
    assert inference["images_per_second"] == pytest.approx(2 / 0.12, abs=1e-3)  # of the total, 120 ms
    assert inference["gflops_per_second"] == pytest.approx(2 * result["bflops"] / 0.06, abs=1e-3)
    assert training["step"]["median"] == 240
    assert training["images_per_second"] == pytest.approx(2 / 0.24, abs=1e-3)


def test_training_uses_the_batch(cfg: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(capsys, cfg, "--train", "--batch", "3")["training"]
    assert result["batch"] == 3 and result["calls"] >= 10


def test_classifier_has_nothing_to_suppress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classifier.cfg").write_text(CLASSIFIER)
    result = bench(capsys, str(tmp_path / "classifier.cfg"), "--amp", "bf16", "--train")
    assert result["inference"]["decode"] is result["inference"]["nms"] is None
    assert result["inference"]["total"] == result["inference"]["forward"]
    assert result["training"]["batch"] == 4


def test_table(cfg: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", cfg, "--seconds", "0", "--train"]) == 0
    text = capsys.readouterr().out
    for words in (
        "small.cfg",
        "inference, batch 1",
        "decoding",
        "NMS",
        "images/s",
        "GFLOP/s",
        "MiB",
        "mini-batch 4",
    ):
        assert words in text


def test_a_device_that_is_not_there(cfg: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", cfg, "--device", "toaster"]) == 2
    assert "darknet-py: argument --device: expected a device like cpu or cuda:0" in capsys.readouterr().err


def test_wrong_usage(cfg: str) -> None:
    for arguments in (["--seconds", "-1"], ["--batch", "0"], ["--amp", "fp8"]):
        assert main(["bench", cfg, *arguments]) == 2


def test_as_many_candidates_as_promised_reach_nms() -> None:
    objectness = torch.rand(2, 500)
    found = Predictions(torch.rand(2, 500, 4), objectness, objectness[..., None] * torch.rand(2, 500, 4))
    kept = postprocess(found, threshold(found), nms=0.0)
    assert sum(len(image) for image in kept) == 2 * CANDIDATES


def test_boxes_of_a_training_step_fit_the_network(cfg: str) -> None:
    rows = random_truth(read_trained(cfg), 3, torch.device("cpu"))
    assert rows[:, 0].unique().tolist() == [0, 1, 2] and set(rows[:, 1].tolist()) <= {0, 1, 2}
    assert bool((rows[:, 2:] > 0).all() and (rows[:, 2:] < 1).all())


def test_times() -> None:
    assert Timing.of([0.001 * value for value in range(101)]) == pytest.approx((50, 90, 0))


def test_memory_is_what_came_on_top() -> None:
    memory = PeakMemory()
    memory.reset()
    block = torch.ones(64, 1 << 20)  # 256 MiB
    assert 200 << 20 < memory.peak() < 400 << 20
    assert block[0, 0] == 1
