"""`ModelFile`: every file is read once, partial files stay partial."""

from __future__ import annotations

import io
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import darknet_py
from darknet_py.errors import WeightsError
from darknet_py.graph.graph import parse_text
from darknet_py.inference.fuse import fuse
from darknet_py.layers.base import Predictions
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

CFG = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
stride=8
pad=1
[convolutional]
filters=7
size=1
[yolo]
mask=0
num=1
anchors=9,9
classes=2
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A cfg, its weights and a checkpoint."""
    cfg, weights, checkpoint = (tmp_path / f"a.{ending}" for ending in ("cfg", "weights", "pt"))
    cfg.write_text(CFG)
    darknet_py.load(cfg).save_weights(weights, seen=640)
    darknet_py.convert(cfg, weights, checkpoint, names=["cat", "dog"])
    return cfg, weights, checkpoint


_OPENED: Counter[str] = Counter()
_HOOKED: list[bool] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        _OPENED[Path(arguments[0]).name] += 1


@pytest.fixture
def opened() -> Counter[str]:
    """How often each file is opened, by name."""
    if not _HOOKED:
        sys.addaudithook(_audit)
        _HOOKED.append(True)
    _OPENED.clear()
    return _OPENED


def test_each_file_is_opened_once(files: tuple[Path, Path, Path], opened: Counter[str], tmp_path: Path) -> None:
    cfg, weights, checkpoint = files
    opened.clear()
    darknet_py.load(cfg, weights)
    assert opened["a.cfg"] == opened["a.weights"] == 1
    opened.clear()
    assert darknet_py.load(checkpoint).names == ["cat", "dog"]
    assert opened["a.pt"] == 1
    opened.clear()
    darknet_py.convert(None, checkpoint, tmp_path / "b.weights")
    assert opened["a.pt"] == 1
    assert (tmp_path / "b.weights").read_bytes() == weights.read_bytes()


def test_conversion_builds_no_module(
    files: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*arguments: object) -> None:
        raise AssertionError("a module was built")

    monkeypatch.setattr(Network, "__init__", build)
    darknet_py.convert(files[0], files[1], tmp_path / "b.pt")
    darknet_py.convert(None, tmp_path / "b.pt", tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == files[1].read_bytes()


def test_a_partial_file_stays_partial(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    cfg, weights, _ = files
    darknet_py.convert(cfg, weights, tmp_path / "a.conv.1", cutoff=1)
    darknet_py.convert(cfg, tmp_path / "a.conv.1", tmp_path / "part.pt", cutoff=1)
    assert set(ModelFile.read(tmp_path / "part.pt").tensors) == {
        f"layers.0.{name}" for name in ("bias", "scale", "mean", "variance", "weight")
    }
    whole, part = darknet_py.load(cfg, weights), darknet_py.load(tmp_path / "part.pt", random_weights=True)
    assert torch.equal(whole.layers[0].weight, part.layers[0].weight)
    darknet_py.convert(None, tmp_path / "part.pt", tmp_path / "b.weights", cutoff=1)
    assert (tmp_path / "b.weights").read_bytes() == (tmp_path / "a.conv.1").read_bytes()


def test_a_gap_is_no_partial_file() -> None:
    net = Network(parse_text(CFG))
    tensors = {name: tensor for name, tensor in net.state_dict().items() if name != "layers.0.mean"}
    with pytest.raises(WeightsError, match=r"layer 0 \[convolutional\], layers.0.mean: expected \(4,\), got none"):
        ModelFile(net.graph, tensors=tensors).fit(net.graph)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_has_the_size_that_its_arrays_are_of(suffix: str, tmp_path: Path) -> None:
    """The matrix of [connected] has a row for each pixel; the cfg of the file must be of the same size."""
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    text = "[net]\nwidth=8 # pixels\nheight=4\nchannels=3\n[connected]\noutput=2\nactivation=linear\n"
    network = Network(parse_text(text, width=5, height=4)).eval()
    network.model_file().write(tmp_path / f"a{suffix}")
    again = darknet_py.load(tmp_path / f"a{suffix}")
    assert again.graph.text == text.replace("width=8", "width=5")
    x = torch.rand(1, 3, 4, 5)
    assert torch.equal(again(x), network(x))


@pytest.mark.filterwarnings("ignore:No complete tensor")  # torch's, of weights that are channels-last in memory
def test_a_network_can_be_pickled_and_exported() -> None:
    net = Network(parse_text(CFG)).eval()
    x = torch.rand(1, 3, 32, 32)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    assert torch.equal(again(x).boxes, net(x).boxes)
    for network in (net, fuse(net, pack=False)):
        saved = io.BytesIO()
        torch.export.save(torch.export.export(network, (x,)), saved)
        saved.seek(0)
        exported = torch.export.load(saved).module()(x)
        assert isinstance(exported, Predictions)
        torch.testing.assert_close(exported.scores, net(x).scores)
