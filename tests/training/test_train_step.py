"""One iteration: how mini-batches add up, mixed precision, and state."""

from __future__ import annotations

import copy

import pytest
import torch

from darknet_py.cfg.net import NetSpec
from darknet_py.errors import TrainError
from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, LocalBatch, split_batch
from darknet_py.training.train_step import TrainStep
from tests.training.conftest import CFG

PLAIN = (
    CFG.replace("batch_normalize=1\n", "").replace("[dropout]\nprobability=.3\n", "").replace("random=1", "random=0")
)


def data(images: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and one box in each."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.cat([torch.arange(images)[:, None], torch.rand(images, 5, generator=rng) * 0.4 + 0.3], 1)
    truth[:, 1] = torch.arange(images) % 6
    return torch.rand(images, 3, 64, 64, generator=rng), truth


def learner(text: str = PLAIN, **options: str) -> TrainStep:
    torch.manual_seed(3)
    return TrainStep(Network(parse_text(text)), **options)


def test_subdivisions_only_split_the_work() -> None:
    images, truth = data(4)
    whole, parts = learner(PLAIN.replace("subdivisions=2", "subdivisions=1")), learner()
    halves = [(images[i : i + 2], truth[i : i + 2] - torch.tensor([i, 0, 0, 0, 0, 0])) for i in (0, 2)]
    for _ in range(3):
        one, two = whole.step([(images, truth)]), parts.step(halves)
        assert one.loss.item() == pytest.approx(two.loss.item(), rel=1e-6)
        assert (one.rate, one.iteration) == (two.rate, two.iteration)
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_it_counts_as_darknet_does() -> None:
    one = learner()
    images, truth = data(2)
    step = one.step([(images, truth), (images, truth)])
    assert (step.iteration, one.network.state.seen, one.network.state.iteration) == (1, 4, 1)
    assert step.rate == pytest.approx(0.001 * (1 / 3) ** 4)  # the first update asks for the rate of iteration 1
    cost = sum(one.network.loss(images, truth).cost.item() for _ in range(2))
    assert step.loss.item() == pytest.approx(cost / 4, rel=1e-2)  # moved a little by the update


def test_an_evaluation_in_between_changes_nothing() -> None:
    one, two = learner(CFG), learner(CFG)
    images, truth = data(2)
    for _ in range(2):
        one.step([(images, truth)] * 2)
        two.step([(images, truth)] * 2)
        two.network.eval()
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))


def test_state_continues_exactly() -> None:
    text = CFG.replace("decay=", "ema_alpha=.9\nnum_sigmas_reject_badlabels=1\nequidistant_point=3\ndecay=")
    one, two = learner(text), learner(text)
    images, truth = data(2)
    for _ in range(7):
        one.step([(images, truth)] * 2)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for _ in range(5):
        assert one.step([(images, truth)] * 2).loss == two.step([(images, truth)] * 2).loss
    for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_stays_near_full_precision(amp: str) -> None:
    images, truth = data(2)
    full, mixed = learner(CFG), learner(CFG, amp=amp)
    for _ in range(4):
        a, b = full.step([(images, truth)] * 2), mixed.step([(images, truth)] * 2)
    assert b.loss.item() == pytest.approx(a.loss.item(), rel=0.05)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in mixed.network.parameters())


def test_shares_of_a_batch() -> None:
    def of(batch: int, subdivisions: int, size: int) -> LocalBatch:
        return split_batch(NetSpec(batch=batch, subdivisions=subdivisions), DistContext(0, size))

    assert of(64, 16, 1) == LocalBatch(16, 4)
    assert of(64, 16, 8) == LocalBatch(2, 4)
    assert of(64, 1, 8) == LocalBatch(1, 8)
    assert of(64, 4, 8) == LocalBatch(1, 8)
    with pytest.raises(TrainError, match="expected a batch that divides evenly among 3 processes"):
        of(64, 16, 3)
    with pytest.raises(TrainError, match="contrastive=1: expected at least 2 images per process"):
        split_batch(NetSpec(batch=4, subdivisions=2, contrastive=True), DistContext(0, 4))
