"""Writes docs/images: what `graph` and `compare` draw. Screenshots need Debian's chromium.

python tools/graph_images.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from darknet_py.cli import main  # noqa: E402
from darknet_py.graph.graph import parse  # noqa: E402
from darknet_py.view.graph_page import page  # noqa: E402
from tests.view import chromium  # noqa: E402

OUT = ROOT / "docs" / "images"
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


def screenshots() -> None:
    networks = {
        "graph-csresnext50-panet-spp": (parse(ROOT / "cfg" / "csresnext50-panet-spp.cfg"), "#open=68&layer=67"),
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
    screenshots()
