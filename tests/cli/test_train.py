"""`darknet-py train`: options reach the plan, the plan and the result are printed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from darknet_py.cli import main
from darknet_py.cli import train as command
from darknet_py.cli.usage import UsageError
from tests.training.conftest import CFG, cfg, shapes

__all__ = ["cfg", "shapes"]  # fixtures


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(argv)


def test_options_reach_the_plan() -> None:
    argv = "a.cfg --data b.data --max-batches 9 --map off --amp bf16 --set mosaic=0 --set steps=3,4 --resume --no-chart"
    cfg_path, data, weights, options, net = command.plan_arguments(parse(*argv.split(), "--ema", "0.5"))
    assert (cfg_path, data, weights) == ("a.cfg", "b.data", None)
    assert (options.map, options.amp, options.resume, options.chart) == (False, "bf16", True, False)
    assert net == {"max_batches": 9, "mosaic": "0", "steps": "3,4", "ema_alpha": 0.5}


@pytest.mark.parametrize("argv", ["--map 0", "--set steps", "--workers -1", "--batch 0", "--thresh 5"])
def test_wrong_usage_exits_2(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "x.cfg", *argv.split()]) == 2
    assert "expected" in capsys.readouterr().err


def test_it_trains_and_prints_json(cfg: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--data", str(shapes), "--out", str(tmp_path), "--workers", "0", "--max-batches", "2", "--quiet"]
    assert command.run(parse(str(cfg), *argv, "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["iterations"] == 2
    assert Path(printed["weights"]).is_file()
    assert 0 <= printed["best_map"] <= 1
    assert command.run(parse(str(cfg), *argv, "--json", str(tmp_path / "result.json"))) == 0
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "result.json").read_text()).keys() == printed.keys()


def test_set_takes_keys_of_net_that_have_an_option_too(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    argv = [str(cfg), "--data", str(shapes), "--out", str(tmp_path), "--workers", "0", "--quiet", "--map", "off"]
    assert command.run(parse(*argv, "--set", "max_batches=1")) == 0
    assert len((tmp_path / "tiny_log.csv").read_text().splitlines()) == 2
    for more in (["--set", "batch=8", "--batch", "4"], ["--set", "map_epochs=3"]):
        with pytest.raises(UsageError, match=r"--set (batch|map_epochs): expected"):
            command.run(parse(*argv, *more))


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    cfg: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["train", str(cfg), "--data", str(shapes), "--out", str(out), "--max-batches", "4", "--batch", "6"]
    assert main([*argv, "--device", "cpu", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert "change: [net] steps=3 (max_batches=4)" in lines and "change: [net] batch=6 (requested)" in lines
    assert "batch: 6 = 2 subdivisions of 3" in lines
    assert any(line.startswith("memory: about ") for line in lines)
    assert main([*argv, "--device", "cpu", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["schedule"]["max_batches"] == 4 and plan["data"]["train"] == 16 and plan["data"]["valid"] == 4
    assert not out.exists() and cfg.read_text() == CFG
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.cfg"}


def test_log_lines_go_to_stderr_and_paths_to_stdout(
    cfg: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", str(cfg), "--data", str(shapes), "--out", str(tmp_path), "--workers", "0", "--device", "cpu"]
    assert main([*argv, "--max-batches", "2", "--batch", "5", "--map", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == str(tmp_path / "tiny_final.weights")
    lines = printed.err.splitlines()
    assert "max_batches=2, so steps=2 and burn_in=0" in lines[0]
    assert "warning: batch=5 is not divisible by subdivisions=2; using 4 images" in lines
    assert sum("avg loss" in line for line in lines) == 2
    assert main([*argv, "--max-batches", "2", "--quiet", "--map", "off"]) == 0
    assert capsys.readouterr().err.count("\n") == 1  # the result


def test_a_recipe_is_printed_line_by_line(
    cfg: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["train", str(cfg), "--data", str(shapes), "--out", str(out), "--workers", "0", "--device", "cpu"]
    assert main([*argv, "--recipe", "finetune", "--epochs", "50", "--split", "0.2", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "recipe: scratch (no weights to start from); --recipe darknet trains the cfg as it is" in lines
    assert "change: [net] max_batches=50 (requested)" in lines  # 16 images
    assert "change: [net] mosaic_stop=45 (the last tenth trains on whole images)" in lines
    assert any(line.startswith("time: about ") and "50 iterations of " in line for line in lines)
    assert not out.exists()
    for wrong in (["--time", "20"], ["--time", "2m", "--epochs", "3"], ["--split", "2"], ["--recipe", "best"]):
        assert main([*argv, *wrong]) == 2


def test_damaged_images_are_named_and_skipped(cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrays that are cut off or of another type, a cut JPEG, a web page, no file: the others are trained on."""
    np.save(tmp_path / "float.npy", np.zeros((40, 50, 3), np.float32))
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(300))
    (tmp_path / "page.png").write_bytes(b"<!DOCTYPE html><html></html>")
    for number in range(9):
        np.save(tmp_path / f"good{number}.npy", np.full((40, 50, 3), 90, np.uint8))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good0.npy").read_bytes()[:300])
    names = ["float.npy", "cut.npy", "cut.jpg", "page.png", "none.png", *(f"good{number}.npy" for number in range(9))]
    for name in names:
        (tmp_path / name).with_suffix(".txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "t.txt").write_text("".join(f"{tmp_path}/{name}\n" for name in names))
    (tmp_path / "a.data").write_text(f"classes=1\ntrain={tmp_path}/t.txt\n")
    options = ["--data", str(tmp_path / "a.data"), "--out", str(tmp_path / "out"), "--workers", "0"]
    assert main(["train", str(cfg), *options, "--map", "off", "--max-batches", "6"]) == 0
    error = capsys.readouterr().err
    for name, reason in (
        ("float.npy", "expected uint8"),
        ("cut.npy", "cannot read the array"),
        ("cut.jpg", "unsupported or corrupt"),
        ("page.png", "it is a web page"),
        ("none.png", "No such file"),
    ):
        assert any(name in line and reason in line for line in error.splitlines()), (name, error)
    assert "good" not in error
