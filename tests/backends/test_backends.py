"""Back ends: the same boxes as our own network, made once, and the choice of the fastest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.backends import choose, runners
from darknet_py.backends.cache import cached, digest
from darknet_py.backends.choose import BoxDifference, box_difference, open_backend
from darknet_py.cli import main
from darknet_py.cli.backend_benchmark import backend_lines, compare_backends
from darknet_py.errors import DarknetError
from darknet_py.evaluation.detector import EvalOptions, evaluate_detector
from darknet_py.export.verify import check_images
from darknet_py.inference.detections import Detections
from darknet_py.layers.base import Predictions
from tests.export.export_cases import Files, write_case

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_case("yolov4", tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests of this file, so that the network is exported once per runtime."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(filled))
    return filled / "darknet_py" / "networks"


def installed(name: str) -> None:
    if not runners.BACKENDS[name].is_installed:
        pytest.skip(f"the extra of the back end {name} is not installed")


def assert_same(ours: list[Detections], theirs: list[Detections]) -> None:
    assert [len(found) for found in ours] == [len(found) for found in theirs] and len(ours[0]) > 3
    for own, other in zip(ours, theirs, strict=True):
        assert other.class_ids.tolist() == own.class_ids.tolist()
        # Folded batch norm, and sums in another order.
        assert other.boxes == pytest.approx(own.boxes, abs=1e-5)
        assert other.confidences == pytest.approx(own.confidences, abs=1e-5)


@pytest.mark.parametrize("name", ["torch", *RUNTIMES])
def test_boxes_are_those_of_the_network(name: str, files: Files) -> None:
    installed(name)
    fast = open_backend(files.net, name, batch=2)
    x = check_images(5, 3, 32, 64, seed=2)  # two full batches and one that is filled up
    assert_same(files.net.boxes(x, 0.4, 0.3), fast.boxes(x, 0.4, 0.3))
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
    assert_same(files.net.detect(image, 0.4), fast.detect([image] * 2, 0.4)[:1])
    loaded = darknet_py.load(files.cfg, files.weights, backend=name, batch=2)
    assert_same(files.net.boxes(x, 0.4, 0.3), loaded.boxes(x, 0.4, 0.3))


@pytest.mark.parametrize("name", ["torch", *RUNTIMES])
def test_a_classifier_by_a_back_end(name: str, tmp_path: Path) -> None:
    installed(name)
    files = write_case("classifier", tmp_path)
    x = check_images(3, 3, 32, 64, seed=2)
    ours = files.net(x)
    assert isinstance(ours, torch.Tensor)
    got = open_backend(files.net, name, batch=2)(x)
    assert isinstance(got, torch.Tensor) and got.shape == ours.shape
    assert (got - ours).abs().max() < 1e-5  # of probabilities; sums in another order


def test_a_network_is_exported_once(files: Files, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("onnxruntime")
    open_backend(files.net, "onnxruntime", batch=2)
    calls: list[object] = []
    monkeypatch.setattr(runners, "to_onnx", lambda job: calls.append(job) or pytest.fail("exported again"))
    open_backend(files.net, "onnxruntime", batch=2)
    assert calls == [] and not [path for path in cache.iterdir() if path.name.endswith(".tmp")]
    changed = darknet_py.load(files.cfg, files.weights)
    assert digest(changed) == digest(files.net)  # the same content
    changed.layers[0].weight.data[0, 0, 0, 0] += 1
    assert digest(changed) != digest(files.net)
    assert digest(files.net, 1) != digest(files.net, 2)


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "darknet_py").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached("a", lambda: b"content") == b"content"
    assert "it is made again next time" in caplog.text


@pytest.mark.parametrize("damage", ["empty", "cut", "one bit", "longer", "foreign"])
def test_a_damaged_file_of_the_cache_is_made_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached("a.onnx", lambda: b"content" * 99) == b"content" * 99
    (path,) = (tmp_path / "darknet_py" / "networks").iterdir()
    stored = path.read_bytes()
    flipped = bytearray(stored)
    flipped[len(stored) // 2] ^= 1
    contents = {"empty": b"", "cut": stored[:-1], "one bit": flipped, "longer": stored + b"t", "foreign": b"a" * 99}
    path.write_bytes(contents[damage])
    assert cached("a.onnx", lambda: b"content" * 99) == b"content" * 99
    assert "a.onnx: damaged; it is made again" in caplog.text
    assert path.read_bytes() == stored
    assert cached("a.onnx", lambda: pytest.fail("made again")) == b"content" * 99


def test_a_back_end_starts_with_a_damaged_cache(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export and the choice, both kept as files."""
    installed("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choose, "time_backends", lambda networks, x: {name: len(name) for name in networks})
    x = check_images(1, 3, 32, 64)
    before = open_backend(files.net, "auto").boxes(x, 0.4)
    kept = sorted((tmp_path / "darknet_py" / "networks").iterdir())
    assert {path.suffix for path in kept} >= {".json", ".network"}
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_same(before, open_backend(files.net, "auto").boxes(x, 0.4))


_FILL = """
import sys
from darknet_py.backends.choose import open_backend
from darknet_py.export.verify import check_images
from darknet_py.model.load import read_trained
net = read_trained(sys.argv[1], sys.argv[2])
print(len(open_backend(net, "onnxruntime").boxes(check_images(1, 3, 32, 64), 0.4)[0]))
"""


@pytest.mark.slow
def test_processes_that_fill_the_cache_at_the_same_time(files: Files, tmp_path: Path) -> None:
    installed("onnxruntime")
    command = [sys.executable, "-c", _FILL, str(files.cfg), str(files.weights)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(3)]
    counts = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0] and len(counts) == 1
    assert [path.suffix for path in (tmp_path / "darknet_py" / "networks").iterdir()] == [".network"]  # no .tmp
    assert subprocess.run(command, capture_output=True, env=environment).stdout.strip() in counts


def test_auto_takes_the_fastest_and_remembers_it(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed("onnxruntime")
    measured: list[list[str]] = []

    def time_backends(networks: dict[str, object], x: torch.Tensor) -> dict[str, float]:
        measured.append(list(networks))
        return {name: 0.001 if name == "onnxruntime fp32" else 0.002 for name in networks}

    caplog.set_level("INFO", "darknet_py")
    monkeypatch.setattr(choose, "time_backends", time_backends)
    for _ in range(2):
        assert open_backend(files.net, "auto", batch=2).backend == "onnxruntime"
    assert len(measured) == 1 and {"torch fp32", "onnxruntime fp32"} <= set(measured[0])
    assert "back end: onnxruntime fp32 (ms for 2 images: onnxruntime fp32 1.0, " in caplog.text


def test_auto_precision_keeps_to_the_bound(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "processor_flags", lambda: {"avx512_bf16"})
    assert choose.pairs_to_try(files.net, "torch", "auto") == [("torch", "fp32"), ("torch", "bf16")]
    monkeypatch.setattr(choose, "processor_flags", set)
    assert choose.pairs_to_try(files.net, "torch", "auto") == [("torch", "fp32")]
    monkeypatch.setattr(choose, "processor_flags", lambda: {"avx512_bf16"})
    monkeypatch.setattr(choose, "time_backends", lambda networks, x: {name: "fp32" in name for name in networks})
    monkeypatch.setattr(choose, "machine", lambda: "exact enough")
    monkeypatch.setattr(choose, "box_difference", lambda ours, theirs: BoxDifference(0.2, 0.9))
    assert open_backend(files.net, "torch", "auto").precision == "bf16"
    monkeypatch.setattr(choose, "machine", lambda: "not exact enough")
    monkeypatch.setattr(choose, "box_difference", lambda ours, theirs: BoxDifference(0.201, 0.9))
    assert open_backend(files.net, "torch", "auto").precision == "fp32"


def test_box_difference_by_hand() -> None:
    box = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]]])
    moved = box + torch.tensor([0.1, 0.0, 0.0, 0.0])  # the first overlaps by half: 1/3; the second touches: 0
    ours = Predictions(box, torch.ones(1, 2), torch.tensor([[[0.8, 0.1], [0.0, 0.2]]]))
    theirs = Predictions(moved, torch.ones(1, 2), torch.tensor([[[0.7, 0.1], [0.0, 0.3]]]))
    assert box_difference(ours, theirs) == pytest.approx((0.1 / 0.8, 0.0), abs=1e-6)
    found = box_difference(Predictions(*(part[:, :1] for part in ours)), Predictions(*(part[:, :1] for part in theirs)))
    assert found == pytest.approx((0.1 / 0.8, 1 / 3), abs=1e-6)
    broken = theirs._replace(scores=theirs.scores * float("nan"))
    assert not box_difference(ours, broken).is_small


def test_what_back_ends_refuse(files: Files, tmp_path: Path) -> None:
    with pytest.raises(DarknetError, match="backend: expected one of torch, compile, onnxruntime, openvino, auto"):
        open_backend(files.net, "tflite")
    with pytest.raises(DarknetError, match="precision: expected one of auto, fp32, bf16, fp16, int8"):
        open_backend(files.net, "torch", "int4")
    with pytest.raises(DarknetError, match="onnxruntime: expected a precision of fp32, int8, got bf16"):
        open_backend(files.net, "onnxruntime", "bf16")
    with pytest.raises(DarknetError, match="no detection layer"):
        open_backend(write_case("classifier", tmp_path).net, "torch").predict(torch.zeros(1, 3, 32, 64))
    installed("onnxruntime")
    with pytest.raises(DarknetError, match=r"expected an input of \(batch, 3, 32, 64\), got \(1, 3, 64, 64\)"):
        open_backend(files.net, "onnxruntime", batch=2).boxes(torch.zeros(1, 3, 64, 64))


def test_detect_by_a_back_end(files: Files, tmp_path: Path) -> None:
    installed("onnxruntime")
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8))
    results = []
    for name in ("torch", "onnxruntime"):
        words = [
            "detect",
            str(files.cfg),
            "--weights",
            str(files.weights),
            str(image),
            "--no-images",
            "--thresh",
            "0.4",
        ]
        assert main([*words, "--batch", "2", "--backend", name, "--json", str(tmp_path / f"{name}.json")]) == 0
        results.append(json.loads((tmp_path / f"{name}.json").read_text())[0]["objects"])
    ours, theirs = ([row["confidence"] for row in rows] for rows in results)
    assert theirs == pytest.approx(ours, abs=1e-5) and len(ours) > 3


def test_evaluation_by_a_back_end(files: Files, tmp_path: Path) -> None:
    installed("onnxruntime")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        (tmp_path / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.3 0.4 0.2 0.5\n")
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    maps = []
    for name in ("torch", "onnxruntime"):
        predictor = open_backend(files.net, name, batch=2)
        options = EvalOptions(("darknet",), batch=2, workers=0, predictor=predictor)
        result = evaluate_detector(files.net, paths, ["cat", "dog"], options).darknet
        assert result is not None
        maps.append(result.map)
    assert maps[0] == pytest.approx(maps[1], abs=1e-6)
    with pytest.raises(DarknetError, match="loss: expected torch"):
        evaluate_detector(files.net, paths, ["cat", "dog"], EvalOptions(loss=True, workers=0, predictor=predictor))


def test_bench_compares_in_turns(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("onnxruntime")
    monkeypatch.setattr(choose, "processor_flags", set)
    rows = compare_backends(files.net, ["onnxruntime"], batch=2, seconds=0)
    assert [(row.backend, row.precision) for row in rows] == [("torch", "fp32"), ("onnxruntime", "fp32")]
    assert all(row.times is not None and row.difference is not None and row.difference.is_small for row in rows)
    assert [line.split()[:2] for line in backend_lines(rows)[2:]] == [["torch", "fp32"], ["onnxruntime", "fp32"]]
