"""Headers in both lengths, found out by the length of the file; erik.weights is as PyTorch-YOLOv3 writes it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_py import load
from darknet_py.errors import WeightsError
from darknet_py.graph.graph import parse_text
from darknet_py.model.header import read_header
from darknet_py.model.model_file import ModelFile

CFG = """[net]
width=8
height=8
channels=3
[convolutional]
filters=4
size=3
activation=leaky
[convolutional]
filters=2
size=1
activation=linear
"""
GRAPH = parse_text(CFG)
FLOATS = np.arange(1, 1 + 4 + 108 + 2 + 8, dtype="<f4")  # bias, weights of both layers
FIRST_LAYER = 112


def content(version: tuple[int, int, int], seen: bytes, floats: np.ndarray = FLOATS) -> bytes:
    return np.array(version, "<i4").tobytes() + seen + floats.tobytes()


def read(path: Path, data: bytes, cutoff: int | None = None, ignore_rest: bool = False) -> ModelFile:
    path.write_bytes(data)
    return ModelFile.read_weights(path, GRAPH, cutoff=cutoff, ignore_rest=ignore_rest)


FOUR, EIGHT = (77).to_bytes(4, "little"), (77).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("version", "seen", "note"),
    [
        ((0, 2, 5), EIGHT, ""),  # Darknet since 2017
        ((0, 1, 0), FOUR, ""),  # Darknet before
        ((0, 0, 0), FOUR, ""),  # pytorch-yolo2
        ((0, 0, 0), EIGHT, "version 0.0.0 with 8 bytes of `seen`, where Darknet has 4"),  # PyTorch-YOLOv3
        ((0, 1, 0), EIGHT, "version 0.1.0 with 8 bytes"),
        ((0, 2, 5), FOUR, "version 0.2.5 with 4 bytes of `seen`, where Darknet has 8"),
        ((1001, 0, 0), FOUR, "version 1001.0.0 with 4 bytes"),  # pjreddie's Darknet
    ],
)
@pytest.mark.parametrize("floats", [len(FLOATS), FIRST_LAYER])
def test_the_length_of_the_file_decides(
    version: tuple[int, int, int],
    seen: bytes,
    note: str,
    floats: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "darknet_py"):
        model = read(tmp_path / "a.weights", content(version, seen, FLOATS[:floats]))
    assert model.header[:3] == version and model.header.seen == 77
    assert model.tensors["layers.0.bias"].tolist() == [1, 2, 3, 4]
    assert model.loaded_layers == (2 if floats == len(FLOATS) else 1)
    assert (note in caplog.text) if note else not caplog.text


def test_a_file_that_lost_its_last_bytes_is_not_taken_for_another_header(tmp_path: Path) -> None:
    for lost, message in (
        (4, "either its last 4 bytes are missing or its header is version 0.2.5 with 4"),
        (2, "ends"),
    ):
        with pytest.raises(WeightsError, match=message):
            read(tmp_path / "a.weights", content((0, 2, 5), EIGHT)[:-lost])


def test_four_bytes_more_are_another_header_only_where_they_are_zero(tmp_path: Path) -> None:
    large = (2**40).to_bytes(8, "little")  # the upper half of such a number is not zero
    with pytest.raises(WeightsError, match="expected 122 floats for this network, got 1 float more"):
        read(tmp_path / "a.weights", content((0, 1, 0), large))


def test_what_no_length_tells_is_refused_even_where_a_part_is_wanted(tmp_path: Path) -> None:
    """Version 0.0 and zeros: 16 bytes and a first bias of 0, or 20 bytes. The cfg of the file itself would tell."""
    longer = np.concatenate([FLOATS, FLOATS])
    for options in ({"cutoff": 1}, {"ignore_rest": True}):
        with pytest.raises(WeightsError, match=r"its header may be version 0\.0\.0 with 8 bytes"):
            read(tmp_path / "a.weights", content((0, 0, 0), EIGHT, longer), **options)
        model = read(tmp_path / "a.weights", content((0, 2, 5), EIGHT, longer), **options)
        assert model.tensors["layers.0.bias"].tolist() == [1, 2, 3, 4]


def test_two_readings_of_a_partial_file(tmp_path: Path) -> None:
    """[implicit] of one value: one float more is one layer more."""
    text = CFG + "[implicit]\nfilters=1\natoms=1\n"
    (tmp_path / "a.weights").write_bytes(content((0, 2, 5), FOUR, np.append(FLOATS, np.float32(9))))
    with pytest.raises(WeightsError, match="length of a partial file, and that of another if its header is"):
        ModelFile.read_weights(tmp_path / "a.weights", parse_text(text))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"[net]\nwidth=64\nheight=64\n", "got a text file"),
        (b'{"error": "not found"}', "got a text file"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "got a pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "got an HDF5 file"),
        (b"\x1f\x8b" + bytes(20), "got a gzip archive; unpack it"),
        (b"\0" * 19, "expected a weights file of this network|expected a weights header of 20 bytes|ends in layer"),
    ],
)
def test_other_files_are_named(start: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "a.weights", start)


@pytest.mark.reference
def test_weights_of_pytorch_yolov3_give_the_same_network(reference: Path, caplog: pytest.LogCaptureFixture) -> None:
    bugs = reference / "bugs"
    with caplog.at_level(logging.WARNING, "darknet_py"):
        ours = load(bugs / "base" / "t.cfg", bugs / "weights" / "erik.weights")
    assert "erik.weights: its header is version 0.0.0" in caplog.text
    base = load(bugs / "base" / "t.cfg", bugs / "base" / "t_final.weights")
    for name, values in base.state_dict().items():
        assert torch.equal(ours.state_dict()[name], values)
    assert ours.state.seen == 64 and read_header(bugs / "base" / "t_final.weights").seen == 3200
