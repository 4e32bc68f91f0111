"""Paths that cannot be what an option expects end every command in one line, whichever option it is."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import darknet_py
from darknet_py.cli import COMMANDS, main, make_parser
from darknet_py.cli.common import OPTIONAL_FILES, name_standard_output, output_file_or_stdout, write_text
from darknet_py.graph.graph import parse_text
from darknet_py.untrusted import escaped_output

CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\nmax_batches=1\n[convolutional]\nfilters=7\nsize=1\nstride=8\n"
    "[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
)
TEXT = (
    "[net]\ninputs=256\nbatch=2\nsubdivisions=1\ntime_steps=4\nmax_batches=1\n"
    "[connected]\noutput=256\n[softmax]\n[cost]\ntype=sse\n"
)
CLASSIFIER = "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\nsize=1\n[avgpool]\n[softmax]\n"

# A command line of each command that works in the folder below, as short as possible.
WORKING = {
    "train": "a.cfg --data a.data --out new --max-batches 1 --batch 1 --subdivisions 1 --workers 0",
    "detect": "a.cfg a.png --weights a.weights --out new",
    "video": "a.cfg a.avi --weights a.weights",
    "classify": "c.cfg a.png --weights c.weights",
    "evaluate": "a.cfg --weights a.weights --data a.data --workers 0",
    "rnn train": "r.cfg a.names --out new --max-batches 1",
    "rnn generate": "r.cfg --weights r.weights --length 1",
    "convert": "a.cfg a.weights b.pt",
    "weights statistics": "a.cfg a.weights",
    "weights denormalize": "a.cfg a.weights b.weights",
    "weights average": "a.cfg b.weights a.weights a.weights",
    "info": "a.cfg",
    "graph": "a.cfg b.html",
    "compare": "a.cfg",
    "bench": "a.cfg --seconds 0",
    "anchors": "a.cfg --data a.data --clusters 1 --out new",
    "check": "a.cfg --data a.data --out new",
    "data": "a.data new --to coco",
    "design": "--backbone resnet10",
}
PATHS = {"FILE", "DIR", "FOLDER", "LIST", "OUT", "OUT.cfg", "OUT.svg", "PREFIX", "CFG", "OTHER", "WEIGHTS", "SOURCE"}
PATHS |= {"IMAGE", "TEXT", "CFG[@SIZE]"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("a", CFG), ("r", TEXT), ("c", CLASSIFIER)):
        Path(f"{name}.cfg").write_text(text)
        darknet_py.load(f"{name}.cfg").save_weights(f"{name}.weights")
    Path("a.names").write_text("cat\ndog\n" * 4)
    Path("o.names").write_text("cat\ndog\n")
    Path("a.data").write_text("classes=2\ntrain=a.list\nnames=o.names\n")
    Path("a.list").write_text("a.png\n")
    Path("a.txt").write_text("0 .5 .5 .5 .5\n")
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    cv2.imwrite("a.png", image)
    writer = cv2.VideoWriter("a.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))  # type: ignore[attr-defined]
    writer.write(image)
    writer.release()
    Path("full").mkdir()
    (Path("full") / "folder.json").mkdir()
    return tmp_path


def options(command: str) -> Iterator[argparse.Action]:
    """The options of a command, and of a sub-command, that take a path."""
    words = command.split()
    parser = make_parser(words)
    for word in words:
        subcommands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        parser = subcommands.choices[word]
    return (action for action in parser._actions if action.metavar in PATHS and action.dest != "seed_text")


def replaced(command: str, action: argparse.Action, path: str) -> list[str]:
    """The working command line with one path replaced."""
    words = WORKING[command].split()
    if action.option_strings:
        name = max(action.option_strings, key=len)
        if name in words:
            del words[words.index(name) : words.index(name) + 2]
        return [*command.split(), *words, f"{name}={path}"]
    positional = [action.dest for action in options(command) if not action.option_strings]
    given = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    place = positional.index(action.dest)
    if place >= given or command == "design":
        words[given:given] = [path]
    else:
        words[place] = path
    return [*command.split(), *words]


@pytest.mark.parametrize("command", WORKING)
def test_every_option_that_takes_a_path(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), *WORKING[command].split()]) == 0, capsys.readouterr().err
    tried = 0
    for action in options(command):
        for path in ("full", "x" * 5000, "x" * 300 + ".json", "a\0b", "a.names/inside.json", "/proc/none/a.json"):
            line = replaced(command, action, path)
            capsys.readouterr()
            code = main(line)
            error = capsys.readouterr().err
            where = f"{command} {action.dest} {path[:30]!r}: {code}\n{error}"
            assert code in (0, 1, 2) and "Traceback" not in error, where
            if path != "full":  # some options take a folder
                assert code, where
            if code:
                lines = [text for text in error.splitlines() if text.startswith("darknet")]
                assert len(lines) == 1 and "\0" not in error, where
            tried += 1
    assert tried >= 6


def test_every_command_is_tried() -> None:
    """Add a command line of a new command to WORKING; those that need much, a network or no end stay out."""
    assert set(COMMANDS) - {command.split()[0] for command in WORKING} <= {"merge", "download", "serve"}


def test_a_folder_instead_of_a_json_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any work: no image is detected, nothing is trained."""
    for command in ("train", "detect", "video", "classify", "evaluate", "info", "compare", "bench", "anchors", "check"):
        for path in (".", "full", "full/folder.json", "none/a.json"):
            assert main([command, *WORKING[command].split(), f"--json={path}"]) == 1, command
            output = capsys.readouterr()
            reason = "there is no folder none" if "none" in path else "Is a directory"
            assert output.err.splitlines() == [f"darknet-py: {path}: cannot write: {reason}"] and output.out == ""
    assert not Path("new").exists()


def test_what_is_not_permitted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root may do anything, so the answer of the system is replaced."""
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    for option in ("--json=a.json", "--out=full", "--out=full/new/x"):
        assert main(["detect", *WORKING["detect"].split(), option]) == 1
        assert capsys.readouterr().err.strip().endswith("Permission denied")


def standard_output_options() -> list[str]:
    """Each command with an option of its that writes a text, which "-" prints."""
    return [
        f"{command} {max(action.option_strings, key=len)}"
        for command in WORKING
        for action in options(command)
        if action.type is output_file_or_stdout
    ]


def test_options_that_take_standard_output() -> None:
    found = standard_output_options()
    others = {"design --write", "anchors --write", "weights denormalize --cfg-out", "detect --coco"}
    assert {"detect --csv", "info --csv", "compare --csv", *others} <= set(found)
    assert len([option for option in found if option.endswith(" --json")]) >= 12


@pytest.mark.parametrize("option", standard_output_options())
def test_a_hyphen_is_standard_output(option: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json -` prints what `--json` and `--json=-` print, and nothing else reaches standard output."""
    command, _, name = option.rpartition(" ")
    words = [*command.split(), *WORKING[command].split()]
    printed = []
    for given in ([name, "-"], [f"{name}=-"], *([[name]] if name in OPTIONAL_FILES else [])):
        assert main([*words, *given]) == 0, capsys.readouterr().err
        printed.append(capsys.readouterr().out)
        assert not Path("-").exists()
        shutil.rmtree("new", ignore_errors=True)  # `data` expects a new folder
    for text in printed:
        if name in ("--json", "--coco") and command != "video":
            json.loads(text)
        elif name == "--json":
            assert [json.loads(line)["frame_id"] for line in text.splitlines()] == [1]
        elif name == "--csv":
            assert len({line.count(",") for line in text.splitlines()}) == 1
        else:
            parse_text(text)


@pytest.mark.parametrize("line", ["detect --json - --csv -", "detect --json --coco -", "anchors --write - --json -"])
def test_one_file_on_standard_output(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, *more = line.split()
    assert main([command, *WORKING[command].split(), *more]) == 2
    assert "expected one file on standard output, got several" in capsys.readouterr().err


def test_a_hyphen_where_no_text_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = {
        "detect": ["--out", "--crops", "--heat-map"],
        "video": ["--out", "--images", "--heat-map"],
        "compare": ["--plot"],
        "anchors": ["--plot", "--out"],
        "check": ["--out"],
    }
    for command, names in lines.items():
        for name in names:
            assert main([command, *WORKING[command].split(), name, "-"]) == 2
            assert "expected a name, got - (standard output)" in capsys.readouterr().err
    for line in ("graph a.cfg -", "convert a.cfg a.weights -", "data a.data - --to coco"):
        assert main(line.split()) == 2
        assert "expected a name, got - (standard output)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("detect a.cfg --json a.jpg", "detect a.cfg --json=- a.jpg"),
        ("detect a.cfg a.jpg --json", "detect a.cfg a.jpg --json=-"),
        ("detect a.cfg --json - a.jpg", "detect a.cfg --json=- a.jpg"),
        ("detect a.cfg - --json --csv b.csv", "detect a.cfg - --json=- --csv=b.csv"),
        ("detect a.cfg --json b.json --csv --out c", "detect a.cfg --json=b.json --csv=- --out c"),
        ("detect a.cfg --json=b.txt a.jpg", "detect a.cfg --json=b.txt a.jpg"),
        ("info a.cfg --csv b.cfg", "info a.cfg --csv=- b.cfg"),
    ],
)
def test_the_file_of_an_option_may_be_missing(words: str, named: str) -> None:
    assert name_standard_output(words.split()) == named.split()


def test_text_on_standard_output_is_that_of_a_file(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Bytes that are not UTF-8 and control characters included: only a terminal gets them escaped."""
    with escaped_output():
        print("first")
        write_text("-", "# caf\udce9\t\x1b\n")
        print("\x1b")
    assert capfdbinary.readouterr().out == b"first\n# caf\xe9\t\x1b\n\\x1b\n"
