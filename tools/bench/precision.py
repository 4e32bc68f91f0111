"""How far bf16 and fp16 move boxes: on the check image of `--precision auto`, and on real images with real weights.

    python tools/bench/precision.py A.cfg A.weights B.cfg B.weights --images FOLDER --out docs/bench/precision.csv

A row for each network, back end, precision and set of images. `score` and `iou` are what `--precision auto` bounds: the
largest difference of a score among the 100 best candidates, relative to the best score, and the least IoU of their
boxes. Of the detections above 0.25 on the photos: how many there are in fp32, how many of them are lost or new, the
largest change of a confidence, and the least IoU.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

import darknet_py
from darknet_py.backends.choose import box_difference, check_input, start
from darknet_py.backends.runners import BACKENDS, Request
from darknet_py.boxes import iou
from darknet_py.errors import DarknetError
from darknet_py.export.quantize import calibration_inputs
from darknet_py.inference.detections import Detections
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions

FIELDS = ("cfg", "backend", "precision", "images", "score", "iou", "found", "lost", "new", "confidence", "box_iou")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE", help="cfg and weights, in pairs")
    parser.add_argument("--images", required=True, help="a folder, glob or list of photos")
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), default=["torch", "openvino"])
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp16"], default=["bf16"])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for cfg, weights in tqdm(list(zip(arguments.files[::2], arguments.files[1::2], strict=True)), unit="network"):
        net = darknet_py.load(cfg, weights, ignore_rest=True)
        inputs = {
            "check": [check_input(net, 1)],
            "photos": calibration_inputs(net.graph, arguments.images, 1),
        }
        exact = start(Request(net), "torch")
        for backend in arguments.backends:
            for precision in arguments.precisions:
                try:
                    other = start(Request(net, precision), backend)
                except DarknetError as error:
                    print(f"{backend} {precision}: {error}")
                    continue
                for name, batches in inputs.items():
                    with torch.inference_mode():
                        pairs = [(exact.predict(x), other.predict(x)) for x in batches]
                    row = [Path(cfg).name, backend, precision, name, *difference(pairs)]
                    rows.append(row + compare(pairs, net.nms_kind) if name == "photos" else [*row, *[""] * 5])
    with arguments.out.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([FIELDS, *rows])
    print(f"table in {arguments.out}")


def difference(pairs: Sequence[tuple[Predictions, Predictions]]) -> list[str]:
    """The worst of all images, each measured alone."""
    found = [box_difference(*pair) for pair in pairs]
    return [f"{max(item.score for item in found):.4f}", f"{min(item.iou for item in found):.3f}"]


def compare(pairs: Sequence[tuple[Predictions, Predictions]], nms_kind: tuple[str, float]) -> list[str]:
    """Detections above 0.25: their number, lost, new, largest change of confidence, least IoU."""
    count, lost, new, change, least = 0, 0, 0, 0.0, 1.0
    for pair in pairs:
        ours, theirs = (postprocess(part, 0.25, 0.45, *nms_kind)[0] for part in pair)
        matched = set()
        for k in range(len(ours.class_ids)):
            best, overlap = nearest(ours, theirs, k)
            if overlap < 0.5 or best in matched:
                lost += 1
                continue
            matched.add(best)
            change = max(change, abs(float(ours.confidences[k]) - float(theirs.confidences[best])))
            least = min(least, overlap)
        count += len(ours.class_ids)
        new += len(theirs.class_ids) - len(matched)
    return [str(count), str(lost), str(new), f"{change:.4f}", f"{least:.3f}"]


def nearest(ours: Detections, theirs: Detections, k: int) -> tuple[int, float]:
    """The detection of the same class that overlaps most with the k-th of ours, and its IoU; (-1, 0) without any."""
    same = [j for j, kind in enumerate(theirs.class_ids) if kind == ours.class_ids[k]]
    if not same:
        return -1, 0.0
    overlaps = iou(torch.as_tensor(ours.boxes[k]), torch.as_tensor(theirs.boxes[same]))
    return same[int(overlaps.argmax())], float(overlaps.max())


if __name__ == "__main__":
    main()
