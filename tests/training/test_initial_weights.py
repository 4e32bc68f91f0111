"""Fine-tuning for another number of classes: what is kept, what starts anew, and the cfg written beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import TrainError, WeightsError
from darknet_py.model.header import read_header
from darknet_py.model.network import Network
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.train_options import TrainOptions
from darknet_py.training.trainer import Trainer

NET = "[net]\nbatch=4\nsubdivisions=2\nwidth=32\nheight=32\nchannels=3\nlearning_rate=.001\nmax_batches=2\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride={}\npad=1\nactivation=leaky\n"
HEAD = "[convolutional]\nfilters={} # the head's\nsize=1\nactivation=linear\n"
YOLO = "[yolo]\nclasses=9\nnum=2\nmask={}\nanchors=8,8, 16,16\n"
# cfg with 9 classes, layers that start anew
CASES = {
    "tiny": (
        CONV.format(8, 4)
        + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
        + CONV.format(8, 2)
        + HEAD.format(14)
        + YOLO.format("1")
        + "[route]\nlayers=-3\n[upsample]\nstride=2\n[route]\nlayers=-1,0\n"
        + HEAD.format(14)
        + YOLO.format("0"),
        [3, 8],
    ),
    "region": (
        CONV.format(8, 4) + CONV.format(8, 2) + HEAD.format(28) + "[region]\nclasses=9\nnum=2\nanchors=1,1, 2,2\n",
        [2],
    ),
    "gaussian": (
        CONV.format(8, 4) + CONV.format(8, 2) + HEAD.format(36) + YOLO.format("0,1").replace("yolo", "Gaussian_yolo"),
        [2],
    ),
    "v1": (
        CONV.format(8, 4)
        + CONV.format(4, 2)
        + "[connected]\noutput=16\nactivation=leaky\n[dropout]\nprobability=.5\n[connected]\noutput=304\n"
        "activation=linear\n[detection]\nclasses=9\ncoords=4\nside=4\nnum=2\n",
        [4],
    ),
    "yolor": (
        CONV.format(8, 4)
        + "[implicit_add]\nfilters=8\n[implicit_mul]\nfilters=28\n[route]\nlayers=0\n"
        + CONV.format(8, 2)
        + "[shift_channels]\nfrom=1\n"
        + HEAD.format(28)
        + "[control_channels]\nfrom=2\n"
        + YOLO.format("0,1"),
        [2, 6],
    ),
    "classifier": (
        CONV.format(8, 4) + CONV.format(8, 2) + HEAD.format(9) + "[avgpool]\n[softmax]\ngroups=1\n",
        [2],
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of one box each, of 3 classes; their names serve a classifier too."""
    root = tmp_path_factory.mktemp("three")
    names = ["cat", "dog", "cow"]
    for number, name in enumerate(names):
        cv2.imwrite(str(root / f"{name}.png"), np.full((40, 40, 3), 60 * number, np.uint8))
        (root / f"{name}.txt").write_text(f"{number} .5 .5 .4 .4\n")
    (root / "all.txt").write_text("\n".join(str(root / f"{name}.png") for name in names))
    (root / "names.txt").write_text("\n".join(names))
    (root / "x.data").write_text("classes=3\ntrain=all.txt\nnames=names.txt\n")
    return root / "x.data"


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A cfg of 9 classes and its trained weights."""
    cfg = tmp_path / f"{request.param}.cfg"
    cfg.write_text(NET + CASES[request.param][0])
    torch.manual_seed(1)
    network = Network(darknet_py.parse(cfg))
    network.save_weights(tmp_path / "old.weights", seen=4000)
    return cfg, tmp_path / "old.weights"


def start(cfg: Path, data: Path | None, weights: Path | None, out: Path, **overrides: Any) -> Trainer:
    """A training that has not begun."""
    settings = {"out": out, "workers": 0, "quiet": True, "device": "cpu", "chart": False}
    settings |= {"recipe": "darknet", **overrides}
    return Trainer(TrainingPlan.create(cfg, data, weights, TrainOptions(**settings)))


@pytest.mark.parametrize("source", CASES, indirect=True)
@pytest.mark.parametrize("kind", ["weights", "pt"])
def test_what_fits_is_kept_bit_by_bit(kind: str, source: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    cfg, weights = source
    old = darknet_py.load(cfg, weights)
    if kind == "pt":
        weights = tmp_path / "old.pt"
        old.model_file().write(weights)
    training = start(cfg, data, weights, tmp_path / "out", classes=3)
    fresh = start(cfg, data, None, tmp_path / "fresh", classes=3).network.state_dict()
    anew = {f"layers.{layer}" for layer in CASES[cfg.stem][1]}
    state = old.state_dict()
    for name, tensor in training.network.state_dict().items():
        same = name.rpartition(".")[0] not in anew
        assert torch.equal(tensor, state[name] if same else fresh[name]), name
    assert training.train_step.iteration == 0


@pytest.mark.parametrize("source", ["tiny", "region", "gaussian"], indirect=True)
def test_finetuning_keeps_what_predicts_the_boxes(source: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    """Per anchor the entries of the box and its objectness; the rows of the classes are initialized."""
    cfg, weights = source
    training = start(cfg, data, weights, tmp_path / "out", classes=3, recipe="finetune", seed=2)
    old, layers = darknet_py.load(cfg, weights), CASES[cfg.stem][1]
    entries = 9 if cfg.stem == "gaussian" else 5
    for layer in layers:
        anchors = old.layers[layer].weight.shape[0] // (entries + 9)
        for name in ("weight", "bias"):
            before = getattr(old.layers[layer], name).unflatten(0, (anchors, entries + 9))
            after = getattr(training.network.layers[layer], name).unflatten(0, (anchors, entries + 3))
            assert torch.equal(after[:, :entries], before[:, :entries])
            assert name == "bias" or not torch.equal(after[:, entries:], before[:, entries : entries + 3])
    assert (
        f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}: boxes kept, classes re-init"
        in "".join(training.plan.notes)
    )


@pytest.mark.parametrize("source", CASES, indirect=True)
def test_the_cfg_beside_the_weights_loads_them_exactly(source: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    cfg, weights = source
    out = tmp_path / "out"
    settings: dict[str, Any] = {"classes": 3, "out": out, "workers": 0, "quiet": True, "device": "cpu", "map": False}
    settings["recipe"] = "darknet"
    result = darknet_py.train(cfg, data, weights, max_batches=1, **settings)
    assert result.cfg == out / cfg.name and read_header(result.weights).seen == 4
    network = darknet_py.load(result.cfg, result.weights)
    assert (
        network.graph.layers[-1].spec == start(cfg, data, None, tmp_path / "b", classes=3).network.graph.layers[-1].spec
    )
    text = result.cfg.read_text()
    assert text.count("# the head's") == cfg.read_text().count("# the head's") and "max_batches=1\n" in text
    network.save_weights(tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == result.weights.read_bytes()
    resumed = darknet_py.train(cfg, data, weights, resume=True, **settings)
    assert resumed.iterations == 2 and read_header(resumed.weights).seen == 8


@pytest.mark.parametrize("source", ["tiny"], indirect=True)
def test_a_refused_training_leaves_the_cfg_of_older_weights(
    source: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    cfg, weights = source
    settings: dict[str, Any] = {"workers": 0, "quiet": True, "device": "cpu", "map": False, "max_batches": 1}
    settings["recipe"] = "darknet"
    made = darknet_py.train(cfg, data, weights, classes=3, out=tmp_path / "out", **settings).cfg
    text = made.read_text()
    with pytest.raises(TrainError):
        start(cfg, data, weights, tmp_path / "out", classes=4, resume=True)
    with pytest.raises(WeightsError):
        start(cfg, data, tmp_path / "none.weights", tmp_path / "out", classes=4)
    assert made.read_text() == text


@pytest.mark.parametrize("source", ["tiny"], indirect=True)
def test_the_command_says_what_starts_anew(
    source: tuple[Path, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg, weights = source
    arguments = ["--out", str(tmp_path / "out"), "--workers", "0", "--map", "off", "--no-chart", "--device", "cpu"]
    arguments += ["--recipe", "darknet"]
    run = ["train", str(cfg), "--data", str(data), "--weights", str(weights), "--classes", "3", *arguments]
    assert main(run) == 0
    printed = capsys.readouterr()
    assert "old.weights: weights loaded; layers 3, 8 re-initialized\n" in printed.err
    assert printed.out.splitlines()[0] == str(tmp_path / "out" / "tiny.cfg")
    assert main([*run, "--json", "--clear"]) == 0
    assert json.loads(capsys.readouterr().out)["cfg"] == str(tmp_path / "out" / "tiny.cfg")


@pytest.mark.parametrize("source", ["region"], indirect=True)
def test_partial_weights_and_cutoff(source: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    cfg, weights = source
    old = darknet_py.load(cfg, weights)
    old.save_weights(tmp_path / "old.conv.1", cutoff=1)
    for path, cutoff in ((tmp_path / "old.conv.1", None), (weights, 1)):
        new = start(cfg, data, path, tmp_path / "out", classes=3, cutoff=cutoff).network
        assert torch.equal(new.layers[0].weight, old.layers[0].weight)
        assert not torch.equal(new.layers[1].weight, old.layers[1].weight)


@pytest.mark.parametrize("source", ["gaussian"], indirect=True)
def test_as_many_classes_as_before(source: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    cfg, weights = source
    training = start(cfg, data, weights, tmp_path / "out", classes=9, quiet=False)
    assert training.plan.cfg == cfg and training.train_step.iteration == 0
    assert f"{weights}: all layers loaded" in training.plan.notes
    assert torch.equal(training.network.layers[2].weight, darknet_py.load(cfg, weights).layers[2].weight)


@pytest.mark.parametrize("source", ["tiny"], indirect=True)
def test_what_cannot_be_is_one_line(source: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    cfg, weights = source
    with pytest.raises(TrainError, match="expected another folder"):
        start(cfg, data, weights, tmp_path, classes=3)
    with pytest.raises(TrainError, match="classes: expected an integer of at least 1"):
        start(cfg, data, weights, tmp_path / "out", classes=0)
    with pytest.raises(TrainError, match=r"classes=3 \(--classes 3\) rewrites the cfg"):
        start(cfg, data, weights, tmp_path / "out", classes=2)
    new = start(cfg, data, weights, tmp_path / "out", classes=3)
    new.network.save_weights(tmp_path / "new.weights")
    with pytest.raises(WeightsError, match="before its number of classes changed") as caught:
        start(cfg, data, tmp_path / "new.weights", tmp_path / "out", classes=3)
    assert "\n" not in str(caught.value)
