"""The graph page: escaped text, and use in a browser."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch

from darknet_py import convert, load
from darknet_py.cli import graph as command
from darknet_py.cli import main
from darknet_py.graph.gradient_paths import gradient_paths
from darknet_py.graph.graph import Graph, parse, parse_text
from darknet_py.graph.profile import layer_profiles
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network
from darknet_py.view.graph_layout import place
from darknet_py.view.graph_maps import Maps, activation_maps
from darknet_py.view.graph_page import page
from darknet_py.view.graph_svg import Diagram
from darknet_py.view.graph_values import BINS, kernel_images, values_view, weight_views
from tests.view import chromium
from tests.view.test_graph import arguments

CFG = Path(__file__).parents[2] / "cfg"
EVIL = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=4\nactivation=leaky\n"
    "# </script><script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\">\n"
    "size=3 <!-- <script> & \u2028\n"
)


RESIDUAL = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n"
    + 3 * "[convolutional]\nfilters=8\nactivation=leaky\n"
    + 2 * "[convolutional]\nfilters=8\n[convolutional]\nfilters=8\n[shortcut]\nfrom=-3\n"
)
KERNELS = RESIDUAL.replace("filters=8", "filters=8\nsize=3\npad=1", 1)


class Reader(HTMLParser):
    """Elements by name, and the data of the JSON scripts by id."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self._open: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._open = dict(attributes).get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.data[self._open] = self.data.get(self._open, "") + data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def quiet(text: str, path: str = "<text>") -> Graph:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parse_text(text, path)


def test_page_is_self_contained() -> None:
    found = read(page(parse(CFG / "yolov4-tiny.cfg")))
    assert not {tag for tag, _ in found.tags} & {"link", "iframe", "object", "embed", "base"}
    assert not [attributes for tag, attributes in found.tags if tag in ("script", "img") and "src" in attributes]
    (policy,) = [attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv")]
    assert policy and policy.startswith("default-src 'none'") and "http" not in policy


def test_text_of_a_cfg_stays_text() -> None:
    found = read(page(quiet(EVIL, "<img src=x>&.cfg")))
    assert [tag for tag, _ in found.tags].count("script") == 3
    assert not [tag for tag, _ in found.tags if tag == "img"]
    model = json.loads(found.data["model"])
    assert model["title"] == "<img src=x>&"
    assert "</script><script>" in model["layers"][0]["cfg"]


def test_values_equal_the_profile() -> None:
    graph = parse(CFG / "yolov4-tiny.cfg")
    model = json.loads(read(page(graph)).data["model"])
    for layer, row in zip(model["layers"], layer_profiles(graph), strict=True):
        assert (layer["parameters"], layer["cio"], layer["field"]) == (row.parameters, row.cio, row.receptive_field)
        assert layer["bflops"] == pytest.approx(row.bflops, rel=1e-5)
        assert all(layer["index"] in model["layers"][source]["readers"] for source in layer["sources"] if source >= 0)
    assert model["layers"][3]["cfg"] == "[route]\nlayers=-1\ngroups=2\ngroup_id=1"
    assert ["weights file", "24,251,276 bytes"] in model["facts"]


# --- activation maps


def decoded(uri: str) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(uri.partition(";base64,")[2]), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]


def test_details_of_every_layer() -> None:
    text = "[net]\nwidth=32\nheight=16\nchannels=3\n"
    text += "[convolutional]\nfilters=2\nsize=1\nactivation=linear\n[upsample]\nstride=2\n[avgpool]\n"
    net = Network(parse_text(text)).eval()
    net.layers[0].weight.data.zero_()
    net.layers[0].weight.data[0, 0] = 1  # channel 0: the red channel; channel 1: nothing
    image = torch.zeros(3, 16, 32)
    image[0, :, 16:] = 1  # the right half is red
    maps = activation_maps(net, image)
    assert sorted(maps.images) == [-1, 0, 1, 2]
    assert maps.tile == (56, 28)
    first = decoded(maps.images[-1])[:28, :56]
    assert first[14, 10].max() < 40 and first[14, 45, 0] > 200 and first[14, 45, 2] < 60
    for layer in (0, 1):  # the mean, then channel 0 with the largest spread, then channel 1
        tiles = decoded(maps.images[layer])
        assert tiles.shape == (3 * 28 + 4, 4 * 56 + 6, 3)
        for left in (0, 58):
            assert tiles[14, left + 45, 1] > 180 > 90 > tiles[14, left + 10, 1]  # yellow, dark
    assert not any(layer._forward_hooks for layer in net.layers)


def test_maps_of_a_layer_with_nan_are_drawn() -> None:
    net = Network(parse_text("[net]\nwidth=8\nheight=8\nchannels=1\n[convolutional]\nfilters=2\nactivation=linear\n"))
    net.layers[0].weight.data.fill_(float("nan"))
    assert set(activation_maps(net.eval(), torch.rand(1, 8, 8)).images) == {-1, 0}


# --- weights


def test_a_histogram() -> None:
    view = values_view("weight", torch.tensor([[-1.0, 0, 0, 1.0], [0.26, 0.26, float("nan"), 1.0]]))
    assert (view["low"], view["high"], len(view["bins"])) == (-1, 1, BINS)
    assert {at: count for at, count in enumerate(view["bins"]) if count} == {0: 1, 20: 2, 25: 2, 39: 2}
    facts = "2 × 4: 8 values, mean 0.217, standard deviation 0.633, 25% zeros, 1 not finite"
    assert view["facts"] == facts and view["kernels"] == ""
    assert values_view("bias", torch.full((1000,), 2.0))["bins"] == [1000]
    assert values_view("bias", torch.full((2,), float("nan")))["bins"] == []


def test_kernels_as_images() -> None:
    """A kernel of three channels in color, each to its own scale, with zero in gray; of one channel in gray."""
    weights = torch.zeros(65, 3, 2, 2)
    weights[0, 0, 0, 0] = 5  # red in one corner
    weights[1, :, 1, 1] = -0.01  # black in another
    uri, note = kernel_images(weights)
    image = decoded(uri)
    assert image.shape == (8 * 36 - 4, 8 * 36 - 4, 3) and note.startswith("The first 64 kernels in RGB")
    assert image[5, 5].tolist() == [255, 128, 128] and image[20, 20].tolist() == [128] * 3
    assert image[20, 36 + 20].tolist() == [0] * 3 and image[5, 36 + 5].tolist() == [128] * 3
    gray = decoded(kernel_images(torch.ones(3, 1, 3, 3))[0])
    assert gray.shape[0] == 33 and gray[5, 5].tolist() == [255] * 3
    for shape in ((4, 3, 1, 1), (4, 8, 3, 3), (4, 3)):
        assert kernel_images(torch.ones(shape)) == ("", "")


def test_weights_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array of every layer that has some, from a file of weights or a checkpoint."""
    monkeypatch.chdir(tmp_path)
    Path("r.cfg").write_text(KERNELS)
    load("r.cfg").save_weights("r.weights")
    convert("r.cfg", "r.weights", "r.pt")
    for words in (("r.cfg", "--weights", "r.weights", "out.html"), ("r.pt", "out.html")):
        assert main(["graph", *words]) == 0
        data = read(Path("out.html").read_text()).data
        weights, model = json.loads(data["values"])["weights"], json.loads(data["model"])
        for layer in model["layers"]:
            views = weights.get(str(layer["index"]), [])
            assert sum(sum(view["bins"]) for view in views) == layer["parameters"]
        assert [view["name"] for view in weights["0"]] == ["weight", "bias"]
        assert weights["0"][0]["kernels"].startswith("data:image/png") and weights["1"][0]["kernels"] == ""


def test_command_writes_a_page_with_maps(tmp_path: Path) -> None:
    image = tmp_path / "photo.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    out = tmp_path / "tiny.html"
    size = ("--width", "64", "--height", "64")
    command.run(arguments(str(CFG / "yolov4-tiny.cfg"), str(out), "--image", str(image), *size))
    data = read(out.read_text()).data
    assert len(json.loads(data["maps"])) == 39
    assert "The weights are random." in json.loads(data["model"])["mapsNote"]
    values = json.loads(data["values"])
    assert values["weights"] == {} and len(values["activations"]) == 39
    assert sum(values["activations"]["-1"]["bins"]) == 3 * 64 * 64


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Page]:
    with chromium.browser() as found:
        found.size(1600, 900)
        yield found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    tiny = parse(CFG / "yolov4-tiny.cfg")
    maps = Maps(dict.fromkeys(range(-1, 38), _PIXEL), (1, 1), {}, "a note")
    texts = {
        "tiny": page(tiny),
        "maps": page(tiny, maps),
        "weights": weights_page(),
        "p7": page(parse(CFG / "yolov4-p7.cfg")),
        "blocks": page(parse_text(RESIDUAL, "blocks.cfg")),
        "evil": page(quiet(EVIL, "<img src=x onerror=alert(1)>.cfg")),
    }
    for key, text in texts.items():
        (folder / f"{key}.html").write_text(text, encoding="utf-8")
    return {key: folder / f"{key}.html" for key in texts}


def weights_page() -> str:
    net = Network(parse_text(KERNELS, "weights.cfg")).eval()
    tensors = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    return page(
        net.graph, activation_maps(net, torch.rand(3, 32, 32)), weight_views(ModelFile(net.graph, tensors=tensors))
    )


_PIXEL = "data:image/jpeg;base64," + base64.b64encode(
    cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
).decode("ascii")


@chromium.needed
def test_positions_equal_those_of_python(browser: chromium.Page, files: dict[str, Path]) -> None:
    for key, graph in (("tiny", parse(CFG / "yolov4-tiny.cfg")), ("p7", parse(CFG / "yolov4-p7.cfg"))):
        browser.open(files[key])
        tree = Diagram(graph).tree
        draw = random.Random(7)
        choices = [{tree.root}, set(tree.plans)]
        choices += [{tree.root, *draw.sample(sorted(tree.plans), len(tree.plans) // 2)} for _ in range(4)]
        for opened in choices:
            found: dict[str, Any] = browser.run(f"place(model.tree, new Set({json.dumps(sorted(opened))}))")
            expected = place(tree, opened)
            assert set(found) == set(expected)
            for block, where in expected.items():
                assert found[block]["paths"] == list(where.paths)
                assert {key: tuple(corner) for key, corner in found[block]["corners"].items()} == where.corners
                assert found[block]["size"] == where.size._asdict()
                assert [tuple(band) for band in found[block]["bands"]] == list(where.bands)
    assert browser.errors == []


@chromium.needed
def test_375_layers_are_painted_within_a_second(browser: chromium.Page, files: dict[str, Path]) -> None:
    times = []
    for _ in range(3):
        browser.open(files["p7"])
        browser.wait("performance.getEntriesByName('first-contentful-paint').length > 0")
        times.append(browser.run("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    assert min(times) < 1000, times
    assert browser.errors == []


@chromium.needed
def test_mouse(browser: chromium.Page, files: dict[str, Path]) -> None:
    browser.open(files["tiny"])
    stage = '.item.block:not(.open)[id="{}"]'
    block = browser.run(
        "model.parents[model.parents['n6']] === model.tree.root ? model.parents['n6'] : ancestors('n6')[0]"
    )
    browser.click(stage.format(block))
    assert browser.run("document.querySelector('#panel h2').textContent") == "CSP · dense layer"
    assert not browser.run(f"opened.has('{block}')")
    browser.click(f"#{block} > .card .knob")
    assert browser.run(f"opened.has('{block}') && elements.get('{block}').classList.contains('open')")
    browser.click("#n1")
    panel = browser.run("document.querySelector('#panel').innerText")
    for text in ("conv 3×3/2", "104×104×64 leaky", "18.7 k", "receptive field", "filters=64"):
        assert text in panel
    assert browser.run("document.querySelectorAll('.edge.from').length") == 1
    browser.click(f"#{block} > .body > .header .knob")
    assert not browser.run(f"opened.has('{block}')")
    # what was touched stays where it is
    before = browser.center(f"#{block} > .card > .stripe")
    browser.click(f"#{block} > .card > .sheet", 2)
    assert browser.run(f"opened.has('{block}')")
    left = browser.run(f"document.querySelector('#{block} > .body > .stripe').getBoundingClientRect().x")
    assert abs(left + browser.run("view.k") * 2 - before[0]) < 1
    # panning, zooming
    k, x = browser.run("view.k"), browser.run("view.x")
    browser.mouse("mouseWheel", 500, 300, deltaX=0, deltaY=-240)
    browser.wait(f"view.k > {k} * 1.2")
    x = browser.run("view.x")
    browser.mouse("mousePressed", 700, 80, button="left", clickCount=1)
    browser.mouse("mouseMoved", 760, 100, button="left", buttons=1)
    browser.mouse("mouseReleased", 760, 100, button="left", clickCount=1)
    assert browser.run("view.x") == pytest.approx(x + 60, abs=1)
    browser.click("#fit")
    x, y = browser.center("#n0")
    browser.mouse("mouseMoved", x, y)
    assert "layer 0" in browser.run("tip.hidden ? '' : tip.innerText")
    assert browser.errors == []


@chromium.needed
def test_keyboard(browser: chromium.Page, files: dict[str, Path]) -> None:
    browser.open(files["tiny"])
    browser.run("stage.focus()")
    browser.key("ArrowDown")
    browser.key("ArrowDown")
    assert browser.run("selected") == "n0"
    browser.key("ArrowDown")
    block = browser.run("selected")
    browser.key("Enter")
    assert browser.run(f"opened.has('{block}')")
    browser.key("ArrowRight")
    assert browser.run("ancestors(selected).includes('" + block + "') || selected !== '" + block + "'")
    browser.key("e")
    assert browser.run("opened.size === Object.keys(model.tree.plans).length")
    browser.key("c")
    assert browser.run("opened.size") == 1
    theme = browser.run("document.documentElement.dataset.theme")
    color = "getComputedStyle(document.querySelector('#n0 > .sheet')).fill"
    light = browser.run(color)
    assert browser.run("getComputedStyle(document.querySelector('#n0 > .stripe')).fill") == "rgb(63, 126, 232)"
    browser.key("t")
    assert browser.run("document.documentElement.dataset.theme") != theme
    assert browser.run(color) != light
    k = browser.run("view.k")
    browser.key("+")
    assert browser.run("view.k") > k
    browser.key("0")
    browser.key("Escape")
    assert browser.run("selected") is None
    assert "Keys" in browser.run("document.querySelector('#panel').innerText")
    assert browser.errors == []


@chromium.needed
def test_gradient_paths_are_drawn(browser: chromium.Page, files: dict[str, Path]) -> None:
    """Residual blocks: layer 2 is the input of two of them, each with two ways, so four paths to the end."""
    browser.open(files["blocks"], "#open=all")
    select = "select(model.layers[{}].name); [...scene.querySelectorAll('[data-paths]')].length"
    assert browser.run(select.format(2)) == 0  # nothing is drawn unasked
    browser.key("g", "g")
    drawn = "Object.fromEntries([...scene.querySelectorAll('.edge.path-{}')].map((e, at) => [at, e.dataset.paths]))"
    to: dict[str, str] = browser.run(drawn.format("to"))
    assert set(to.values()) == {"2", "4"} and list(to.values()).count("4") >= 1
    before: dict[str, str] = browser.run(drawn.format("from"))
    assert set(before.values()) == {"1"}
    widths: list[float] = browser.run(
        "[...scene.querySelectorAll('.path-to')].sort((a, b) => a.dataset.paths - b.dataset.paths)"
        ".map((edge) => parseFloat(edge.style.strokeWidth))"
    )
    assert widths == sorted(widths) and widths[0] < widths[-1] == 8
    assert "4, lengths 0-4, 3 timestamps" in browser.run("panel.textContent")
    browser.key("g", "g")
    assert browser.run("scene.querySelectorAll('[data-paths]').length") == 0
    assert browser.errors == []


@chromium.needed
def test_paths_over_an_edge_equal_those_of_python(browser: chromium.Page, files: dict[str, Path]) -> None:
    """Over all connections into a layer, the paths that end there add up to those from the input."""
    browser.open(files["p7"])
    found = gradient_paths(parse(CFG / "yolov4-p7.cfg"))
    for row in found.layers[:: len(found.layers) // 9]:
        layer = row.node.index
        into = browser.run(
            f"(() => {{ const counts = pathCounts({layer}); return String(model.layers[{layer}].reads.reduce("
            f"(sum, source) => sum + counts(source, {layer}).count, 0n)); }})()"
        )
        out = browser.run(
            f"(() => {{ const counts = pathCounts({layer}); let sum = model.ends.includes({layer}) ? 1n : 0n; "
            f"for (const reader of model.layers) for (const source of reader.reads) if (source === {layer}) "
            "sum += counts(source, reader.index).count; return String(sum); })()"
        )
        assert (int(into), int(out)) == (row.from_input.count, row.to_heads.count), layer
    assert browser.errors == []


@chromium.needed
def test_the_diagram_is_saved(browser: chromium.Page, files: dict[str, Path], tmp_path: Path) -> None:
    """As it is shown: as SVG, with what is visible and without the page's variables, and the same as PNG."""
    browser.open(files["tiny"], "#theme=dark")
    for open_all, layers in ((False, 0), (True, 38)):
        if open_all:
            browser.click("#open")
        text = browser.run("diagramText()")
        drawn = ElementTree.fromstring(text)
        classes = [element.get("class", "").split() for element in drawn.iter()]
        assert sum("leaf" in names for names in classes) >= layers and "var(--" not in text
        assert any("card" in names for names in classes) == (not open_all)
        (tmp_path / "saved.svg").write_text(text, encoding="utf-8")
        width, height = (float(drawn.get(side, "")) for side in ("width", "height"))
        encoded = browser.run(
            "diagramPng().then(async (blob) => btoa(Array.from(new Uint8Array(await blob.arrayBuffer()),"
            " (code) => String.fromCharCode(code)).join('')))"
        )
        image = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        cv2.imwrite(str(tmp_path / "saved.png"), image)
        assert image.shape[1::-1] == pytest.approx((2 * width, 2 * height), abs=1)
        assert image[2, 2].tolist() == [0x1B, 0x14, 0x10] and len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    browser.run("window.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push(this.download) }")
    browser.click("#svg")
    browser.click("#png")
    browser.wait("saved.length === 2")
    assert browser.run("saved") == ["yolov4-tiny.svg", "yolov4-tiny.png"]
    assert browser.errors == []


@chromium.needed
def test_search(browser: chromium.Page, files: dict[str, Path]) -> None:
    browser.open(files["tiny"])
    browser.run("stage.focus()")
    browser.key("/")
    browser.write("upsample")
    assert browser.run("document.getElementById('found').textContent") == "1"
    browser.key("Enter")
    assert browser.run("selected") == "n33"
    assert browser.run("visible('n33')") == "n33"
    browser.run("search.value = ''")
    browser.write("CONV 1x1")
    assert browser.run("document.getElementById('found').textContent") == "7"
    browser.key("Enter")
    browser.key("Enter")
    browser.key("Enter", shift=True)
    assert browser.run("[selected, document.getElementById('found').textContent]") == ["n7", "1 of 7"]
    assert browser.run("document.querySelectorAll('#profile .match').length") == 7
    browser.key("Escape")
    assert browser.run("document.querySelectorAll('.match').length") == 0
    assert browser.errors == []


@chromium.needed
def test_addresses_and_the_profile(browser: chromium.Page, files: dict[str, Path]) -> None:
    browser.open(files["tiny"], "#open=20&layer=36&theme=dark")
    assert browser.run("visible('n20')") == "n20"
    assert browser.run("[selected, document.documentElement.dataset.theme]") == ["n36", "dark"]
    stroke = "getComputedStyle(document.querySelector('#n36 > .sheet')).stroke"
    assert browser.run(stroke) == "rgb(110, 168, 255)"  # the accent, over the theme's lines
    assert browser.run("document.querySelectorAll('#profile [data-layer]').length") == 38
    largest = browser.run("document.getElementById('largest').textContent")
    browser.run("metric.value = 'parameters'; metric.dispatchEvent(new Event('change'))")
    assert browser.run("document.getElementById('largest').textContent") == "largest: 2.36 M, layer 26" != largest
    width = browser.run("document.getElementById('profile').getBoundingClientRect().width")
    x, y = browser.center("#profile")
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, x - width / 2 + width * 5.5 / 38, y, button="left", clickCount=1)
    assert browser.run("selected") == "n5"
    browser.open(files["tiny"], "#open=all&layer=99&find=yolo")
    assert browser.run("[selected, document.getElementById('found').textContent]") == [None, "2"]
    assert browser.errors == []


@chromium.needed
def test_maps_in_the_page(browser: chromium.Page, files: dict[str, Path]) -> None:
    browser.open(files["maps"], "#layer=5")
    browser.wait("document.querySelectorAll('.map').length > 20")
    assert browser.run("document.querySelector('#panel img').naturalWidth") == 1
    assert "a note" in browser.run("document.querySelector('#panel').innerText")
    shown = "getComputedStyle(document.querySelector('.map')).display !== 'none'"
    assert browser.run(shown)
    browser.run("openAll()")
    under = (
        "[...scene.querySelectorAll('.leaf > .map, .card > .map')].filter((map) => [...map.parentNode.querySelectorAll("
        "':scope > text:not([text-anchor])')].some((text) => text.getBoundingClientRect().width &&"
        " text.getBoundingClientRect().right > map.getBoundingClientRect().left)).length"
    )
    assert browser.run(under) == 0
    browser.run("stage.focus()")
    browser.key("m")
    assert not browser.run(shown)
    assert browser.errors == []


@chromium.needed
def test_weights_in_the_page(browser: chromium.Page, files: dict[str, Path]) -> None:
    browser.open(files["weights"], "#layer=0")
    found = "[...document.querySelectorAll('#panel .histogram')]"
    assert browser.run(f"{found}.map((chart) => chart.querySelectorAll('rect').length)") == [40, 40, 1]
    # activations, weights, and biases, which are all zero
    assert browser.run(f"{found}[1].querySelector('line') !== null && {found}[2].querySelector('line') === null")
    counts = f"[...{found}[1].querySelectorAll('title')].map((title) => +title.textContent.split(': ')[1])"
    assert browser.run(f"{counts}.reduce((sum, count) => sum + count)") == 216
    tallest = f"Math.max(...[...{found}[1].querySelectorAll('rect')].map((bar) => +bar.getAttribute('height')))"
    assert browser.run(tallest) == 100
    assert browser.run("document.querySelector('#panel .kernels').naturalWidth") > 100
    assert "The 8 kernels in RGB" in browser.run("panel.textContent")
    browser.run("select('n5', true)")  # a shortcut has activations and no weights
    assert browser.run(f"{found}.length") == 1 and "Weights" not in browser.run("panel.textContent")
    browser.run("select(model.parents['n5'], true)")  # a block shows its output
    assert browser.run(f"{found}.length") == 1
    assert browser.errors == []


@chromium.needed
def test_a_cfg_cannot_script_the_page(browser: chromium.Page, files: dict[str, Path]) -> None:
    browser.open(files["evil"], "#layer=0&find=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    assert browser.run("document.title") == "<img src=x onerror=alert(1)>"
    assert "</script><script>" in browser.run("document.querySelector('#panel pre').textContent")
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.errors == []


@chromium.needed
def test_a_narrow_window_has_no_overflow(browser: chromium.Page, files: dict[str, Path]) -> None:
    try:
        for width, height in ((390, 800), (900, 600)):
            browser.size(width, height)
            browser.open(files["tiny"])
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            assert browser.run("stage.getBoundingClientRect().height > 150")
    finally:
        browser.size(1600, 900)
    assert re.match(r"Chrom|HeadlessChrom", browser.call("Browser.getVersion")["product"])
