"""Every command of docs/recipes.md runs: two iterations of each training, then its evaluation."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from darknet_py.cli import main, rnn
from darknet_py.data import open_classification
from darknet_py.data.builtin import shape_classes, shapes, synthetic_text
from darknet_py.graph.graph import parse
from darknet_py.training.tasks import text_task

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:python -m darknet_py|darknet-py) (.+)$", TEXT, re.MULTILINE)
TRAINED = re.findall(r"^(?:python -m darknet_py|darknet-py) train cfg/(.+)\.cfg$", TEXT, re.MULTILINE)
RECIPES = ["cifar-small", "yolov1-tiny-shapes", "yolov2-tiny-shapes", "gaussian-yolov3-tiny-shapes"]
RECIPES += ["yolov4-tiny-shapes", "lstm-text"]


@pytest.fixture
def builtin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes to a folder with cfg/ and built-in data of a few images and lines."""
    monkeypatch.setattr(shapes, "ensure_shapes", partial(shapes.ensure_shapes, tmp_path / "shapes", train=4, valid=2))
    monkeypatch.setattr(
        open_classification,
        "ensure_shape_classes",
        partial(shape_classes.ensure_shape_classes, tmp_path / "classes", train=12, valid=6),
    )
    for module in (text_task, rnn):
        monkeypatch.setattr(
            module,
            "ensure_synthetic_text",
            partial(synthetic_text.ensure_synthetic_text, tmp_path / "text", train=999, valid=300),
        )
    (tmp_path / "cfg").symlink_to(ROOT / "cfg")
    monkeypatch.chdir(tmp_path)


def test_each_recipe_has_a_row_and_a_command() -> None:
    rows = re.findall(r"^\| `(.+?)` \|.*\| ([\d,]+) \|[^|]+\|$", TEXT, re.MULTILINE)
    assert [name for name, _ in rows] == TRAINED == RECIPES
    for name, iterations in rows:
        assert f"{parse(ROOT / 'cfg' / f'{name}.cfg').net.max_batches:,}" == iterations


@pytest.mark.slow
def test_both_steps_of_the_large_detector_run(builtin: None, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, evaluate = (
        shlex.split(command) for command in COMMANDS if "csresnext50-panet-spp-shapes" in command
    )
    small = ["--max-batches", "1", "--batch", "2", "--workers", "0", "--device", "cpu"]
    assert first[0] == second[0] == "train" and evaluate[0] == "evaluate"
    for command in (first, second, evaluate):
        assert main([*command, *(small if command[0] == "train" else ["--width", "64", "--height", "64"])]) == 0
    assert "mAP@0.50" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_commands_run(name: str, builtin: None, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(command) for command in COMMANDS if re.search(rf"\b{name}[._]", command)]
    assert [command[0] for command in commands][:2] == ["train", "evaluate"]
    for command in commands:
        short = ["--max-batches", "2", "--workers", "0", "--device", "cpu"] if command[0] == "train" else []
        assert main([*command, *short]) == 0
    assert Path("backup", f"{name}_final.weights").is_file()
    assert "2 iterations, average loss" in capsys.readouterr().err
