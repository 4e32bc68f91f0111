"""Writes tests/golden/jpeg.npz: small JPEG files of every kind, and their pixels as decoded by stb_image.

    python tools/golden/jpeg.py DARKNET_CHECKOUT

Compiles the checkout's 3rdparty/stb/include/stb_image.h with a few lines of C. The image is one of the built-in data;
the files differ in size, subsampling and quality, are progressive or not, and have restart markers or not.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from darknet_py.data.builtin.shapes import draw_image

OUT = Path(__file__).parents[2] / "tests" / "golden" / "jpeg.npz"
KINDS = ("411", "420", "422", "440", "444")
SIZES = ((1, 1), (3, 2), (17, 9), (40, 33))
PROGRAM = """
#define STB_IMAGE_IMPLEMENTATION
#include "stb_image.h"
int main(int count, char **names) {
  int width, height, channels = atoi(names[2]);
  unsigned char *pixels = stbi_load(names[1], &width, &height, &(int){0}, channels);
  if (!pixels) return 1;
  fwrite((int[]){height, width, channels}, sizeof(int), 3, stdout);
  fwrite(pixels, 1, width * height * channels, stdout);
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("darknet", type=Path, help="a checkout of AlexeyAB/darknet")
    include = parser.parse_args().darknet / "3rdparty" / "stb" / "include"
    jpegs, arrays = files(), {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "read"
        command = ["cc", "-O2", f"-I{include}", "-xc", "-", "-o", str(program), "-lm"]
        subprocess.run(command, input=PROGRAM.encode(), check=True)
        for name, data in jpegs.items():
            path = Path(folder) / name
            path.write_bytes(data)
            arrays[name] = np.frombuffer(data, np.uint8)
            for channels in (1, 3):
                raw = subprocess.run([program, path, str(channels)], stdout=subprocess.PIPE, check=True).stdout
                shape = np.frombuffer(raw, np.int32, 3)
                arrays[f"{name}_{channels}"] = np.frombuffer(raw, np.uint8, offset=12).reshape(shape)
    np.savez_compressed(OUT, **arrays)
    print(f"{len(jpegs)} files in {OUT}")


def files() -> dict[str, bytes]:
    image = draw_image("train", 0).image
    jpegs = {}
    for (width, height), kind, progressive in product(SIZES, KINDS, (0, 1)):
        part = image[40 : 40 + height, 60 : 60 + width]
        options = {
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR: getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{kind}"),
            cv2.IMWRITE_JPEG_PROGRESSIVE: progressive,
            cv2.IMWRITE_JPEG_RST_INTERVAL: 2 * (width % 2),
            cv2.IMWRITE_JPEG_QUALITY: 96 if progressive else 60,
        }
        _, data = cv2.imencode(".jpg", part, [number for pair in options.items() for number in pair])
        jpegs[f"{width}x{height}_{kind}{'_progressive' * progressive}"] = data.tobytes()
    jpegs["gray"] = cv2.imencode(".jpg", image[:20, :30, 1])[1].tobytes()
    # Components called R, G and B are RGB; OpenCV writes none of the other signs of that, such as an Adobe header.
    jpegs["rgb"] = _rename_components(jpegs["40x33_444"])
    return jpegs


def _rename_components(data: bytes) -> bytes:
    """Renames the components to R, G and B, in the frame and in its only scan."""
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    changed = bytearray(data)
    for number, letter in enumerate(b"RGB"):
        changed[frame + 10 + 3 * number] = changed[scan + 5 + 2 * number] = letter
    return bytes(changed)


if __name__ == "__main__":
    main()
