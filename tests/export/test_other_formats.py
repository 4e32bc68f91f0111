"""`.xml`, `.pt2`, `.torchscript` and `.safetensors`."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.errors import DarknetError, WeightsError
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.verify import check_images
from darknet_py.model.model_file import ModelFile
from tests.export.export_cases import Files, write_case

IMAGES = check_images(1, 3, 32, 64, seed=5)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_case("yolov4", tmp_path)


def assert_ours(got: list[torch.Tensor], files: Files, x: torch.Tensor = IMAGES) -> None:
    """Within 1e-4 of each output's largest value of the unfused network, see test_onnx."""
    with torch.inference_mode():
        expected = files.net.predict(x)
    for ours, theirs in zip(expected, got, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()


def test_openvino(files: Files) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
    out = darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(".xml"), ["cat", "dog"])
    model = openvino.Core().read_model(out)
    assert json.loads(model.get_rt_info(["model_info", "names"]).astype(str)) == ["cat", "dog"]
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(IMAGES.numpy())
    assert_ours([torch.from_numpy(np.array(found[name])) for name in ("boxes", "objectness", "scores")], files)


_SIGNALS_AFTER_OPENVINO = """
import gc, os, signal, sys
from pathlib import Path
import torch
from darknet_py.export.runtimes import run_openvino
first = run_openvino(Path(sys.argv[1]))
second = run_openvino(Path(sys.argv[1]))
second(torch.zeros(1, 3, 32, 64))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals here")
def test_a_signal_after_openvino(files: Files) -> None:
    """In a process of its own, as it would not survive a missing signal stack."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    out = darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(".xml"), ["cat", "dog"])
    command = [sys.executable, "-c", _SIGNALS_AFTER_OPENVINO, str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "handled\n"), result.stderr


def test_exported_program(files: Files) -> None:
    out = darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(".pt2"), options=ExportOptions())
    texts = {"names": "", "input": ""}
    module = torch.export.load(out, extra_files=texts).module()
    assert_ours(list(module(IMAGES)), files)
    assert json.loads(texts["input"])["width"] == 64


@pytest.mark.slow
def test_exported_program_of_any_size(files: Files) -> None:
    options = ExportOptions(dynamic="both")
    module = torch.export.load(
        darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(".pt2"), options=options)
    ).module()
    for batch, height, width in ((1, 32, 64), (7, 64, 48)):
        x = check_images(batch, 3, height, width, seed=batch)
        assert_ours(list(module(x)), files, x)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_program(files: Files) -> None:
    out = darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(".aoti.pt2"), ["cat", "dog"])
    module = torch._inductor.aoti_load_package(str(out))
    assert_ours(list(module(IMAGES)), files)
    assert json.loads(module.get_metadata()["names"]) == ["cat", "dog"]


def test_a_missing_compiler(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(*arguments: object, **options: object) -> None:
        raise RuntimeError("No working C++ compiler found in the configuration\nand more lines")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile)
    with pytest.raises(DarknetError, match=r"such as g\+\+\): No working C\+\+ compiler found in the configuration$"):
        darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(".aoti.pt2"))
    assert not files.cfg.with_suffix(".aoti.pt2").exists()


@pytest.mark.parametrize("suffix", [".torchscript", ".ts"])
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript(suffix: str, files: Files) -> None:
    out = darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(suffix))
    texts = {"names": "", "cfg": ""}
    assert_ours(list(torch.jit.load(out, _extra_files=texts)(IMAGES)), files)
    assert texts["cfg"].decode() == files.cfg.read_text()


def test_safetensors_and_back(files: Files, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="the extra safetensors is not installed")
    path = darknet_py.convert(files.cfg, files.weights, tmp_path / "a.safetensors", ["cat", "dog"])
    arrays = safetensors.load_file(path)
    assert all(torch.equal(arrays[name], values) for name, values in files.net.state_dict().items())
    for cfg, weights in ((None, path), (path, None), (files.cfg, path)):
        darknet_py.convert(cfg, weights, tmp_path / "b.weights")
        assert (tmp_path / "b.weights").read_bytes() == files.weights.read_bytes()
        (tmp_path / "b.weights").unlink()
    assert darknet_py.load(path).names == ["cat", "dog"]
    assert ModelFile.read(path).thresh is None


@pytest.mark.parametrize("damage", ["cut", "foreign", "text"])
def test_damaged_safetensors(damage: str, files: Files, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="the extra safetensors is not installed")
    path = darknet_py.convert(files.cfg, files.weights, tmp_path / "a.safetensors")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "foreign":
        safetensors.save_file({"weight": torch.zeros(2)}, path)
    else:
        path.write_text("not a network")
    with pytest.raises(WeightsError, match=r"a\.safetensors: (not a|expected a) safetensors file"):
        darknet_py.load(files.cfg, path)
