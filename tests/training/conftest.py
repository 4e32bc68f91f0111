"""A small data set and a network that trains in seconds."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from darknet_py.data.builtin.shapes import ensure_shapes

CFG = """
[net]
batch=4
subdivisions=2
width=64
height=64
channels=3
momentum=0.9
decay=0.0005
learning_rate=0.001
burn_in=3
max_batches=12
policy=steps
steps=9
scales=.1

[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky

[dropout]
probability=.3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky

[convolutional]
filters=33
size=1
activation=linear

[yolo]
mask=0,1,2
anchors=8,8, 16,16, 32,32
classes=6
num=3
jitter=.2
random=1
"""


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.data` file with 16 training and 4 validation images."""
    folder = tmp_path_factory.mktemp("data")
    data = ensure_shapes(folder / "shapes", train=16, valid=4)
    path = folder / "few.data"
    path.write_text(f"classes = 6\ntrain = {data.train}\nvalid = {data.valid}\nnames = {data.names}\n")
    return path


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Catches what the package logs, from level INFO on."""
    caplog.set_level(logging.INFO, logger="darknet_py")
    return caplog


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.cfg"
    path.write_text(CFG)
    return path
