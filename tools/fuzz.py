"""Mutated files for every reader: each is refused in one line or read; nothing crashes, hangs or takes much memory.

    python tools/fuzz.py [READER …] [--scale 1] [--seed 1] [--out docs/bench/fuzz.json]

READER is a name of `hostile.readers.READERS` (default: all). The counts of a whole run are there; `--scale .01` runs a
hundredth. The results are written to --out after each part, and a run goes on from there: delete the file, or an entry
in it, to start again. File number N of a reader depends on the seed and N alone: `--show N` writes it to stdout.

A reader works in a process of its own on a few thousand files at a time. These are faults: an exception that is no
DarknetError, a signal, more than 10 seconds of processor time for a file, and more than 1 GB of memory. Exits with code
1 if there is one.

Under atheris (coverage-guided, `pip install atheris`): `python tools/fuzz.py READER --atheris [its options]`.
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm


def coverage() -> AbstractContextManager[object]:
    """With --atheris, what is imported inside tells atheris its branches: not torch, which takes minutes."""
    if "--atheris" not in sys.argv:
        return nullcontext()
    import atheris

    hook: AbstractContextManager[object] = atheris.instrument_imports(include=["darknet_py"])
    return hook


with coverage():
    from hostile.readers import READERS, Reader

    from darknet_py.errors import DarknetError

SLOW = 10.0  # seconds of processor time for a file
_STUCK = 300.0  # seconds of waiting for a file
_MEMORY = 1 << 30  # resident bytes of a process
_PART = 2000
_SHOWN = 20  # faults of a reader that are kept


def number_rng(seed: int, reader: str, number: int) -> random.Random:
    return random.Random(f"{seed} {reader} {number}")


def read_one(reader: Reader, content: bytes, number: int) -> tuple[str, str]:
    """The outcome of a file, and the fault or ""."""
    begin = time.process_time()
    try:
        outcome, fault = reader.read(content, number), ""
    except DarknetError as error:
        message = str(error)
        outcome, fault = "refused", "" if message.strip() else "refused without a word"
        if "\n" in message.strip() and "cfg" not in type(error).__name__.lower():
            fault = f"a message of several lines: {message!r:.200}"
    except Exception as error:  # every other exception is a fault
        where = traceback.extract_tb(error.__traceback__)[-1]
        file = "/".join(Path(where.filename).parts[-2:])
        outcome, fault = "fault", f"{type(error).__name__} at {file}:{where.lineno}: {error!s:.200}"
    seconds = time.process_time() - begin
    if seconds > SLOW:
        fault = f"took {seconds:.0f} s"
    return ("fault" if fault else outcome), fault


def read_part(reader: Reader, name: str, seed: int, numbers: range, progress: mmap.mmap) -> dict[str, Any]:
    """Reads some files in this process, whose memory is measured with it."""
    outcomes: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    slowest = 0.0
    for number in numbers:
        progress[:16] = struct.pack("<qd", number, time.process_time())
        begin = time.process_time()
        outcome, fault = read_one(reader, reader.draw(number_rng(seed, name, number), number), number)
        slowest = max(slowest, time.process_time() - begin)
        outcomes[outcome] += 1
        if fault:
            faults.append((number, fault))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"outcomes": outcomes, "faults": faults, "peak": peak, "slowest": slowest}


def fork_part(reader: Reader, name: str, seed: int, numbers: range, folder: Path) -> dict[str, Any]:
    """`read_part` in a process of its own; one that dies or hangs is a fault of the file that it was at."""
    progress, result = mmap.mmap(-1, 16), folder.with_name("result.json")
    progress[:16] = struct.pack("<qd", -1, 0.0)
    process = os.fork()
    if not process:
        try:
            os.chdir(folder)
            limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 4 * _MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            warnings.simplefilter("ignore")
            logging.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries print there
            result.write_text(json.dumps(read_part(reader, name, seed, numbers, progress)))
            os._exit(0)
        except BaseException:
            result.write_text(traceback.format_exc())
            os._exit(3)
    status = _wait(process, progress)
    if not status:
        part: dict[str, Any] = json.loads(result.read_text())
        return part
    number = struct.unpack("<qd", progress[:16])[0]
    if number < 0 or status == "exit code 3":
        sys.exit(f"{name}: {result.read_text()}")
    part = {"outcomes": {}, "faults": [], "peak": 0, "slowest": 0.0}
    if number > numbers.start:
        part = fork_part(reader, name, seed, range(numbers.start, number), folder)
    part["outcomes"]["fault"] = part["outcomes"].get("fault", 0) + 1
    part["faults"].append((number, status))
    return part


def _wait(process: int, progress: mmap.mmap) -> str:
    """Waits for a process; returns how it failed, or ""."""
    seen, since = -1, time.monotonic()
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return "" if not code else f"signal {-code}" if code < 0 else f"exit code {code}"
        number, begun = struct.unpack("<qd", progress[:16])
        if number != seen:
            seen, since = number, time.monotonic()
        used = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        seconds = (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")
        if number >= 0 and (seconds - begun > SLOW + 2 or time.monotonic() - since > _STUCK):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return f"no end within {seconds - begun:.0f} s of processor time"
        time.sleep(0.05)


def fuzz(reader: Reader, name: str, seed: int, count: int, entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Reads the files from the last one of `entry` on up to `count`, in one part; returns the new entry."""
    start = entry.get("files", 0)
    begin = time.monotonic()
    part = fork_part(reader, name, seed, range(start, min(start + _PART, count)), folder)
    if part["peak"] > _MEMORY:
        part["faults"].append((start, f"{part['peak'] >> 20} MiB of memory within {_PART} files"))
    outcomes = Counter(entry.get("outcomes", {}))
    outcomes.update(part["outcomes"])
    return {
        "files": sum(outcomes.values()),
        "seed": seed,
        "outcomes": dict(sorted(outcomes.items())),
        "seconds": round(entry.get("seconds", 0) + time.monotonic() - begin, 1),
        "slowest file, s": round(max(entry.get("slowest file, s", 0), part["slowest"]), 2),
        "peak memory, MiB": max(entry.get("peak memory, MiB", 0), part["peak"] >> 20),
        "faults": (entry.get("faults", []) + [list(fault) for fault in part["faults"]])[:_SHOWN],
    }


def run(reader: Reader, name: str, options: argparse.Namespace, report: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All files of a reader, in parts, after each of which the report is written."""
    count = max(int(reader.count * options.scale), 1)
    entry: dict[str, Any] = report.get(name, {})
    with tqdm(total=count, initial=entry.get("files", 0), desc=name, unit="file", mininterval=5) as bar:
        while entry.get("files", 0) < count:
            report[name] = entry = fuzz(reader, name, options.seed, count, entry, folder)
            bar.update(entry["files"] - bar.n)
            if options.out:
                options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return entry


def run_atheris(name: str, seed: int, options: list[str]) -> None:
    import atheris

    options = [f"-artifact_prefix={os.getcwd()}/", *options]  # where it writes a file that fails
    with tempfile.TemporaryDirectory() as parent:
        corpus, folder = Path(parent) / "corpus", Path(parent) / "files"
        corpus.mkdir()
        folder.mkdir()
        os.chdir(folder)
        warnings.simplefilter("ignore")
        logging.disable()
        reader = READERS[name](folder)
        for number in range(200):
            (corpus / str(number)).write_bytes(reader.draw(number_rng(seed, name, number), number))

        def one(content: bytes) -> None:
            fault = read_one(reader, content, 1)[1]
            if fault:
                raise AssertionError(fault)

        atheris.Setup([sys.argv[0], str(corpus), *options], one)
        atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"{', '.join(READERS)} (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the files of a whole run")
    parser.add_argument("--out", type=Path, help="JSON file of the results, from which a run goes on")
    parser.add_argument("--show", type=int, metavar="N", help="write file N of the reader to stdout")
    parser.add_argument("--atheris", action="store_true", help="let atheris choose the mutations")
    options, rest = parser.parse_known_args()
    unknown = [name for name in options.readers if name not in READERS]
    if unknown or (rest and not options.atheris):
        parser.error(f"expected {', '.join(READERS)}, got {', '.join(unknown + rest)}")
    torch.set_num_threads(1)
    if options.atheris:
        return run_atheris(options.readers[0], options.seed, rest)
    report: dict[str, Any] = {}
    if options.out and options.out.exists():
        report = json.loads(options.out.read_text(encoding="utf-8"))
    for name in options.readers or READERS:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as made:
            folder = Path(made) / "files"
            folder.mkdir()
            reader = READERS[name](folder)
            if options.show is not None:
                sys.stdout.buffer.write(reader.draw(number_rng(options.seed, name, options.show), options.show))
                return
            report[name] = entry = run(reader, name, options, report, folder)
        for number, fault in entry.get("faults", []):
            print(f"{name} {number}: {fault}", flush=True)
    sys.exit(any(entry["faults"] for entry in report.values()))


if __name__ == "__main__":
    main()
