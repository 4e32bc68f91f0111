"""A cfg for another number of classes: every kind of head, and what feeds it."""

from __future__ import annotations

import pytest

from darknet_py.errors import CfgError
from darknet_py.graph.graph import build_graph, parse_text
from darknet_py.graph.set_num_classes import class_edits, feeding_layers, set_num_classes
from darknet_py.zoo import build

START = "[net]\nbatch=2\nwidth=32\nheight=32\nchannels=3\nmax_batches=9\n# a comment\n"
CONV = "[convolutional]\nfilters={} # of the head\nsize=1\nactivation=linear\n"
ANCHORS = "num=3\nmask=0,1,2\nanchors=1,2, 3,4, 5,6\n"
CASES = {
    "yolo": (CONV.format(21) + "[yolo]\nclasses=2\n" + ANCHORS, [("filters=21 #", "filters=30 #")]),
    "two yolos": (
        CONV.format(21) + "[yolo]\nclasses=2\n" + ANCHORS + "[route]\nlayers=0\n"
        "[convolutional]\nsize=1\nfilters=14\n[yolo]\nclasses=2\n" + ANCHORS.replace("mask=0,1,2", "mask=0,2"),
        [("filters=21 #", "filters=30 #"), ("filters=14", "filters=20")],
    ),
    "gaussian": (CONV.format(33) + "[Gaussian_yolo]\nclasses=2\n" + ANCHORS, [("filters=33 #", "filters=42 #")]),
    "region": (
        CONV.format(14) + "[region]\nclasses=2\ncoords=4\nnum=2\nanchors=1,2, 3,4\n",
        [("filters=14 #", "filters=20 #")],
    ),
    "v1": (
        "[connected]\noutput=48\nactivation=linear\n[detection]\nclasses=2\ncoords=4\nside=2\nnum=2\n",
        [("output=48", "output=60")],
    ),
    "yolor": (
        "[implicit_add]\nfilters=8\n[implicit_mul]\nfilters=21\n[convolutional]\nfilters=8\nsize=1\n"
        "[shift_channels]\nfrom=0\n[convolutional]\nfilters=21\nsize=1\n[control_channels]\nfrom=1\n"
        "[yolo]\nclasses=2\n" + ANCHORS,
        [("filters=21", "filters=30")],
    ),
    "classifier": (
        CONV.format(2) + "[avgpool]\n[dropout]\nprobability=.5\n[softmax]\ngroups=1\n[cost]\ntype=sse\n",
        [("filters=2 #", "filters=5 #")],
    ),
    "connected classifier": ("[connected]\noutput=2\nactivation=linear\n[softmax]\n", [("output=2", "output=5")]),
}


@pytest.mark.parametrize("kind", CASES)
def test_every_head_and_what_feeds_it(kind: str) -> None:
    text, edits = CASES[kind]
    graph = parse_text(START + text)
    expected = START + text.replace("classes=2", "classes=5")
    for old, new in edits:
        expected = expected.replace(old, new)
    changed = set_num_classes(graph, 5)
    assert changed.text == expected
    assert set_num_classes(changed, 2).text == START + text
    assert set_num_classes(graph, 2) is graph


def test_options_that_are_missing_are_added() -> None:
    text = START + "[convolutional]\nfilters=125\n[region]\nnum=5\nanchors=1,1,1,1,1,1,1,1,1,1\n"  # classes=20
    changed = set_num_classes(parse_text(text), 1)
    assert "[region]\nclasses=1\nnum=5" in changed.text and "filters=30" in changed.text


def test_weights_of_classes_become_equal() -> None:
    text = START + CONV.format(21) + "[yolo]\nclasses=2\ncounters_per_class=10,90\n" + ANCHORS
    assert "counters_per_class=1,1,1\n" in set_num_classes(parse_text(text), 3).text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            CONV.format(9) + CONV.format(12) + "[route]\nlayers=-1,-2\n[yolo]\nclasses=2\n" + ANCHORS,
            r"<text>:18: \[yolo\] #3: classes: expected a layer before it whose filters= or output= can be 24, "
            "got none",
        ),
        (
            CONV.format(14) + "[region]\nclasses=2\nnum=2\nanchors=1,2, 3,4\nmap=x.map\n",
            r"\[region\] #1: classes: map= defines the classes",
        ),
        (CONV.format(3) + "[softmax]\n", r"\[softmax\] #1: classes: expected a layer before it"),
        ("[convolutional]\nfilters=4\nsize=1\ngroups=2\n[convolutional]\nfilters=4\ngroups=2\n[avgpool]\n", "groups"),
    ],
)
def test_what_cannot_be_decided_is_an_error(text: str, message: str) -> None:
    start = START.replace("channels=3", "channels=2")
    with pytest.raises(CfgError, match=message):
        set_num_classes(parse_text(start + text), 3)


def test_a_sum_needs_all_its_parts() -> None:
    text = CONV.format(4) + CONV.format(4) + "[shortcut]\nfrom=-2\n[maxpool]\nsize=2\n"
    assert sorted(feeding_layers(parse_text(START + text), 3)) == [(0, "filters"), (1, "filters")]


def test_a_vector_of_parts_that_reorg3d_put_in_order() -> None:
    graph = parse_text(build("yolov1-tiny-shapes"))
    changed = set_num_classes(graph, 9)
    wider = {i: b.output.c - a.output.c for i, (a, b) in enumerate(zip(graph, changed, strict=True)) if a != b}
    route = graph.layers[-2]
    assert route.type == "route" and wider == {route.sources[0] - 1: 3, route.sources[0]: 300, 22: 300, 23: 300}


def test_edits_join_others_before_the_graph_is_built() -> None:
    graph = parse_text(START + CASES["yolo"][0], "a.cfg")
    edits = class_edits(graph, 5)
    assert [(edit.section, edit.key, edit.value, edit.reason) for edit in edits] == [
        (2, "classes", "5", "classes=5"),
        (1, "filters", "30", "classes=5"),
    ]
    document = graph.document.with_edits(edits).set(0, "max_batches", "4")
    changed = build_graph(document)
    assert (changed.net.max_batches, changed.layers[0].output.c, len(document.edits)) == (4, 30, 3)
    assert class_edits(changed, 5) == []


def test_defaults_are_not_written() -> None:
    graph = parse_text(START + "[convolutional]\nfilters=125\n[region]\nnum=5\nanchors=1,1,1,1,1,1,1,1,1,1\n")
    assert set_num_classes(graph, 20) is graph


def test_a_classifier_ends_in_one_value_per_class() -> None:
    graph = parse_text(START + CONV.format(2))
    with pytest.raises(CfgError, match=r"#0: classes: expected a last layer of 3 values, got 3072"):
        set_num_classes(graph, 3)
