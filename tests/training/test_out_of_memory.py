"""A mini-batch that does not fit into the memory is computed in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import darknet_py
from darknet_py.errors import TrainError
from darknet_py.training.distributed import LossModule
from darknet_py.training.state import unpack_state
from tests.training.conftest import CFG

OPTIONS: dict[str, Any] = {"workers": 0, "device": "cpu", "map": False, "report": False, "chart": False}
PLAIN = CFG.replace("[dropout]\nprobability=.3\n", "").replace("batch_normalize=1\n", "")
MESSAGES = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
}


def limit_images(monkeypatch: pytest.MonkeyPatch, limit: int, kind: str = "cuda") -> list[int]:
    """Forward passes of more images run out of memory; the first one of an iteration after its loss was computed."""
    forward, sizes = LossModule.forward, []

    def limited(self: LossModule, x: Tensor, truth: Tensor) -> Any:
        sizes.append(len(x))
        report = forward(self, x, truth)
        if len(x) > limit:
            raise MESSAGES[kind]()
        return report

    monkeypatch.setattr(LossModule, "forward", limited)
    return sizes


@pytest.mark.parametrize("kind", MESSAGES)
def test_the_update_is_the_same_and_it_is_said_once(
    kind: str, cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """Without batch norm. Of mini-batches of 4, one image fits: quarters. Sums of another order differ by 1e-6."""
    cfg.write_text(PLAIN)
    options = {**OPTIONS, "batch": 8, "subdivisions": 2, "max_batches": 3}
    whole = darknet_py.train(cfg, shapes, out=tmp_path / "whole", **options)
    sizes = limit_images(monkeypatch, 1, kind)
    log.clear()
    parts = darknet_py.train(cfg, shapes, out=tmp_path / "parts", **options)
    assert sizes[-26:] == [4, 2] + [1] * 24  # the time of an iteration was measured before
    said = [line for line in log.messages if "out of memory" in line]
    assert [line.split(" parts")[0] for line in said] == [
        f"iteration 1: out of memory on cpu: each mini-batch of 4 images is computed in {count}" for count in (2, 4)
    ]
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    first, second = (dict(result.load().named_parameters()) for result in (whole, parts))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-6)
    state = unpack_state(parts.state.read_bytes(), darknet_py.parse(cfg))
    assert state["learner"]["parts"] == 4


def test_it_resumes_in_parts(cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = limit_images(monkeypatch, 1)
    options = {**OPTIONS, "burn_in": 0, "steps": 9, "quiet": True}
    darknet_py.train(cfg, shapes, out=tmp_path / "out", max_batches=2, **options)
    resumed = darknet_py.train(cfg, shapes, out=tmp_path / "out", max_batches=4, resume=True, **options)
    assert sizes == [2] + [1] * 16
    whole = darknet_py.train(cfg, shapes, out=tmp_path / "whole", max_batches=4, **options)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


def test_what_cannot_be_split_further_is_one_line(
    cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_images(monkeypatch, 0)
    with pytest.raises(TrainError, match=r"iteration 1: out of memory on cpu; .*--subdivisions 4"):
        darknet_py.train(cfg, shapes, out=tmp_path, quiet=True, max_batches=2, **OPTIONS)


def test_other_errors_are_left_alone(cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(LossModule, "forward", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        darknet_py.train(cfg, shapes, out=tmp_path, quiet=True, max_batches=2, **OPTIONS)


def test_numbered_weights_that_are_kept(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    data = tmp_path / "x.data"
    data.write_text(shapes.read_text() + "saveweights = 2\n")
    options = {**OPTIONS, "quiet": True, "out": tmp_path / "out", "max_batches": 7}
    darknet_py.train(cfg, data, keep=2, **options)
    names = {path.name for path in (tmp_path / "out").glob("tiny_[0-9]*")}
    assert names == {f"tiny_{number}.weights{ending}" for number in (4, 6) for ending in ("", ".sha256")}
