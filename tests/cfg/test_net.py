"""`[net]` is read with Darknet's defaults; each policy reads its own keys."""

from __future__ import annotations

import dataclasses

import pytest

from darknet_py.cfg.net import UNUSED_KEYS, NetSpec
from darknet_py.cfg.options import Options
from darknet_py.cfg.sections import Problems, parse_sections

SIZE = "width=32\nheight=16\nchannels=3\n"


def read(body: str) -> tuple[NetSpec, Problems]:
    problems = Problems("a.cfg")
    (section,) = parse_sections("[net]\n" + body, problems)
    options = Options(section, None, problems)
    net = NetSpec.parse(options)
    options.report_unknown()
    return net, problems


def test_defaults_are_darknets() -> None:
    net, problems = read(SIZE)
    assert not problems.errors and not problems.warnings
    expected = NetSpec(width=32, height=16, channels=3, inputs=32 * 16 * 3, max_crop=64, min_crop=32)
    assert net == expected


def test_every_field_has_a_key() -> None:
    numbers = {"width": "32", "height": "16", "channels": "3", "policy": "steps", "steps": "2", "scales": ".5"}
    keys = [field.name for field in dataclasses.fields(NetSpec) if field.name not in ("step", "scale", "gamma")]
    _, problems = read("".join(f"{key}={numbers.get(key, '1')}\n" for key in keys))
    assert not problems.errors and not problems.warnings


def test_keys_without_effect_are_accepted() -> None:
    _, problems = read(SIZE + "".join(f"{key}=1\n" for key in UNUSED_KEYS))
    assert not problems.errors and not problems.warnings


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("width=8\nheight=4\n", (3, 96)),  # image cfgs without channels mean RGB
        ("inputs=7\n", (0, 7)),
        ("width=8\nheight=4\ninputs=7\n", (0, 7)),
    ],
)
def test_channels_and_inputs(body: str, expected: tuple[int, int]) -> None:
    net, _ = read(body)
    assert (net.channels, net.inputs) == expected


def test_an_input_is_needed() -> None:
    _, problems = read("batch=4\n")
    assert [str(problem) for problem in problems.errors] == [
        "a.cfg:1: [net]: expected width, height and channels (or inputs), got none"
    ]


@pytest.mark.parametrize(
    ("body", "mixup"),
    [("", 0), ("mixup=1", 1), ("cutmix=1", 2), ("mosaic=1", 3), ("mosaic=1\ncutmix=1", 4), ("mixup=3", 3)],
)
def test_mixup_is_darknets_code(body: str, mixup: int) -> None:
    assert read(SIZE + body)[0].mixup == mixup


def test_a_policy_reads_its_own_keys() -> None:
    keys = "step=5\nscale=.5\ngamma=.9\n"
    net, problems = read(SIZE + "policy=step\n" + keys)
    assert (net.step, net.scale, net.gamma) == (5, 0.5, 1.0)
    assert [problem.message for problem in problems.warnings] == ["unknown key 'gamma' is ignored"]
    net, problems = read(SIZE + "policy=sigmoid\n" + keys)
    assert (net.step, net.scale, net.gamma) == (5, 1.0, 0.9)
    assert [problem.message for problem in problems.warnings] == [
        "unknown key 'scale' is ignored; did you mean 'loss_scale'?"
    ]


def test_each_step_has_a_scale() -> None:
    net, problems = read(SIZE + "policy=steps\nsteps=10,20\nscales=.1,.2,.3\n")
    assert (net.steps, net.scales, net.seq_scales) == ((10, 20), (0.1, 0.2), (1.0, 1.0)) and not problems.errors
    _, problems = read(SIZE + "policy=steps\nsteps=10,20\nscales=.1\n")
    assert [str(problem) for problem in problems.errors] == [
        "a.cfg:7: [net]: scales: expected 2 numbers, one per step, got 1"
    ]
    _, problems = read(SIZE + "policy=steps\nsteps=10\n")
    assert [problem.message for problem in problems.errors] == [
        "policy=steps: expected steps= and scales=, got no scales="
    ]


def test_batches() -> None:
    net, _ = read(SIZE + "batch=10\nsubdivisions=3\ntime_steps=2\n")
    assert (net.mini_batch, net.batch_images) == (3, 18)
    assert read(SIZE + "subdivisions=8\n")[0].mini_batch == 1
    assert read(SIZE + "subdivisions=4\nsequential_subdivisions=9\n")[0].sequential_subdivisions == 4


def test_another_input_size() -> None:
    net, _ = read(SIZE)
    assert net.resized(64, None) == dataclasses.replace(net, width=64, inputs=64 * 16 * 3)
    text, _ = read("inputs=7\n")
    assert text.resized(64, 64) is text
