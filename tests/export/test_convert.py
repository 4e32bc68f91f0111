"""Our cfgs: `.weights` → checkpoint → `.weights` gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import darknet_py
from darknet_py.graph.graph import parse
from darknet_py.graph.profile import weights_bytes

FOLDER = Path(__file__).parents[2] / "cfg"
NAMES = (
    "csdarknet53",
    "csdarknet53-panet-spp",
    "csresnet50",
    "csresnext50",
    "csresnext50-panet-spp",
    "csresnext50-panet-spp-original-optimal",
    "darknet53",
    "yolo-fastest-1.1",
    "yolov3",
    "yolov3-spp",
    "yolov3-tiny",
    "yolov3-tiny-prn",
    "yolov4",
    "yolov4-csp",
    "yolov4-tiny",
)
QUICK = {"csdarknet53", "csresnet50", "yolo-fastest-1.1", "yolov3-tiny", "yolov3-tiny-prn", "yolov4-tiny"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_checkpoint_and_back(name: str, tmp_path: Path) -> None:
    cfg = FOLDER / f"{name}.cfg"
    graph = parse(cfg)
    values = np.random.default_rng(1).integers(0, 1 << 30, graph.parameters, dtype="<u4")  # finite, and all distinct
    content = np.array([0, 2, 5], "<i4").tobytes() + np.array([7_000_000_000], "<u8").tobytes() + values.tobytes()
    (tmp_path / "a.weights").write_bytes(content)
    assert len(content) == weights_bytes(graph)
    darknet_py.convert(cfg, tmp_path / "a.weights", tmp_path / "a.pt")
    darknet_py.convert(None, tmp_path / "a.pt", tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == content
    for file in tmp_path.iterdir():  # half a gigabyte for the large ones
        file.unlink()
