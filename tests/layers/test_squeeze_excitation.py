from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_py.errors import CfgError
from tests.layers.small_networks import network


def test_factors_of_channels(tmp_path: Path) -> None:
    """Worked out by hand: means 1, 2, 3, 6; inner relu(1 + 2, 3 − 6) = 3, 0; factors hard sigmoid(3, −3, 0, 1.5)."""
    net = network("[convolutional]\nfilters=4\nactivation=linear\n[se]\nfilters=4\nreduction=2\n").eval()
    layer = net.layers[1]
    with torch.no_grad():
        layer.squeeze.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, -1]])[:, :, None, None])
        layer.excite.copy_(torch.tensor([[1.0, 9], [-1, 9], [0, 9], [0.5, 9]])[:, :, None, None])
    x = torch.tensor([[0.0, 2], [1, 3], [3, 3], [4, 8]]).view(1, 4, 1, 2)
    expected = [0, 2, 0, 0, 1.5, 1.5, 3, 6]  # factors 1, 0, 1/2, 3/4
    assert layer(x).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    net.save_weights(tmp_path / "a.weights")
    content = np.frombuffer((tmp_path / "a.weights").read_bytes(), "<f4")
    assert content[-16:].tolist() == [1, 1, 0, 0, 0, 0, 1, -1, 1, 9, -1, 9, 0, 9, 0.5, 9]


def test_a_quarter_of_the_channels_without_reduction() -> None:
    net = network("[convolutional]\nfilters=16\n[se]\n")
    assert [tuple(array.shape) for array in net.layers[1].parameters()] == [(4, 16, 1, 1), (16, 4, 1, 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("filters=3", "filters: expected the number of input channels, 4, got 3"),
        ("reduction=5", "reduction: expected at most 4, the number of input channels, got 5"),
        ("channels=4", r"got channels= as in ming71/rotate-yolov3, whose \[se\] ends in a sigmoid"),
    ],
)
def test_faulty_options(options: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        network(f"[convolutional]\nfilters=4\n[se]\n{options}\n")
