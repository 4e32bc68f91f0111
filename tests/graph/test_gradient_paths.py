"""Gradient paths: exact counts, lengths and sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_py.graph.gradient_paths import (
    StagePaths,
    count_text,
    gradient_paths,
    gradient_sources,
    paths_between,
    paths_dict,
    paths_table,
    paths_text,
)
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.graph.profile import has_weights
from darknet_py.zoo import blocks, build
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.stages import FUSIONS, Csp

NET = "[net]\nwidth=8\nheight=8\nchannels=4\n"
CONV = "[convolutional]\nfilters=4\nactivation=leaky\n"


@st.composite
def small_graphs(draw: st.DrawFn) -> Graph:
    """Convolutions, sums and concatenations of earlier layers, also of the same one twice; several resolutions."""
    text, finer = NET + CONV, True
    for index in range(1, draw(st.integers(1, 9))):
        earlier = st.integers(0, index - 1)
        kind = draw(st.sampled_from(("conv", "route", "sum", "pool") if finer else ("conv", "pool")))
        if kind == "conv":
            text += CONV
        elif kind == "route":
            text += f"[route]\nlayers={','.join(map(str, draw(st.lists(earlier, min_size=1, max_size=3))))}\n"
        elif kind == "sum":
            text += f"[shortcut]\nfrom={draw(earlier)}\nactivation=linear\n"
        else:  # after it only chains, because layers of different sizes do not join
            text, finer = text + "[maxpool]\nsize=2\nstride=2\n", False
    return parse_text(text)


def walks(graph: Graph, at: int, ends: set[int], within: range) -> Iterator[int]:
    """The length of each path from a layer to an end, one by one."""
    if at in ends:
        yield 0
    for node in graph:
        for source in node.sources:
            if source == at and node.index in within:
                for length in walks(graph, node.index, ends, within):
                    yield length + has_weights(node)


@given(small_graphs())
@settings(max_examples=60, deadline=None)
def test_counts_equal_brute_force(graph: Graph):
    found = gradient_paths(graph)
    every = range(len(graph.layers))
    read = {source for node in graph for source in node.sources}
    ends = {node.index for node in graph if node.index not in read}
    for row in found.layers:
        at = row.node.index
        assert list(row.to_heads.by_length) == listed(Counter(walks(graph, at, ends, every)))
        stage = found.stages[row.stage]
        inside = range(stage.first, stage.last + 1)
        assert list(row.to_stage.by_length) == listed(Counter(walks(graph, at, {stage.output}, inside)))
        assert list(row.from_input.by_length) == listed(Counter(walks(graph, -1, {at}, every)))
        for end in every:
            assert list(paths_between(graph, at, end).by_length) == listed(Counter(walks(graph, at, {end}, every)))
    assert list(found.total.by_length) == listed(Counter(walks(graph, -1, ends, every)))


def listed(lengths: Counter[int]) -> list[int]:
    return [lengths[length] for length in range(max(lengths) + 1)] if lengths else []


# --- values of an independent count


@pytest.mark.parametrize(
    ("name", "counts", "timestamps"),
    [("peleenet", [81, 6561, 729], [12, 24, 18]), ("cspeleenet", [82, 6562, 730], [13, 25, 19])],
)
def test_last_three_stages_of_peleenet(name: str, counts: list[int], timestamps: list[int]):
    """A two-way layer has three ways: none, 2 and 3 convolutions. CSP adds one way past all of them, not as many."""
    stages = [stage for stage in gradient_paths(parse_text(build(name))).stages if stage.paths.count > 2][1:]
    assert [stage.paths.count for stage in stages] == counts
    assert [stage.paths.timestamps for stage in stages] == timestamps


def block_of_dense_layers(layers: int, csp: Csp | None) -> tuple[Graph, int, int]:
    """A dense block without bottlenecks between two transitions; the indices of its base and of its last transition."""
    cfg = CfgWriter("", {"": {"width": 8, "height": 8, "channels": 3}})
    cfg.part("")
    base = cfg.conv(16)
    skipped = csp.divide(cfg, 16) if csp else -1
    blocks.repeat(cfg, lambda: blocks.dense(cfg, 8, 0), layers)
    if csp:
        csp.join(cfg, skipped, 16, 16)
    else:
        cfg.conv(16)
    return parse_text(cfg.text()), base, cfg.last


def test_sources_are_those_of_cspnets_equations():
    """DenseNet: w_1 receives g_0; w_2 g_0 and g_1; …; the transition all. CSPDenseNet: the same over x_0'' in the block
    and its transition; the last transition receives those of x_0' and x_T alone (equations 2 and 4)."""
    graph, _, _ = block_of_dense_layers(3, None)
    sources = gradient_sources(graph)
    weights = [node.index for node in graph if has_weights(node)]
    assert [set(sources[index]) for index in weights[1:]] == [set(weights[: k + 1]) for k in range(4)]

    graph, _, _ = block_of_dense_layers(3, Csp(split="groups"))
    sources = gradient_sources(graph)
    part1, part2 = (node.index for node in graph if node.type == "route" and node.spec.groups > 1)
    convs = [node.index for node in graph if has_weights(node)][1:]
    assert [set(sources[index]) for index in convs[:4]] == [{part2, *convs[:k]} for k in range(4)]
    assert set(sources[convs[4]]) == {part1, convs[3]}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_paths_of_each_fusion(fusion: str):
    """m dense layers give 2^m paths; the part that skips them one more, whatever the transitions."""
    graph, base, last = block_of_dense_layers(4, Csp(0.5, fusion, "groups"))
    between = paths_between(graph, base, last)
    assert between.count == 2**4 + 1
    shift = {"csp": 2, "first": 1, "last": 1}[fusion]
    skips = 0 if fusion == "last" else 1
    binomial = [1, 4, 6, 4, 1]
    expected = Counter({shift + k: n for k, n in enumerate(binomial)}) + Counter({skips: 1})
    assert list(between.by_length) == listed(expected)


def test_first_fusion_repeats_more_gradients_than_csp():
    def received(fusion: str) -> StagePaths:
        return gradient_paths(block_of_dense_layers(4, Csp(0.5, fusion, "groups"))[0]).stages[0]

    first, csp = received("first"), received("csp")
    # base 1; dense layers 1 + 2 + 3 + 4; "first": transition of all 4 and both parts; "csp": of 5, then of 2
    assert (first.received, first.sources) == (1 + 10 + 6, 7)
    assert (csp.received, csp.sources) == (1 + 10 + 5 + 2, 8)
    assert first.duplicated > csp.duplicated


# --- particular layers


def test_residual_blocks_double_the_paths_exactly():
    block = "[convolutional]\nfilters=4\n[convolutional]\nfilters=4\n[shortcut]\nfrom=-3\n"
    found = gradient_paths(parse_text(NET + CONV + 200 * block))
    assert found.total.count == 2**200  # far beyond a float's digits
    assert (found.total.shortest, found.total.longest, found.total.timestamps) == (1, 401, 201)
    assert count_text(2**200) == "1.60e60" and count_text(999_999_999) == "999999999"


def test_squeeze_and_excitation_stays_in_its_stage():
    text = NET + CONV + "[avgpool]\n[convolutional]\nfilters=4\n[scale_channels]\nfrom=-3\n" + CONV
    (stage,) = gradient_paths(parse_text(text)).stages
    assert (stage.output, stage.paths.by_length) == (4, (0, 0, 1, 1))


def test_stages_end_where_the_resolution_changes():
    half = "[maxpool]\nsize=2\nstride=2\n" + 10 * CONV + "[upsample]\nstride=2\n"
    found = gradient_paths(parse_text(NET + CONV + half + "[route]\nlayers=-1,0\n" + CONV))
    assert [(stage.first, stage.last, stage.output) for stage in found.stages] == [(0, 0, 0), (1, 11, 11), (12, 14, 14)]
    assert found.stages[2].paths.by_length == (0, 2)
    assert found.total.by_length == (0, 0, 1, *[0] * 9, 1)


def test_learned_vectors_have_no_gradient_before_them():
    text = NET + CONV + "[implicit]\nfilters=4\n[shift_channels]\nfrom=1\n"
    graph = parse_text(text.replace("[shift_channels]", "[route]\nlayers=0\n[shift_channels]"))
    found = gradient_paths(graph)
    assert found.total.by_length == (0, 1)
    assert found.layers[1].from_input.count == 0
    assert found.layers[1].to_heads.by_length == (1,)


def test_several_heads_add_up():
    found = gradient_paths(parse_text(build("yolov3-tiny")))
    assert found.layers[16].to_heads.by_length == (1,)  # a [yolo]
    # Layer 13 leads to both heads: over 14, 15; over 18, then the 3x3 convolution and the one before the head.
    assert found.layers[13].to_heads.by_length == (0, 0, 1, 1)


def test_table_and_plain_values():
    graph = parse_text(build("cspeleenet"))
    table = paths_table(graph)
    assert "6562, lengths 1-26, 25 timestamps" in table
    assert table.splitlines()[-1].startswith("from the input to the heads: 2.19e10, lengths 7-76, 70 timestamps")
    values = paths_dict(graph)
    assert len(values["layers"]) == len(graph.layers)  # type: ignore[arg-type]
    assert sum(values["total"]) == gradient_paths(graph).total.count  # type: ignore[call-overload]
    assert paths_text(paths_between(graph, 5, 3)) == "none"
    assert paths_text(paths_between(graph, 5, 5)) == "1, length 0, 1 timestamp"
