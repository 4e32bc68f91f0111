from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_py.cli import main
from darknet_py.errors import DarknetError, WeightsError
from darknet_py.graph.graph import parse_text
from darknet_py.model.header import Header, read_header
from darknet_py.model.load import read_graph, read_trained
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

CFG = """[net]
width=16
height=16
channels=3
batch=4
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[shortcut]
from=-1
weights_type=per_channel
weights_normalization=softmax
[convolutional]
filters=6
size=1
groups=2
activation=linear
[batchnorm]
[connected]
batch_normalize=1
output=5
activation=linear
"""
# Per layer: (role, count) in file order.
LAYOUT = [
    [("bias", 4), ("scale", 4), ("mean", 4), ("variance", 4), ("weight", 108)],
    [("shortcut", 8)],
    [("bias", 6), ("weight", 12)],
    [("bias", 6), ("scale", 6), ("mean", 6), ("variance", 6)],
    [("bias", 5), ("weight", 5 * 384), ("scale", 5), ("mean", 5), ("variance", 5)],
]
HEADER = Header(seen=123456789012)
COUNT = sum(count for layer in LAYOUT for _, count in layer)


def net(text: str = CFG) -> Network:
    return Network(parse_text(text)).eval()


def weights_file(path: Path, floats: int = COUNT, header: Header = HEADER) -> bytes:
    content = header.bytes() + np.arange(1, floats + 1, dtype="<f4").tobytes()
    path.write_bytes(content)
    return content


def test_layout_follows_darknet() -> None:
    graph = parse_text(CFG)
    assert [[(array.role, array.count) for array in node.spec.arrays(node)] for node in graph] == LAYOUT


def test_values_land_in_file_order(tmp_path: Path) -> None:
    weights_file(tmp_path / "a.weights")
    network = net()
    header = network.load_weights(tmp_path / "a.weights")
    assert header == Header(0, 2, 5, 123456789012)
    assert network.state.seen == 123456789012
    assert network.state.iteration == 123456789012 // 4
    first = network.layers[0]
    assert first.bias.tolist() == [1, 2, 3, 4]
    assert first.variance.tolist() == [13, 14, 15, 16]
    assert first.weight.flatten()[:2].tolist() == [17, 18]
    assert network.layers[4].variance.tolist() == [COUNT - 4 + i for i in range(5)]


@pytest.mark.parametrize(
    "header",
    [Header(), Header(0, 1, 0, 77), Header(0, 2, 0, 2**40), Header(1, 0, 0, 5), Header(2000, 1, 0, 9)],
)
def test_round_trip_is_byte_identical_for_every_header_version(tmp_path: Path, header: Header) -> None:
    content = weights_file(tmp_path / "a.weights", header=header)
    assert len(header.bytes()) == (20 if header.major * 10 + header.minor >= 2 else 16)
    network = net()
    found = network.load_weights(tmp_path / "a.weights")
    replace(network.model_file(), header=found).write(tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == content


def test_versions_above_1000_hold_connected_weights_transposed(tmp_path: Path) -> None:
    weights_file(tmp_path / "new.weights")
    weights_file(tmp_path / "old.weights", header=Header(1001, 0, 0, 0))
    new, old = net(), net()
    new.load_weights(tmp_path / "new.weights")
    old.load_weights(tmp_path / "old.weights")
    assert torch.equal(new.layers[4].weight.reshape(384, 5).t(), old.layers[4].weight)
    assert torch.equal(new.layers[0].weight, old.layers[0].weight)


def test_flipped_convolutions_are_transposed_and_written_back_as_they_were(tmp_path: Path) -> None:
    text = CFG.replace("pad=1", "pad=1\nflipped=1")
    content = weights_file(tmp_path / "a.weights")
    flipped, plain = net(text), net()
    flipped.load_weights(tmp_path / "a.weights")
    plain.load_weights(tmp_path / "a.weights")
    assert torch.equal(flipped.layers[0].weight.reshape(4, 27), plain.layers[0].weight.reshape(27, 4).t())
    flipped.save_weights(tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == content


def test_a_partial_file_loads_up_to_its_last_layer(tmp_path: Path) -> None:
    two_layers = sum(count for layer in LAYOUT[:2] for _, count in layer)
    weights_file(tmp_path / "a.conv.2", two_layers)
    network = net()
    untouched = network.layers[2].weight.clone()
    network.load_weights(tmp_path / "a.conv.2")
    assert network.layers[1].weight.flatten()[-1] == two_layers
    assert torch.equal(network.layers[2].weight, untouched)


def test_cutoff_reads_and_writes_the_first_layers(tmp_path: Path) -> None:
    weights_file(tmp_path / "a.weights")
    network = net()
    untouched = network.layers[2].weight.clone()
    network.load_weights(tmp_path / "a.weights", cutoff=2)
    assert network.layers[0].bias.tolist() == [1, 2, 3, 4]
    assert torch.equal(network.layers[2].weight, untouched)
    network.save_weights(tmp_path / "a.conv.2", cutoff=2)
    assert (tmp_path / "a.conv.2").stat().st_size == 20 + 4 * (4 * 4 + 108 + 8)


def test_dontload_and_dontloadscales_take_nothing_from_the_file(tmp_path: Path) -> None:
    text = CFG.replace("pad=1", "pad=1\ndontloadscales=1").replace("groups=2", "groups=2\ndontload=1")
    weights_file(tmp_path / "a.weights", COUNT - 12 - 18)
    network = net(text)
    network.load_weights(tmp_path / "a.weights")
    assert network.layers[0].weight.flatten()[0] == 5
    assert network.layers[0].scale.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("floats", "tail", "message"),
    [
        (COUNT + 7, b"", r"got 7 floats more after its last layer"),
        (COUNT, b"xy", r"got 2 bytes more after its last layer"),
        (COUNT - 3, b"", r"ends in layer 4 \[connected\], variance: expected \d+ floats in all, got \d+"),
        (20, b"", r"ends in layer 0 \[convolutional\], weight"),
        (20, b"abc", r"got 20 floats and 3 bytes"),
    ],
)
def test_a_file_of_another_length_is_refused_by_layer_and_tensor(
    tmp_path: Path, floats: int, tail: bytes, message: str
) -> None:
    path = tmp_path / "a.weights"
    path.write_bytes(weights_file(path, floats) + tail)
    with pytest.raises(WeightsError, match=message):
        net().load_weights(path)


def test_unreadable_files_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "short.weights").write_bytes(b"\0\0\0\0")
    with pytest.raises(WeightsError, match="expected a weights header of 20 bytes, got 4"):
        read_header(tmp_path / "short.weights")
    with pytest.raises(WeightsError, match="weights file not found"):
        net().load_weights(tmp_path / "none.weights")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot write"):
        net().save_weights(tmp_path / "missing" / "a.weights")
    assert not list(tmp_path.iterdir())


def test_checkpoint_round_trip_is_byte_identical(tmp_path: Path) -> None:
    import darknet_py

    (tmp_path / "a.cfg").write_text(CFG)
    content = weights_file(tmp_path / "a.weights", header=Header(0, 1, 0, 77))
    darknet_py.convert(tmp_path / "a.cfg", tmp_path / "a.weights", tmp_path / "a.pt", names=["cat", "dog"])
    stored = torch.load(tmp_path / "a.pt", weights_only=True)
    assert stored["cfg"] == CFG
    assert stored["names"] == ["cat", "dog"]
    assert stored["state_dict"]["layers.0.weight"].shape == (4, 3, 3, 3)
    darknet_py.convert(None, tmp_path / "a.pt", tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == content
    network = read_trained(None, tmp_path / "a.pt")
    assert network.names == ["cat", "dog"]
    assert network.layers[0].bias.tolist() == [1, 2, 3, 4]
    assert read_trained(tmp_path / "a.cfg", tmp_path / "a.pt").layers[0].bias.tolist() == [1, 2, 3, 4]


def test_a_checkpoint_of_another_network_is_refused_by_layer(tmp_path: Path) -> None:
    net().model_file().write(tmp_path / "a.pt")
    other = net(CFG.replace("filters=6", "filters=8"))
    with pytest.raises(WeightsError, match=r"layer 2 \[convolutional\], layers.2.bias: expected \(8,\), got \(6,\)"):
        other.load_weights(tmp_path / "a.pt")
    other.load_weights(tmp_path / "a.pt", cutoff=2)
    for content in ({"model": 1}, {"format": "darknet_py", "version": 1}, {"format": "darknet_py", "version": 9}):
        torch.save(content, tmp_path / "b.pt")
        with pytest.raises(WeightsError, match="expected a checkpoint written by darknet_py"):
            read_trained(None, tmp_path / "b.pt")


def test_a_checkpoint_is_a_cfg_too_whatever_its_name(tmp_path: Path) -> None:
    network = net()
    network.model_file().write_checkpoint(tmp_path / "a.ckpt")
    weights_file(tmp_path / "a.weights")
    assert read_graph(tmp_path / "a.ckpt", width=64).net.width == 64
    assert torch.equal(read_trained(tmp_path / "a.ckpt").layers[0].weight, network.layers[0].weight)
    assert read_trained(tmp_path / "a.ckpt", tmp_path / "a.weights").layers[0].bias.tolist() == [1, 2, 3, 4]
    assert main(["info", str(tmp_path / "a.ckpt")]) == 0


def test_iterations_are_counted_in_whole_mini_batches(tmp_path: Path) -> None:
    weights_file(tmp_path / "a.weights", header=Header(seen=2400))
    network = net(CFG.replace("batch=4\n", "batch=8\nsubdivisions=3\n"))
    network.load_weights(tmp_path / "a.weights")
    assert network.state.iteration == 2400 // 6


def test_without_arrays_it_is_on_the_cpu() -> None:
    network = net("[net]\nwidth=4\nheight=4\nchannels=3\n[avgpool]\n[softmax]\n")
    assert network.device == torch.device("cpu")
    with pytest.raises(DarknetError, match=r"expected an input of \(batch, 3, height, width\), got \(1, 4, 4, 4\)"):
        network(torch.zeros(1, 4, 4, 4))


def test_a_mini_batch_without_boxes_needs_no_shape() -> None:
    head = "[yolo]\nmask=0\nanchors=4,4\nclasses=1\nnum=1\n"
    text = "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=6\nsize=1\nstride=8\nactivation=linear\n"
    network = Network(parse_text(text + head)).train()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(network.loss(x, torch.tensor([])).cost, network.loss(x, torch.zeros(0, 6)).cost)


def test_reading_draws_no_weights_that_the_file_replaces(tmp_path: Path) -> None:
    """Drawing yolov4's took four fifths of the time of loading them."""
    model = net().model_file()
    model.write(tmp_path / "x.weights")
    model.write_weights(tmp_path / "x.conv.2", cutoff=2)
    read = {name: ModelFile.read_weights(tmp_path / name, model.graph) for name in ("x.weights", "x.conv.2")}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = Network.of(read["x.weights"])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(array, model.tensors[name]) for name, array in whole.state_dict().items())
    partial = Network.of(read["x.conv.2"])
    torch.manual_seed(1)
    assert torch.equal(partial.layers[4].weight, net().layers[4].weight)  # drawn as without a file


def test_large_finite_values_are_not_taken_for_infinite(tmp_path: Path) -> None:
    """Their sum is infinite in float32."""
    model = net().model_file()
    model.tensors["layers.0.weight"].fill_(3e38)
    model.write(tmp_path / "x.weights")
    read = Network.of(ModelFile(model.graph).with_weights(tmp_path / "x.weights"))
    assert torch.equal(read.layers[0].weight, model.tensors["layers.0.weight"])
