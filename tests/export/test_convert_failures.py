"""Conversions that fail: one clear line, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
import darknet_py.files as files_module
from darknet_py.cli import main
from darknet_py.errors import DarknetError, WeightsError
from darknet_py.export import convert
from darknet_py.export.export_options import ExportOptions
from tests.conftest import ROOT
from tests.export.export_cases import Files, write_case

# Compiling takes longest and ends as the others do.
SUFFIXES = tuple(suffix for suffix in convert.SUFFIXES if suffix != ".aoti.pt2")


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


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", ["torch.save", "pickle"])
def test_a_pickle_that_runs_a_program(content: str, suffix: str, files: Files, tmp_path: Path) -> None:
    bomb, path = _Bomb(tmp_path / "exploded"), tmp_path / "bomb.pt"
    if content == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"format": "darknet_py", "version": 1, "state_dict": bomb}, path)
    for cfg in (None, files.cfg):
        with pytest.raises(DarknetError, match=r"bomb\.pt|expected a cfg"):
            darknet_py.convert(cfg, path, tmp_path / f"out{suffix}")
    assert not (tmp_path / "exploded").exists() and left_behind(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_read_only(
    files: Files, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command before any work; from Python, and on a file system that is read-only, when the file is written.

    Root may do anything, so the answers of the system are replaced.
    """
    out = tmp_path / f"out{suffix}"
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
        assert main(["convert", str(files.cfg), str(files.weights), str(out)]) == 1
    assert capsys.readouterr().err == f"darknet-py: {out}: cannot write: Permission denied\n"
    monkeypatch.setattr("builtins.open", _opener(tmp_path, lambda: OSError(errno.EROFS, os.strerror(errno.EROFS))))
    with pytest.raises(WeightsError, match=r"out[^ ]*: cannot write: Read-only file system"):
        darknet_py.convert(files.cfg, files.weights, out)
    monkeypatch.undo()
    assert left_behind(tmp_path) == []


real_open = open


def _opener(folder: Path, error: Callable[[], OSError]) -> Callable[..., object]:
    """`open`, which fails for new files in a folder."""

    def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "w" in mode and Path(path).parent == folder:
            raise error()
        return real_open(path, mode, *arguments, **options)

    return opened


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk(files: Files, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may exceed 1024 bytes from the moment when the first is written: what does, fails halfway."""
    resource = pytest.importorskip("resource", reason="no limit on the size of files here")
    out = tmp_path / f"out{suffix}"
    out.write_bytes(b"older")
    limits, write = resource.getrlimit(resource.RLIMIT_FSIZE), files_module.write_atomically

    def write_on_a_full_disk(*arguments: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
        try:
            write(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    for module in [module for name, module in sys.modules.items() if name.startswith("darknet_py.")]:
        if vars(module).get("write_atomically") is write:
            monkeypatch.setattr(module, "write_atomically", write_on_a_full_disk)
    with pytest.raises(DarknetError, match=r"out[^ ]*: cannot write: File too large"):
        darknet_py.convert(files.cfg, files.weights, out)
    assert out.read_bytes() == b"older" and left_behind(tmp_path) == [out.name]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash, whose ulimit limits the size of files")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_for_the_whole_program(files: Files, suffix: str, tmp_path: Path) -> None:
    """Also for what other packages write while they convert."""
    out = tmp_path / f"out{suffix}"
    command = f'ulimit -f 1; exec "{sys.executable}" -m darknet_py convert "{files.cfg}" "{files.weights}" "{out}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert re.fullmatch(r"darknet-py: \S+: cannot write: .*", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr and left_behind(tmp_path) == []


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
