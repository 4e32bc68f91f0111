"""Runs C Darknet and darknet_py on the same command lines and prints a table (docs/guides/from-c-darknet.md).

    python tools/golden/compare_lines.py DARKNET DARKNET_WITH_OPENCV REFERENCE

The commands, the data and what is left out are those of `darknet_lines.py`. A line of C counts as the same where
darknet_py prints it to the letter; of the others, the one with the same words and the nearest numbers is looked for.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from darknet_lines import COMMANDS, PHOTOS, arguments, cleaned, result_lines, write_data

from darknet_py.cli import darknet_compat

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_READS_PHOTOS = "detect", "evaluate", "classify"


def output(program: Sequence[str], words: Sequence[str], command: str, reference: Path, folder: Path) -> list[str]:
    """The lines of a command; the rows of its files for `detector valid`."""
    photos = PHOTOS.format(reference=reference).encode()
    run = subprocess.run([*program, *words], input=photos, capture_output=True, check=True, cwd=folder)
    if command.startswith("detector valid"):
        lines = result_lines(folder / "results")
        for file in (folder / "results").iterdir():
            file.unlink()
        return lines
    if "recall" in command:
        return [line for line in run.stderr.decode().split("\n") if "RPs/Img" in line]
    return [line for line in cleaned(run.stdout.decode(), reference) if line]


def differences(lines: Sequence[str], lines_of_c: Sequence[str]) -> tuple[int, float, list[str]]:
    """How many lines are the same, the largest difference of numbers in the others, and those without a counterpart."""
    ours, of_c = Counter(lines), Counter(lines_of_c)
    same = sum((ours & of_c).values())
    left = list((ours - of_c).elements())
    worst, missing = 0.0, []
    for line in (of_c - ours).elements():
        words, numbers = _NUMBER.sub("", line), list(map(float, _NUMBER.findall(line)))
        by_distance = [
            (max(abs(a - b) for a, b in zip(map(float, _NUMBER.findall(other)), numbers, strict=True)), other)
            for other in left
            if _NUMBER.sub("", other) == words
        ]
        if not by_distance:
            missing.append(line)
            continue
        distance, nearest = min(by_distance)
        left.remove(nearest)
        worst = max(worst, distance)
    return same, worst, missing


def main(darknet: str, darknet_with_opencv: str, reference: str) -> None:
    print("| command | lines of C | the same | largest difference of the others | order |")
    print("| --- | --- | --- | --- | --- |")
    ours = [sys.executable, "-m", "darknet_py"]
    missing: list[str] = []
    for command, flags in COMMANDS:
        both = []
        for program in ([darknet_with_opencv if "demo" in command else darknet], ours):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_data(Path(reference), folder)
                (folder / "data" / "labels").mkdir(parents=True)
                words = arguments(command, flags, Path(reference), folder)
                if program == ours:
                    words = darknet_compat.translate(words)
                    words += ["--stb"] if words[0] in _READS_PHOTOS else []  # as a C Darknet without OpenCV
                lines = output(program, words, command, Path(reference), folder)
                both.append([line.replace(name, "") for line in lines])
        same, worst, without = differences(both[1], both[0])
        order = "not compared" if command.startswith("detector valid") else "as C" if both[0] == both[1] else "other"
        print(f"| `{command} {flags}` | {len(both[0])} | {same} | {worst:g} | {order} |", flush=True)
        missing += [f"{command} {flags}: {line}" for line in without]
    print("\nLines of C without a counterpart:", *missing, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
