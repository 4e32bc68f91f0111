"""Standalone `.py` files: equal to our network, which is tested against C Darknet, and with torch alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import darknet_py
from darknet_py.cli import main
from darknet_py.data.images import center_crop
from darknet_py.errors import CfgError
from darknet_py.export.standalone import class_name, run_standalone, standalone_code, standalone_state
from darknet_py.graph.graph import Graph, parse, parse_text
from darknet_py.layers import LAYERS
from darknet_py.layers.activations import ACTIVATIONS
from darknet_py.layers.base import Predictions
from darknet_py.model.layout import arrays, tensor_name
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

FOLDER = Path(__file__).parents[2] / "cfg"
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "c_boxes.npz")
NET = "[net]\nwidth=12\nheight=8\nchannels=4\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\npad=1\nactivation=leaky\n"
ANCHORS = "anchors=2,3, 4,4, 6,5\nnum=3\nclasses=2\n"

# Sections by the layer type that they are for; the first layer reads a map of 12 x 8 with 4 channels.
CASES = {
    "convolutional": "[convolutional]\nfilters=6\nsize=3\nstride_x=2\nstride_y=1\npad=1\ngroups=2\nactivation=mish\n"
    + "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\ndilation=2\npad=1\nactivation=swish\n",
    "convolutional, antialiasing": "".join(CONV.format(5) + f"antialiasing={k}\nstride=2\n" for k in (1, 2)),
    "convolutional, xnor": CONV.format(5) + "xnor=1\n",
    "convolutional, shared": CONV.format(4) + CONV.format(4) + "share_index=0\n",
    "deconvolutional": "[deconvolutional]\nbatch_normalize=1\nfilters=3\nsize=2\nstride=2\nactivation=leaky\n",
    "connected": "[connected]\nbatch_normalize=1\noutput=6\nactivation=tanh\n"
    + "[connected]\noutput=3\nactivation=linear\n",
    "local": "[local]\nfilters=3\nsize=3\nstride=2\npad=1\nactivation=leaky\n",
    "crop": "[crop]\ncrop_width=7\ncrop_height=5\n",
    "batchnorm": "[batchnorm]\n",
    "normalization": "[normalization]\nsize=3\nalpha=.1\n",
    "l2norm": "[l2norm]\n",
    "maxpool": "".join(
        f"[maxpool]\nsize={size}\nstride={stride}\n{more}"
        for size, stride, more in ((2, 2, ""), (2, 1, ""), (3, 2, ""), (5, 1, ""), (2, 2, "padding=0\n"))
    ),
    "maxpool, window exceeds map": "[maxpool]\nsize=9\nstride=2\npadding=0\n",
    "maxpool, antialiasing": "[maxpool]\nsize=2\nstride=2\nantialiasing=1\n",
    "maxpool, depth": "[maxpool]\nmaxpool_depth=1\nout_channels=3\n",
    "local_avgpool": "[local_avgpool]\nsize=3\nstride=2\n[local_avgpool]\nsize=2\nstride=2\n",
    "local_avgpool, window exceeds map": "[local_avgpool]\nsize=9\nstride=2\npadding=0\n",
    "avgpool": "[avgpool]\n[softmax]\ngroups=2\ntemperature=2\n",
    "dropout": "[dropout]\nprobability=.5\n" + CONV.format(3),
    "upsample": "[upsample]\nstride=2\nscale=.5\n[upsample]\nstride=-2\n",
    "reorg": "[reorg]\nstride=2\n[reorg]\nstride=2\nreverse=1\n[reorg]\nextra=3\n",
    "reorg3d": CONV.format(16) + "[reorg3d]\nstride=2\n[reorg3d]\nstride=2\nreverse=1\n",
    "route": CONV.format(6) + CONV.format(2) + "[route]\nlayers=-1,-2\n[route]\nlayers=-1\ngroups=2\ngroup_id=1\n",
    "route_lhalf": CONV.format(6) + "[route_lhalf]\nlayers=-1\n",
    "shortcut": CONV.format(6) + CONV.format(4) + "[shortcut]\nfrom=-2\nactivation=relu\n",
    "shortcut, size": CONV.format(6) + CONV.format(4) + "stride=2\n[shortcut]\nfrom=-2\nactivation=linear\n",
    "shortcut, weights": CONV.format(4)
    + "[shortcut]\nfrom=-1\nweights_type=per_feature\nweights_normalization=softmax\nactivation=leaky\n"
    + "[shortcut]\nfrom=-2\nweights_type=per_channel\nactivation=linear\n",
    "scale_channels": CONV.format(4) + "[avgpool]\n[scale_channels]\nfrom=0\nactivation=logistic\n",
    "sam": CONV.format(4) + CONV.format(4) + "[sam]\nfrom=-2\n",
    "activation": "[activation]\nactivation=selu\n[empty]\n",
    "implicit": CONV.format(4)
    + "[implicit_add]\nfilters=4\n[implicit_mul]\nfilters=4\n[route]\nlayers=0\n"
    + "[shift_channels]\nfrom=1\n[control_channels]\nfrom=2\n[implicit]\nfilters=4\natoms=1\n",
    "cost": "[connected]\noutput=3\nactivation=linear\n[cost]\n",
    "logistic": CONV.format(3) + "[logistic]\n",
    "iseg": CONV.format(5) + "[iseg]\nclasses=2\nids=3\n",
    "prelu": CONV.format(5) + "[prelu]\nn=5\n[prelu]\n",
    "depthwise": CONV.format(4) + "[depthwise]\nfilters=8\nsize=3\npad=1\nactivation=h_swish\n",
    "se": CONV.format(8) + "[se]\nreduction=2\n",
    "yolo": CONV.format(14) + "[yolo]\nmask=0,2\nscale_x_y=1.1\n" + ANCHORS
    + "[route]\nlayers=-2\n" + CONV.format(7) + "[yolo]\nmask=1\nnew_coords=1\nscale_x_y=2\n" + ANCHORS,
    "Gaussian_yolo": CONV.format(22) + "[Gaussian_yolo]\nmask=0,1\nscale_x_y=1.1\nyolo_point=left_top\n" + ANCHORS,
    "region": CONV.format(21) + "[region]\nsoftmax=1\n" + ANCHORS,
    "region, no softmax": CONV.format(21) + "[region]\nclassfix=-1\n" + ANCHORS,
    "detection": "[connected]\noutput=48\nactivation=linear\n"
    + "[detection]\nclasses=2\nnum=2\nside=2\ncoords=4\nsqrt=1\nsoftmax=1\n",
}  # fmt: skip
CONV_LSTM = "[conv_lstm]\nbatch_normalize=1\nsize=3\npad=1\noutput=4\n"
RECURRENT = {
    "rnn": "[rnn]\noutput=5\nhidden=4\nactivation=leaky\nlogistic=2\n[rnn]\nbatch_normalize=1\noutput=3\nshortcut=1\n",
    "gru": "[gru]\noutput=5\nbatch_normalize=1\n[gru]\noutput=3\ntanh=1\n",
    "lstm": "[lstm]\noutput=5\nbatch_normalize=1\n[lstm]\noutput=3\n",
    "crnn": "[crnn]\nbatch_normalize=1\nsize=3\npad=1\noutput=4\nhidden=6\nactivation=leaky\nshortcut=1\n",
    "conv_lstm": CONV_LSTM + "state_constrain=.3\n" + CONV_LSTM + "peephole=1\nlstm_activation=leaky\n",
    "conv_lstm, bottleneck": CONV_LSTM + "bottleneck=1\nshortcut=1\n",
    "history": "[history]\nhistory_size=3\n",
    "history, several steps": "[history]\nhistory_size=3\n",
}
NOT_OFFERED = {"contrastive"}  # a head that only losses read


def random_model(graph: Graph) -> ModelFile:
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for node, array in arrays(graph):
        values = torch.randn(array.shape, generator=generator) / max(array.fan_in, 16) ** 0.5
        tensors[tensor_name(node, array)] = values.abs() + 0.8 if array.role in ("variance", "scale") else values
    return ModelFile(graph, ("a", "b"), tensors=tensors)


def both_outputs(model: ModelFile, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    code = standalone_code(model.graph, model.names, "a.pt")
    network = run_standalone(code, standalone_state(model), class_name(model.graph.path))
    with torch.no_grad():
        expected, got = Network.of(model).eval()(x), network(x)
    ours = list(expected) if isinstance(expected, Predictions) else [expected]
    return ours, list(got) if isinstance(got, tuple) else [got]


@pytest.mark.parametrize("case", CASES)
def test_output_of_each_layer(case: str) -> None:
    """The same operations in float32; only the order of sums may differ."""
    model = random_model(parse_text(NET + CASES[case]))
    expected, got = both_outputs(model, torch.rand(2, 4, 8, 12, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


TREES = {  # six classes, two of them at the top
    "region": CONV.format(33) + "[region]\nsoftmax=1\ntree={tree}\n" + ANCHORS.replace("classes=2", "classes=6"),
    "region, map": CONV.format(33)
    + "[region]\nsoftmax=1\ntree={tree}\nmap={map}\n"
    + ANCHORS.replace("classes=2", "classes=6"),
    "softmax": "[connected]\noutput=6\nactivation=linear\n[softmax]\ntree={tree}\ntemperature=2\n",
}


@pytest.mark.parametrize("case", TREES)
def test_class_trees(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("animal -1\nvehicle -1\ncat 0\ndog 0\ncar 1\nrace-car 4\n")
    (tmp_path / "a.map").write_text("3\n5\n")
    text = TREES[case].format(tree=tmp_path / "a.tree", map=tmp_path / "a.map")
    model = random_model(parse_text(NET + text))
    expected, got = both_outputs(model, torch.rand(2, 4, 8, 12, generator=torch.Generator().manual_seed(2)) * 9)
    assert expected[-1].count_nonzero()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", RECURRENT)
def test_recurrent_layers_remember(case: str) -> None:
    """Each call is one step of two streams; another number of streams starts again."""
    net = NET + ("time_steps=3\n" if "steps" in case else "")
    model = random_model(parse_text(net + RECURRENT[case]))
    network = run_standalone(standalone_code(model.graph, (), "a.pt"), standalone_state(model), "Text")
    ours = Network.of(model).eval()
    generator = torch.Generator().manual_seed(2)
    for streams in (2, 2, 2, 1, 1):
        x = torch.rand(streams, 4, 8, 12, generator=generator)
        with torch.no_grad():
            torch.testing.assert_close(network(x), ours(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_output_of_each_activation(name: str) -> None:
    model = random_model(parse_text(NET + CONV.format(4).replace("leaky", name)))
    expected, got = both_outputs(model, torch.rand(1, 4, 8, 12, generator=torch.Generator().manual_seed(2)) * 8 - 4)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_every_other_layer_is_refused_by_name() -> None:
    texts = {**CASES, **RECURRENT}
    types = {node.type for text in texts.values() for node in parse_text(NET + text).layers}
    assert types | NOT_OFFERED == set(LAYERS)
    window = "[convolutional]\nfilters=1\nsize=9\nstride=9\n"  # C rounds (4 - 9) / 9 to 0, and there is one window
    graph = parse_text("[net]\nwidth=4\nheight=4\nchannels=3\n" + window + window, "a.cfg")
    with pytest.raises(CfgError, match=r"a.cfg:5: \[convolutional\] #0: not offered in a standalone .py") as caught:
        standalone_code(graph, (), "a.pt")
    assert len(caught.value.problems) == 2


def test_code_of_every_shipped_cfg() -> None:
    for path in sorted(FOLDER.glob("*.cfg")):
        if path.stem != "lstm-text":
            compile(standalone_code(parse(path), ("a",), "a.pt"), path.name, "exec")


WITH_TORCH_ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("darknet_py", "cv2", "numpy", "PIL", "matplotlib"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import warnings
warnings.simplefilter("ignore")  # torch says that it got no NumPy
import importlib.util, torch
spec = importlib.util.spec_from_file_location("standalone", "a.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
torch.set_num_threads(1)
with torch.no_grad():
    output = module.load()(torch.load("x.pt"))
torch.save(output, "y.pt")
assert not {"darknet_py", "cv2", "numpy"} & set(sys.modules)
"""


@pytest.mark.parametrize("name", ["yolov4-tiny", pytest.param("csresnext50-panet-spp", marks=pytest.mark.slow)])
def test_with_torch_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by `convert`, run where neither darknet_py nor NumPy nor OpenCV can be imported."""
    monkeypatch.chdir(tmp_path)
    graph = parse(FOLDER / f"{name}.cfg")
    model = random_model(graph)
    model.write("a.weights")
    assert main(["convert", str(FOLDER / f"{name}.cfg"), "a.weights", "a.py", "--width", "96", "--height", "64"]) == 0
    x = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))  # any multiple of the stride
    torch.save(x, "x.pt")
    subprocess.run([sys.executable, "-c", WITH_TORCH_ALONE], check=True)
    with torch.no_grad():
        expected = Network.of(model).eval()(x)
    torch.testing.assert_close(tuple(torch.load("y.pt")), tuple(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("letter_box", [0, 1])
def test_detections_are_ours(letter_box: int, tmp_path: Path) -> None:
    """Image to boxes in pixels, with the thresholds, the letterbox and the suppression of the cfg."""
    text = GOLDEN["foreign_cfg"].tobytes().decode().replace("channels=3", f"channels=3\nletter_box={letter_box}")
    text = text.replace("new_coords=1", "new_coords=1\nnms_kind=greedynms")
    (tmp_path / "a.cfg").write_text(text)
    state = {key.removeprefix("state/"): torch.from_numpy(GOLDEN[key]) for key in GOLDEN.files if "state/" in key}
    torch.save(state, tmp_path / "state.pt")
    darknet_py.convert(tmp_path / "a.cfg", tmp_path / "state.pt", tmp_path / "a.weights")
    model = ModelFile.read(tmp_path / "a.cfg", tmp_path / "a.weights", names=("a", "b", "c"))
    network = run_standalone(standalone_code(model.graph, model.names, "a.pt"), standalone_state(model), "A")
    image = torch.randint(256, (90, 120, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    got = network.detect(image, 0.3, 0.45)
    expected = Network.of(model).eval().detect(image.numpy(), 0.3, 0.45)[0]
    assert len(got) == len(expected) > 20
    assert [name for name, _, _ in got] == [detection.name for detection in expected]
    np.testing.assert_allclose([confidence for _, confidence, _ in got], expected.confidences, atol=1e-5)
    np.testing.assert_allclose([box for _, _, box in got], expected.xyxy, atol=2e-3)  # pixels


def test_classes_are_ours(tmp_path: Path) -> None:
    """A photo of another aspect ratio: the shorter side is resized, the middle is cropped."""
    (tmp_path / "a.cfg").write_text(NET.replace("channels=4", "channels=3") + CONV.format(6) + CASES["avgpool"])
    model = replace(random_model(parse(tmp_path / "a.cfg")), names=tuple("abcdef"))
    network = run_standalone(standalone_code(model.graph, model.names, "a.pt"), standalone_state(model), "A")
    for shape in ((30, 44, 3), (44, 30, 3)):
        image = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
        got = network.classify(image, 3)
        with torch.no_grad():
            crop = torch.from_numpy(center_crop(image.numpy(), 12, 8))
            values = Network.of(model).eval()(crop.permute(2, 0, 1)[None])
        assert not isinstance(values, Predictions)
        expected, labels = values[0].sort(descending=True)
        assert [name for name, _ in got] == ["abcdef"[k] for k in labels[:3].tolist()]
        torch.testing.assert_close(torch.tensor([value for _, value in got]), expected[:3], rtol=1e-5, atol=1e-6)


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.cfg").write_text(NET + CASES["yolo"])
    random_model(parse(tmp_path / "a.cfg")).write(tmp_path / "a.weights")
    words = ["convert", *(str(tmp_path / name) for name in ("a.cfg", "a.weights", "a.py"))]
    assert main([*words, "--outputs", "raw"]) == 1
    assert "expected the outputs boxes of a detector, got raw" in capsys.readouterr().err
    assert main([*words, "--precision", "fp16"]) in (1, 2)
    assert not list(tmp_path.glob("*.py")) and not list(tmp_path.glob("*.pt"))
    assert main(words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.cfg", "a.weights", "a.py", "a-weights.pt"}
