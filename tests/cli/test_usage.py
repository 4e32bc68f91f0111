"""Wrong usage: exit code 2, one line that says what was probably meant."""

from __future__ import annotations

import pytest

from darknet_py.cli import COMMANDS, main, parse_arguments


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict a.cfg a.jpg", "unknown command 'predict'; did you mean 'detect'?"),
        ("val a.cfg", "unknown command 'val'; did you mean 'evaluate'?"),
        ("export a.cfg", "unknown command 'export'; did you mean 'convert'?"),
        ("trian a.cfg", "unknown command 'trian'; did you mean 'train'?"),
        ("Detect a.cfg", "unknown command 'Detect'; did you mean 'detect'?"),
        ("frobnicate", "unknown command 'frobnicate'"),
        ("detect a.cfg a.jpg --tresh .3", "unknown option '--tresh'; did you mean '--thresh'?"),
        ("detect a.cfg --tresh .3", "unknown option '--tresh'; did you mean '--thresh'?"),  # before what is missing
        ("detect a.cfg a.jpg --conf=0.3", "unknown option '--conf'; did you mean --thresh?"),
        ("detect a.cfg a.jpg -conf .3", "unknown option '-conf'; did you mean --thresh?"),
        ("detect a.cfg a.jpg --imgsz 640", "unknown option '--imgsz'; did you mean --width and --height?"),
        ("detect a.cfg a.jpg --Names a", "unknown option '--Names'; did you mean --names?"),
        ("video a.cfg a.mp4 --save_dir x", "unknown option '--save_dir'; did you mean --out?"),
        ("train a.cfg --epochz 9", "unknown option '--epochz'"),
        ("train a.cfg --lr 0.1", "unknown option '--lr'; did you mean --learning-rate?"),
        ("train a.cfg --learning_rate 1", "unknown option '--learning_rate'; did you mean --learning-rate?"),
        ("rnn train a.cfg --cler", "unknown option '--cler'; did you mean '--clear'?"),
        ("info", "the following arguments are required: CFG"),
        ("info a.cfg b.cfg c.cfg", "unrecognized arguments: c.cfg"),
        ("bench a.cfg --batch many", "argument --batch: invalid integer value: 'many'"),
        ("bench a.cfg --device toaster", "argument --device: expected a device like cpu or cuda:0, got 'toaster'"),
        ("detect a.cfg a.jpg --thresh 2", "argument --thresh: expected a number from 0 to 1, got 2"),
        ("rnn frob", "invalid choice: 'frob'"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: darknet-py") and message in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith("darknet-py: ") and "Traceback" not in error


def test_epochs_of_other_tools(capsys: pytest.CaptureFixture[str]) -> None:
    """Iterations are counted here; the hint says so while there is no such option."""
    assert main(["train", "none.cfg", "--epochs", "9"]) in (1, 2)
    error = capsys.readouterr().err
    assert "did you mean --max-batches (iterations)?" in error or "cfg not found" in error


@pytest.mark.parametrize(
    "line",
    [
        "graph a.cfg --weights a.weights b.html",
        "convert a.cfg --seed 1 a.weights --random-weights b.pt",
        "detect a.cfg 1.jpg --thresh 0.1 2.jpg --json 3.jpg",
        "info a.cfg --width 64 b.cfg",
        "check --tiny 2 a.cfg",
        "rnn train a.cfg --batch 2 a.txt",
        "detect a.cfg --thresh 0.1 -- -1.jpg --2.jpg",
    ],
)
def test_options_between_positional_arguments(line: str) -> None:
    args = parse_arguments(line.split())
    words = [word for word in line.split() if "." in word and word != "0.1"]
    found = [value for name, value in vars(args).items() if name not in ("argv", "seed_text")]
    given = [word for value in found for word in (value if isinstance(value, list) else [value]) if word in words]
    assert sorted(given) == sorted(words)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--no-such-option"]) == 2
    assert "darknet-py: unknown option '--no-such-option'" in capsys.readouterr().err


def test_abbreviations_and_negative_numbers_are_no_unknown_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "none.cfg", "a.jpg", "--thr", "0.3"]) == 1
    assert main(["train", "none.cfg", "--decay", "-0.5"]) == 1
    assert capsys.readouterr().err.count("cfg not found: none.cfg") == 2
