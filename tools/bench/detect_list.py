"""Times `darknet-py detect` on lists of photos beside a loop with OpenCV's dnn, in turns, and their peak memory.

    python tools/bench/detect_list.py CFG WEIGHTS PHOTO … [--counts 10 1000] [--rounds 3] [--large 20]
        [--opencv-python PYTHON] [--batch N] [--threads N] [--json FILE]

The photos are copied to as many files as are counted. The last list has photos of 12 megapixels (4000 x 3000), made of
the given ones. Each run is a process of its own that reads, detects (NMS included), draws and writes every photo.
Photos per second leave out Python's start and the loading of the network. Processor time is that of all threads: on a
busy machine it says more. The loop is what OpenCV's samples do: imread, blobFromImage, forward, NMSBoxes, rectangle,
putText, imwrite.

--opencv-python is the Python of an environment with another OpenCV (4.12), as OpenCV 5 has another dnn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[2]

OURS = """
import resource, sys, time
import darknet_py.cli.detect as command
from darknet_py.cli import main
files = command.detect_files
def timed(*args, **options):
    global processor
    start, processor = time.perf_counter(), time.process_time()
    yield from files(*args, **options)
    seconds.append(time.perf_counter() - start)
seconds = []
command.detect_files = timed
assert main(sys.argv[1:]) == 0
"""

OPENCV = """
import resource, sys, time
import cv2, numpy as np
cfg, weights, folder, out, threads = sys.argv[1:]
if threads != "0":
    cv2.setNumThreads(int(threads))
net = cv2.dnn.readNetFromDarknet(cfg, weights)
size = next(int(line.split("=")[1]) for line in open(cfg) if line.startswith("width"))
names = net.getUnconnectedOutLayersNames()
seconds = []
import glob
start, processor = time.perf_counter(), time.process_time()
for path in sorted(glob.glob(folder + "/*.jpg")):
    image = cv2.imread(path)
    height, width = image.shape[:2]
    net.setInput(cv2.dnn.blobFromImage(image, 1 / 255, (size, size), swapRB=True, crop=False))
    rows = np.concatenate(net.forward(names))
    scores = rows[:, 5:]
    labels = scores.argmax(1)
    best = scores[np.arange(len(rows)), labels]
    kept = best > 0.25
    rows, labels, best = rows[kept], labels[kept], best[kept]
    boxes = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]), 1) * [width, height, width, height]
    for i in cv2.dnn.NMSBoxesBatched(boxes.tolist(), best.tolist(), labels.tolist(), 0.25, 0.45) if len(rows) else ():
        x, y, w, h = boxes[i].astype(int).tolist()
        cv2.rectangle(image, (x, y), (x + w, y + h), (0, 200, 0), 2)
        cv2.putText(image, f"{labels[i]} {best[i]:.2f}", (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 200, 0), 2)
    cv2.imwrite(out + "/" + path.rsplit("/", 1)[1], image)
seconds.append(time.perf_counter() - start)
"""

REPORT = """
used = resource.getrusage(resource.RUSAGE_SELF)
print("RESULT", seconds[0], time.process_time() - processor, used.ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg")
    parser.add_argument("weights")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--counts", nargs="*", type=int, default=[10, 1000])
    parser.add_argument("--large", type=int, default=20, help="photos of 12 megapixels; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", nargs="*", default=["default"], help="of ours; several are compared")
    parser.add_argument("--threads", type=int, default=0, help="of both (default: what they choose)")
    parser.add_argument("--opencv-python", default=sys.executable)
    parser.add_argument("--no-opencv", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    version = subprocess.check_output(
        [args.opencv_python, "-c", "import cv2; print(cv2.__version__)"], text=True
    ).strip()
    loads = [os.getloadavg()[0]]
    report: dict[str, object] = {"cfg": Path(args.cfg).name, "opencv": version, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch:
        lists = {f"{count} photos": copies(Path(scratch, str(count)), args.photos, count) for count in args.counts}
        if args.large:
            lists[f"{args.large} of 12 megapixels"] = copies(
                Path(scratch, "large"), args.photos, args.large, large=True
            )
        for name, folder in lists.items():
            count = len(list(folder.iterdir()))
            out = Path(scratch, "out")
            threads = str(args.threads)
            arms = {
                f"ours, batch {batch}": [
                    *(sys.executable, "-c", OURS + REPORT, "detect", args.cfg, str(folder), "--weights", args.weights),
                    *("--out", str(out), "--device", "cpu", *([] if batch == "default" else ["--batch", batch])),
                ]
                for batch in args.batch
            }
            if not args.no_opencv:
                words = ["-c", OPENCV + REPORT, args.cfg, args.weights, str(folder), str(out), threads]
                arms["OpenCV"] = [args.opencv_python, *words]
            spent: dict[str, list[tuple[float, ...]]] = {arm: [] for arm in arms}
            for _ in range(args.rounds):
                for arm, command in arms.items():
                    shutil.rmtree(out, ignore_errors=True)
                    out.mkdir()
                    spent[arm].append(run(command, args.threads))
                    assert len(list(out.iterdir())) == count
            rows = report[name] = {
                arm: {
                    "photos/s": round(count / statistics.median(seconds for seconds, _, _ in values), 2),
                    "processor ms": round(1e3 * statistics.median(used for _, used, _ in values) / count, 2),
                    "peak MB": round(max(peak for _, _, peak in values)),
                }
                for arm, values in spent.items()
            }
            for arm, row in rows.items():
                ratio = ""
                if "OpenCV" in rows and arm != "OpenCV":
                    pairs = zip(spent["OpenCV"], spent[arm], strict=True)
                    row["x OpenCV"] = round(statistics.median(theirs[0] / ours[0] for theirs, ours in pairs), 2)
                    ratio = f"{row['x OpenCV']:.2f} x OpenCV"
                numbers = f"{row['photos/s']:9.2f} photos/s{row['processor ms']:9.2f} ms of processor time each"
                print(f"{name:22}{arm:16}{numbers}{row['peak MB']:7} MB  {ratio}", flush=True)
    report["load"] = [*loads, os.getloadavg()[0]]
    print(f"OpenCV {version}, load average {loads[0]:.1f} before, {os.getloadavg()[0]:.1f} after")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def copies(folder: Path, photos: list[Path], count: int, large: bool = False) -> Path:
    """A folder with `count` JPEG files, which repeat the photos."""
    folder.mkdir()
    contents = [photo.read_bytes() for photo in photos]
    if large:
        enlarged = [cv2.resize(cv2.imread(str(photo)), (4000, 3000), interpolation=cv2.INTER_CUBIC) for photo in photos]
        contents = [cv2.imencode(".jpg", image)[1].tobytes() for image in enlarged]
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(contents[number % len(contents)])
    return folder


def run(command: list[str], threads: int) -> tuple[float, ...]:
    """Seconds by the clock and of processor time, and megabytes of a process."""
    limits = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    environment = {key: value for key, value in os.environ.items() if threads or key != "OMP_NUM_THREADS"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment | limits).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT"))
    return tuple(float(value) for value in line.split()[1:])


if __name__ == "__main__":
    main()
