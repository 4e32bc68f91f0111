"""Writes docs/images: what `graph` and `compare` draw. Screenshots need Debian's chromium.

python tools/graph_images.py
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from darknet_py.cli import main  # noqa: E402
from darknet_py.graph.graph import Graph, parse, parse_text  # noqa: E402
from darknet_py.view.graph_page import page  # noqa: E402
from darknet_py.view.graph_svg import svg  # noqa: E402
from darknet_py.zoo import blocks, heads, necks  # noqa: E402
from darknet_py.zoo.cfg_writer import CfgWriter  # noqa: E402
from darknet_py.zoo.heads import YoloHeads  # noqa: E402
from darknet_py.zoo.stages import FUSIONS, Csp  # noqa: E402
from tests.view import chromium  # noqa: E402

OUT = ROOT / "docs" / "images"
PYRAMIDS = {"fpn": partial(necks.fpn, width=8), "gfm": necks.gfm, "efm": necks.efm}
# ImageNet top-1 as the CrossStagePartialNetworks README gives it.
TOP1 = {
    "resnet50": 75.8,
    "csresnet50": 76.6,
    "resnext50": 77.8,
    "csresnext50": 77.9,
    "darknet53": 77.2,
    "csdarknet53": 77.2,
}


def images() -> None:
    cfg = ROOT / "cfg"
    main(["graph", str(cfg / "csresnet50.cfg"), str(OUT / "csresnet50-module.svg"), "--layers", "2-19"])
    words = ["compare", *(str(cfg / f"{name}.cfg") for name in TOP1), "--column", "ImageNet top-1 (%)"]
    for name, value in TOP1.items():
        words += ["--accuracy", f"{name}={value}"]
    main([*words, "--plot", str(OUT / "compare.svg")])


def fusions() -> None:
    """The diagrams of CSPNet's fusions and of the three pyramids, from cfgs of our own."""
    for name, csp in {"plain": None, **{fusion: Csp(0.5, fusion, "groups") for fusion in FUSIONS}}.items():
        (OUT / f"fusion-{name}.svg").write_text(svg(dense_stage(name, csp), "all"), encoding="utf-8")
    for name, layers in {"resnext50": range(2, 15), "csresnext50": range(2, 20)}.items():
        graph = parse(ROOT / "cfg" / f"{name}.cfg")
        (OUT / f"stage-{name}.svg").write_text(svg(graph, layers=layers), encoding="utf-8")
    for name in PYRAMIDS:
        (OUT / f"pyramid-{name}.svg").write_text(svg(pyramid(name)), encoding="utf-8")


def dense_stage(name: str, csp: Csp | None) -> Graph:
    """A stage of three dense layers on 64 channels with its transitions, as in the paper."""
    cfg = CfgWriter("", {"": {"width": 32, "height": 32, "channels": 3}})
    cfg.part("")
    cfg.conv(64, 3)
    skipped = csp.divide(cfg, 64) if csp else -1
    blocks.repeat(cfg, lambda: blocks.dense(cfg, 32, 0), 3)
    if csp:
        csp.join(cfg, skipped, cfg.width(), 128)
    else:
        cfg.conv(128)
    return parse_text(cfg.text(), f"{name}.cfg")


def pyramid(name: str) -> Graph:
    """A neck on a backbone of one convolution per stride."""
    cfg = CfgWriter("", {"": {"width": 416, "height": 416, "channels": 3}})
    cfg.chapter("")
    cfg.part("")
    features = {}
    for stride in (2, 4, 8, 16, 32):
        features[stride] = cfg.conv(16 * stride, 3, 2)
    PYRAMIDS[name](cfg, features, YoloHeads(80, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS))
    return parse_text(cfg.text(), f"{name}.cfg")


def screenshots() -> None:
    networks = {
        "graph-csresnext50-panet-spp": (parse(ROOT / "cfg" / "csresnext50-panet-spp.cfg"), "#open=68&layer=67"),
        "graph-paths-csresnext50-panet-spp": (
            parse(ROOT / "cfg" / "csresnext50-panet-spp.cfg"),
            "#open=68&paths=67",
        ),
        "graph-paths-yolov7-tiny": (parse(ROOT / "cfg" / "yolov7-tiny.cfg"), "#open=all&paths=41"),
        "graph-p7": (parse(ROOT / "cfg" / "yolov4-p7.cfg"), "#theme=dark"),
    }
    with tempfile.TemporaryDirectory() as folder, chromium.browser() as browser:
        browser.size(1800, 1040)
        for name, (graph, fragment) in networks.items():
            file = Path(folder) / f"{name}.html"
            file.write_text(page(graph), encoding="utf-8")
            browser.open(file, fragment)
            browser.screenshot(OUT / f"{name}.png")


if __name__ == "__main__":
    images()
    fusions()
    screenshots()
