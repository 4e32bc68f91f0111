"""Pins what the constraints need in turn: the last lines of constraints.txt, and requirements.lock with SHA-256.

    make lock      (on Linux x86-64 with Python 3.11, where CI runs)

pip resolves the package with the extras dev and docs under the versions that stand above the mark in constraints.txt,
and reports which files it would install. requirements.lock has the hash of each of these files. torch is not in it: its
builds (CPU, CUDA) are different files with different dependencies, and the machine decides which of them is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS, LOCK = ROOT / "constraints.txt", ROOT / "requirements.lock"
MARK = "# What these need in turn (make lock)."
_HEADER = """# The files that `make` installs on Linux x86-64 with Python 3.11, without torch. Written by `make lock`.
# pip install --require-hashes --no-deps -r requirements.lock
"""
_NOT_LOCKED = "darknet-torch", "torch"


class Release(NamedTuple):
    """A file of a package. requires_python: such as ">=3.11", or "" ."""

    name: str
    version: str
    sha256: str
    requires_python: str


def resolve(constraints: str) -> list[Release]:
    """What pip would install into an empty environment."""
    path = ROOT / "build" / "constraints.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(constraints, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    run = subprocess.run([*command, "-c", path, "-e", f"{ROOT}[dev,docs]"], check=True, stdout=subprocess.PIPE)
    releases = []
    for entry in json.loads(run.stdout)["install"]:
        metadata, info = entry["metadata"], entry["download_info"]
        name = re.sub(r"[-_.]+", "-", metadata["name"]).lower()
        if name not in _NOT_LOCKED:
            sha256 = info["archive_info"]["hashes"]["sha256"]
            releases.append(Release(name, metadata["version"], sha256, metadata.get("requires_python") or ""))
    return sorted(releases)


def pin(release: Release) -> str:
    """A line of constraints.txt; older Pythons than those of the release take what they find."""
    oldest = re.search(r">=\s*(3\.(?:1[1-9]|[2-9]\d)[\d.]*)", release.requires_python)
    marker = f'; python_full_version >= "{oldest[1]}"' if oldest else ""
    return f"{release.name}=={release.version}{marker}"


def pinned_names(constraints: str) -> set[str]:
    """The names of the packages in the text of constraints.txt."""
    names = (line.partition("==")[0] for line in constraints.splitlines() if "==" in line and line[0] != "#")
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def main() -> None:
    direct = CONSTRAINTS.read_text(encoding="utf-8").partition(MARK)[0]
    releases = resolve(direct)
    chosen = pinned_names(direct)
    lines = [MARK, *(pin(release) for release in releases if release.name not in chosen)]
    CONSTRAINTS.write_text(direct + "\n".join(lines) + "\n", encoding="utf-8")
    locked = (f"{release.name}=={release.version} --hash=sha256:{release.sha256}\n" for release in releases)
    LOCK.write_text(_HEADER + "".join(locked), encoding="utf-8")


if __name__ == "__main__":
    main()
