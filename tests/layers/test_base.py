"""The contract of layers."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
import torch

import darknet_py
from darknet_py.cfg.options import Options
from darknet_py.cfg.sections import Problems, parse_sections
from darknet_py.graph.graph import parse_text
from darknet_py.layers import LAYERS
from darknet_py.layers.base import (
    CommonOptions,
    DetectionHeadSpec,
    HeadLayer,
    HeadSpec,
    LayerArray,
    Shape,
    Spec,
    StatefulLayer,
    conv_output_size,
    pad_to_window,
    scaled_uniform,
    surrogate,
)
from darknet_py.model.network import Network
from tests.layers.small_networks import network


def test_every_option_is_read_somewhere() -> None:
    sources = Path(darknet_py.__file__).parent.rglob("*.py")
    read = {
        node.attr
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    for kind in (CommonOptions, *LAYERS.values()):
        assert {field.name for field in dataclasses.fields(kind)} - read == set(), kind.__name__


def test_options_of_the_tracker_are_accepted() -> None:
    keys = ("track_history_size", "sim_thresh", "dets_for_track", "dets_for_show", "track_ciou_norm", "embedding_layer")
    head = "[yolo]\nclasses=1\nanchors=3,4\nmask=0\n" + "".join(f"{key}=1\n" for key in keys)
    text = "[net]\nwidth=8\nheight=8\nchannels=6\n" + head
    assert parse_text(text, strict=True).warnings == ()


def test_specs_have_defaults_for_what_other_rooms_ask() -> None:
    (node,) = parse_text("[net]\nwidth=8\nheight=8\nchannels=3\n[maxpool]\n").layers
    assert (node.spec.groups, node.spec.group_id, node.spec.activation, node.spec.channels_key) == (1, 0, "linear", "")
    assert (node.spec.kernel(), node.spec.arrays(node), node.spec.workspace(node.inputs) > 0) == ((1, 1, 1), (), True)
    head = DetectionHeadSpec()
    assert (head.jitter, head.resize, head.random, head.max_boxes) == (0.2, 1.0, 0.0, 200)  # Darknet's
    assert (head.nms_kind, head.beta_nms, head.classes, head.filters_labels) == ("default", 0.6, 0, False)


def test_heads_are_those_with_a_loss() -> None:
    heads = {name for name, kind in LAYERS.items() if issubclass(kind, HeadSpec)}
    detectors = {name for name, kind in LAYERS.items() if issubclass(kind, DetectionHeadSpec)}
    assert detectors == {"yolo", "Gaussian_yolo", "region", "detection"}
    assert heads == detectors | {"softmax", "cost", "contrastive", "logistic", "iseg"}
    net = network("[softmax]\n")
    assert isinstance(net.layers[0], HeadLayer) and net.heads[0][1] is net.layers[0]


def test_stateful_layers_share_the_state_of_the_network() -> None:
    net = network(
        "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=2\nassisted_excitation=1\nrotate=1\n",
        "[dropout]\ndropblock=1\n",
    )
    stateful = [module for module in net.modules() if isinstance(module, StatefulLayer)]
    assert len(stateful) == 4 and all(module.state is net.state for module in stateful)


def test_common_options() -> None:
    problems = Problems("case.cfg", strict=True)
    section = parse_sections("[route]\nclip=2\nstopbackward=1\ndontload=1\nlearning_rate=.5\n", problems)[0]
    common = CommonOptions.parse(Options(section, 0, problems))
    assert (common.clip, common.stopbackward, common.dontload, common.learning_rate) == (2.0, 1, True, 0.5)
    assert CommonOptions() == CommonOptions.parse(Options(parse_sections("[route]\n", problems)[0], 0, problems))


@pytest.mark.parametrize(
    ("size", "reach", "stride", "windows"), [(5, 3, 1, 3), (5, 3, 2, 2), (2, 3, 2, 1), (1, 3, 1, -1)]
)
def test_conv_output_size_rounds_as_c(size: int, reach: int, stride: int, windows: int) -> None:
    assert conv_output_size(size, reach, stride) == windows


def test_pad_to_window() -> None:
    x = torch.ones(1, 1, 2, 4)
    assert pad_to_window(x, 2) is x
    assert pad_to_window(x, 3).tolist() == [[[[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]]]


def test_initial_weights_are_darknets() -> None:
    torch.manual_seed(0)
    values = scaled_uniform((1000, 50), 50)
    assert 0.199 < values.abs().max() <= 0.2 and abs(float(values.mean())) < 2e-3


def test_the_gradient_of_the_surrogate_is_minus_the_delta() -> None:
    x, delta = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3)
    total = surrogate(x, delta, torch.tensor(7.0, dtype=torch.float64))
    total.backward()
    assert float(total.detach()) == 7 and x.grad is not None and torch.equal(x.grad, -delta)


def test_shapes_and_arrays_count_their_values() -> None:
    assert Shape(3, 4, 5).size == 60 and str(Shape(3, 4, 5)) == "5 x 4 x 3"
    assert LayerArray("weight", "weight", (2, 3, 4)).count == 24


def test_the_base_class_leaves_reading_and_building_to_the_layer() -> None:
    node = parse_text("[net]\nwidth=8\nheight=8\nchannels=3\n[maxpool]\n").layers[0]
    with pytest.raises(NotImplementedError):
        Spec().build(node)


def test_every_layer_type_can_be_pickled(tmp_path: Path) -> None:
    sections = (
        "[convolutional]\nfilters=4\nbatch_normalize=1\nactivation=leaky\n",
        "[convolutional]\nfilters=4\nactivation=relu\n",
        "[local]\nfilters=4\nactivation=relie\n",
        "[activation]\nactivation=mish\n",
        "[shortcut]\nfrom=-2\nactivation=swish\n",
        "[connected]\noutput=4\nactivation=relu6\n",
        "[gru]\noutput=4\n",
        "[softmax]\n",
    )
    net = network(*sections).eval()
    torch.save(net, tmp_path / "net.pt")
    copy = torch.load(tmp_path / "net.pt", weights_only=False)
    assert isinstance(copy, Network)
    x = torch.rand(2, 4, 6, 8)
    assert torch.equal(copy(x), net(x))
