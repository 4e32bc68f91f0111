"""Class names and the best confidence threshold travel with the weights of a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import DarknetError
from darknet_py.model.companions import names_beside, threshold_beside

CFG = """
[net]
width=32\nheight=32\nchannels=3
[convolutional]\nfilters=14\nsize=8\nstride=8
[yolo]\nmask=0,1\nanchors=8,8, 16,16\nclasses=2\nnum=2
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    path = tmp_path / "net.cfg"
    path.write_text(CFG)
    return path


@pytest.fixture
def best(cfg: Path, tmp_path: Path) -> Path:
    """Weights as a training leaves them, with names and threshold."""
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "net_best.weights"
    darknet_py.load(cfg).save_weights(path)
    (tmp_path / "out" / "net.names").write_text("cat\nbig dog\n")
    (tmp_path / "out" / "net_best.json").write_text('{"map": 0.9, "best_thresh": 0.4375}')
    return path


def test_load_and_checkpoints_know_them(cfg: Path, best: Path, tmp_path: Path) -> None:
    net = darknet_py.load(cfg, best)
    assert net.names == ["cat", "big dog"] and net.best_thresh == 0.4375
    assert net.threshold("auto") == 0.4375 and net.threshold(0.1) == 0.1
    assert darknet_py.load(cfg, best, names=["a", "b"]).names == ["a", "b"]
    darknet_py.convert(cfg, best, tmp_path / "net.pt")
    net = darknet_py.load(tmp_path / "net.pt")
    assert net.names == ["cat", "big dog"] and net.best_thresh == 0.4375
    assert torch.load(tmp_path / "net.pt", weights_only=True)["thresh"] == 0.4375


@pytest.mark.parametrize("kind", ["last", "final", "ema", "1000"])
def test_other_weights_of_the_training_share_the_names(kind: str, cfg: Path, best: Path) -> None:
    weights = best.rename(best.with_name(f"net_{kind}.weights"))
    net = darknet_py.load(cfg, weights)
    assert net.names == ["cat", "big dog"] and net.best_thresh is None
    with pytest.raises(DarknetError, match=r"thresh=auto: expected weights with a stored threshold"):
        net.detect(torch.zeros(8, 8, 3, dtype=torch.uint8).numpy(), thresh="auto")
    with pytest.raises(DarknetError, match=r'expected a number or "auto", got "best"|got \'best\''):
        net.threshold("best")


def test_what_belongs_to_others_or_is_damaged_is_left_out(cfg: Path, best: Path) -> None:
    graph = darknet_py.parse(cfg)
    assert names_beside(best.with_name("net.weights"), graph) == ()  # not a training's
    best.with_name("net.names").write_text("a\nb\nc\n")  # of another network
    assert names_beside(best, graph) == ()
    for content in ("", "[" * 5000, "[]", '{"best_thresh": "x"}', '{"best_thresh": 7}', '{"map": 1}'):
        best.with_suffix(".json").write_text(content)
        assert threshold_beside(best) is None
    assert darknet_py.load(cfg, best).names == []


def test_the_command_takes_auto(cfg: Path, best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2
    import numpy as np

    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), image)
    found = {}
    for thresh in ("auto", "0.4375", "0.3"):
        argv = ["detect", str(cfg), str(tmp_path / "x.png"), "--weights", str(best), "--no-images", "--thresh", thresh]
        assert main([*argv, "--device", "cpu", "--json"]) == 0
        found[thresh] = json.loads(capsys.readouterr().out)[0]["objects"]
    assert found["auto"] == found["0.4375"] != found["0.3"]
    assert {each["name"] for each in found["0.3"]} <= {"cat", "big dog"}
    best.with_suffix(".json").unlink()
    assert main([*argv[:-1], "auto", "--device", "cpu"]) == 1
    assert "thresh=auto" in capsys.readouterr().err
