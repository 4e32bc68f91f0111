"""Conversions that fail: one clear line, and nothing is left behind."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import DarknetError, WeightsError
from darknet_py.export.convert import SUFFIXES
from darknet_py.export.export_options import ExportOptions
from tests.conftest import ROOT
from tests.export.export_cases import Files, write_case


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_case("classifier", tmp_path)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "out" in path.name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_wrong_pair(files: Files, suffix: str, tmp_path: Path) -> None:
    other = write_case("yolov3", tmp_path)
    with pytest.raises(WeightsError, match=r"classifier\.weights"):
        darknet_py.convert(other.cfg, files.weights, tmp_path / f"out{suffix}")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_not_there(files: Files, suffix: str, tmp_path: Path) -> None:
    with pytest.raises(DarknetError, match=r"missing.*cannot write"):
        darknet_py.convert(files.cfg, files.weights, tmp_path / "missing" / f"out{suffix}")


def test_an_older_file_stays_where_the_conversion_fails(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"older")
    with pytest.raises(WeightsError):
        darknet_py.convert(write_case("yolov3", tmp_path).cfg, files.weights, out)
    assert out.read_bytes() == b"older" and left_behind(tmp_path) == ["out.onnx"]


class _Bomb:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("content", ["torch.save", "pickle"])
def test_a_pickle_that_runs_a_program(content: str, files: Files, tmp_path: Path) -> None:
    bomb, path = _Bomb(tmp_path / "exploded"), tmp_path / "bomb.pt"
    if content == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"format": "darknet_py", "version": 1, "state_dict": bomb}, path)
    for cfg in (None, files.cfg):
        with pytest.raises(DarknetError, match=r"bomb\.pt|expected a cfg"):
            darknet_py.convert(cfg, path, tmp_path / "out.onnx")
    assert not (tmp_path / "exploded").exists() and left_behind(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash, whose ulimit limits the size of files")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx"])
def test_a_full_disk(files: Files, suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    command = f'ulimit -f 1; exec "{sys.executable}" -m darknet_py convert "{files.cfg}" "{files.weights}" "{out}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"darknet-py: {out}: cannot write: File too large"
    assert left_behind(tmp_path) == []


def test_options_that_a_format_has_not(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix in (".pt", ".weights"):
        with pytest.raises(DarknetError, match="do not apply to weights"):
            darknet_py.convert(files.cfg, files.weights, tmp_path / f"out{suffix}", options=ExportOptions(batch=2))
    with pytest.raises(DarknetError, match="has no detection layer; expected raw, got nms"):
        darknet_py.convert(files.cfg, files.weights, tmp_path / "out.onnx", options=ExportOptions(outputs="nms"))
    for wrong in (ExportOptions(outputs="all"), ExportOptions(dynamic="yes"), ExportOptions(batch=0)):
        with pytest.raises(DarknetError, match="expected"):
            darknet_py.convert(files.cfg, files.weights, tmp_path / "out.onnx", options=wrong)
    paths = [str(files.cfg), str(files.weights)]
    assert main(["convert", *paths, str(tmp_path / "out.tflite")]) == 1
    assert "expected an ending of .pt, .pth, .weights, .safetensors, .onnx" in capsys.readouterr().err
    assert main(["convert", *paths, str(tmp_path / "out.conv.2"), "--cutoff", "2", "--batch", "2"]) == 1
    assert left_behind(tmp_path) == []


def test_a_cfg_without_weights_is_no_network_to_export(files: Files, tmp_path: Path) -> None:
    with pytest.raises(DarknetError, match=r"expected trained weights of 5 layers .*, got none"):
        darknet_py.convert(files.cfg, None, tmp_path / "out.onnx")
