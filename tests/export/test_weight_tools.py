"""Darknet's weight tools, against the files that C writes; where C is wrong, against the network's outputs.

`tests/golden/weight_tools.npz` holds cfgs, random weights of them and what `./darknet TOOL …` made of those.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import WeightsError
from darknet_py.export import weight_tools
from darknet_py.graph.graph import parse_text
from darknet_py.layers.base import Predictions
from darknet_py.model.header import Header
from darknet_py.model.layout import arrays, tensor_name
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "weight_tools.npz")
CFGS: dict[str, str] = json.loads(GOLDEN["cfgs"].tobytes())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cfgs and weights of the archive, in the current folder."""
    for name, text in CFGS.items():
        (tmp_path / f"{name}.cfg").write_text(text)
    for key in GOLDEN.files:
        if key.startswith("in/"):
            (tmp_path / f"{''.join(key.split('/')[1:])}.weights").write_bytes(GOLDEN[key].tobytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def floats(content: bytes) -> np.ndarray:
    return np.frombuffer(content[20:], "<f4")


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("rgbgr norm.cfg norm1.weights", "rgbgr/norm"),
        ("average plain.cfg OUT plain1.weights plain2.weights plain3.weights", "average/plain"),
        ("partial norm.cfg norm1.weights OUT 2", "partial/norm"),
    ],
)
def test_the_bytes_of_c(files: Path, command: str, key: str) -> None:
    words = (command if "OUT" in command else f"{command} OUT").replace("OUT", "out.weights").split()
    assert main(words) == 0  # Darknet's own command line
    assert (files / "out.weights").read_bytes() == GOLDEN[key].tobytes()
    assert main(["weights", *words]) == 0
    assert (files / "out.weights").read_bytes() == GOLDEN[key].tobytes()


def test_rescale_as_c(files: Path) -> None:
    """C adds the 27 weights of a filter one after the other; another order differs by a few roundings of the sum."""
    assert main(["rescale", "plain.cfg", "plain1.weights", "out.weights"]) == 0
    content, expected = (files / "out.weights").read_bytes(), GOLDEN["rescale/plain"].tobytes()
    assert content[:20] == expected[:20]
    np.testing.assert_allclose(floats(content), floats(expected), rtol=0, atol=27 * 2**-22)


@pytest.mark.parametrize(("tool", "convolutions"), [("reset", 4 + 27 + 4 + 9), ("denormalize", 1 + 27 + 1 + 9)])
def test_folding_as_c(files: Path, tool: str, convolutions: int) -> None:
    """Byte by byte for convolutions of one filter; with more, C scales all filters by the wrong factors.

    For [connected], C folds with an epsilon of 1e-6 where its forward pass has 1e-5: at most 9e-6 / 2 / .1 of a value,
    the variances being above .1.
    """
    assert main([tool, "one.cfg", "one1.weights", "out.weights"]) == 0
    values, expected = floats((files / "out.weights").read_bytes()), floats(GOLDEN[f"{tool}/one"].tobytes())
    assert values[:convolutions].tobytes() == expected[:convolutions].tobytes()
    np.testing.assert_allclose(values, expected, rtol=4.5e-5, atol=1e-4)


def test_reset_of_a_gated_layer_as_c(files: Path) -> None:
    assert main(["reset", "lstm.cfg", "lstm1.weights", "out.weights"]) == 0
    values, expected = floats((files / "out.weights").read_bytes()), floats(GOLDEN["reset/lstm"].tobytes())
    np.testing.assert_allclose(values, expected, rtol=4.5e-5, atol=2e-4)  # the same epsilon


def test_normalize_as_c_but_for_the_variance(files: Path) -> None:
    """C writes a variance of 0, by which the new network divides: it multiplies every layer by 316."""
    assert main(["weights", "normalize", "plain.cfg", "plain1.weights", "out.weights", "--cfg-out", "out.cfg"]) == 0
    content, expected = (files / "out.weights").read_bytes(), GOLDEN["normalize/plain"].tobytes()
    assert content[:20] == expected[:20]
    values, wanted = floats(content).copy(), floats(expected)
    model = ModelFile.read("out.cfg", "out.weights")
    position = 0
    for _, array in arrays(model.graph):
        if array.role == "variance":
            assert (values[position : position + array.count] == 1).all()
            values[position : position + array.count] = 0
        position += array.count
    assert values.tobytes() == wanted.tobytes()


def test_statistics_as_c(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C prints scales, biases and the first weights of layers with batch norm; six digits."""
    found = {
        (entry.layer, entry.name): entry
        for entry in weight_tools.statistics(ModelFile.read("lstm.cfg", "lstm1.weights"))
    }
    gates = ["wf", "wi", "wg", "wo", "uf", "ui", "ug", "uo"]
    parts = [*((1, f"gates.{gate}.") for gate in gates), (2, "")]
    lines = re.findall(
        r"(Scales|Biases) MSE: (\S+), Mean: (\S+), Variance: (\S+)", GOLDEN["statistics/lstm"].tobytes().decode()
    )
    assert len(lines) == 2 * len(parts)
    for k, (what, *values) in enumerate(lines):
        layer, prefix = parts[k // 2]
        entry = found[layer, prefix + {"Scales": "scale", "Biases": "bias"}[what]]
        assert (entry.rms, entry.mean, entry.variance) == pytest.approx([float(value) for value in values], abs=1.1e-6)
    capsys.readouterr()
    assert main(["statistics", "lstm.cfg", "lstm1.weights"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found)
    assert main(["weights", "statistics", "lstm.cfg", "lstm1.weights", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[3]["name"] == "gates.wf.weight"


LAYERS = {
    "grouped": "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\ngroups=2\nactivation=leaky\n",
    "cbn": "[convolutional]\ncbn=1\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=mish\n",
    "deconvolutional": "[deconvolutional]\nbatch_normalize=1\nfilters=4\nsize=2\nstride=2\nactivation=leaky\n",
    "xnor": "[convolutional]\nbatch_normalize=1\nxnor=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\n",
    "shared": "[convolutional]\nbatch_normalize=1\nshare_index=0\nfilters=4\nsize=3\npad=1\nactivation=leaky\n",
    "batchnorm": "[batchnorm]\n",
    "connected": "[connected]\nbatch_normalize=1\noutput=5\nactivation=tanh\n",
    "rnn": "[rnn]\nbatch_normalize=1\noutput=5\nhidden=4\nactivation=tanh\n",
    "gru": "[gru]\nbatch_normalize=1\noutput=5\n",
    "lstm": "[lstm]\nbatch_normalize=1\noutput=5\n",
    "crnn": "[crnn]\nbatch_normalize=1\noutput=4\nhidden=4\nsize=3\npad=1\nactivation=leaky\n",
    "conv_lstm": "[conv_lstm]\nbatch_normalize=1\noutput=4\nsize=3\npad=1\npeephole=1\nactivation=leaky\n",
}
START = (
    "[net]\nbatch=4\nwidth=5\nheight=5\nchannels=4\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
)


def random_model(text: str, seed: int = 1) -> ModelFile:
    graph = parse_text(text)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for node, array in arrays(graph):
        values = torch.randn(array.shape, generator=generator)
        tensors[tensor_name(node, array)] = values.abs() + 0.5 if array.role == "variance" else values
    return ModelFile(graph, (), Header(seen=1000), tensors)


def output(model: ModelFile, x: torch.Tensor) -> torch.Tensor:
    result = Network.of(model).eval()(x)
    assert not isinstance(result, Predictions)
    return result.detach()


@pytest.mark.parametrize("layer", LAYERS)
def test_batch_norm_removed_and_added_keeps_the_output(layer: str) -> None:
    """Within float rounding for folding; what is added divides by sqrt(1 + 1e-5), once or more for each layer."""
    model = random_model(START + LAYERS[layer])
    x = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(3))
    expected = output(model, x)
    folded = weight_tools.denormalize(model)
    left = {array.name for node, array in arrays(folded.graph) if array.role == "scale"}
    assert left == ({"scale"} if layer == "batchnorm" else set())
    torch.testing.assert_close(output(folded, x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output(weight_tools.reset(model), x), expected, rtol=2e-4, atol=2e-4)
    added = weight_tools.normalize(folded)
    assert added.tensors.keys() == model.tensors.keys()
    assert added.graph.document.layers_hash == model.graph.document.layers_hash or layer == "cbn"
    torch.testing.assert_close(output(added, x), expected, rtol=2e-4, atol=2e-4)


def test_average_covers_every_array() -> None:
    """C leaves all but convolutions without groups and the filters of [connected] as the first file has them."""
    text = START + LAYERS["grouped"] + LAYERS["batchnorm"] + LAYERS["lstm"] + LAYERS["connected"]
    models = [random_model(text, seed) for seed in (1, 2)]
    result = weight_tools.average(models)
    assert result.header.seen == 1000
    for name, values in result.tensors.items():
        assert torch.equal(values, (models[0].tensors[name] + models[1].tensors[name]) / 2), name


def test_average_refuses_different_files() -> None:
    models = [
        random_model(START + LAYERS["connected"]),
        weight_tools.partial(random_model(START + LAYERS["connected"]), 1),
    ]
    with pytest.raises(WeightsError, match="expected files of the same layers, got 2 and 1 layer with arrays"):
        weight_tools.average(models)


@pytest.mark.parametrize("norm", [0, 1])
def test_rescaled_network_reads_pixels_in_0_to_1(norm: int) -> None:
    model = random_model(
        f"[net]\nbatch=1\nwidth=6\nheight=6\nchannels=3\n[convolutional]\nbatch_normalize={norm}\nfilters=4\nsize=3\nactivation=leaky\n"
    )
    x = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(output(weight_tools.rescale(model), x), output(model, 2 * x - 1), rtol=1e-5, atol=1e-5)


def test_rgbgr_network_reads_swapped_channels() -> None:
    model = random_model("[net]\nwidth=6\nheight=6\nchannels=3\n[convolutional]\nfilters=4\nsize=3\nactivation=leaky\n")
    x = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(output(weight_tools.rgbgr(model), x.flip(1)), output(model, x), rtol=1e-5, atol=1e-5)
    with pytest.raises(WeightsError, match=r"layer 0 .convolutional.: expected filters of 3 channels, got 4"):
        weight_tools.rgbgr(random_model(START))


HEAD = (
    "[net]\nwidth=4\nheight=4\nchannels=3\n[convolutional]\nfilters=2\nsize=1\nactivation=leaky\n"
    "[convolutional]\nfilters=27\nsize=1\nactivation=linear\n"
    "[region]\nanchors=1,1,2,2,3,3\nclasses=4\nnum=3\ncoords=4\nsoftmax=1\n"
)


def test_oneoff_gives_every_anchor_the_classes(tmp_path: Path) -> None:
    """As `./darknet oneoff` with its 9372 classes: rows 5 … of each anchor are the file's, all anchors are equal."""
    (tmp_path / "a.cfg").write_text(HEAD)
    stored = np.arange(8 + 3 + 6, dtype="<f4")  # layer 0: 2 biases, 6 weights; then 3 filters of 1 + 2 floats
    (tmp_path / "a.weights").write_bytes(Header(seen=64).bytes() + np.concatenate([stored]).tobytes())
    result = weight_tools.oneoff(tmp_path / "a.cfg", tmp_path / "a.weights")
    bias, weight = result.tensors["layers.1.bias"].view(3, 9), result.tensors["layers.1.weight"].view(3, 9, 2)
    assert bias[0].tolist() == [0, 0, 0, 0, 0, 8, 9, 10, 0]
    assert weight[0, 5:8].tolist() == [[11, 12], [13, 14], [15, 16]]
    assert weight[0, :5].abs().min() > 0
    assert torch.equal(bias[0].expand(3, 9), bias)
    assert torch.equal(weight[0].expand(3, 9, 2), weight)
    assert result.tensors["layers.0.weight"].flatten().tolist() == [2, 3, 4, 5, 6, 7]
    assert result.header.seen == 0
    (tmp_path / "b.weights").write_bytes(Header().bytes() + np.zeros(8 + 5 * 3, "<f4").tobytes())
    with pytest.raises(WeightsError, match="expected whole filters of 3 floats, at most 4 of them, got 15 floats"):
        weight_tools.oneoff(tmp_path / "a.cfg", tmp_path / "b.weights")


def test_a_checkpoint_keeps_the_cfg_that_fits(tmp_path: Path) -> None:
    model = random_model(START + LAYERS["connected"])
    model.write(tmp_path / "a.pt")
    arguments = [str(tmp_path / "a.pt"), str(tmp_path / "a.pt"), str(tmp_path / "b.pt")]
    assert main(["weights", "denormalize", *arguments, "--cfg-out", str(tmp_path / "b.cfg")]) == 0
    text = (tmp_path / "b.cfg").read_text()
    assert text == (START + LAYERS["connected"]).replace("normalize=1", "normalize=0")
    assert darknet_py.load(None, tmp_path / "b.pt").graph.text == text
