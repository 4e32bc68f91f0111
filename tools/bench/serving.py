"""Servers under load: `serve` at twice its capacity, hostile clients, and streams of `video` with a stalled reader.

    python tools/bench/serving.py CFG WEIGHTS PHOTO… [--seconds 300] [--json FILE]

Clients are a process of their own, so that they do not take Python's lock from the server, but they share its
processors. `serve` is measured in rounds, since a busy machine is now faster, now slower:

1. Best: as many clients as images in a batch, each asking again as soon as it is answered (a quarter of a round).
2. Overload: requests arrive at twice that rate, however long the answers take (the rest of the round).

Throughput is stated by the clock, without the processor time of the clients where there is one processor alone (they
send twice as much under overload), and, for machines where others work too, by the server's processor time.

Then hostile clients: broken forms, a bomb of 100 megapixels, bodies of 1 GB, heads and bodies that trickle in, wrong
methods, while a client goes on asking. Then three MJPEG and three JSON readers of `video`'s servers, of which one of
each kind stalls. The program ends with status 1 where something is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from darknet_py.serving.listen import listen
from darknet_py.serving.streams import JSON_STREAM, MJPEG_STREAM, StreamServer, mjpeg_part

QUEUE = 16
TIMEOUT = 10
CLIENTS = 8
Result = dict[str, Any]


@contextmanager
def serving(cfg: str, weights: str) -> Iterator[tuple[int, int]]:
    """A `serve` process: its port and its number."""
    command = [sys.executable, "-m", "darknet_py", "serve", cfg, "--weights", weights, "--port", "0"]
    command += ["--queue", str(QUEUE), "--timeout", str(TIMEOUT)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        line = next(line for line in process.stderr if "serving" in line)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield int(re.findall(r":(\d+)/", line)[0]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait(60):
                raise SystemExit(f"serve: exit status {process.returncode} after SIGTERM")


async def ask(port: int, photo: bytes) -> tuple[int, float]:
    """The status and the seconds of one request; status 0 where the connection breaks."""
    begin = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /detect HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(photo)}\r\n\r\n"
        writer.write(head.encode() + photo)
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1]), time.perf_counter() - begin
    except (OSError, IndexError, ValueError):
        return 0, time.perf_counter() - begin


async def closed_loop(port: int, photos: list[bytes], seconds: float) -> list[tuple[int, float]]:
    """Clients that ask again as soon as they are answered."""
    end = time.monotonic() + seconds
    answers: list[tuple[int, float]] = []

    async def client(number: int) -> None:
        while time.monotonic() < end:
            answers.append(await ask(port, photos[number % len(photos)]))
            number += 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return answers


async def open_loop(port: int, photos: list[bytes], seconds: float, rate: float) -> list[tuple[int, float]]:
    """Requests at a rate."""
    begin = time.monotonic()
    tasks: list[asyncio.Task[tuple[int, float]]] = []
    while (elapsed := time.monotonic() - begin) < seconds:
        while len(tasks) < elapsed * rate:
            tasks.append(asyncio.create_task(ask(port, photos[len(tasks) % len(photos)])))
        await asyncio.sleep(0.002)
    return list(await asyncio.gather(*tasks))


def run_load(queue: Any, kind: str, port: int, photos: list[bytes], seconds: float, rate: float) -> None:
    load = closed_loop(port, photos, seconds) if kind == "closed" else open_loop(port, photos, seconds, rate)
    begin = time.process_time()
    answers = asyncio.run(load)
    queue.put((answers, time.process_time() - begin))


def measure(kind: str, port: int, pid: int, photos: list[bytes], seconds: float, rate: float = 0) -> Result:
    """Statuses, throughput, latencies and the server's memory, of a load by a process of its own."""
    context = get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=run_load, args=(queue, kind, port, photos, seconds, rate))
    memory: list[float] = []
    cpu = cpu_seconds(pid)
    process.start()
    while queue.empty() and process.is_alive():
        memory.append(resident(pid))
        time.sleep(0.5)
    answers, load_seconds = queue.get()
    process.join()
    taken = max(seconds, max((latency for _, latency in answers), default=0))
    free = taken - load_seconds if len(os.sched_getaffinity(0)) == 1 else taken
    latencies = sorted(latency for status, latency in answers if status == 200)
    return {
        "statuses": {str(status): count for status, count in sorted(Counter(status for status, _ in answers).items())},
        "images_per_second": len(latencies) / taken,
        "images_per_free_second": len(latencies) / free,
        "cpu_seconds_per_image": (cpu_seconds(pid) - cpu) / len(latencies),
        "p50_seconds": statistics.median(latencies),
        "p99_seconds": latencies[int(0.99 * (len(latencies) - 1))],
        "memory_mb": memory,
    }


def in_rounds(port: int, pid: int, photos: list[bytes], seconds: float, rounds: int) -> Result:
    """The best and the overload in turns."""
    best, overload = [], []
    for _ in range(rounds):
        best.append(measure("closed", port, pid, photos, seconds / rounds / 4))
        rate = 2 * best[-1]["images_per_second"]
        overload.append(measure("open", port, pid, photos, 3 * seconds / rounds / 4, rate))
    return {
        "best_images_per_second": [part["images_per_second"] for part in best],
        "overload_images_per_second": [part["images_per_second"] for part in overload],
        "ratios": [b["images_per_second"] / a["images_per_second"] for a, b in zip(best, overload, strict=True)],
        "ratios_without_load": [
            b["images_per_free_second"] / a["images_per_free_second"] for a, b in zip(best, overload, strict=True)
        ],
        "cpu_ratios": [
            a["cpu_seconds_per_image"] / b["cpu_seconds_per_image"] for a, b in zip(best, overload, strict=True)
        ],
        "statuses": dict(sum((Counter(part["statuses"]) for part in overload), Counter())),
        "p50_seconds": [part["p50_seconds"] for part in overload],
        "p99_seconds": [part["p99_seconds"] for part in overload],
        "memory_mb": thirds([value for part in overload for value in part["memory_mb"]]),
    }


def thirds(memory: list[float]) -> dict[str, float]:
    """The medians of the first and of the last third."""
    third = max(len(memory) // 3, 1)
    return {"first_third": statistics.median(memory[:third]), "last_third": statistics.median(memory[-third:])}


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, which other processes of the machine do not change much."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def exchange(port: int, data: bytes, more: Iterable[bytes] = (), timeout: float = 40) -> str:
    """The status line that is answered to some bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        with suppress(OSError):
            connection.sendall(data)
            for chunk in more:
                connection.sendall(chunk)
        with suppress(OSError):
            return connection.recv(1000).split(b"\r\n")[0].decode()
        return "closed"


def bomb() -> bytes:
    """A PNG file of 100 megapixels in a few kB."""
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(300_010_000), 9)), (b"IEND", b"")):
        file += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return file


def trickle(piece: bytes) -> Iterator[bytes]:
    """A byte now and then, until the other end has enough."""
    for _ in range(200):
        yield piece
        time.sleep(0.2)


def hostile(port: int, pid: int, photo: bytes) -> Result:
    """What hostile clients are answered, and whether others are still served meanwhile."""
    post = b"POST /detect HTTP/1.1\r\nHost: a\r\n"
    form = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n%b"
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nxxx'
    image_bomb = bomb()
    cases = {
        "form without its end": post + form % (len(part), part),
        "no form": post + form % (7, b"no form"),
        "bomb": post + b"Content-Length: %d\r\n\r\n" % len(image_bomb) + image_bomb,
        "length is not a number": post + b"Content-Length: many\r\n\r\n",
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
        "PUT": b"PUT /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "unknown method": b"BREW /detect HTTP/1.1\r\nHost: a\r\n\r\n",
        "long head": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    }
    answers = {name: exchange(port, data) for name, data in cases.items()}
    million = bytes(1 << 20)
    answers["1 GB"] = exchange(port, post + b"Content-Length: %d\r\n\r\n" % (1 << 30), [million] * 1024)
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    answers["1 GB chunked"] = exchange(port, chunked, [b"100000\r\n" + million + b"\r\n"] * 1024)
    slow: dict[str, str] = {}
    slow_cases = {
        "slow head": (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
        "slow body": (post + b"Content-Length: 1000\r\n\r\n", b"x"),
    }
    threads = [
        threading.Thread(target=lambda n=name, c=case: slow.update({n: exchange(port, c[0], trickle(c[1]))}))
        for name, case in slow_cases.items()
        for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    meanwhile = [asyncio.run(ask(port, photo))[0] for _ in range(20)]
    for thread in threads:
        thread.join()
    return {"answers": {**answers, **slow}, "meanwhile": Counter(map(str, meanwhile)), "memory_mb": resident(pid)}


def streams(seconds: float) -> Result:
    """Frames that six readers receive of a stream of 100 frames per second; one reader of each kind stalls."""
    jpeg = os.urandom(30_000)
    servers, ports = [], []
    for kind in (MJPEG_STREAM, JSON_STREAM):
        listening = listen("127.0.0.1", 0)
        ports.append(listening.getsockname()[1])
        servers.append(StreamServer(listening, kind, live=True))
    counts: dict[str, int] = {}

    def read(name: str, port: int, mark: bytes, stalls: bool) -> None:
        with socket.create_connection(("127.0.0.1", port)) as reader:
            reader.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if stalls:
                return time.sleep(seconds)
            count, tail = 0, b""
            while data := reader.recv(1 << 16):
                data = tail + data
                count += data.count(mark)
                tail = data[-len(mark) + 1 :]
            counts[name] = count

    marks = (b"--mjpegstream\r\n", b'"frame_id":')
    threads = [
        threading.Thread(target=read, args=(f"{name} {number}", port, mark, number == 2))
        for name, port, mark in zip(("MJPEG", "JSON"), ports, marks, strict=True)
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    while [server.readers for server in servers] != [3, 3]:
        time.sleep(0.01)
    begin, sent, slowest, memory = time.monotonic(), 0, 0.0, []
    pid = os.getpid()
    while (now := time.monotonic()) < begin + seconds:
        # JSON of a crowded frame: 30 kB, so that what is not read does not fit into the system's buffers for long
        text = b'{"frame_id":%d, "objects":"%b"}' % (sent, b"x" * 30_000)
        servers[0].send(mjpeg_part(jpeg))
        servers[1].send(text)
        sent += 1
        slowest = max(slowest, time.monotonic() - now)
        if sent % 100 == 0:
            memory.append(resident(pid))
        time.sleep(max(begin + sent / 100 - time.monotonic(), 0))
    left = [server.readers for server in servers]
    for server in servers:
        server.close()
    for thread in threads:
        thread.join()
    return {
        "frames_sent": sent,
        "frames_received": counts,
        "readers_at_the_end": left,
        "slowest_send_seconds": slowest,
        "memory_mb": thirds(memory),
    }


def problems(report: Result) -> Iterator[str]:
    """What is not as it should be."""
    overload, attack, stream = (report[name] for name in ("overload", "hostile", "streams"))
    if max(statistics.median(overload[name]) for name in ("ratios", "ratios_without_load", "cpu_ratios")) < 0.9:
        yield f"overload: throughput against the best: {overload['ratios']}, by processor time {overload['cpu_ratios']}"
    if set(overload["statuses"]) - {"200", "429", "503"}:
        yield f"overload: statuses {overload['statuses']}"
    if max(overload["p99_seconds"]) > TIMEOUT + 2:
        yield f"overload: p99 of {overload['p99_seconds']} s, beyond the time limit of {TIMEOUT} s"
    for name in ("overload", "streams"):
        first, last = report[name]["memory_mb"].values()
        if last > 1.1 * first + 10:
            yield f"{name}: memory grew from {first:.0f} to {last:.0f} MB"
    for name, answer in attack["answers"].items():
        if not re.match(r"HTTP/1.1 4\d\d ", answer):
            yield f"hostile: {name}: {answer}"
    if set(attack["meanwhile"]) != {"200"}:
        yield f"hostile: others got {dict(attack['meanwhile'])}"
    healthy = {f"{kind} {number}": stream["frames_sent"] for kind in ("MJPEG", "JSON") for number in range(2)}
    if stream["frames_received"] != healthy or stream["readers_at_the_end"] != [2, 2]:
        yield f"streams: {stream}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg")
    parser.add_argument("weights")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    photos = [path.read_bytes() for path in args.photos]
    report: Result = {"load_average": os.getloadavg()[0]}
    with serving(args.cfg, args.weights) as (port, pid):
        asyncio.run(closed_loop(port, photos, 3))  # warm
        report["overload"] = in_rounds(port, pid, photos, args.seconds, args.rounds)
        report["hostile"] = hostile(port, pid, photos[0])
    report["streams"] = streams(args.seconds)
    report["problems"] = list(problems(report))
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return int(bool(report["problems"]))


if __name__ == "__main__":
    sys.exit(main())
