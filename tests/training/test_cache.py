"""Training from images that are kept in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

import darknet_py


def test_the_same_weights_and_one_line_about_it(
    cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    kept, read = (
        darknet_py.train(cfg, shapes, out=tmp_path / str(cache), workers=1, device="cpu", map=False, cache=cache)
        for cache in (True, False)
    )
    assert kept.weights.read_bytes() == read.weights.read_bytes()
    lines = [line for line in log.messages if line.startswith("cache: ")]
    assert len(lines) == 1 and lines[0].startswith("cache: 16 of 16 images in memory, ")
