"""Streams of a text: where they read, and which files are refused."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_py.data.text_streams import TextStreams, read_bytes
from darknet_py.errors import DataError


def test_streams_go_on_through_the_text_and_jump_now_and_then() -> None:
    text = np.arange(100, dtype=np.uint8)
    streams = TextStreams(Path("x"), text, inputs=100, steps=4, streams=3, seed=0, device=torch.device("cpu"))
    batches = list(islice(streams.batches(), 40))
    jumps = 0
    for before, batch in pairwise(batches):
        symbols = batch.images.argmax(1).view(4, 3)
        assert torch.equal(batch.truth.argmax(1).view(4, 3), (symbols + 1) % 100)
        follows = (before.truth.argmax(1).view(4, 3)[-1] == symbols[0]).nonzero().flatten().tolist()
        assert set(follows) | set(batch.tracks.tolist()) == {0, 1, 2}
        jumps += len(batch.tracks)
    assert 4 <= jumps <= 24  # one in ten of 117
    again = next(streams.batches(17))
    assert torch.equal(again.images, batches[17].images)


def test_files_name_the_positions_of_the_streams() -> None:
    text = np.arange(100, dtype=np.uint8)
    streams = TextStreams(Path("x"), text, inputs=100, steps=4, streams=2, seed=3, device=torch.device("cpu"))
    batches = list(islice(streams.batches(), 3))
    starts = [int(row) for batch in batches[1:] for row in batch.images.argmax(1).view(4, 2)[0]]
    assert streams.files(range(1, 3)) == [f"x from byte {start}" for start in starts]


def test_texts_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(DataError, match="cannot read the text"):
        read_bytes(path, 128)
    path.write_bytes(b"a")
    with pytest.raises(DataError, match="at least 2 bytes, got 1"):
        read_bytes(path, 128)
    path.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match="got 255 at position 2"):
        read_bytes(path, 128)
    assert read_bytes(path, 256).tolist() == [97, 98, 255]
