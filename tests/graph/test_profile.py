"""Costs of networks: published file sizes, CSPNet's formula, gradients and C Darknet's table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from darknet_py.graph.graph import Graph, parse, parse_text
from darknet_py.graph.profile import (
    align_layers,
    comparison_table,
    layer_profiles,
    network_profile,
    profile_table,
)
from darknet_py.model.network import Network

CFG = Path(__file__).parents[2] / "cfg"
NET = "[net]\nwidth=64\nheight=64\nchannels=3\n"


def conv(filters: int, size: int = 1, stride: int = 1, **options: int) -> str:
    extra = "".join(f"{key}={value}\n" for key, value in options.items())
    return f"[convolutional]\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation=linear\n{extra}"


def dense_block(channels: int, growth: int, layers: int) -> str:
    """One convolution per dense layer, as the formula of CSPNet counts it; then the base and each output joined."""
    text = conv(channels)
    for _ in range(layers):
        text += conv(growth, 3) + "[route]\nlayers=-1,-2\n"
    return text


@pytest.mark.parametrize(
    ("name", "size"),
    [("yolov3", 248007048), ("yolov3-tiny", 35434956), ("yolov4", 257717640), ("yolov4-tiny", 24251276)],
)
def test_size_of_published_weights_files(name: str, size: int) -> None:
    assert network_profile(parse(CFG / f"{name}.cfg")).weights_bytes == size


@pytest.mark.parametrize(("channels", "growth", "layers"), [(64, 32, 4), (256, 12, 6), (512, 32, 24)])
def test_cio_is_cspnets_formula(channels: int, growth: int, layers: int) -> None:
    c, d, m = channels, growth, layers
    pixels = 16 * 16

    def block(channels: int, growth: int) -> float:
        graph = parse_text(f"[net]\nwidth=16\nheight=16\nchannels=1\n{dense_block(channels, growth, m)}")
        return sum(row.cio for row in layer_profiles(graph)[1:]) / pixels

    assert block(c, d) == c * m + (m * m + m) * d / 2
    # The partial block: half of the base goes through it, the growth stays.
    assert block(c // 2, d) == (c * m + (m * m + m) * d) / 2


def test_a_partial_dense_block_saves_up_to_half_of_the_traffic() -> None:
    whole = network_profile(parse_text(f"[net]\nwidth=16\nheight=16\nchannels=1\n{dense_block(512, 8, 6)}")).cio
    half = network_profile(parse_text(f"[net]\nwidth=16\nheight=16\nchannels=1\n{dense_block(256, 8, 6)}")).cio
    assert 0.5 <= half / whole < 0.55


def seen(graph: Graph, layer: int) -> int:
    """Input columns that the most far-sighted cell in the middle of `layer` depends on, by its gradient."""
    net = Network(graph)
    for parameter in net.parameters():
        parameter.data.fill_(0.5)
    kept: dict[int, Tensor] = {}
    net.layers[layer].register_forward_hook(lambda module, inputs, output: kept.update({0: output}))
    x = torch.rand(1, graph.input.c, graph.input.h, graph.input.w, requires_grad=True)
    net(x)
    row = kept[0][0, :, kept[0].shape[2] // 2]
    middle = row.shape[1] // 2
    extents = []
    for column in range(middle - 2, middle + 2):
        (gradient,) = torch.autograd.grad(row[:, column].sum(), x, retain_graph=True)
        columns = gradient.abs().sum((0, 1, 2)).nonzero()
        extents.append(int(columns.max() - columns.min()) + 1)
    return max(extents)


def test_receptive_field_is_what_the_gradient_reaches() -> None:
    pool = "[local_avgpool]\nsize=2\nstride=2\npadding=0\n"
    graph = parse_text(
        "[net]\nwidth=256\nheight=8\nchannels=1\n"
        + conv(2, 3)  # 0
        + pool
        + conv(2, 5, dilation=2)  # 2
        + conv(2, 3, 2)
        + conv(2, 3)  # 4
        + "[upsample]\nstride=2\n"
        + "[route]\nlayers=-1,2\n"  # 6
        + conv(2, 3)
        + conv(2, 3, 2)  # 8
        + conv(2, 3)
    )
    fields = [row.receptive_field for row in layer_profiles(graph)]
    assert fields[:5] == [3, 4, 20, 24, 32]
    assert fields == [seen(graph, layer) for layer in range(len(fields))]


def test_global_pooling_sees_everything() -> None:
    graph = parse_text(NET + conv(4, 3, 2) + "[avgpool]\n[connected]\noutput=3\nactivation=linear\n")
    assert [row.receptive_field for row in layer_profiles(graph)] == [3, 65, 65]


def test_memory_is_what_the_network_holds() -> None:
    # 0: 12288 in, 16384 out. 1 → 8192, 2 → 8192, 3 joins 1 and 2.
    text = NET + conv(16, 3, 2) + conv(8) + conv(8) + "[route]\nlayers=1,2\n" + conv(4)
    image, wide, slim = 3 * 64 * 64, 16 * 32 * 32, 8 * 32 * 32
    lives = [row.live_values for row in layer_profiles(parse_text(text))]
    assert lives == [image + wide, wide + slim, 2 * slim, 4 * slim, 2 * slim + slim // 2]
    assert network_profile(parse_text(text)).peak_bytes == 4 * max(lives)


def test_table_reads_like_darknets() -> None:
    lines = profile_table(parse(CFG / "yolov4-tiny.cfg")).splitlines()
    assert lines[0].split()[:3] == ["layer", "filters", "size/strd(dil)"]
    # What C Darknet prints for these layers, without its padding.
    for index, printed in {
        0: "0 conv 32 3 x 3/ 2 416 x 416 x 3 -> 208 x 208 x 32 0.075",
        3: "3 route 2 1/2 -> 104 x 104 x 32",
        6: "6 route 5 4 -> 104 x 104 x 64",
        9: "9 max 2 x 2/ 2 104 x 104 x 128 -> 52 x 52 x 128 0.001",
        29: "29 conv 255 1 x 1/ 1 13 x 13 x 512 -> 13 x 13 x 255 0.044",
        34: "34 route 33 23 -> 26 x 26 x 384",
    }.items():
        assert " ".join(lines[index + 1].split()).startswith(printed)
    assert "Total BFLOPS 6.910" in lines
    assert "weights file 24251276 bytes" in lines[-1]


def test_dilation_and_groups_are_printed() -> None:
    text = profile_table(parse_text(NET + conv(8, 3, dilation=2) + conv(8, 3, groups=4)))
    assert " 3 x 3/ 1(2)" in text and " 8/4 " in text


def test_windows_of_other_layers_are_printed() -> None:
    """As in C: pjreddie's deconvolutions with theirs, layers of vectors without one."""
    text = NET + "[deconvolutional]\nfilters=4\nsize=8\nstride=4\n[connected]\noutput=4\n[gru]\noutput=3\n"
    rows = [" ".join(line.split()) for line in profile_table(parse_text(text)).splitlines()]
    assert rows[1].startswith("0 deconv 4 8 x 8/ 4 64 x 64 x 3 -> 260 x 260 x 4")
    assert rows[2].startswith("1 connected 4 260 x 260 x 4 -> 1 x 1 x 4")
    assert rows[3].startswith("2 gru 3 1 x 1 x 4 -> 1 x 1 x 3")


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [(4, 2, 3 + 1 * 2), (2, 2, 3), (8, 4, 3 + 1 * 2), (3, 1, 3 + 2 * 2), (5, 2, 3 + 2 * 2)],
)
def test_a_transposed_convolution_reads_every_stride_th_entry_of_its_kernel(
    size: int, stride: int, expected: int
) -> None:
    text = NET + conv(8, 3, 2) + f"[deconvolutional]\nfilters=4\nsize={size}\nstride={stride}\n"
    assert layer_profiles(parse_text(text))[1].receptive_field == expected


def test_equal_layers_are_aligned() -> None:
    first = parse_text(NET + conv(8, 3) + conv(8) + conv(4))
    second = parse_text(NET + conv(8, 3) + conv(16) + "[dropout]\n" + conv(4))
    rows = [
        (pair.first and pair.first.node.index, pair.second and pair.second.node.index, pair.is_same)
        for pair in align_layers(first, second)
    ]
    assert rows == [(0, 0, True), (1, 1, False), (None, 2, False), (2, 3, True)]
    marks = [line[0] for line in comparison_table(first, second).splitlines()[1:5]]
    assert marks == ["=", "~", ">", "="]
