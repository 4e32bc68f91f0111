"""Weights that are missing, cut off, too long, of another network, or not finite, in every use of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import WeightsError
from darknet_py.graph.graph import parse
from darknet_py.graph.set_num_classes import set_num_classes
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network
from darknet_py.training.initial_weights import read_weights

CFG = """[net]
width=32
height=32
channels=3
batch=1
max_batches=2
learning_rate=.001
[convolutional]
batch_normalize=1
filters=4
size=3
stride=8
pad=1
activation=leaky
[maxpool]
size=1
stride=1
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=0
num=1
anchors=9,9
classes=2
"""
FIRST = 4 * 4 + 4 * 3 * 9  # floats of layer 0
TOTAL = FIRST + 7 + 7 * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """x.cfg, its x.weights, the first layer alone (x.conv.1), a header alone, and a photo."""
    (tmp_path / "x.cfg").write_text(CFG)
    torch.manual_seed(0)
    Network(parse(tmp_path / "x.cfg")).save_weights(tmp_path / "x.weights")
    data = (tmp_path / "x.weights").read_bytes()
    assert len(data) == 20 + 4 * TOTAL
    (tmp_path / "x.conv.1").write_bytes(data[: 20 + 4 * FIRST])
    (tmp_path / "header.weights").write_bytes(data[:20])
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 30, 3), 99, np.uint8))
    (tmp_path / "a.txt").write_text("0 .5 .5 .4 .4\n")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.png\n")
    return tmp_path


def commands(folder: Path) -> dict[str, list[str]]:
    cfg = str(folder / "x.cfg")
    return {
        "detect": ["detect", cfg, str(folder / "a.png"), "--no-images"],
        "evaluate": ["evaluate", cfg, "--images", str(folder / "list.txt"), "--workers", "0"],
        "bench": ["bench", cfg, "--seconds", "0"],
        "graph": ["graph", cfg, str(folder / "x.html"), "--image", str(folder / "a.png")],
    }


@pytest.mark.parametrize("name", ["detect", "evaluate", "bench", "graph"])
@pytest.mark.parametrize("weights", ["x.conv.1", "header.weights"])
def test_a_file_that_is_cut_off_is_refused(
    name: str, weights: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = [*commands(folder)[name], "--weights", str(folder / weights)]
    assert main(run) == 1
    loaded, line = capsys.readouterr().err.splitlines()
    count = 2 if weights == "x.conv.1" else 0  # as C counts: [maxpool] has no weights, the layer after it has none
    assert loaded.endswith(f"{weights}: loaded {count} of 4 layers")
    assert re.search(
        rf"{weights}: expected trained weights of 4 layers .* got {'those of the first 2' if count else 'none'}", line
    )
    assert main([*run, "--random-weights"]) == 0
    assert f"random weights from layer {count} on" in capsys.readouterr().err


def test_without_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What shows or measures speed alone does without, and says so."""
    for name in ("detect", "evaluate"):
        assert main(commands(folder)[name]) == 1
        assert "expected trained weights of 4 layers (--weights FILE), got none" in capsys.readouterr().err
        assert main([*commands(folder)[name], "--random-weights"]) == 0
    capsys.readouterr()
    assert main(commands(folder)["bench"]) == 0
    assert "weights: random" in capsys.readouterr().out
    assert main(commands(folder)["graph"]) == 0
    assert "The weights are random." in (folder / "x.html").read_text()
    assert main([*commands(folder)["detect"], "--weights", str(folder / "x.weights")]) == 0
    assert "x.weights: loaded 4 of 4 layers" in capsys.readouterr().err


def test_python_has_the_same_rule(folder: Path) -> None:
    cfg, photo = folder / "x.cfg", folder / "a.png"
    network = darknet_py.load(cfg)
    assert network.loaded_layers == 0
    for use in (lambda: network.detect(photo), lambda: network.boxes(torch.rand(1, 3, 32, 32))):
        with pytest.raises(WeightsError, match="expected trained weights of 4 layers"):
            use()
    for source in (network, cfg):
        with pytest.raises(WeightsError, match="expected trained weights of 4 layers"):
            darknet_py.evaluate(source, images=[str(photo)])
        darknet_py.evaluate(source, images=[str(photo)], random_weights=True, workers=0)
    with pytest.raises(WeightsError, match="got those of the first 2"):
        darknet_py.load(cfg, folder / "x.conv.1")
    part = darknet_py.load(cfg, folder / "x.conv.1", random_weights=True)
    assert part.loaded_layers == 2 and part.detect(photo)[0] is not None
    assert darknet_py.load(cfg, random_weights=True).detect(photo)[0] is not None


@pytest.mark.parametrize("way", ["load_weights", "load_state_dict", "training", "constructor"])
def test_a_network_with_weights_of_its_own_detects(way: str, folder: Path) -> None:
    network = darknet_py.load(folder / "x.cfg")
    if way == "load_weights":
        network.load_weights(folder / "x.weights")
    elif way == "load_state_dict":
        network.load_state_dict(Network(parse(folder / "x.cfg")).state_dict())
    elif way == "training":
        network.train().loss(torch.rand(1, 3, 32, 32), torch.tensor([[0, 1, 0.5, 0.5, 0.2, 0.2]])).total.backward()
        network.eval()
    else:
        network = Network(parse(folder / "x.cfg")).eval()
    network.require_weights()
    network.detect(folder / "a.png")


def test_training_takes_a_partial_file_but_no_mere_header(folder: Path) -> None:
    graph = parse(folder / "x.cfg")
    assert str(read_weights(folder / "x.conv.1", graph)).endswith("x.conv.1: loaded 2 of 4 layers")
    with pytest.raises(WeightsError, match="expected weights, got a header only"):
        read_weights(folder / "header.weights", graph)


# --- convert


def test_convert_writes_no_random_layers_of_its_own_accord(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg, part, out = (str(folder / name) for name in ("x.cfg", "x.conv.1", "out.pt"))
    assert main(["convert", cfg, part, out]) == 1
    assert "got those of the first 2" in capsys.readouterr().err and not (folder / "out.pt").exists()
    assert main(["convert", cfg, part, out, "--cutoff", "3"]) == 1  # layer 2 is not in the file
    capsys.readouterr()
    assert main(["convert", cfg, part, out, "--cutoff", "2"]) == 0
    assert set(ModelFile.read(out).tensors) == {
        f"layers.0.{role}" for role in ["bias", "scale", "mean", "variance", "weight"]
    }
    assert main(["convert", cfg, part, out, "--random-weights", "--seed", "3"]) == 0
    assert "x.cfg: initial weights (seed 3) in layers from 2 on" in capsys.readouterr().err
    filled = darknet_py.load(out)
    assert torch.equal(filled.layers[0].weight, darknet_py.load(cfg, folder / "x.weights").layers[0].weight)


def test_convert_makes_a_checkpoint_of_an_initialized_network(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = str(folder / "x.cfg")
    state = torch.get_rng_state()
    for out, seed in (("a.pt", "5"), ("b.pt", "5"), ("c.weights", "5"), ("d.pt", "6")):
        assert main(["convert", cfg, str(folder / out), "--seed", seed]) == 0
        assert f"x.cfg: initial weights (seed {seed}) in all layers" in capsys.readouterr().err
    assert torch.equal(torch.get_rng_state(), state)
    files = ("a.pt", "b.pt", "c.weights", "d.pt")
    a, b, c, d = (darknet_py.load(cfg, folder / name).layers[0].weight.detach() for name in files)
    assert torch.equal(a, b) and torch.equal(a, c) and not torch.equal(a, d)
    # `make_convolutional_layer`: uniform in ±sqrt(2 / (size² · channels)), here of 108 values
    bound = (2 / 27) ** 0.5
    assert 0.8 * bound < float(a.abs().max()) <= bound
    assert main(["convert", str(folder / "x.weights"), str(folder / "e.pt")]) == 1
    assert "expected the cfg of these weights too" in capsys.readouterr().err


# --- another length


def test_another_number_of_classes_is_found_by_arithmetic(folder: Path) -> None:
    graph = parse(folder / "x.cfg")
    Network(set_num_classes(graph, 80)).save_weights(folder / "80.weights")
    with pytest.raises(WeightsError) as error:
        darknet_py.load(folder / "x.cfg", folder / "80.weights")
    text = str(error.value)
    assert f"expected {TOTAL} floats for this network, got 390 floats more" in text  # 78 more classes of 1 + 4 floats
    assert "with 80 classes instead of 2" in text and "--classes 2" in text and "--cutoff 2" in text
    (folder / "80.cfg").write_text(CFG.replace("filters=7", "filters=85").replace("classes=2", "classes=80"))
    with pytest.raises(WeightsError, match=r"ends in layer 2 \[convolutional\], bias.* with 2 classes instead of 80"):
        darknet_py.load(folder / "80.cfg", folder / "x.weights")


def test_another_cfg_of_ours_is_found(folder: Path) -> None:
    graph = parse(
        "yolov3-tiny.cfg"
    )  # 8,858,734 parameters: the size of pjreddie's yolov3-tiny.weights, 35,434,956 bytes
    (folder / "other.weights").write_bytes(np.array([0, 2, 0, 0, 0], "<i4").tobytes())
    with open(folder / "other.weights", "r+b") as file:
        file.truncate(35434956)
    assert 20 + 4 * graph.parameters == 35434956
    with pytest.raises(WeightsError, match=r"it is as long as for yolov3-tiny\.cfg"):
        darknet_py.load(folder / "x.cfg", folder / "other.weights")


def test_a_file_that_goes_on_is_read_on_request(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = (folder / "x.weights").read_bytes()
    exact = darknet_py.load(folder / "x.cfg", folder / "x.weights").state_dict()
    for rest, amount in ((b"\n", "1 byte"), (b"\0" * 6, "1 float and 2 bytes"), (b"\0" * 8, "2 floats")):
        (folder / "y.weights").write_bytes(data + rest)
        with pytest.raises(WeightsError, match=f"got {amount} more after its last layer; --ignore-rest"):
            darknet_py.load(folder / "x.cfg", folder / "y.weights")
        network = darknet_py.load(folder / "x.cfg", folder / "y.weights", ignore_rest=True)
        assert all(torch.equal(values, exact[name]) for name, values in network.state_dict().items())
        assert f"{len(rest)} bytes after the last layer are ignored" in caplog.text
    run = [
        "detect",
        str(folder / "x.cfg"),
        str(folder / "a.png"),
        "--no-images",
        "--weights",
        str(folder / "y.weights"),
    ]
    assert [main(run), main([*run, "--ignore-rest"])] == [1, 0]
    assert (
        main(["convert", str(folder / "x.cfg"), str(folder / "y.weights"), str(folder / "z.weights"), "--ignore-rest"])
        == 0
    )
    assert (folder / "z.weights").read_bytes() == data


# --- values


@pytest.mark.parametrize("suffix", ["weights", "pt"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(suffix: str, value: float, folder: Path) -> None:
    network = Network(parse(folder / "x.cfg"))
    with torch.no_grad():
        network.layers[2].weight[3:5, 1] = value
    bad = folder / f"bad.{suffix}"
    network.model_file().write(bad)
    kind = "NaN" if value != value else "infinite"
    message = (
        rf"bad.{suffix}: layer 2 \[convolutional\], weight: expected finite values, got 2 {kind} of 28; .* --cutoff 2"
    )
    uses: list[Callable[[], object]] = [
        lambda: darknet_py.load(folder / "x.cfg", bad),
        lambda: Network(parse(folder / "x.cfg")).load_weights(bad),
        lambda: darknet_py.convert(folder / "x.cfg", bad, folder / "out.pt"),
        lambda: darknet_py.evaluate(folder / "x.cfg", weights=bad, images=[str(folder / "a.png")]),
        lambda: read_weights(bad, parse(folder / "x.cfg")),
    ]
    for use in uses:
        with pytest.raises(WeightsError, match=message):
            use()
    assert read_weights(bad, parse(folder / "x.cfg"), cutoff=2).tensors.keys() == {
        f"layers.0.{role}" for role in ("bias", "scale", "mean", "variance", "weight")
    }
    raw = ModelFile.read_weights(bad, parse(folder / "x.cfg"))  # as they are, to look into them or to mend them
    assert int((~raw.tensors["layers.2.weight"].isfinite()).sum()) == 2


def test_checkpoints_of_other_precisions(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = ModelFile.read(folder / "x.cfg", folder / "x.weights")
    half = {name: values.half() for name, values in model.tensors.items()}
    ModelFile(model.graph, tensors=half).write(folder / "half.pt")
    network = darknet_py.load(folder / "half.pt")
    assert all(values.dtype == torch.float32 for values in network.state_dict().values())
    assert torch.equal(network.layers[0].weight, half["layers.0.weight"].float())
    double = {name: values.double() for name, values in model.tensors.items()}
    double["layers.2.bias"].fill_(1e300)
    ModelFile(model.graph, tensors=double).write(folder / "64.pt")
    with pytest.raises(
        WeightsError, match=r"layer 2 \[convolutional\], bias: expected finite values, got 7 infinite of 7"
    ):
        darknet_py.load(folder / "64.pt")  # beyond float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers.0.mean": None}, r"layer 0 \[convolutional\], layers.0.mean: expected \(4,\), got none"),
        ({"layers.2.weight": torch.zeros(7, 5, 1, 1)}, r"layers.2.weight: expected \(7, 4, 1, 1\), got \(7, 5, 1, 1\)"),
        ({"layers.9.weight": torch.zeros(2)}, "expected nothing beyond this network's tensors, got layers.9.weight"),
        (
            {"layers.2.bias": torch.zeros(7, dtype=torch.int64)},
            r"layers.2.bias: expected an array of floats, got torch.int64",
        ),
        ({"layers.2.bias": torch.zeros(7).to_sparse()}, "expected an array of floats, got torch.float32"),
        ({"layers.2.bias": [0.0] * 7}, "layers.2.bias: expected an array of floats, got list"),
        ({"layers.2.weight": None, "layers.2.bias": None}, "got those of the first 2"),
    ],
)
def test_damaged_checkpoints(changes: dict[str, Tensor | None], message: str, folder: Path) -> None:
    darknet_py.convert(folder / "x.cfg", folder / "x.weights", folder / "x.pt")
    content = torch.load(folder / "x.pt", weights_only=True)
    state = content["state_dict"] | changes
    torch.save(content | {"state_dict": {k: v for k, v in state.items() if v is not None}}, folder / "x.pt")
    with pytest.raises(WeightsError, match=message):
        darknet_py.load(folder / "x.pt")


@pytest.mark.parametrize(
    "change", [{"cfg": 7}, {"names": 3}, {"names": [1]}, {"header": [0, 2]}, {"header": "abcd"}, {"state_dict": []}]
)
def test_checkpoints_of_wrong_types(change: dict[str, object], folder: Path) -> None:
    darknet_py.convert(folder / "x.cfg", folder / "x.weights", folder / "x.pt")
    torch.save(torch.load(folder / "x.pt", weights_only=True) | change, folder / "x.pt")
    with pytest.raises(WeightsError, match="damaged checkpoint"):
        darknet_py.load(folder / "x.pt")


def test_a_checkpoint_of_other_classes_says_so(folder: Path) -> None:
    Network(set_num_classes(parse(folder / "x.cfg"), 5)).model_file().write(folder / "5.pt")
    with pytest.raises(WeightsError, match=r"the checkpoint is of x.cfg with 5 classes, this cfg has 2"):
        darknet_py.load(folder / "x.cfg", folder / "5.pt")


def test_the_number_of_layers_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "darknet_py"):
        darknet_py.convert(folder / "x.cfg", folder / "x.weights", folder / "x.pt")
        darknet_py.load(folder / "x.pt")
    assert [line for line in caplog.messages if "loaded" in line] == [
        f"{folder}/x.weights: loaded 4 of 4 layers",
        f"{folder}/x.pt: loaded 4 of 4 layers",
    ]
