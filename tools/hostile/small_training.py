"""The detector and the images of the trainings that are attacked, both as small as can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_CFG = """[net]
width=32
height=32
channels=3
batch={batch}
subdivisions=1
learning_rate=0.001
burn_in={burn_in}
max_batches={iterations}
[convolutional]
batch_normalize=1
filters={filters}
size=3
stride=4
pad=1
activation=leaky
[convolutional]
filters=7
size=2
stride=2
activation=linear
[yolo]
mask=0
anchors=12,12
classes=2
num=1
"""


def detector_cfg(*, batch: int, burn_in: int, iterations: int, filters: int) -> str:
    """A detector of two classes. filters: of its first layer."""
    return _CFG.format(batch=batch, burn_in=burn_in, iterations=iterations, filters=filters)


def write_images(folder: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Writes images/NAME.png, noise of 32 x 32 pixels, each with two boxes; returns the images."""
    (folder / "images").mkdir()
    rng, images = np.random.default_rng(0), {}
    for name in names:
        images[name] = rng.integers(0, 256, (32, 32, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), images[name])
        (folder / "images" / f"{name}.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.3 0.6 0.2 0.3\n")
    return images


def write_list(path: Path, names: Sequence[str]) -> None:
    """Writes a list of images of `write_images` in the folder of the list."""
    path.write_text("".join(f"{path.parent}/images/{name}.png\n" for name in names))
