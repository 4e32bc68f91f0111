"""Long runs whose memory, descriptors, threads and shared memory have to stay flat.

    python tools/hostile/soak.py [PART …] [--minutes 60] [--scale 1] [--out docs/bench] [--plot docs/images/soak.svg]

Parts: `training` is 10,000 iterations of a tiny network with two loader processes and an evaluation every 500; `api`
is 100,000 images by `Network.detect`; `list` is `detect` on a list of 100,000 images; `video` is `video` for an hour on
a stream of 10 frames a second, with tracking, a video file, JSON and a client of its MJPEG stream that comes and goes;
the stream is lost every ten minutes.

All processes of a part are looked at every three seconds. A value grows where the slope of its second half (the median
of the slopes between all pairs of samples), times the length of that half, is above its bound (`BOUNDS`). Each part
writes soak-PART.json into --out, and is not run again while that file is there. Exits with code 1 where a value grows,
a process fails, or processes or shared memory are left over.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import darknet_py
from darknet_py.serving.listen import listen
from darknet_py.serving.streams import MJPEG_STREAM, StreamServer, mjpeg_part
from darknet_py.view.figure import add_axes, add_text, new_figure, plot_style, save_figure

BOUNDS = {
    "memory, MiB": 8.0,
    "descriptors": 0.9,
    "threads": 0.9,
    "shared memory, MiB": 1.0,
}  # growth in the second half
_INTERVAL = 3.0  # seconds between samples
_RATE = 10  # frames of the stream per second
_LOST_EVERY = 600  # seconds
_TRAINED = 300  # iterations, after which there is something to detect
_CFG = """[net]
width=64
height=64
channels=3
batch=4
subdivisions=1
learning_rate=0.001
burn_in=10
max_batches={iterations}
policy=steps
steps={iterations}
scales=1
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=4
stride=4
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=12,12,24,24
classes=2
num=2
"""


class Part(NamedTuple):
    """command: what is run. beside: what has to run at the same time. work: what it does, in words."""

    command: list[str]
    work: str
    beside: Callable[[], AbstractContextManager[None]] = nullcontext


def photo(number: int) -> np.ndarray:
    """A square that moves over noise, uint8 (96, 128, 3)."""
    image = np.random.default_rng(number).integers(0, 60, (96, 128, 3), np.uint8)
    x, y = number * 7 % 96, number * 5 % 64
    image[y : y + 32, x : x + 32] = 230
    return image


def data_set(folder: Path, iterations: int = _TRAINED) -> None:
    """A cfg, its weights (but for a training of another length), and a data set of 64 images."""
    (folder / "net.cfg").write_text(_CFG.format(iterations=iterations))
    paths = [folder / f"{number}.png" for number in range(64)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), photo(number))
        x, y = (number * 7 % 96 + 16) / 128, (number * 5 % 64 + 16) / 96
        path.with_suffix(".txt").write_text(f"{number % 2} {x} {y} {32 / 128} {32 / 96}\n")
    (folder / "train.txt").write_text("".join(f"{path}\n" for path in paths[:48]))
    (folder / "valid.txt").write_text("".join(f"{path}\n" for path in paths[48:]))
    (folder / "x.names").write_text("even\nodd\n")
    lists = f"train={folder}/train.txt\nvalid={folder}/valid.txt\n"
    (folder / "x.data").write_text(f"classes=2\n{lists}names={folder}/x.names\nbackup={folder}/out\n")
    if iterations == _TRAINED:
        command = [*_program("train", folder), "--data", str(folder / "x.data"), "--quiet", "--map", "off"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _program(command: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "darknet_py", command, str(folder / "net.cfg")]


def _weights(folder: Path) -> list[str]:
    return ["--weights", str(folder / "out" / "net_final.weights"), "--thresh", "0.1"]


def training(folder: Path, options: argparse.Namespace) -> Part:
    iterations = int(10_000 * options.scale)
    data_set(folder, iterations)
    command = [*_program("train", folder), "--data", str(folder / "x.data")]
    command += ["--workers", "2", "--map", "500", "--quiet"]
    return Part(command, f"{iterations:,} iterations, an evaluation every 500")


def api(folder: Path, options: argparse.Namespace) -> Part:
    images = int(100_000 * options.scale)
    data_set(folder)
    return Part([sys.executable, __file__, "api", "--inside", str(folder), str(images)], f"{images:,} images")


def detect_by_api(folder: Path, count: int) -> None:
    """What `api` runs in a process of its own: files, arrays and lists of both in turn."""
    net = darknet_py.load(folder / "net.cfg", folder / "out" / "net_final.weights")
    paths, arrays = [str(folder / f"{number}.png") for number in range(64)], [photo(number) for number in range(64)]
    done = 0
    while done < count:
        k = done % 64
        images: list[Any] = [[paths[k]], [arrays[k]], [paths[k], arrays[k]]][done // 64 % 3]
        done += len(net.detect(images, thresh=0.1))


def image_list(folder: Path, options: argparse.Namespace) -> Part:
    images = int(100_000 * options.scale)
    data_set(folder)
    (folder / "many").mkdir()
    paths = [folder / "many" / f"{number}.png" for number in range(images)]
    for number, path in enumerate(paths):
        os.link(folder / f"{number % 64}.png", path)
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    command = [*_program("detect", folder), str(folder / "list.txt"), *_weights(folder), "--no-images"]
    return Part([*command, "--json", str(folder / "found.json")], f"{images:,} images")


def video(folder: Path, options: argparse.Namespace) -> Part:
    data_set(folder)
    source, stream = (_free_port() for _ in range(2))
    command = [*_program("video", folder), f"http://127.0.0.1:{source}/", *_weights(folder), "--track"]
    command += ["--out", str(folder / "out.mp4"), "--json", str(folder / "found.json"), "--mjpeg-port", str(stream)]
    command += ["--seconds", str(round(60 * options.minutes))]

    @contextmanager
    def beside() -> Iterator[None]:
        stop = threading.Event()
        threads = [
            threading.Thread(target=_send_clip, args=(source, stop)),
            threading.Thread(target=_come_and_go, args=(stream, stop)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    return Part(command, f"{options.minutes:g} minutes, {_RATE} frames a second", beside)


def _free_port() -> int:
    with listen("127.0.0.1", 0) as listening:
        port: int = listening.getsockname()[1]
        return port


def _send_clip(port: int, stop: threading.Event) -> None:
    """A camera: the same ten seconds again and again. It goes away every `_LOST_EVERY` seconds."""
    clip = [mjpeg_part(cv2.imencode(".jpg", photo(number))[1].tobytes()) + b"\r\n" for number in range(10 * _RATE)]
    number, begin = 0, time.monotonic()
    while not stop.is_set():
        server = StreamServer(listen("127.0.0.1", port), MJPEG_STREAM, live=True)
        for _ in range(_LOST_EVERY * _RATE):
            server.send(clip[number % len(clip)])
            number += 1
            if stop.wait(max(begin + number / _RATE - time.monotonic(), 0)):
                break
        server.close()


def _come_and_go(port: int, stop: threading.Event) -> None:
    """A client that reads the stream for ten seconds, goes away, and comes back."""
    while not stop.wait(5):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            end = time.monotonic() + 10
            while time.monotonic() < end and not stop.is_set() and client.recv(1 << 16):
                pass


PARTS: dict[str, Callable[[Path, argparse.Namespace], Part]] = {
    "training": training,
    "api": api,
    "list": image_list,
    "video": video,
}


def processes(session: int) -> list[Path]:
    """The folders in /proc of the processes of a session that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(path)
    return found


def look(session: int, names: set[str]) -> dict[str, float]:
    """One sample of all processes. The files of shared memory that have a name are added to `names`."""
    sample = dict.fromkeys((*BOUNDS, "processes"), 0.0)
    shared: dict[str, int] = {}
    for path in processes(session):
        with suppress(OSError):  # it has just ended
            status = dict(line.split(":\t", 1) for line in (path / "status").read_text().splitlines() if ":\t" in line)
            descriptors = len(os.listdir(path / "fd"))
            for line in (path / "maps").read_text().splitlines():
                area, _, _, device, inode, *name = line.split(maxsplit=5)
                if name and name[0].startswith(("/dev/shm/", "/dev/zero", "/memfd:")):
                    start, end = (int(address, 16) for address in area.split("-"))
                    shared[f"{device} {inode}"] = end - start
                    if name[0].startswith("/dev/shm/") and not name[0].endswith("(deleted)"):
                        names.add(name[0])
            sample["memory, MiB"] += int(status.get("VmRSS", "0 kB").split()[0]) / 1024
            sample["descriptors"] += descriptors
            sample["threads"] += int(status["Threads"])
            sample["processes"] += 1
    sample["shared memory, MiB"] = sum(shared.values()) / 2**20
    return sample


def growth(seconds: list[float], values: list[float]) -> float:
    """How much the values rise in the second half: the median slope of all pairs of samples, times its length."""
    late = [k for k, second in enumerate(seconds) if second >= seconds[-1] / 2]
    x, y = np.array(seconds)[late], np.array(values)[late]
    i, j = np.triu_indices(len(late), 1)
    if not len(i):
        return 0.0
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])) * (x[-1] - x[0]))


def watch(part: Part, interval: float = _INTERVAL) -> dict[str, Any]:
    """Runs a part to its end and looks at it meanwhile."""
    samples: dict[str, list[float]] = {name: [] for name in ("seconds", *BOUNDS, "processes")}
    names: set[str] = set()
    problems = []
    with part.beside(), tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begin = time.monotonic()
        process = subprocess.Popen(part.command, stdout=output, stderr=errors, start_new_session=True)
        try:
            while process.poll() is None:
                sample = {"seconds": time.monotonic() - begin, **look(process.pid, names)}
                if sample["processes"]:
                    for name, value in sample.items():
                        samples[name].append(round(value, 2))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(interval)
        finally:
            left = processes(process.pid)
            for path in left:
                with suppress(ProcessLookupError):
                    os.kill(int(path.name), signal.SIGKILL)
        output.seek(0)
        last = output.read().decode(errors="replace").splitlines()[-1:]
        if process.returncode:
            errors.seek(0)
            problems.append(f"exit code {process.returncode}: {errors.read()[-500:].decode(errors='replace')}")
    seconds = round(time.monotonic() - begin)
    if left:
        problems.append(f"processes left over: {len(left)}")
    problems += [f"shared memory left over: {name}" for name in sorted(names) if os.path.exists(name)]
    grown = {name: round(growth(samples["seconds"], samples[name]), 2) for name in BOUNDS}
    problems += [f"{name}: grew by {grown[name]} in the second half" for name in BOUNDS if grown[name] > BOUNDS[name]]
    return {
        "work": part.work,
        "last line": re.sub(re.escape(tempfile.gettempdir()) + r"/\w+", "FOLDER", "".join(last)),
        "seconds": seconds,
        "growth in the second half": grown,
        "bounds": BOUNDS,
        "problems": problems,
        "samples": samples,
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """JSON with a line per column of samples."""
    samples = result["samples"]
    columns = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in samples.items())
    text = json.dumps({**result, "samples": 0}, indent=1).replace('"samples": 0', '"samples": {\n' + columns + "\n }")
    path.write_text(text + "\n", encoding="utf-8")


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """A row per value, a column per part."""
    width, height, left, top, gap = 230, 90, 60, 64, 52
    with plot_style():
        figure = new_figure(left + len(results) * (width + gap), top + len(BOUNDS) * (height + gap))
        for column, (name, result) in enumerate(results.items()):
            x = left + column * (width + gap)
            add_text(figure, name, x, 22, 15)
            for row, value in enumerate(BOUNDS):
                y = top + row * (height + gap)
                values = result["samples"][value]
                add_text(figure, value, x, y - 8, 12)
                axes = add_axes(figure, x, y, width, height)
                axes.plot([second / 60 for second in result["samples"]["seconds"]], values, color="#3f7ee8", lw=1.2)
                axes.set_ylim(0, max(values) * 1.15 or 1)
                axes.tick_params(length=0, labelsize=10)
                if row == len(BOUNDS) - 1:
                    add_text(figure, "minutes", x + width, y + height + 32, 11, right=True)
    save_figure(path, figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=60, help="length of `video`")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the iterations and images of a whole run")
    parser.add_argument("--out", type=Path, default=Path("docs/bench"), help="folder of the results")
    parser.add_argument("--plot", type=Path, help="SVG file of all results that are there")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return detect_by_api(Path(options.inside[0]), int(options.inside[1]))
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"expected {', '.join(PARTS)}, got {', '.join(unknown)}")
    for number in signal.SIGINT, signal.SIGTERM:  # also where a shell starts it in the background
        signal.signal(number, signal.default_int_handler)
    files = {name: options.out / f"soak-{name}.json" for name in PARTS}
    for name in tqdm([name for name in options.parts or PARTS if not files[name].exists()], unit="part"):
        with tempfile.TemporaryDirectory() as folder:
            write(files[name], watch(PARTS[name](Path(folder), options)))
    results = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}
    if options.plot:
        draw(results, options.plot)
    for name, result in results.items():
        print(f"{name} ({result['work']}, {result['seconds']} s): {result['growth in the second half']}")
        print("".join(f"  {problem}\n" for problem in result["problems"]), end="")
    sys.exit(any(result["problems"] for result in results.values()))


if __name__ == "__main__":
    main()
