"""Shapes, indices and messages of the graph that a cfg describes."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from darknet_py.cfg.document import CfgDocument
from darknet_py.errors import CfgError, CfgWarning, DarknetError
from darknet_py.graph.graph import build_graph, live_values, parse, parse_text, resized

NET = "[net]\nwidth=32\nheight=24\nchannels=3\n"
CONV = "[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\n"


def test_shapes_sources_and_last_use() -> None:
    graph = parse_text(NET + CONV + CONV + "[route]\nlayers=-1\n" + CONV)
    assert [node.output for node in graph] == [(8, 12, 16), (8, 6, 8), (8, 6, 8), (8, 3, 4)]
    assert [node.sources for node in graph] == [(-1,), (0,), (1,), (2,)]
    assert [node.last_use for node in graph] == [1, 2, 3, 3]
    assert graph.parameters == (8 + 8 * 27) + 2 * (8 + 8 * 72)
    assert graph.bflops == pytest.approx(2 * (216 * 192 + 576 * 48 + 576 * 12) / 1e9)


def test_route_cuts_each_input_before_it_joins_them() -> None:
    graph = parse_text(
        NET + CONV + CONV.replace("stride=2", "stride=1") + "[route]\nlayers=0,-1\ngroups=2\ngroup_id=1\n"
    )
    assert graph.layers[2].output == (8, 12, 16)
    assert graph.layers[2].sources == (0, 1)


def test_aliases_name_the_same_layers() -> None:
    graph = parse_text(
        NET.replace("[net]", "[network]") + "[conv]\nfilters=4\n[max]\nsize=2\nstride=2\n[avg]\n[conn]\noutput=5\n"
    )
    assert [node.type for node in graph] == ["convolutional", "maxpool", "avgpool", "connected"]


def test_all_problems_come_at_once() -> None:
    text = (
        "[net]\nwidth=32\nheight=-1\nchannels=3\npolicy=sometimes\n"  # 3, 5
        "[convolutional]\nfilters=0\nsize=x\nactivation=laeky\n"  # 7, 8, 9
        "[convolutonal]\nfilters=3\n"  # 10
        "[route]\nlayers=5\ngroups=2\ngroup_id=2\n"  # 13, 15
        "[shortcut]\nactivation=linear\n"  # 16
        "[upsample]\nstride=0\n"  # 19
        "[maxpool]\nsize=-2\nstride=two\n"  # 21, 22
    )
    with pytest.raises(CfgError) as caught:
        parse_text(text, "ten.cfg")
    lines = [problem.line for problem in caught.value.problems]
    assert lines == sorted(lines)
    assert {3, 5, 7, 8, 9, 10, 13, 15, 16, 19, 21, 22} <= set(lines)
    message = str(caught.value)
    assert (
        "ten.cfg:10: [convolutonal] #1: expected a known section, got [convolutonal]; did you mean 'convolutional'?"
        in message
    )
    assert (
        "ten.cfg:9: [convolutional] #0: activation: expected a known activation, got 'laeky'; did you mean 'leaky'?"
        in message
    )


def test_a_fault_does_not_hide_later_ones_nor_invent_more() -> None:
    with pytest.raises(CfgError) as caught:
        parse_text(NET + "[convolutional]\nfilters=x\n" + CONV * 5 + "[route]\nlayers=-1,99\n")
    assert len(caught.value.problems) == 2


def test_shapes_that_do_not_fit_name_the_layers() -> None:
    with pytest.raises(
        CfgError, match=r"\[route\] #2: expected inputs of one width and height, got 8 x 6 from layer 1"
    ):
        parse_text(NET + CONV + CONV + "[route]\nlayers=-1,-2\n")
    with pytest.raises(CfgError, match="groups: expected a divisor of 3 input channels and 8 filters, got 2"):
        parse_text(NET + CONV.replace("pad=1", "pad=1\ngroups=2"))


def test_terabytes_are_refused_by_layer_before_anything_is_allocated() -> None:
    with pytest.raises(CfgError, match=r"\[connected\] #0: expected at most \d+ values"):
        parse_text("[net]\ninputs=1000000000\n[connected]\noutput=2000000000\n")
    with pytest.raises(CfgError, match=r"\[convolutional\] #0"):
        parse_text(NET + "[convolutional]\nfilters=2000000000\nsize=3\npad=1\n")


def test_unknown_keys_warn_and_strict_refuses_them() -> None:
    text = NET + CONV + "filtres=3\n"
    with pytest.warns(CfgWarning, match=r"<text>:11: \[convolutional\] #0: unknown key 'filtres' is ignored"):
        parse_text(text)
    with pytest.raises(CfgError, match="filtres"):
        parse_text(text, strict=True)


def test_another_input_size(tmp_path: Path) -> None:
    path = tmp_path / "a.cfg"
    path.write_text(NET + CONV)
    graph = parse(path, width=64, height=64)
    assert graph.layers[0].output == (8, 32, 32)
    assert resized(graph, 32, 64).layers[0].output == (8, 32, 16)
    assert resized(graph, None, None) is graph


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "[convolutional]\nfilters=3\n", "[net]\nwidth=8\nheight=8\nchannels=3\n"]
)
def test_a_cfg_needs_net_and_layers(text: str) -> None:
    with pytest.raises(CfgError):
        parse_text(text)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DarknetError, match=r"cfg not found: .*none\.cfg"):
        parse(tmp_path / "none.cfg")


def test_a_clean_cfg_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_text(NET + CONV)


def test_faults_of_the_text_and_of_its_options_come_at_once() -> None:
    with pytest.raises(CfgError) as caught:
        parse_text(NET + "no: option\n" + CONV.replace("filters=8", "filters=x"), "a.cfg")
    assert [problem.line for problem in caught.value.problems] == [5, 7]


def test_a_graph_of_an_edited_document() -> None:
    document = CfgDocument.from_text("# mine\n" + NET + CONV, "a.cfg")
    graph = build_graph(document.set(1, "filters", "4").set(0, "batch", "2", "a test"))
    assert (graph.layers[0].output.c, graph.net.batch, graph.path) == (4, 2, "a.cfg")
    assert graph.text == "# mine\n" + NET.replace("[net]\n", "[net]\nbatch=2\n") + CONV.replace("=8", "=4")
    assert graph.layers_hash == parse_text(graph.text).layers_hash
    assert [edit.reason for edit in graph.document.edits] == ["", "a test"]


def test_faults_of_an_edit_have_the_line_of_the_file() -> None:
    document = CfgDocument.from_text(NET + CONV, "a.cfg").set(0, "batch", "2").set(1, "size", "x")
    with pytest.raises(CfgError, match=r"^a.cfg:7: \[convolutional\] #0: size: expected an integer, got 'x'$"):
        build_graph(document)


def test_building_does_not_warn_again() -> None:
    document = CfgDocument.from_text(NET + CONV + "filtres=3\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = build_graph(document)
        assert resized(graph, 64, 64).net.width == 64
    assert [warning.line for warning in graph.warnings] == [11]
    with pytest.raises(CfgError, match="filtres"):
        build_graph(document, strict=True)


def test_live_values() -> None:
    graph = parse_text(NET + CONV + CONV + "[route]\nlayers=0\n")
    assert live_values(graph) == [3 * 24 * 32 + 8 * 12 * 16, 8 * 12 * 16 + 8 * 6 * 8, 2 * 8 * 12 * 16]


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.cfg"
    path.write_bytes(b"# caf\xe9\r\n" + (NET + CONV).encode())
    assert parse(path).document.content == path.read_bytes()
    path.write_bytes(path.read_bytes() + b"\xe9=1\n")
    with pytest.warns(CfgWarning, match=r"unknown key '\\udce9' is ignored"):
        parse(path)


def test_heads_are_the_layers_with_a_loss() -> None:
    head = "[yolo]\nclasses=2\nnum=1\nmask=0\nanchors=1,2\n"
    graph = parse_text(NET + "[convolutional]\nfilters=7\n" + head + "[route]\nlayers=0\n[softmax]\n")
    assert [node.index for node in graph.heads] == [1, 3]
    assert graph.detection_specs == [graph.layers[1].spec]


def head(kind: str, classes: str, filters: int) -> str:
    options = {
        "yolo": "num=1\nmask=0\nanchors=1,2\n",
        "region": "num=1\nanchors=1,2\n",
        "detection": "coords=4\nside=1\n",
    }
    conv = f"[convolutional]\nfilters={filters}\n" if kind != "detection" else f"[connected]\noutput={filters}\n"
    return conv + f"[{kind}]\n{classes}{options.get(kind, options['yolo'])}"


@pytest.mark.parametrize("kind", ["yolo", "Gaussian_yolo", "region", "detection"])
def test_heads_agree_on_their_classes(kind: str) -> None:
    entries = 9 if kind == "Gaussian_yolo" else 5
    agreeing = NET + head(kind, "classes=2\n", 2 + entries) + "[route]\nlayers=0\n"
    assert len(parse_text(agreeing + head("yolo", "classes=2\n", 7)).heads) == 2
    with pytest.raises(CfgError) as caught:
        parse_text(agreeing + head("yolo", "classes=3\n", 8), "a.cfg")
    text = agreeing.splitlines()
    first, last = text.index("classes=2") + 1, len(text) + 4
    assert str(caught.value) == (
        f"a.cfg:{last}: [yolo] #4: classes: expected one number for all heads, "
        f"got 3 and 2 in [{kind}] #1 (line {first})"
    )


def test_the_head_that_differs_from_the_others_is_named() -> None:
    heads = [head("yolo", classes, filters) for classes, filters in (("", 25), ("classes=2\n", 7), ("classes=2\n", 7))]
    with pytest.raises(CfgError) as caught:
        parse_text(NET + "[route]\nlayers=0\n".join(heads), "a.cfg")
    (problem,) = caught.value.problems
    assert problem.line == 7 and "got 20 (the default) and 2 in [yolo] #4 (line " in problem.message


def test_heads_of_other_kinds_have_classes_of_their_own() -> None:
    text = (
        NET
        + head("yolo", "classes=2\n", 7)
        + "[route]\nlayers=0\n[softmax]\n[route]\nlayers=0\n[iseg]\nclasses=7\nids=0\n"
    )
    assert len(parse_text(text).heads) == 3


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (NET.replace("[net]", "[Net]") + CONV, "expected [net] first, got [Net]; did you mean 'net'?"),
        (NET + CONV.replace("[convolutional]", "[Convolutional]"), "did you mean 'convolutional'?"),
        (NET.replace("width", "Width") + CONV, "got no width"),
        (NET.replace("width", "Width") + CONV, "unknown key 'Width' is ignored; did you mean 'width'?"),
        (
            NET.replace("=32", "=３２") + CONV,
            "U+FF13 FULLWIDTH DIGIT THREE, U+FF12 FULLWIDTH DIGIT TWO; did you mean '32'?",
        ),
        (NET.replace("=32", "=\u00a032") + CONV, "U+00A0 NO-BREAK SPACE"),
    ],
)
def test_hints_are_in_the_error(text: str, hint: str) -> None:
    with pytest.raises(CfgError) as caught:
        parse_text(text)
    assert hint in str(caught.value)


def test_a_comment_after_an_activation() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = parse_text(NET + CONV.replace("activation=leaky", "activation=leaky # was mish"))
    assert graph.layers[0].spec.activation == "leaky"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[select]\nold_output=1470\nkeep=4,14/20\nbins=49\noutput=588\n", "got [select]: it is of darkflow"),
        ("[extract]\nprofile=a.profile\ninput=-1\n", "got [extract]: it is of darkflow"),
        ("[conv-extract]\nprofile=a.profile\n", "got [conv-extract]: it is of darkflow"),
        ("[Focus]\nfrom=-1\nnumber=1\nargs=64, 3\n", "got [Focus]: it is of enazoe/yolo-tensorrt"),
        ("[Conv]\nfrom=-1\nnumber=1\nargs=64, 3\n", "got [Conv]: it is of enazoe/yolo-tensorrt"),
        ("[C3]\nfrom=-1\nnumber=3\nargs=128\n", "got [C3]: it is of enazoe/yolo-tensorrt"),
        ("[Conv]\nfilters=8\n", "got [Conv]; did you mean 'conv'?"),
        ("[yolo]\nnum=2\nanchors=1,2,-3.14, 1,2,3.14\n", "got 6 numbers, three per anchor as in Complex-YOLO"),
        (
            "[yolo]\nnum=9\nmask=0-71\nanchors=1,2/3\n",
            "got lists of areas, ratios and angles, as in ming71/rotate-yolov3",
        ),
        ("[yolo]\nnum=9\nmask=72-143\nanchors=1,2\n", "got '72-143', as in ming71/rotate-yolov3"),
        ("[d-convolutional]\n", "it is of ming71/rotate-yolov3, a dilated convolution"),
        ("[quantize_convolutional]\n", "it is of coldlarry/YOLOv3-complete-pruning"),
        ("[fspt]\nactivation=half_loggy\n", "it is of gballot/darknet"),
        ("[region]\ncoords=6\n", "coords: expected 4 (center and size), as in Complex-YOLO"),
        ("[detection]\ncoords=3\n", "coords: expected 4 (center and size), the only number that C decodes, got '3'"),
    ],
)
def test_sections_of_other_programs_name_them(section: str, message: str) -> None:
    with pytest.raises(CfgError) as caught:
        parse_text(NET + section)
    assert message in str(caught.value)


def test_sowsons_yolo4_is_a_yolo() -> None:
    (node,) = parse_text(NET + head("yolo4", "classes=2\n", 7)).heads
    assert node.type == "yolo"
