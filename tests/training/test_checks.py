"""Keys of `[net]` that forbid a training or have no effect in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import darknet_py
from darknet_py.errors import TrainError
from darknet_py.graph.graph import parse_text
from darknet_py.training.checks import check_schedule, check_supported, ineffective_keys
from darknet_py.training.distributed import DistContext
from darknet_py.training.train_options import override_net
from tests.training.conftest import CFG
from tests.training.tasks.test_classification_task import CFG as CLASSIFIER
from tests.training.tasks.test_text_task import CFG as TEXT
from tests.training.tasks.test_text_task import LAYERS
from tests.training.test_heads import HEADS, NET


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        (
            NET.format(rate=0.001) + HEADS["v2"],
            {"badlabels_rejection_percentage": 5},
            "badlabels_rejection_percentage has no",
        ),
        (
            NET.format(rate=0.001) + HEADS["gaussian"],
            {"num_sigmas_reject_badlabels": 1},
            "num_sigmas_reject_badlabels has no",
        ),
        (
            NET.format(rate=0.001) + HEADS["v1"],
            {"equidistant_point": 5},
            r"equidistant_point has no effect: only \[yolo\]",
        ),
        (CFG, {"seq_scales": ".5"}, "seq_scales has no effect: track=1 is not set"),
        (CFG, {"dynamic_minibatch": 1, "random": 0}, "dynamic_minibatch has no effect: random=1 is not set"),
        (CFG, {"contrastive_color": 1}, "contrastive_color has no effect"),
        (CFG, {"cutmix": 1}, "cutmix has no effect: it is for classifiers"),
        (CFG, {"badlabels_rejection_percentage": 5, "dynamic_minibatch": 1, "ema_alpha": 0.9}, None),
        (CLASSIFIER, {"cutmix": 1}, None),
    ],
)
def test_a_key_without_effect_is_told(text: str, changes: dict[str, Any], said: str | None) -> None:
    lines = ineffective_keys(override_net(parse_text(text), changes))
    assert not lines if said is None else len(lines) == 1 and re.search(said, lines[0])


def test_the_trainer_prints_it(cfg: Path, shapes: Path, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"workers": 0, "device": "cpu", "max_batches": 1, "map": False, "seq_scales": 0.5}
    darknet_py.train(cfg, shapes, out=tmp_path, **options)
    assert "note: [net] seq_scales has no effect: track=1 is not set" in log.messages


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        (CFG, {"attention": 1}, "attention is not supported for a detector"),
        (CFG, {"unsupervised": 1}, "unsupervised is not supported for a detector"),
        (CLASSIFIER, {"track": 1}, "track is not supported for a classifier"),
        (CLASSIFIER, {"dynamic_minibatch": 1}, "dynamic_minibatch is not supported for a classifier"),
        (CFG, {"contrastive": 1, "batch": 2}, "at least 2 images, got 1"),
        (CFG, {"track": 1, "seq_scales": 0.5}, "track=1 is supported with one sequence per subdivision only"),
        (CFG, {"track": 1, "dynamic_minibatch": 1}, "dynamic_minibatch=1 is not supported with time_steps or track"),
    ],
)
def test_keys_that_cannot_be_trained_with(text: str, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(TrainError, match=re.escape(expected)):
        check_supported(override_net(parse_text(text), changes), DistContext())


def test_text_is_trained_by_one_process() -> None:
    graph = parse_text(TEXT.format(layer=LAYERS["gru"]))
    check_supported(graph, DistContext())
    with pytest.raises(TrainError, match="expected one process to train on text, got 2"):
        check_supported(graph, DistContext(0, 2))


@pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")
def test_a_training_may_end_within_its_burn_in() -> None:
    """As in C, where the number is one."""
    check_schedule(override_net(parse_text(CFG), {"max_batches": 1, "burn_in": 3}), {})
    graph = parse_text(re.sub("max_batches=[0-9]+", "max_batches=1,200", CFG))
    with pytest.raises(TrainError, match=r"expected more iterations than burn_in=3, got max_batches=1 \(line"):
        check_schedule(graph, {})
    check_schedule(graph, {"max_batches": 1})


def test_a_batch_of_one_has_to_be_asked_for() -> None:
    graph = override_net(parse_text(CFG), {"batch": 1, "subdivisions": 1})
    with pytest.raises(TrainError, match="batch=1 is for testing"):
        check_schedule(graph, {})
    check_schedule(graph, {"batch": 1})
