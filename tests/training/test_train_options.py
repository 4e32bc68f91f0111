"""Options of a training, and new values for keys of `[net]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest

from darknet_py.cfg.net import NetSpec
from darknet_py.errors import TrainError
from darknet_py.model.load import read_graph
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.train_options import NetOverrides, TrainOptions, net_keys, override_edits, override_net


def test_new_values_for_net_keep_the_rest_of_the_text(cfg: Path) -> None:
    cfg.write_text("# mine\n" + cfg.read_text().replace("width=64", "width = 64 # small"))
    source = read_graph(cfg)
    changes = {"width": 96, "mosaic": True, "steps": [5, 6], "scales": (0.5, 0.5)}
    graph = override_net(source, changes)
    assert (graph.net.width, graph.net.mixup, graph.net.steps, graph.net.scales) == (96, 3, (5, 6), (0.5, 0.5))
    assert graph.text.startswith("# mine\n") and "width = 96 # small" in graph.text
    assert not any(edit.reason for edit in override_edits(source, changes))
    assert graph.layers[0].inputs[0].w == 96


def test_keys_that_nothing_reads_are_warned_about(cfg: Path, shapes: Path) -> None:
    plan = TrainingPlan.create(cfg, shapes, overrides={"gamma": 2, "use_cuda_graph": 1})
    assert len(plan.warnings) == 1 and "[net]: unknown key 'gamma' is ignored" in plan.warnings[0]


def test_keys_of_heads_go_into_the_heads(cfg: Path) -> None:
    changes = {"jitter": 0.05, "resize": 1.5}  # the cfg's head says nothing about resize
    head = override_net(read_graph(cfg), changes).detection_specs[-1]
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
def test_options_are_checked_before_training(option: dict[str, Any], expected: str) -> None:
    with pytest.raises(TrainError, match=f"{next(iter(option))}: expected .*{expected}"):
        TrainOptions(**option)


def test_steps_and_burn_in_follow_max_batches(cfg: Path, shapes: Path) -> None:
    graph = read_graph(cfg)
    shorter = override_net(graph, {"max_batches": 4})
    assert (shorter.net.steps, shorter.net.burn_in) == ((3,), 1)
    edits = override_edits(graph, {"max_batches": 4})
    assert [(edit.key, edit.value, edit.reason) for edit in edits] == [
        ("max_batches", "4", ""),
        ("steps", "3", "max_batches=4"),
        ("burn_in", "1", "max_batches=4"),
    ]
    plan = TrainingPlan.create(cfg, shapes, overrides={"max_batches": 4})
    assert plan.notes[0] == "max_batches=4, so steps=3 and burn_in=1"
    longer = override_net(graph, {"max_batches": 24})
    assert (longer.net.steps, longer.net.burn_in) == ((18,), 3)
    same = override_net(graph, {"max_batches": 4, "steps": 2, "burn_in": 2})
    assert (same.net.steps, same.net.burn_in) == ((2,), 2)
    assert len(override_edits(graph, {"max_batches": 4, "steps": 2, "burn_in": 2})) == 3


def test_the_typed_overrides_are_all_keys_of_net() -> None:
    from darknet_py.training.api import train

    named = {key for key in train.__annotations__ if key in net_keys()}
    typed = get_type_hints(NetOverrides)
    assert {*typed, *named} == net_keys() | {"jitter", "random", "resize"}
    assert not named & set(typed)  # mypy would refuse it
    for key, default in vars(NetSpec()).items():
        if key in typed and not isinstance(default, tuple):
            assert typed[key] is type(default), key
