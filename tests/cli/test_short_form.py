"""hank-ai's short command lines: a network's files are found by their name."""

from __future__ import annotations

from pathlib import Path

import pytest

from darknet_py.cli import COMMANDS
from darknet_py.cli.short_form import complete


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("nets").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("files", "theirs", "ours"),
    [
        (
            "animals.cfg animals.names animals_best.weights animals_last.weights",
            "animals dog.jpg",
            "detect animals.cfg dog.jpg --names animals.names --weights animals_best.weights",
        ),
        # the last of several weights, and names that begin so
        (
            "cars_v2.cfg cars_1.weights cars_2.weights",
            "cars a.jpg",
            "detect cars_v2.cfg a.jpg --weights cars_2.weights",
        ),
        ("nets/a.cfg nets/a.weights", "nets/a film.MP4", "video nets/a.cfg film.MP4 --weights nets/a.weights"),
        ("a.cfg a.weights a_best.weights", "a.cfg x.jpg", "detect a.cfg x.jpg --weights a_best.weights"),
        ("a.cfg ab_best.weights", "a.cfg x.jpg --weights w", "detect a.cfg x.jpg --weights w"),
        ("a.cfg a.weights", "a x.jpg --thresh 0.3", "detect a.cfg x.jpg --thresh 0.3 --weights a.weights"),
    ],
)
def test_files_by_name(folder: Path, files: str, theirs: str, ours: str) -> None:
    for name in files.split():
        Path(name).touch()
    assert complete(theirs.split(), COMMANDS) == ours.split()


def test_other_command_lines_stay(folder: Path) -> None:
    for name in ("detect.cfg", "detector.cfg", "info.cfg"):
        Path(name).touch()
    for line in (
        "detect a.cfg x.jpg",
        "info a.cfg",
        "other x.jpg",
        "other.cfg x.jpg",
        "info",
        "--version x",
        "nets/ x",
        "",
    ):
        assert complete(line.split(), COMMANDS) == line.split()
