"""The page of `serve` in a headless Chromium: with the keyboard alone, in both themes, at a phone's width."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from darknet_py.graph.graph import parse_text
from darknet_py.inference.detect import DetectOptions
from darknet_py.model.network import Network
from tests.small_detector import CFG
from tests.view import chromium

uvicorn = pytest.importorskip("uvicorn")

from darknet_py.serving.app import PATHS, create_app  # noqa: E402
from darknet_py.serving.batching import Batcher  # noqa: E402
from darknet_py.serving.listen import listen  # noqa: E402
from darknet_py.serving.metrics import Metrics  # noqa: E402
from darknet_py.serving.serve_options import ServeOptions  # noqa: E402

# Relative luminance and contrast ratio of WCAG 2; what lies behind a text is its first ancestor with a color.
CONTRASTS = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const part = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = element => {
    const color = parse(getComputedStyle(element).backgroundColor);
    return color.length === 3 || color[3] === 1 ? color : behind(element.parentElement);
  };
  const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  return [...document.querySelectorAll("body *")].filter(e => own(e) && e.checkVisibility()).map(element => {
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    return [element.textContent.slice(0, 20), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
})()"""


class Site:
    """A running server whose detections are those of random weights, in images of noise."""

    def __init__(self, token: str = ""):
        torch.manual_seed(0)
        net = Network(parse_text(CFG), ["apple", "<b>pear"])
        weight = next(net.parameters()).data  # (7, 3, 8, 8): x, y, w, h, objectness, apple, pear
        weight -= weight.mean((1, 2, 3), keepdim=True)
        weight[4:6] *= 20  # scores far apart
        weight[6] = -weight[5]
        self.batcher = Batcher(net)
        metrics = Metrics(PATHS, lambda: self.batcher.taken)
        app = create_app(net, self.batcher, "net.cfg", DetectOptions(), ServeOptions(token=token), metrics)
        self.socket = listen("127.0.0.1", 0)
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.batcher.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "noise.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Page]:
    with chromium.browser() as found:
        yield found


@pytest.fixture
def page(browser: chromium.Page) -> chromium.Page:
    browser.size(1200, 900)
    browser.call("Emulation.setEmulatedMedia", features=[])
    browser.errors.clear()
    return browser


def choose(page: chromium.Page, path: Path) -> None:
    """What a file dialog does."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def opened(page: chromium.Page, site: Site, photo: Path) -> list[dict[str, Any]]:
    """The detections that are shown of a photo."""
    page.visit(site.url)
    page.wait("document.title.startsWith('net.cfg')")
    choose(page, photo)
    page.wait("/^\\d+ detections in/.test(document.getElementById('status').textContent)")
    return shown(page)


def shown(page: chromium.Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(page.run("document.getElementById('json').textContent"))["detections"]
    return found


def tab_to(page: chromium.Page, condition: str) -> None:
    """Presses Tab until the focused element (`it`) is as described; the focus must be visible."""
    for _ in range(30):
        page.key("Tab")
        if page.run(f"(it => {condition})(document.activeElement)"):
            style = "getComputedStyle(it.id === 'file' ? it.nextElementSibling : it).outlineStyle"
            assert page.run(f"(it => {style})(document.activeElement)") == "solid"
            return
    raise AssertionError(f"no element in the tab order: {condition}")


@chromium.needed
def test_slider_and_classes_by_the_keyboard(page: chromium.Page, site: Site, photo: Path) -> None:
    found = opened(page, site, photo)
    assert {each["name"] for each in found} == {"apple", "<b>pear"} and min(each["confidence"] for each in found) > 0.25
    tab_to(page, "it.id === 'file'")
    tab_to(page, "it.id === 'camera'")
    tab_to(page, "it.id === 'thresh'")
    for _ in range(10):
        page.key("ArrowRight")
    assert page.run("document.getElementById('percent').textContent") == "35 %"
    assert shown(page) == [each for each in found if each["confidence"] > 0.35] != found
    tab_to(page, "it.id === 'none'")
    page.key("Enter")
    assert shown(page) == []
    tab_to(page, "it.dataset.name === 'apple'")
    page.key(" ")
    assert {each["name"] for each in shown(page)} == {"apple"}
    assert page.run("document.activeElement.dataset.name") == "apple"  # the list is made again under the focus
    tab_to(page, "it.tagName === 'SUMMARY'")
    page.key("Enter")
    assert page.run("document.activeElement.parentElement.open") is False
    assert page.errors == []


@chromium.needed
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(page: chromium.Page, site: Site, photo: Path, theme: str) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    opened(page, site, photo)
    page.run("for (const part of document.querySelectorAll('details, form')) part.open = !(part.hidden = false)")
    contrasts = page.run(CONTRASTS)
    assert len(contrasts) > 15 and {text: ratio for text, ratio in contrasts if ratio < 4.5} == {}
    page.run("document.getElementById('status').classList.add('bad')")
    assert min(ratio for _, ratio in page.run(CONTRASTS)) >= 4.5
    dark = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert dark == (theme == "dark") and page.errors == []


@chromium.needed
def test_phone_width(page: chromium.Page, site: Site, photo: Path) -> None:
    page.size(360, 740)
    opened(page, site, photo)
    assert page.run("document.documentElement.scrollWidth") == 360
    sizes = page.run(
        "[...document.querySelectorAll('button, .button, #thresh')].filter(e => e.checkVisibility())"
        ".map(e => e.getBoundingClientRect()).map(b => [b.width, b.height, b.right])"
    )
    assert all(width >= 44 and height >= 44 and right <= 360 for width, height, right in sizes)


@chromium.needed
def test_images_that_are_dropped_and_files_that_are_not_images(
    page: chromium.Page, site: Site, photo: Path, tmp_path: Path
) -> None:
    page.visit(site.url)
    page.wait("document.title.startsWith('net.cfg')")
    data = {"items": [], "files": [str(photo)], "dragOperationsMask": 1}
    x, y = page.center("#stage")
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)
    page.wait("/^\\d+ detections in/.test(document.getElementById('status').textContent)")
    assert page.run("document.getElementById('canvas').getAttribute('aria-label')").count("%") == len(shown(page)) > 0
    assert page.errors == []
    (tmp_path / "text.jpg").write_text("not an image")
    choose(page, tmp_path / "text.jpg")
    page.wait("document.getElementById('status').textContent.includes('corrupt image file')")
    assert shown(page) == [] and page.run("document.getElementById('canvas').hidden")


@chromium.needed
def test_the_camera(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    monkeypatch.setattr(chromium, "_FLAGS", [*chromium._FLAGS, *fake])
    with chromium.browser() as page:
        page.visit(site.url)
        page.wait("document.title.startsWith('net.cfg')")
        page.click("#camera")
        page.wait("document.getElementById('json').textContent.includes('camera.jpg')")
        page.click("#camera")
        page.wait("document.getElementById('camera').textContent === 'Start camera'")
        time.sleep(0.2)
        assert page.errors == []


@chromium.needed
def test_it_asks_for_the_token(page: chromium.Page, photo: Path) -> None:
    with Site("secret") as site:
        page.visit(site.url)
        page.wait("document.activeElement.id === 'token'")
        page.write("secret")
        page.key("Enter")
        page.wait("document.title.startsWith('net.cfg')")
        choose(page, photo)
        page.wait("/^\\d+ detections in/.test(document.getElementById('status').textContent)")
        assert page.run("document.getElementById('access').hidden")
