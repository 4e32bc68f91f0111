"""`darknet_py train`: options reach the trainer, and its result is printed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from darknet_py.cli import train as command
from darknet_py.errors import TrainError
from darknet_py.model.load import read_graph
from darknet_py.training import trainer
from darknet_py.training.train_options import override_net, split_options


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(argv)


def test_options_reach_the_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []

    def train(*args: Any, **overrides: Any) -> trainer.TrainResult:
        calls.append((args, overrides))
        return trainer.TrainResult(tmp_path, None, tmp_path, tmp_path, None, 1, 1.0, 1.0, None, None, "mAP", tmp_path)

    monkeypatch.setattr(trainer, "train", train)
    argv = "a.cfg --data b.data --max-batches 9 --map off --amp bf16 --set mosaic=0 --set steps=3,4 --resume --no-chart"
    assert command.run(parse(*argv.split())) == 0
    args, overrides = calls[0]
    assert args == ("a.cfg", "b.data", None)
    options, net = split_options(overrides)
    assert (options.map, options.amp, options.resume, options.chart) == (False, "bf16", True, False)
    assert net == {"max_batches": 9, "mosaic": "0", "steps": "3,4"}


@pytest.mark.parametrize("argv", ["--map 0", "--set steps", "--workers -1", "--batch 0", "--thresh 5"])
def test_wrong_usage_exits_2(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("x.cfg", *argv.split())
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_it_trains_and_prints_json(cfg: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--data", str(shapes), "--out", str(tmp_path), "--workers", "0", "--max-batches", "2", "--json", "--quiet"]
    assert command.run(parse(str(cfg), *argv)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["iterations"] == 2
    assert Path(printed["weights"]).is_file()
    assert 0 <= printed["best_map"] <= 1


def test_new_values_for_net_keep_the_rest_of_the_text(cfg: Path) -> None:
    cfg.write_text("# mine\n" + cfg.read_text().replace("width=64", "width = 64 # small"))
    graph, told = override_net(read_graph(cfg), {"width": 96, "mosaic": True, "steps": [5, 6], "scales": (0.5, 0.5)})
    assert (graph.net.width, graph.net.mixup, graph.net.steps, graph.net.scales) == (96, 3, (5, 6), (0.5, 0.5))
    assert graph.text.startswith("# mine\n")
    assert not told
    assert graph.layers[0].inputs[0].w == 96


def test_set_takes_keys_of_net_that_have_an_option_too(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    argv = [str(cfg), "--data", str(shapes), "--out", str(tmp_path), "--workers", "0", "--quiet", "--map", "off"]
    assert command.run(parse(*argv, "--set", "max_batches=1")) == 0
    assert len((tmp_path / "tiny_log.csv").read_text().splitlines()) == 2
    for more in (["--set", "batch=8", "--batch", "4"], ["--set", "map_epochs=3"]):
        with pytest.raises(TrainError, match=r"--set (batch|map_epochs): expected"):
            command.run(parse(*argv, *more))


def test_keys_that_nothing_reads_are_told(cfg: Path) -> None:
    _, told = override_net(read_graph(cfg), {"gamma": 2, "use_cuda_graph": 1})
    assert len(told) == 1 and "[net]: unknown key 'gamma' is ignored" in told[0]


def test_keys_of_heads_go_into_the_heads(cfg: Path) -> None:
    changes = {"jitter": 0.05, "resize": 1.5}  # the cfg's head says nothing about resize
    head = override_net(read_graph(cfg), changes)[0].detection_specs[-1]
    assert (head.jitter, head.resize, head.random) == (0.05, 1.5, 1)
    cfg.write_text(cfg.read_text().partition("[yolo]")[0])
    with pytest.raises(TrainError, match="jitter: expected a detection layer that has it, got none"):
        override_net(read_graph(cfg), changes)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"map": 0}, "at least 1"),
        ({"map_epochs": 0}, "at least 1"),
        ({"points": 1}, "0 or at least 2"),
        ({"iou_thresh": 7}, "from 0 to 1"),
        ({"thresh": -1}, "from 0 to 1"),
    ],
)
def test_options_are_looked_at_before_training(option: dict[str, Any], expected: str) -> None:
    with pytest.raises(TrainError, match=f"{next(iter(option))}: expected .*{expected}"):
        split_options(option)


def test_steps_and_burn_in_follow_max_batches(cfg: Path) -> None:
    graph = read_graph(cfg)
    shorter, told = override_net(graph, {"max_batches": 4})
    assert (shorter.net.steps, shorter.net.burn_in) == ((3,), 1)
    assert told == ["max_batches=4, so steps=3 and burn_in=1"]
    longer, _ = override_net(graph, {"max_batches": 24})
    assert (longer.net.steps, longer.net.burn_in) == ((18,), 3)
    same, told = override_net(graph, {"max_batches": 4, "steps": 2, "burn_in": 2})
    assert (same.net.steps, same.net.burn_in, told) == ((2,), 2, [])
