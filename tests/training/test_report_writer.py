"""NAME_report.html: the page about a training."""

from __future__ import annotations

import base64
import re
import signal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import darknet_py
from darknet_py.cli import main
from darknet_py.training.distributed import LossModule

OPTIONS: dict[str, Any] = {"workers": 0, "device": "cpu", "quiet": True, "burn_in": 0, "steps": 9}


class Page(HTMLParser):
    """The texts, the sources of images and the tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.sources: dict[str, str] = {}
        self.tags: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        for name in ("src", "href"):
            if values.get(name):
                self.sources[str(values.get("alt"))] = str(values[name])

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_it_has_everything_and_needs_no_network(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out & <more>"
    argv = ["train", str(cfg), "--data", str(shapes), "--out", str(out), "--map", "2", "--max-batches", "2", "--quiet"]
    assert main([*argv, "--workers", "0", "--device", "cpu"]) == 0
    page = Page(out / "tiny_report.html")
    files = ["chart_tiny.png", "tiny_loss_parts.png", "tiny_precision_recall.png", "tiny_confusion.png"]
    files += ["tiny_worst.jpg", "tiny_samples.jpg"]
    for source, name in zip(page.sources.values(), files, strict=True):
        kind, _, data = source.partition(",")
        assert kind == f"data:image/{'png' if name.endswith('png') else 'jpeg'};base64"
        assert base64.b64decode(data) == (out / name).read_bytes()
        assert cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR) is not None
    text = (out / "tiny_report.html").read_text()
    assert not re.search(r"https?://", text) and "script" not in page.tags and "prefers-color-scheme: dark" in text
    assert "iteration 2 of 2, ended" in page.texts and 'http-equiv="refresh"' not in text
    command = f"darknet-py {' '.join(argv[:5])} '{out}' --map 2 --max-batches 2 --quiet --workers 0 --device cpu"
    assert command in page.texts and f"{command} --resume" in page.texts
    assert any(f"data: {shapes}, 16 images to train on" in each for each in page.texts)
    assert {"circle", "torch", "Python"} <= {*page.texts, "circle"} and str(out.resolve()) in page.texts


def test_a_call_from_python_is_given_as_one(
    cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, passes = LossModule.forward, []

    def signaled(self: LossModule, *args: Any) -> Any:
        passes.append(1)
        if len(passes) == 3:
            page = (tmp_path / "tiny_report.html").read_text()
            assert "iteration 1 of 3, running" in page and 'http-equiv="refresh"' in page
            signal.raise_signal(signal.SIGTERM)
        return forward(self, *args)

    monkeypatch.setattr(LossModule, "forward", signaled)
    with pytest.raises(KeyboardInterrupt):
        darknet_py.train(cfg, shapes, out=tmp_path, max_batches=3, save_every=1, map=False, mosaic=False, **OPTIONS)
    texts = Page(tmp_path / "tiny_report.html").texts
    assert "iteration 1 of 3, ended" in texts
    call = (
        f"darknet_py.train(cfg='{cfg}', data='{shapes}', out='{tmp_path}', device='cpu', workers=0, map=False, "
        "save_every=1, quiet=True, max_batches=3, burn_in=0, steps=9, mosaic=False)"
    )
    assert call in texts and f"{call[:-1]}, resume=True)" in texts


def test_the_parts_of_the_loss_survive_a_resumption_and_stay_few(
    cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darknet_py.training.train_log._MAX_PARTS", 3)
    darknet_py.train(cfg, shapes, out=tmp_path, max_batches=3, map=False, **OPTIONS)
    darknet_py.train(cfg, shapes, out=tmp_path, max_batches=5, map=False, resume=True, **OPTIONS)
    from darknet_py.training.checkpoint_dir import CheckpointDir

    state, _ = CheckpointDir(tmp_path, "tiny").load_last(darknet_py.parse(cfg))
    assert state is not None
    assert [row["iteration"] for row in state["journal"]["parts"]] == [1, 3, 5]
    assert {"iou", "objectness", "class"} <= state["journal"]["parts"][0].keys()


def test_it_can_be_left_out(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    darknet_py.train(cfg, shapes, out=tmp_path, max_batches=1, map=1, report=False, **OPTIONS)
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {"tiny_report.html", "tiny_worst.jpg", "tiny_samples.jpg", "tiny_loss_parts.png"}
