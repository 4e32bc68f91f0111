"""`detect`: names that are not shown, labels that are written, letterboxes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.data.images import from_letterbox, letterbox, load_image
from darknet_py.data.labels import load_labels

CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=7\nsize=1\nstride=8\n"
    "[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
)


def test_classes_called_dont_show_appear_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.cfg").write_text(CFG)
    (tmp_path / "x.names").write_text("dont_show Straße\nété\n", encoding="utf-8")
    folder = tmp_path / "des images é"
    folder.mkdir()
    _, data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    (folder / "b 1.png").write_bytes(data.tobytes())
    options = ["--names", str(tmp_path / "x.names"), "--thresh", "0.01", "--json", "--out", str(tmp_path / "out é")]
    assert main(["detect", str(tmp_path / "x.cfg"), str(folder), "--random-weights", *options]) == 0
    frames = json.loads(capsys.readouterr().out)
    assert frames[0]["filename"] == str(folder / "b 1.png") and len(frames[0]["objects"]) > 0
    assert {found["name"] for found in frames[0]["objects"]} == {"été"}
    assert (tmp_path / "out é" / "b 1.jpg").is_file()


def test_labels_are_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.cfg").write_text(CFG)
    torch.manual_seed(0)
    net = darknet_py.load(tmp_path / "x.cfg", random_weights=True)
    net.save_weights(tmp_path / "x.weights")
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8))
    command = ["detect", str(tmp_path / "x.cfg"), str(image), "--weights", str(tmp_path / "x.weights"), "--no-pictures"]
    command += ["--thresh", "0.1", "--save-labels", "--letter-box"]
    assert main(command) == 0
    found = net.boxes(torch.from_numpy(letterbox(load_image(image), 32, 32)).permute(2, 0, 1)[None], 0.1)[0]
    boxes = from_letterbox(torch.tensor([each.box for each in found]), (40, 20), (32, 32))
    written = load_labels(tmp_path / "a.txt").boxes
    assert len(found) > 0 and len(written) <= len(found)  # a box beyond the image is no label
    lines = [line.split() for line in (tmp_path / "a.txt").read_text().splitlines()]
    assert [int(line[0]) for line in lines] == [each.class_id for each in found]
    np.testing.assert_allclose(np.array(lines, float)[:, 1:], boxes, atol=1e-6)
    before = (tmp_path / "a.txt").read_bytes()
    assert main(command) == 1
    assert "a.txt: there are labels already (1 such file)" in capsys.readouterr().err
    assert (tmp_path / "a.txt").read_bytes() == before


def test_pictures_of_five_channels(tmp_path: Path) -> None:
    (tmp_path / "x.cfg").write_text(CFG.replace("channels=3", "channels=5"))
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 255, (20, 30, 5), np.uint8))
    run = ["detect", str(tmp_path / "x.cfg"), str(tmp_path / "a.npy"), "--out", str(tmp_path / "o")]
    assert main([*run, "--random-weights"]) == 0
    assert (tmp_path / "o" / "a.jpg").is_file()


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.weights").write_bytes(bytes(range(256)) * 99)
    for command in (["info", str(tmp_path / "x.weights")], ["check", "--data", str(tmp_path / "x.weights")]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "not a text file" in error
