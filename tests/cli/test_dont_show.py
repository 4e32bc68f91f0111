"""Classes whose names start with dont_show appear nowhere in what `detect` gives."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.cli import main

CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=7\nsize=1\nstride=8\n"
    "[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
)


def test_detect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.cfg").write_text(CFG)
    (tmp_path / "x.names").write_text("dont_show Straße\nété\n", encoding="utf-8")
    folder = tmp_path / "des images é"
    folder.mkdir()
    _, data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    (folder / "b 1.png").write_bytes(data.tobytes())
    options = ["--names", str(tmp_path / "x.names"), "--thresh", "0.01", "--json", "--out", str(tmp_path / "out é")]
    assert main(["detect", str(tmp_path / "x.cfg"), str(folder), *options]) == 0
    frames = json.loads(capsys.readouterr().out)
    assert frames[0]["filename"] == str(folder / "b 1.png") and len(frames[0]["objects"]) > 0
    assert {found["name"] for found in frames[0]["objects"]} == {"été"}
    assert (tmp_path / "out é" / "b 1.jpg").is_file()
