"""Writes tests/golden/darknet_lines.json: what C Darknet prints for its own command lines.

    python tools/golden/darknet_lines.py DARKNET DARKNET_WITH_OPENCV REFERENCE OUT.json

DARKNET is a program built without OpenCV, and DARKNET_WITH_OPENCV one built with it, which `demo` needs; REFERENCE the
folder of reference values with real weights and photos. Times, the lines before the first head's, and progress that
`\\r` overwrites are left out; REFERENCE is written as {reference}.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

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
    ("detector valid {data}/photos.data mbv2-nano-voc", ""),
    ("detector valid {data}/numbered.data yolo-fastest-1.1", ""),
    ("detector recall {data}/photos.data mbv2-nano-voc", ""),
    ("detector recall {data}/photos.data yolo-fastest-1.1", ""),
    ("detector demo {data}/coco.data yolo-fastest-1.1", "photos.avi -dont_show -ext_output"),
    ("detector demo {data}/voc.data mbv2-nano-voc", "photos.avi -dont_show -thresh 0.5"),
    ("detector calc_anchors {data}/photos.data", "-num_of_clusters 1 -width 64 -height 96"),
    ("detector train {data}/squares.data squares", "-map -dont_show"),
    ("detector train {data}/squares.data squares", "-dont_show"),
    ("classifier predict {data}/kinds.data kinds", ""),
    ("classifier predict {data}/kinds.data kinds", "-t 3"),
    ("classifier valid {data}/kinds.data kinds", ""),
]
# Networks of these commands are written into the folder; a training starts from random weights.
CFGS = {
    "squares": """[net]
batch=4
subdivisions=2
width=64
height=64
channels=3
momentum=0.9
decay=0.0005
learning_rate=0.001
burn_in=1
max_batches=3
policy=steps
steps=2
scales=.1
[convolutional]
batch_normalize=1
filters=8
size=3
stride=8
pad=1
activation=leaky
[convolutional]
filters=21
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1,2
anchors=10,10,17,17,30,30
classes=2
num=3
jitter=.1
random=0
ignore_thresh=.7
""",
    "kinds": """[net]
width=32
height=32
channels=3
[convolutional]
filters=3
size=3
stride=2
pad=1
activation=leaky
[avgpool]
[softmax]
""",
}
_START = (
    r"^(video file| num_of_clusters| calculation|(Enter Image Path: )? Detection layer|Weights are saved| classes ="
    r"| TOP calc)"
)
_KIND_WEIGHTS = 3 + 3 * 3 * 3 * 3
# What differs between two trainings, which start from random weights.
_RANDOM = re.compile(
    r"(?<=loss=)[\d.]+|(?<=hours left=)[-\d.]+|(?<=: )[\d.]+(?=, [\d.]+ avg)|[\d.]+(?= avg)|[\d.]+(?= seconds)"
    r"|[-\d.]+(?= hours left)|(?<=detections_count = )\d+|(?<=TP = )\d+|(?<=FP = )\d+|(?<=FN = )\d+|(?<=ap = )[\d.]+"
    r"|(?<=precision = )-?[\d.na]+|(?<=recall = )-?[\d.na]+|(?<=F1-score = )-?[\d.na]+|(?<=average IoU = )[\d.]+"
    r"|(?<=\(mAP@0.50\) = )[\d.]+(, or [\d.]+)?"
)


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
    photos = [folder / f"{number + 1}.jpg" for number in range(len(LABELS))]  # the numbers are ids in COCO's results
    for photo, name in zip(photos, LABELS, strict=True):
        photo.write_bytes((folder / f"{name}.jpg").read_bytes())
    (folder / "numbered.txt").write_text("".join(f"{photo}\n" for photo in photos))
    (folder / "numbered.data").write_text(
        f"classes=80\nvalid={folder}/numbered.txt\nnames={reference}/real/coco.names\neval=coco\n"
    )
    (folder / "results").mkdir()
    write_video(folder / "photos.avi", photos)
    for name, text in CFGS.items():
        (folder / f"{name}.cfg").write_text(text)
    (folder / "kinds.names").write_text("dog\nperson\nhorses\n")
    (folder / "kinds.data").write_text(
        f"classes=3\ntop=2\nlabels={folder}/kinds.names\nnames={folder}/kinds.names\nvalid={folder}/list.txt\n"
    )
    weights = np.sin(np.arange(_KIND_WEIGHTS) * 3.7).astype("<f4") * 2
    (folder / "kinds.weights").write_bytes(struct.pack("<iiiQ", 0, 2, 5, 0) + weights.tobytes())
    write_squares(folder)


def write_squares(folder: Path) -> None:
    """Images of one square each, of two classes."""
    (folder / "squares").mkdir()
    paths = []
    for number in range(8):
        image = np.full((64, 64, 3), 90, np.uint8)
        left, top = 8 + 4 * number, 40 - 4 * number
        image[top : top + 16, left : left + 16] = (255, 0, 0) if number % 2 else (0, 0, 255)
        path = folder / "squares" / f"{number}.png"
        cv2.imwrite(str(path), image)
        row = f"{number % 2} {(left + 8) / 64} {(top + 8) / 64} 0.25 0.25\n"
        path.with_suffix(".txt").write_text(row)
        paths.append(f"{path}\n")
    (folder / "squares.txt").write_text("".join(paths))
    (folder / "squares.names").write_text("blue\nred\n")
    (folder / "squares.data").write_text(
        f"classes=2\ntrain={folder}/squares.txt\nvalid={folder}/squares.txt\nnames={folder}/squares.names\n"
        f"backup={folder}/squares\n"
    )


def write_video(path: Path, photos: Sequence[Path]) -> None:
    """A video of the photos and their mirror images. Each frame is a PNG file: any decoder gives the same pixels."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MPNG"), 5, (416, 312))
    images = [cv2.resize(cv2.imread(str(photo)), (416, 312)) for photo in photos]
    for image in (*images, *(np.ascontiguousarray(image[:, ::-1]) for image in images)):
        writer.write(image)
    writer.release()


def result_lines(folder: Path) -> list[str]:
    """The rows of the result files of `detector valid`, after the name of their file, sorted."""
    lines = []
    for file in sorted(folder.iterdir()):
        rows = [row.rstrip(",") for row in file.read_text().splitlines() if row not in ("[", "]", "")]
        lines += [f"{file.name}: {row}" for row in sorted(rows)]
    return lines


def arguments(command: str, flags: str, reference: Path, folder: Path) -> list[str]:
    """The words of a command line; a network stands for its cfg and weights."""
    *words, last = command.format(data=folder).split()
    if last.endswith(".data"):
        files = [last]
    elif last in CFGS:
        files = [str(folder / f"{last}.{ending}") for ending in ("cfg", "weights")][: 1 if "train" in command else 2]
    else:
        files = [str(reference / "real" / f"{last}.{ending}") for ending in ("cfg", "weights")]
    return [*words, *files, *flags.split()]


def cleaned(output: str, reference: Path) -> list[str]:
    """The lines that do not change from run to run."""
    start = re.search(_START, output, re.MULTILINE)
    text = output[start.start() if start else 0 :].replace(str(reference), "{reference}")
    text = re.sub(r"\x1b\[[HJ]|\x07", "", re.sub(r"^Loaded: .*\n", "", text, flags=re.MULTILINE))
    lines = [re.sub(r"Predicted in [\d.]+", "Predicted in N", line.rpartition("\r")[2]) for line in text.split("\n")]
    lines = [re.sub(r"FPS:[\d.]+", "FPS:N", line) for line in lines]
    if start and start[0].startswith("Weights"):
        lines = [_RANDOM.sub("N", line) for line in lines]
    text = "\n".join(line for line in lines if not line.startswith(" iterations = "))
    return re.sub(r"\n\n\n+", "\n\n", text).split("\n")


def main(darknet: str, darknet_with_opencv: str, reference: str, out: str) -> None:
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(Path(reference), folder)
        (folder / "data" / "labels").mkdir(parents=True)
        for command, flags in COMMANDS:
            program = darknet_with_opencv if "demo" in command else darknet
            words = [program, *arguments(command, flags, Path(reference), folder)]
            photos = PHOTOS.format(reference=reference)
            run = subprocess.run(words, input=photos.encode(), capture_output=True, check=True, cwd=folder)
            lines = cleaned(run.stdout.decode(), Path(reference))
            if "recall" in command:
                lines = [line for line in run.stderr.decode().split("\n") if "RPs/Img" in line]
            elif "detector valid" in command:
                lines = result_lines(folder / "results")
                for file in (folder / "results").iterdir():
                    file.unlink()
            results.append({"command": command, "flags": flags, "lines": lines})
    Path(out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
