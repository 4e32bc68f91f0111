"""The graph diagram: detected blocks, positions without overlap, all edges."""

from __future__ import annotations

import argparse
import random
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import cv2
import pytest

from darknet_py.cli import graph as command
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph, parse, parse_text
from darknet_py.layers import LAYERS
from darknet_py.view import graph_labels as labels
from darknet_py.view.graph_layout import ENTRY, EXIT, Placed, Sum, name, path_text, place, rounded
from darknet_py.view.graph_svg import Diagram, fitted, svg, svg_file
from darknet_py.view.graph_tree import CATEGORIES, INPUT, Block, Leaf, blocks, build_tree, leaves
from tests.call_count import count_calls
from tests.view.networks import Writer, scattered

CFG = Path(__file__).parents[2] / "cfg"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def yolov4() -> Graph:
    return parse(CFG / "yolov4.cfg")


def kinds(graph: Graph) -> list[tuple[str, int, int]]:
    """(kind, first layer, last layer) of the regions."""
    detected = [block for block in blocks(build_tree(graph)) if block.kind not in ("chain", "network")]
    return sorted((block.kind, min(leaves(block)), max(leaves(block))) for block in detected)


# --- blocks


def test_csp_modules_and_their_residual_blocks_are_detected() -> None:
    detected = kinds(parse(CFG / "csresnet50.cfg"))
    assert next(region for region in detected if region[0] == "csp") == ("csp", 2, 19)
    assert [region for region in detected if region[0] == "residual"][:3] == [
        ("residual", 5, 8),
        ("residual", 9, 12),
        ("residual", 13, 16),
    ]
    assert len([region for region in detected if region[0] == "csp"]) == 4


def test_yolov4_reads_like_its_paper(yolov4: Graph) -> None:
    titles = [labels.block_title(yolov4, child) for child in build_tree(yolov4).children if isinstance(child, Block)]
    assert titles[:6] == [
        "CSP · residual",
        "CSP · 2 × residual",
        "CSP · 8 × residual",
        "CSP · 8 × residual",
        "CSP · 4 × residual",
        "SPP 5 9 13",
    ]
    assert titles.count("upsample ×2") == 2
    assert titles.count("head · yolo") == 3


def test_other_blocks() -> None:
    cfg = Writer(32)
    base = cfg.conv(8)
    cfg.conv(4, 3)
    cfg.route(cfg.last, base)  # 2: dense
    cfg.section("avgpool")
    cfg.conv(12)
    cfg.section("scale_channels", from_=2, activation="linear")  # 5: attention
    fork = cfg.last
    ways = [fork]
    for _ in range(2):
        cfg.route(fork)
        cfg.conv(6, 3)
        ways.append(cfg.conv(6, 3))
    cfg.route(*ways[1:], groups=1)
    graph = parse_text(cfg.text())
    assert kinds(graph) == [("attention", 3, 5), ("branches", 6, 12), ("dense", 1, 2)]


def test_an_elastic_branch_is_part_of_its_block_and_a_pyramid_is_not() -> None:
    cfg = Writer(32)
    cfg.conv(8)
    left = cfg.conv(8, 3)
    cfg.route(0)
    cfg.section("maxpool", size=2, stride=2)
    cfg.conv(8, 3)
    cfg.section("upsample", stride=2)
    cfg.route(cfg.last, left)
    elastic = cfg.text()
    assert kinds(parse_text(elastic)) == [("branches", 1, 6)]
    assert kinds(parse_text(elastic + "\n[route]\nlayers=4\n")) == []  # the lower map is read elsewhere too


@pytest.mark.parametrize("path", sorted(CFG.glob("*.cfg")), ids=lambda path: path.stem)
def test_every_shipped_cfg_is_drawn_readably(path: Path) -> None:
    diagram = Diagram(parse(path))
    check(diagram)
    heads = sum(node.type == "yolo" for node in parse(path))  # each scale adds a few blocks: P7 has five
    assert len(diagram.root.children) <= 10 + 6 * max(heads, 3), "too many stages to see at a glance"


def test_every_layer_type_has_a_look() -> None:
    plain = {"activation", "batchnorm", "dropout", "empty", "implicit", "l2norm", "normalization", "prelu", "silence"}
    assert {key.lower() for key in LAYERS} - set(CATEGORIES) - plain == set()
    assert {*CATEGORIES.values(), "other", "input", *labels._KINDS} <= set(labels.COLORS)


# --- everything that must hold for any network


def check(diagram: Diagram) -> None:
    graph = diagram.graph
    assert sorted(leaves(diagram.root)) == list(range(INPUT, len(graph.layers)))
    check_edges(diagram)
    everything = diagram.everything()
    some = {key for at, key in enumerate(sorted(everything)) if at % 2} | {diagram.tree.root}
    for opened in ({diagram.tree.root}, everything, some):
        check_places(diagram, opened, place(diagram.tree, opened))


def ancestors(diagram: Diagram, item: str) -> list[str]:
    items = []
    while item in diagram.parents:
        item = diagram.parents[item]
        items.append(item)
    return items


def check_edges(diagram: Diagram) -> None:
    """Every edge of the graph is an edge of the diagram at the block that both ends share, and there are no others."""
    drawn = {key: {(edge.start, edge.end) for edge in grid.edges} for key, grid in diagram.grids.items()}
    expected: dict[str, set[tuple[str, str]]] = {key: set() for key in drawn}
    for node in diagram.graph.layers:
        for source in node.sources:
            start, end = name(Leaf(source)), name(Leaf(node.index))
            above, below = [start, *ancestors(diagram, start)], [end, *ancestors(diagram, end)]
            shared = next(key for key in above if key in below)
            expected[shared].add((above[above.index(shared) - 1], below[below.index(shared) - 1]))
            for inner, outer in pairwise(above[: above.index(shared)]):
                expected[outer].add((inner, EXIT))
            for inner, outer in pairwise(below[: below.index(shared)]):
                expected[outer].add((ENTRY, inner))
    assert drawn == expected


def points(path: str) -> list[tuple[float, float]]:
    """The corners of a path, its bends as corners."""
    numbers = [float(text) for text in re.findall(r"-?[\d.]+", path.replace("Q", " ").replace("L", " "))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def check_places(diagram: Diagram, opened: set[str], placed: dict[str, Placed]) -> None:
    for key, where in placed.items():
        boxes = {}
        for child, (x, y) in where.corners.items():
            w, h = placed[child].size[:2] if child in placed else diagram.tree.closed[child]
            boxes[child] = (x, y, x + w, y + h)
            assert x >= 0 and y >= 0 and x + w <= where.size.w and y + h <= where.size.h, f"{child} sticks out of {key}"
        names = list(boxes)
        for at, first in enumerate(names):
            for second in names[at + 1 :]:
                a, b = boxes[first], boxes[second]
                apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                assert apart, f"{first} lies on {second} in {key}"
        grid = diagram.grids[key]
        for edge, path in zip(grid.edges, where.paths, strict=True):
            corners = points(path)
            for (ax, ay), (bx, by) in pairwise(corners):
                for child, (left, top, right, bottom) in boxes.items():
                    outside = max(ax, bx) <= left or min(ax, bx) >= right or max(ay, by) <= top or min(ay, by) >= bottom
                    assert outside, f"{edge} runs through {child} in {key}"


@pytest.mark.parametrize("seed", range(120))
def test_random_networks_are_drawn(seed: int) -> None:
    check(Diagram(parse_text(scattered(seed, random.Random(seed).randint(1, 60)))))


def test_a_network_without_shape_is_drawn() -> None:
    check(Diagram(parse_text("[net]\ninputs=20\n[connected]\noutput=8\n[connected]\noutput=3\n")))


def test_large_network_is_fast() -> None:
    graph = parse(CFG / "yolov4-p7.cfg")
    assert len(graph.layers) == 375
    diagram, text = Diagram(graph), svg(graph, "all")  # compiles the templates, once per process
    assert count_calls(lambda: svg(graph, "all")) < 2000 * len(graph.layers)
    assert text.count('class="item leaf') == 376
    assert len(diagram.root.children) < 45


# --- lines and texts


def test_bends_are_rounded_and_straight_lines_have_none() -> None:
    def path(*points: tuple[int, int]) -> str:
        return path_text(rounded([(Sum(x), Sum(y)) for x, y in points], []), [])

    assert path((0, 0), (0, 10), (0, 30)) == "M0 0L0 30"
    assert path((0, 0), (0, 20), (30, 20)) == "M0 0L0 14Q0 20 6 20L30 20"
    assert path((0, 0), (0, 4), (30, 4)) == "M0 0L0 2Q0 4 2 4L30 4"


def test_a_long_text_gets_a_smaller_font_before_it_is_cut() -> None:
    assert fitted("conv 3×3", 140, 12.5) == ("conv 3×3", 12.5)
    text, size = fitted("CSP · branches, attention", 140, 12.5)
    assert text == "CSP · branches, attention" and 9 < size < 12.5
    text, size = fitted("x" * 60, 140, 12.5)
    assert text == "x" * 25 + "…" and size == pytest.approx(9.375)


@pytest.mark.parametrize("path", sorted(CFG.glob("*.cfg")), ids=lambda path: path.stem)
def test_no_text_of_our_cfgs_is_cut(path: Path) -> None:
    assert "…<" not in svg(parse(path)) + svg(parse(path), "all")


@pytest.mark.parametrize(
    ("section", "title", "subtitle"),
    [
        ("[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=mish", "conv 3×3/2", "16×16×8 mish"),
        ("[convolutional]\nfilters=4\nsize=3\npad=1\ngroups=4\nactivation=linear", "conv 3×3 depthwise", "32×32×4"),
        ("[convolutional]\nfilters=8\nsize=3\npad=1\ngroups=2\ndilation=2", "conv 3×3 d2 g2", "30×30×8 logistic"),
        ("[maxpool]\nsize=2\nstride=2", "max 2×2/2", "16×16×4"),
        ("[upsample]\nstride=2", "upsample ×2", "64×64×4"),
        ("[reorg]\nstride=2", "reorg ÷2", "16×16×16"),
        ("[route]\nlayers=0\ngroups=2\ngroup_id=1", "part 2 of 2", "32×32×2"),
        ("[route]\nlayers=0,0", "concat ×2", "32×32×8"),
        ("[shortcut]\nfrom=0", "add", "32×32×4"),
        ("[avgpool]", "avg", "4 values"),
    ],
)
def test_titles(section: str, title: str, subtitle: str) -> None:
    base = "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=4\nactivation=linear\n"
    node = parse_text(base + section).layers[-1]
    assert labels.leaf_title(node) == title
    if "dilation" not in section:
        assert labels.leaf_subtitle(node) == subtitle


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12, "12"), (999.9, "1 k"), (64003990, "64 M"), (1.5e9, "1.5 G")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert labels.short_number(value) == text


# --- files


def test_svg_is_well_formed_for_any_cfg_name(yolov4: Graph) -> None:
    graph = parse_text(yolov4.text, 'a/<b> & "c".cfg')
    for opened in ("none", "all"):
        root = ElementTree.fromstring(svg(graph, opened))
        assert root.findtext(f"{SVG}title") == '<b> & "c"'
        ids = [element.get("id") for element in root.iter(f"{SVG}g") if element.get("id")]
        assert len(ids) == len(set(ids))
        assert not root.findall(f".//{SVG}script")
        assert "http" not in ElementTree.tostring(root, encoding="unicode").replace("http://www.w3.org/2000/svg", "")


def test_open_and_closed(yolov4: Graph) -> None:
    closed, opened = svg(yolov4), svg(yolov4, "all")
    assert closed.count('class="item') == len(build_tree(yolov4).children)
    assert opened.count('class="item leaf') == len(yolov4.layers) + 1


def test_module_image_shows_each_layer_and_both_branches() -> None:
    graph = parse(CFG / "csresnet50.cfg")
    root = ElementTree.fromstring(svg(graph, layers=range(2, 20), theme="light"))
    items = {element.get("id"): element for element in root.iter(f"{SVG}g") if "item" in element.get("class", "")}
    assert {f"n{index}" for index in range(2, 20)} <= set(items)
    columns = {
        key: float(re.findall(r"[\d.]+", items[key].get("transform", ""))[0]) for key in ("n2", "n4", "n18", "n19")
    }
    assert columns["n2"] > columns["n4"] + 172  # the part that skips the blocks stands beside them
    assert columns["n4"] == columns["n19"]


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(words)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = str(CFG / "yolov4-tiny.cfg")
    out = tmp_path / "tiny.svg"
    assert command.run(arguments(cfg, str(out), "--theme", "dark", "--open", "all")) == 0
    assert "#10141b" in out.read_text() and "prefers-color-scheme" not in out.read_text()
    assert str(out) in capsys.readouterr().out
    command.run(arguments(cfg, str(tmp_path / "part.svg"), "--layers", "9-16"))
    assert (tmp_path / "part.svg").read_text().count('class="item leaf') == 8
    for words, message in [
        ((cfg, "x.jpg"), "expected a file ending in .html, .svg or .png"),
        ((cfg, "x.png", "--image", "dog.jpg"), "--image needs a page"),
        ((cfg, "x.svg", "--layers", "30-99"), "expected layers 0…37, got 99"),
        ((cfg, "x.html", "--layers", "1-2"), "--layers draws an .svg or .png"),
        ((cfg, "x.svg", "--image", "dog.jpg"), "--image needs a page"),
        ((cfg, "x.svg", "--weights", "x.weights"), "--weights needs a page"),
        (("none.cfg", "x.svg"), "cfg not found: none.cfg"),
    ]:
        with pytest.raises(DarknetError, match=re.escape(message)):
            command.run(arguments(*words))


def test_png(tmp_path: Path) -> None:
    """The diagram of the SVG file, pixel by pixel twice as large; texts are drawn."""
    pytest.importorskip("resvg_py")
    cfg = str(CFG / "yolov4-tiny.cfg")
    images = {}
    for theme, scale in (("auto", "2"), ("dark", "1")):
        out = tmp_path / f"{theme}.png"
        assert command.run(arguments(cfg, str(out), "--theme", theme, "--scale", scale)) == 0
        images[theme] = cv2.imread(str(out))
    drawing = svg_file(parse(cfg))
    assert images["auto"].shape[1::-1] == pytest.approx([2 * side for side in drawing.size], abs=1)
    assert images["dark"].shape[1::-1] == pytest.approx(drawing.size, abs=1)
    assert images["auto"][2, 2].tolist() == [0xFB, 0xF8, 0xF6] and images["dark"][2, 2].tolist() == [0x1B, 0x14, 0x10]
    title = images["auto"][30:60, 30:200]
    assert 100 < (title.max(2) < 100).sum() < 3000  # dark letters


@pytest.mark.parametrize("text", ["a", "3-", "5-2", "-1", "1-2-3"])
def test_bad_layers_are_wrong_usage(text: str) -> None:
    with pytest.raises(SystemExit):
        arguments("x.cfg", f"--layers={text}")
