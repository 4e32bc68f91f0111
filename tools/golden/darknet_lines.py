"""Writes tests/golden/darknet_lines.json: what C Darknet prints for its own command lines.

    python tools/golden/darknet_lines.py DARKNET REFERENCE OUT.json

DARKNET is a program built without OpenCV; REFERENCE the folder of reference values with real weights and photos. Times,
the lines before the first head's, and progress that `\\r` overwrites are left out; REFERENCE is written as {reference}.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PHOTOS = "".join(f"{{reference}}/real/{name}.jpg\n" for name in ("dog", "person", "horses"))
# Of VOC's classes, drawn by eye.
LABELS = {
    "dog": "11 0.285 0.66 0.25 0.58\n1 0.45 0.51 0.60 0.58\n6 0.755 0.22 0.29 0.16\n",
    "person": "14 0.36 0.53 0.14 0.56\n11 0.21 0.72 0.22 0.22\n12 0.81 0.58 0.32 0.43\n",
    "horses": "12 0.21 0.57 0.32 0.36\n12 0.68 0.55 0.22 0.26\n",
}
NETS = {"yolo-fastest-1.1": "coco", "mbv2-nano-voc": "voc"}
COMMANDS = [
    *(
        (f"detector test {{data}}/{names}.data {net}", flags)
        for net, names in NETS.items()
        for flags in ("", "-ext_output")
    ),
    ("detector test {data}/coco.data yolo-fastest-1.1", "-thresh 0.03 -ext_output -letter_box"),
    ("detector map {data}/photos.data mbv2-nano-voc", ""),
    ("detector map {data}/photos.data mbv2-nano-voc", "-points 11 -thresh 0.1 -iou_thresh 0.3"),
    ("detector map {data}/photos.data mbv2-nano-voc", "-thresh 0.99"),
    ("detector calc_anchors {data}/photos.data", "-num_of_clusters 1 -width 64 -height 96"),
]


def write_data(reference: Path, folder: Path) -> None:
    """The .data files of the commands."""
    for names, count in (("coco", 80), ("voc", 20)):
        text = f"classes={count}\nnames={reference}/real/{names}.names\n"
        (folder / f"{names}.data").write_text(text)
    for name, rows in LABELS.items():
        (folder / f"{name}.jpg").write_bytes((reference / "real" / f"{name}.jpg").read_bytes())
        (folder / f"{name}.txt").write_text(rows)
    (folder / "list.txt").write_text("".join(f"{folder}/{name}.jpg\n" for name in LABELS))
    (folder / "photos.data").write_text(
        f"classes=20\ntrain={folder}/list.txt\nvalid={folder}/list.txt\nnames={reference}/real/voc.names\n"
    )


def arguments(command: str, flags: str, reference: Path, folder: Path) -> list[str]:
    """The words of a command line; a network stands for its cfg and weights."""
    *words, last = command.format(data=folder).split()
    if last.endswith(".data"):
        files = [last]
    else:
        files = [str(reference / "real" / f"{last}.{ending}") for ending in ("cfg", "weights")]
    return [*words, *files, *flags.split()]


def cleaned(output: str, reference: Path) -> list[str]:
    """The lines that do not change from run to run."""
    start = re.search(r"^( num_of_clusters| calculation|(Enter Image Path: )? Detection layer)", output, re.MULTILINE)
    lines = output[start.start() if start else 0 :].replace(str(reference), "{reference}").split("\n")
    lines = [re.sub(r"Predicted in [\d.]+", "Predicted in N", line.rpartition("\r")[2]) for line in lines]
    text = "\n".join(line for line in lines if not line.startswith(" iterations = "))
    return re.sub(r"\n\n\n+", "\n\n", text).split("\n")


def main(darknet: str, reference: str, out: str) -> None:
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(Path(reference), folder)
        (folder / "data" / "labels").mkdir(parents=True)
        for command, flags in COMMANDS:
            words = [darknet, *arguments(command, flags, Path(reference), folder)]
            photos = PHOTOS.format(reference=reference)
            run = subprocess.run(words, input=photos.encode(), capture_output=True, check=True, cwd=folder)
            results.append({"command": command, "flags": flags, "lines": cleaned(run.stdout.decode(), Path(reference))})
    Path(out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
