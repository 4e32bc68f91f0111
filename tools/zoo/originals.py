"""Compares the networks of the zoo with the files that their authors published.

    python tools/zoo/originals.py FOLDER [--golden tests/golden/zoo_published.json]

FOLDER contains checkouts called OWNER+NAME. The comparison is of parsed cfgs: every option of every layer with its
defaults, absolute layer indices, and [net]. If a file is published for testing, with its training settings in comments,
those settings are used. --golden writes the fingerprint of the layers of each file, for a test that needs no files.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.zoo import build
from tests.zoo.published import fingerprint

_CSP = "WongKinYiu+CrossStagePartialNetworks/cfg"
_ALEXEY = "AlexeyAB+darknet/cfg"
_DENSE = "WongKinYiu+CrossStagePartialNetworks/in progress/darknet/icfg/densenet201-leaky.cfg"
_PROGRESS = "WongKinYiu+CrossStagePartialNetworks/in progress"

FILES: dict[str, str] = {
    **dict.fromkeys(("csdarknet53", "csdarknet53-elastic", "csdarknet53-omega", "csdarknet53-panet-spp"), _CSP),
    **dict.fromkeys(("csresnet50", "csresnet50-elastic", "csresnet50-omega", "csresnet50-panet-spp"), _CSP),
    **dict.fromkeys(("csresnext50", "csresnext50-elastic", "csresnext50-omega", "csmobilenet-v2"), _CSP),
    **dict.fromkeys(("darknet", "darknet53", "enetb0", "mobilenet-v2", "res2netlite72", "resnet10"), _CSP),
    **dict.fromkeys(("resnet50", "resnext50"), _CSP),
    **dict.fromkeys(("csresnext50-fpn-spp", "csresnext50-yolo-spp"), _PROGRESS),
    **dict.fromkeys(("csresnext50-panet-spp", "csresnext50-panet-spp-original-optimal"), _ALEXEY),
    **dict.fromkeys(("darknet19", "resnet101", "enet-coco", "yolov2", "yolov2-tiny", "yolov3", "yolov3-spp"), _ALEXEY),
    **dict.fromkeys(("yolov3-tiny", "yolov3-tiny-prn", "yolov4", "yolov4-csp", "yolov4-p5", "yolov4-p6"), _ALEXEY),
    **dict.fromkeys(("yolov4-tiny", "yolov4-tiny-3l", "yolov4x-mish", "yolov7", "yolov7-tiny"), _ALEXEY),
    "densenet201": _DENSE,
    "yolov3-tiny-3l": f"{_ALEXEY}/yolov3-tiny_3l.cfg",
    "yolov4-p7": f"{_ALEXEY}/cspx-p7-mish.cfg",
    "yolov4-pacsp": "WongKinYiu+PyTorch_YOLOv4/cfg",
    "yolo-fastest-1.1": "dog-qiuqiu+Yolo-Fastest/ModelZoo/yolo-fastest-1.1_coco",
}
# Intended differences, and the number of classes of the published file.
EXCEPTIONS = {
    "yolov3-tiny-3l": ("2 classes and anchors of another data set; ours are COCO's", 2),
    "yolov4-p7": ("num=16 for heads that use 20 anchors; ours has 20", None),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--golden", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    golden, failures = {}, 0
    for name, file in FILES.items():
        path = options.folder / file / ("" if file.endswith(".cfg") else f"{name}.cfg")
        text = path.read_text(errors="replace")
        note, classes = EXCEPTIONS.get(name, ("", None))
        if name == "yolov4-p7":
            text = text.replace("num=16", "num=20")
        ours, theirs = parse_text(build(name, classes)), parse_text(text)
        if ours.net != theirs.net:
            theirs = parse_text(as_trained(text))
        differences = find_differences(ours, theirs)
        if note:
            differences = [text for text in differences if "[yolo]" not in text]
        failures += bool(differences)
        result = differences[0] if differences else "equal"
        print(f"{name:<40} {len(ours.layers):4d} layers  {result}{f' ({note})' * bool(note)}")
        golden[name] = {"file": str(path.relative_to(options.folder)), "layers": fingerprint(parse_text(text))}
        if classes:
            golden[name]["classes"] = classes
    if options.golden:
        rows = ",\n".join(f' "{name}": {json.dumps(entry)}' for name, entry in golden.items())
        about = "fingerprints of published cfgs (tools/zoo/originals.py)"
        options.golden.write_text(f'{{"about": "{about}",\n"networks": {{\n{rows}\n}}}}\n')
    return 1 if failures else 0


def as_trained(text: str) -> str:
    """A published cfg with its commented-out training batch and subdivisions instead of batch=1."""
    without = re.sub(r"^(batch|subdivisions)=1$", "", text, flags=re.MULTILINE)
    return re.sub(r"^#\s*(batch|subdivisions)\s*=", r"\1=", without, flags=re.MULTILINE)


def find_differences(ours: Graph, theirs: Graph) -> list[str]:
    """Descriptions of all differences; empty if both cfgs have the same meaning."""
    differences = []
    if ours.net != theirs.net:
        differences.append("[net] differs")
    if len(ours.layers) != len(theirs.layers):
        differences.append(f"{len(theirs.layers)} layers in the published cfg")
    for mine, other in zip(ours, theirs, strict=False):
        if (mine.type, mine.spec, mine.common, mine.sources) != (other.type, other.spec, other.common, other.sources):
            differences.append(f"layer {mine.index} [{mine.type}] differs: {mine.spec}, published: {other.spec}")
    return differences


if __name__ == "__main__":
    sys.exit(main())
