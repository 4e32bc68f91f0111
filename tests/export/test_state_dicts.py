"""State dicts of other programs: their layouts, what is refused, and the boxes of C Darknet.

`tests/golden/c_boxes.npz` holds a state dict in PyTorch_YOLOv4's layout and the boxes that C Darknet finds with the
`.weights` made of it, equal to those of PyTorch_YOLOv4 itself to 7e-7; and weights of a short training here with C's.
"""

from __future__ import annotations

import argparse
import collections
import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import WeightsError
from darknet_py.export.safe_unpickle import is_foreign, read_tensors
from darknet_py.export.state_dicts import read_state_dict
from darknet_py.graph.graph import parse_text
from darknet_py.layers.base import Predictions
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "c_boxes.npz")
STATE = {key.removeprefix("state/"): torch.from_numpy(GOLDEN[key]) for key in GOLDEN.files if key.startswith("state/")}


def check_boxes(cfg: Path, weights: Path, image: str, boxes: str, thresh: float) -> None:
    """Our boxes are C's (class, confidence, x, y, w, h relative to the input); both run in float32."""
    net = darknet_py.load(cfg, weights)
    x = torch.from_numpy(GOLDEN[image]).float()[None] / 255
    found, expected = net.boxes(x, thresh, 0.45)[0], GOLDEN[boxes]
    scale = torch.tensor([net.graph.input.w, net.graph.input.h] * 2)
    rows = sorted(
        (int(c), float(p), *(box / scale.numpy()).tolist())
        for c, p, box in zip(found.class_ids, found.confidences, found.xywh, strict=True)
    )
    assert len(rows) == len(expected) > 20
    expected = expected[np.lexsort((expected[:, 1], expected[:, 0]))]
    np.testing.assert_allclose(np.array(rows), expected, rtol=1e-5, atol=2e-6)


def test_boxes_of_c_with_weights_of_pytorch_yolov4(tmp_path: Path) -> None:
    cfg = tmp_path / "a.cfg"
    cfg.write_bytes(GOLDEN["foreign_cfg"].tobytes())
    torch.save({"epoch": 3, "model": STATE, "optimizer": None}, tmp_path / "a.pt")
    darknet_py.convert(cfg, tmp_path / "a.pt", tmp_path / "a.weights")
    check_boxes(cfg, tmp_path / "a.weights", "foreign_image", "foreign_boxes", 0.25)


def test_boxes_of_c_with_weights_trained_here(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_bytes(GOLDEN["trained_cfg"].tobytes())
    (tmp_path / "a.weights").write_bytes(GOLDEN["trained_weights"].tobytes())
    check_boxes(tmp_path / "a.cfg", tmp_path / "a.weights", "trained_image", "trained_boxes", 1e-6)


CFG = (
    "[net]\nwidth=8\nheight=8\nchannels=3\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=1\nactivation=leaky\n"
    "[shortcut]\nfrom=-2\nactivation=linear\n"
    "[convolutional]\nfilters=6\nsize=1\nactivation=linear\n"
)


def block(inputs: int, outputs: int, size: int, eps: float) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs, eps=eps)
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), norm, nn.LeakyReLU(0.1))


class Foreign(nn.Module):
    """The network of CFG as another program writes it."""

    def __init__(self, eps: float):
        super().__init__()
        self.first, self.second = block(3, 4, 3, eps), block(4, 4, 1, eps)
        self.head = nn.Conv2d(4, 6, 1)
        generator = torch.Generator().manual_seed(1)
        for tensor in self.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.01)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        output: Tensor = self.head(first + self.second(first))
        return output


# For each program: the names of both convolutions, their batch norms and the head, and its epsilon.
NAMES = {
    "PyTorch_YOLOv4": ("module_list.{}.Conv2d", "module_list.{}.BatchNorm2d", "module_list.3.Conv2d", 1e-4),
    "erik": ("module_list.{}.conv_{}", "module_list.{}.batch_norm_{}", "module_list.3.conv_3", 1e-5),
    "Tianxiaomo Darknet": ("models.{}.conv{}", "models.{}.bn{}", "models.3.conv3", 1e-5),
    "Tianxiaomo Yolov4": ("down1.conv{}.conv.0", "down1.conv{}.conv.1", "head.conv2.conv.0", 1e-5),
    "YAML": ("model.{}.conv", "model.{}.bn", "model.7.m.0", 1e-3),
    "unknown": ("a{}.c", "a{}.n", "z", 1e-5),
}


def renamed(net: Foreign, program: str) -> dict[str, Tensor]:
    convolution, norm, head, _ = NAMES[program]
    prefixes = {"head.": head + "."}
    for k, part in enumerate(("first", "second")):
        prefixes[f"{part}.0."] = convolution.format(k, k) + "."
        prefixes[f"{part}.1."] = norm.format(k, k) + "."
    return {
        prefixes[prefix] + name.removeprefix(prefix): values
        for name, values in net.state_dict().items()
        for prefix in prefixes
        if name.startswith(prefix)
    }


def output(tensors: ModelFile, x: Tensor) -> Tensor:
    result = Network.of(tensors).eval()(x)
    assert not isinstance(result, Predictions)
    return result.detach()


def model() -> ModelFile:
    return ModelFile(parse_text(CFG))


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("program", NAMES)
def test_output_of_each_layout(program: str, wrapper: str, tmp_path: Path) -> None:
    net = Foreign(NAMES[program][-1]).eval()
    state = {wrapper + name: values for name, values in renamed(net, program).items()}
    state[f"{wrapper}module_list.9.anchors"] = torch.zeros(3, 2)  # what heads register
    torch.save(state, tmp_path / "a.pt")
    torch.testing.assert_close(output(read_state_dict(model(), tmp_path / "a.pt"), X), net(X), rtol=1e-5, atol=1e-6)


def test_ways_to_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """State dict, checkpoint, half precision, averaged network first, before PyTorch 1.6, whole module."""
    (tmp_path / "a.cfg").write_text(CFG)
    net = Foreign(1e-4).eval()
    state, other = renamed(net, "PyTorch_YOLOv4"), renamed(Foreign(1e-4), "PyTorch_YOLOv4")
    other = {name: values + 1 for name, values in other.items()}
    beside = {"epoch": 3, "best_fitness": np.float64(0.5), "opt": argparse.Namespace(lr=0.1, path=Path("x"))}
    ordered = collections.OrderedDict(state)
    contents = {
        "plain": ordered,
        "checkpoint": {**beside, "model": ordered},
        "nested": {"model": {"state_dict": state}},
    }
    contents["averaged"] = {**beside, "model": other, "ema": state}
    for name, content in contents.items():
        for zipped in (True, False):
            path = tmp_path / f"{name}.pt"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            assert main(["convert", str(tmp_path / "a.cfg"), str(path), str(tmp_path / "out.weights")]) == 0
            result = ModelFile.read(tmp_path / "a.cfg", tmp_path / "out.weights")
            torch.testing.assert_close(output(result, X), net(X), rtol=1e-5, atol=1e-6)
    torch.save({"model": {name: values.half() for name, values in state.items()}}, tmp_path / "half.pt")
    torch.testing.assert_close(output(read_state_dict(model(), tmp_path / "half.pt"), X), net(X), rtol=1e-2, atol=1e-2)


def test_module_is_read_without_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole module has its epsilon with it; its class is not needed and not run."""
    net = Foreign(7e-4).eval()
    torch.save({"model": net, "names": ["a"]}, tmp_path / "a.pt")
    monkeypatch.setattr(Foreign, "__setstate__", pytest.fail, raising=False)
    stored = read_tensors(tmp_path / "a.pt")
    assert list(stored.tensors) == list(net.state_dict())
    assert stored.eps == {"first.1": 7e-4, "second.1": 7e-4}
    torch.testing.assert_close(output(read_state_dict(model(), tmp_path / "a.pt"), X), net(X), rtol=1e-5, atol=1e-6)


class Bomb:
    def __init__(self, function: object, *arguments: object):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_does_not_run(zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.cfg").write_text(CFG)
    state, out = renamed(Foreign(1e-4), "PyTorch_YOLOv4"), tmp_path / "out.weights"
    for call in ((os.system, f"touch {tmp_path / 'ran'}"), (eval, f"open({str(tmp_path / 'ran')!r}, 'w')")):
        torch.save({"model": state, "x": Bomb(*call)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        main(["convert", str(tmp_path / "a.cfg"), str(tmp_path / "a.pt"), str(out)])
        assert not (tmp_path / "ran").exists()
    torch.save({"x": Bomb(os.system, "true"), **state}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    out.unlink(missing_ok=True)
    assert main(["convert", str(tmp_path / "a.cfg"), str(tmp_path / "a.pt"), str(out)]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cannot be read without running code that it names; in the program that wrote it" in message
    assert not out.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "state.pt"
    os.mkfifo(pipe)
    assert not is_foreign(pipe)
    with pytest.raises(WeightsError, match=r"state\.pt: cannot read the weights: not a file"):
        read_tensors(pipe)


def test_a_file_that_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save({"0.weight": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    assert packed.stat().st_size < 1 << 16
    with pytest.raises(WeightsError, match=r"packed\.pt: not a checkpoint: [\d,]+ bytes that unpack to [\d,]+"):
        read_tensors(packed)


def test_folded_batch_norm(tmp_path: Path) -> None:
    net = Foreign(1e-4).eval()
    state = renamed(net, "PyTorch_YOLOv4")
    for k in range(2):
        norm = {
            key: state.pop(f"module_list.{k}.BatchNorm2d.{key}")
            for key in ("weight", "running_var", "running_mean", "bias")
        }
        factor = norm["weight"] / torch.sqrt(norm["running_var"] + 1e-4)
        state[f"module_list.{k}.Conv2d.weight"] = state[f"module_list.{k}.Conv2d.weight"] * factor[:, None, None, None]
        state[f"module_list.{k}.Conv2d.bias"] = norm["bias"] - norm["running_mean"] * factor
    torch.save(state, tmp_path / "a.pt")
    torch.testing.assert_close(output(read_state_dict(model(), tmp_path / "a.pt"), X), net(X), rtol=1e-5, atol=1e-6)


def test_state_dict_of_ours(tmp_path: Path) -> None:
    net = Network(model().graph).eval()
    torch.save({f"module.{name}": values for name, values in net.state_dict().items()}, tmp_path / "a.pt")
    result = read_state_dict(model(), tmp_path / "a.pt")
    assert all(torch.equal(result.tensors[name], values) for name, values in net.state_dict().items())


def test_head_listed_first_is_found_by_its_shape(tmp_path: Path) -> None:
    net = Foreign(1e-5).eval()
    state = renamed(net, "unknown")
    torch.save({name: state[name] for name in sorted(state, key=lambda name: name[0] != "z")}, tmp_path / "a.pt")
    torch.testing.assert_close(output(read_state_dict(model(), tmp_path / "a.pt"), X), net(X), rtol=1e-5, atol=1e-6)


def changed(**values: Tensor | None) -> dict[str, Tensor]:
    """The state dict of PyTorch_YOLOv4 with other values, or without them; dots are written as __."""
    state = renamed(Foreign(1e-4), "PyTorch_YOLOv4")
    for name, value in values.items():
        name = f"module_list.{name[1:].replace('__', '.')}"
        state.pop(name, None)
        state.update({name: value} if value is not None else {})
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(_1__Conv2d__weight=None), "layer 1 [convolutional]: expected (4, 4, 1, 1) with batch norm, got"),
        (changed(_2__w=torch.zeros(2)), "expected nothing beyond this network's tensors, got module_list.2 (2,)"),
        (
            changed(_3__Conv2d__bias=torch.full((6,), np.nan)),
            "layer 3 [convolutional], bias: expected finite values, got 6 NaN of 6",
        ),
        (changed(_3__Conv2d__weight=torch.zeros(7, 4, 1, 1)), "layer 3 [convolutional]: expected (6, 4, 1, 1), got"),
        ({}, "expected a state dict or a checkpoint with one, got neither"),
    ],
)
def test_what_does_not_fit_is_refused(
    state: dict[str, Tensor], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.cfg").write_text(CFG)
    torch.save(state, tmp_path / "a.pt")
    assert main(["convert", str(tmp_path / "a.cfg"), str(tmp_path / "a.pt"), str(tmp_path / "b.weights")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "b.weights").exists()


def test_same_shapes_in_another_order_are_refused(tmp_path: Path) -> None:
    """Two layers of one shape at other places: neither order nor shapes decide."""
    state = {}
    for name, shape in (("a", (4, 3, 3, 3)), ("c", (5, 4, 1, 1)), ("b", (4, 4, 1, 1)), ("d", (4, 4, 1, 1))):
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.ones(shape), torch.ones(shape[0])
    torch.save(state, tmp_path / "a.pt")
    layer = "[convolutional]\nfilters={}\nsize={}\npad=1\nactivation=linear\n"
    text = CFG[: CFG.index("[conv")] + "".join(layer.format(*pair) for pair in ((4, 3), (4, 1), (4, 1), (5, 1)))
    with pytest.raises(
        WeightsError, match=r"layer 1 .*expected \(4, 4, 1, 1\), got c .*neither order nor shapes decide"
    ):
        read_state_dict(ModelFile(parse_text(text)), tmp_path / "a.pt")


def test_the_program_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "darknet_py")
    torch.save(renamed(Foreign(1e-4), "PyTorch_YOLOv4"), tmp_path / "a.pt")
    read_state_dict(model(), tmp_path / "a.pt")
    assert "matched by layer numbers" in caplog.messages[0]
    assert "new_coords=1" in caplog.messages[1]
