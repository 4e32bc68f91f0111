"""Small heads with C Darknet's delta and cost (tests/golden/heads.json and .npz), and how to run ours on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.cfg.sections import Problems, parse_sections
from darknet_py.layers.base import HeadLayer, HeadLoss, Node, Shape, Spec, TrainState

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def cases(section: str) -> list[str]:
    """Names of the golden cases with that head."""
    return [name for name, case in _json().items() if f"[{section}]" in case["cfg"]]


def golden(name: str) -> tuple[dict[str, Any], np.ndarray]:
    """(case, C's delta (B, C, H, W))."""
    case = _json()[name]
    with np.load(GOLDEN / "heads.npz") as deltas:
        return case, deltas[name].reshape(case["shape"])


def _json() -> dict[str, Any]:
    return json.loads((GOLDEN / "heads.json").read_text())


def noise(seed: int, shape: list[int], scale: float, logistic: bool = False) -> Tensor:
    """The input of a golden case: hashed counters, uniform in ±scale."""
    n = (np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed * 7919 + 1)) & np.uint64(0xFFFFFFFF)
    for factor, shift in ((2654435761, 15), (2246822519, 13), (3266489917, 16)):
        n = (n * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
        n ^= n >> np.uint64(shift)
    x = ((n / 2.0**32) * 2 - 1) * scale
    if logistic:
        x = 1 / (1 + np.exp(-x))
    return torch.tensor(x.reshape(shape).astype(np.float32))


def spec_of(kind: type[Spec], text: str, index: int = 1) -> tuple[Spec, NetSpec]:
    """The last section of a cfg, as layer `index`. Raises CfgError; unknown keys fail."""
    problems = Problems("case.cfg", strict=True)
    sections = parse_sections(text, problems)
    net = NetSpec.parse(Options(sections[0], None, problems))
    options = Options(sections[-1], index, problems)
    spec = kind.parse(options, net, index)
    options.report_unknown()
    problems.raise_errors()
    return spec, net


def build(kind: type[Spec], text: str, shape: tuple[int, int, int], index: int = 1) -> HeadLayer:
    """The head of the last section of `text` for an input of (C, H, W)."""
    spec, net = spec_of(kind, text, index)
    given = Shape(*shape)
    head = spec.build(Node(index, "head", 1, spec, None, (0,), (given,), spec.infer([given]), net=net))
    assert isinstance(head, HeadLayer)
    return head


def run(head: HeadLayer, x: Tensor, truth: Tensor, state: TrainState | None = None) -> tuple[HeadLoss, np.ndarray]:
    """(report, minus the gradient at x)."""
    x = x.clone().requires_grad_()
    report = head.loss(x, truth, state or TrainState())
    report.total.backward()
    assert x.grad is not None
    return report, -x.grad.numpy()


def check(kind: type[Spec], name: str) -> None:
    """Our delta and cost equal C's."""
    case, expected = golden(name)
    head = build(kind, case["cfg"], tuple(case["shape"][1:]))
    x = noise(case["seed"], case["shape"], case["scale"], case["logistic"])
    truth = torch.tensor(case["truth"], dtype=torch.float32).reshape(-1, len(case["truth"][0]) if case["truth"] else 6)
    # C counts the images of a mini-batch before it computes the loss.
    state = TrainState(case["seen"] - len(x), case["iteration"], adversarial=case["adversarial"])
    report, delta = run(head, x, truth, state)
    np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(float(report.cost), case["cost"], rtol=1e-4)
    assert abs(float(report.total.detach()) - case["cost"]) <= 1e-3 * abs(case["cost"])


def rows(*values: tuple[float, ...]) -> Tensor:
    """Truth rows (image, class, cx, cy, w, h)."""
    return torch.tensor(values).reshape(-1, 6)


def reference_case(
    kind: type[Spec], case: dict[str, Any], arrays: Mapping[str, np.ndarray], name: str, probe: ModuleType
) -> tuple[HeadLoss, np.ndarray, np.ndarray]:
    """(report, our delta, C's delta) of a case of the reference folder."""
    expected, truth = arrays[f"{name}/delta"], arrays[f"{name}/truth"]
    batch, channels, height, width = expected.shape
    x = (probe.image(case["x_seed"], (batch, channels, 2 * height, 2 * width)) * 2 - 1) * case["scale"]
    x = (1 / (1 + np.exp(-x)) if case["logistic"] else x)[:, :, ::2, ::2]
    labels = [(b, t[4], *t[:4]) for b in range(batch) for t in truth[b] if t[0]]
    head = build(kind, case["cfg"], (channels, height, width))
    report, delta = run(head, torch.tensor(x.astype(np.float32)), torch.tensor(labels).reshape(-1, 6))
    return report, delta, expected
