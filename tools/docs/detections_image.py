"""Writes docs/images/detections.jpg: what a trained network detects on held-out images of the built-in shapes.

darknet-py train yolov2-tiny-shapes.cfg
python tools/docs/detections_image.py backup/yolov2-tiny-shapes_final.weights data/shapes/valid.txt
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

import darknet_py
from darknet_py.data.datafile import read_names
from darknet_py.data.images import load_image

ROOT = Path(__file__).resolve().parents[2]
SIDE, COLUMNS, IMAGES, GAP = 320, 3, 6, 8


def main(weights: str, image_list: str) -> None:
    net = darknet_py.load(ROOT / "cfg" / "yolov2-tiny-shapes.cfg", weights, device="cpu")
    net.names = read_names(ROOT / "data" / "shapes.names")
    paths = Path(image_list).read_text(encoding="utf-8").split("\n")[1 : IMAGES + 1]
    tiles = []
    for path, detections in zip(paths, net.detect(paths, thresh=0.3), strict=True):
        image = cv2.resize(load_image(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        tiles.append(np.pad(detections.plot(image), ((0, GAP), (0, GAP), (0, 0)), constant_values=255))
    rows = [np.concatenate(tiles[start : start + COLUMNS], 1) for start in range(0, IMAGES, COLUMNS)]
    grid = np.concatenate(rows)[:-GAP, :-GAP, ::-1]
    cv2.imwrite(str(ROOT / "docs" / "images" / "detections.jpg"), grid, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main(*sys.argv[1:])
