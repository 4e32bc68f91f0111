"""The update rules against Darknet's formulas written out in NumPy, and what freezing leaves untouched."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
from darknet_py.training.optimizer import Ema, frozen_layers, last_stopped_layer, make_optimizer, set_trainable

CONV = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"


def network(*layers: str, net: str = "") -> Network:
    """A small stack; each entry of `layers` holds the extra options of one convolution."""
    torch.manual_seed(0)
    text = f"[net]\nwidth=8\nheight=8\nchannels=3\nbatch=2\nmax_batches=10\n{net}\n"
    return Network(parse_text(text + "\n".join(CONV + extra for extra in layers)))


def forward_backward(net: Network, seed: int) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    out = net(x)
    if out.requires_grad:
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()


def train(net: Network, steps: int, rate: float = 0.1) -> None:
    optimizer = make_optimizer(net)
    for iteration in range(1, steps + 1):
        set_trainable(net, last_stopped_layer(net.graph, iteration))
        forward_backward(net, iteration)
        optimizer.step(rate=rate, batch=2, iteration=iteration)
        optimizer.zero_grad()


def test_sgd_is_darknets_update() -> None:
    net = network("learning_rate=0.5", net="momentum=0.9\ndecay=0.01")
    twin = copy.deepcopy(net)
    w = {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}
    updates = {name: np.zeros_like(value) for name, value in w.items()}
    rate, batch = 0.1 * 0.5, 2
    optimizer = make_optimizer(net)
    for iteration in (1, 2, 3):
        set_trainable(net, last_stopped_layer(net.graph, iteration))
        forward_backward(net, iteration)
        for name, p in net.named_parameters():
            updates[name] += -p.grad.double().numpy()  # Darknet's delta
            if name.endswith("weight"):
                updates[name] += -0.01 * batch * w[name]
            w[name] += rate / batch * updates[name]
            updates[name] *= 0.9
        optimizer.step(rate=0.1, batch=2, iteration=iteration)
        optimizer.zero_grad()
        for name, p in net.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), w[name], rtol=1e-5, atol=1e-6)
    train(twin, 3)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_adam_is_darknets_update() -> None:
    net = network("", net="adam=1\nB1=0.8\nB2=0.99\neps=0.001\ndecay=0.01")
    w = {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}
    m = {name: np.zeros_like(value) for name, value in w.items()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    optimizer = make_optimizer(net)
    for t in (5, 6, 7):  # the iteration number counts, not the updates made
        set_trainable(net, last_stopped_layer(net.graph, t))
        forward_backward(net, t)
        for name, p in net.named_parameters():
            d = -p.grad.double().numpy() - 0.01 * 2 * w[name]  # biases and scales decay too
            m[name] = 0.8 * m[name] + 0.2 * d
            v[name] = 0.99 * v[name] + 0.01 * d * d
            w[name] += 0.1 * (m[name] / (1 - 0.8**t)) / (np.sqrt(v[name] / (1 - 0.99**t)) + 0.001)
        optimizer.step(rate=0.1, batch=2, iteration=t)
        optimizer.zero_grad()
        for name, p in net.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), w[name], rtol=1e-4, atol=1e-5)


def test_state_dict_continues_exactly() -> None:
    net = network("", "learning_rate=2")
    optimizer = make_optimizer(net)
    for iteration in (1, 2):
        set_trainable(net, last_stopped_layer(net.graph, iteration))
        forward_backward(net, iteration)
        optimizer.step(rate=0.1, batch=2, iteration=iteration)
        optimizer.zero_grad()
    twin = copy.deepcopy(net)
    other = make_optimizer(twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for n, o in ((net, optimizer), (twin, other)):
        forward_backward(n, 3)
        o.step(rate=0.1, batch=2, iteration=3)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def moved(net: Network, steps: int) -> list[tuple[bool, bool]]:
    """Per layer: did any array that is learned change, and did the running statistics?"""
    before = copy.deepcopy(net.state_dict())
    train(net, steps)
    after = net.state_dict()

    def changed(index: int, statistics: bool) -> bool:
        names = [n for n in after if n.startswith(f"layers.{index}.")]
        return any(
            not torch.equal(before[n], after[n]) for n in names if n.endswith(("mean", "variance")) == statistics
        )

    return [(changed(i, False), changed(i, True)) for i in range(len(net.graph.layers))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("", "", ""), [(True, True)] * 3),
        # Before the stop nothing moves; the stopping layer gets no gradient but decays, as in C.
        (("", "stopbackward=1", ""), [(False, False), (True, True), (True, True)]),
        (("onlyforward=1", "", ""), [(False, False), (True, True), (True, True)]),
        (("", "train_only_bn=1", ""), [(False, True), (False, True), (True, True)]),
        (("dont_update=3", "", ""), [(False, True), (True, True), (True, True)]),
        (("dont_update=2", "", ""), [(True, True)] * 3),
        (("burnin_update=2", "", ""), [(False, True), (True, True), (True, True)]),
        (("train_only_bn=1",) * 3, [(False, True)] * 3),
    ],
)
def test_what_freezing_leaves_bit_identical(options: tuple[str, ...], expected: list[tuple[bool, bool]]) -> None:
    net = network(*options, net="burn_in=2")
    assert moved(net, 3) == expected


def test_without_decay_the_stopping_layer_keeps_its_weights() -> None:
    assert moved(network("", "stopbackward=1", "", net="decay=0"), 3)[1] == (False, True)


def test_stopbackward_above_one_holds_for_that_many_iterations() -> None:
    graph = network("", "stopbackward=2", "").graph
    assert [last_stopped_layer(graph, i) for i in (1, 2, 3)] == [1, 1, -1]
    assert frozen_layers(graph).frozen == frozenset()
    assert moved(network("", "stopbackward=2", "", net="decay=0"), 2)[0] == (False, True)
    assert moved(network("", "stopbackward=2", "", net="decay=0"), 3)[0] == (True, True)


def test_clip_bounds_weights_only() -> None:
    net = network("clip=0.01")
    train(net, 1)
    assert net.layers[0].weight.abs().max() <= 0.01
    assert net.layers[0].scale.abs().max() > 0.01


def test_ema_starts_at_half_and_replaces_the_weights_near_the_end() -> None:
    weight = torch.zeros(1)
    ema = Ema([weight], alpha=0.5, max_batches=8)  # from 4, applied at 6
    for iteration in range(1, 9):
        weight.fill_(float(iteration))
        ema.update(iteration)
        assert bool(ema.averages) == (iteration >= 4)
        if iteration == 6:
            assert weight.item() == 4.5  # 4, then 0.5·4 + 0.5·5
    assert weight.item() == 8
    ema.swap()
    assert weight.item() == 4.5
    ema.swap()
    assert weight.item() == 8


def test_nothing_flows_back_through_onlyforward() -> None:
    before, middle, after = moved(network("", "onlyforward=1", "", net="decay=0"), 2)
    assert (before, middle, after) == ((False, True), (False, False), (True, True))


@pytest.mark.parametrize("adam", [0, 1])
def test_memory_order_does_not_matter(adam: int) -> None:
    """torch's fused kernels pair elements by their place in memory, which is another in channels-last tensors."""
    plain, mixed = network("", net=f"adam={adam}"), network("", net=f"adam={adam}")
    mixed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for net in (plain, mixed):
        optimizer = make_optimizer(net)
        for iteration in range(1, 4):
            for number, parameter in enumerate(net.parameters()):
                generator = torch.Generator().manual_seed(10 * iteration + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            if net is mixed and iteration == 2:  # buffers as a file may have them
                for state in optimizer.state.values():
                    state.update({name: values.contiguous() for name, values in state.items()})
            optimizer.step(rate=0.1, batch=2, iteration=iteration)
    for ours, theirs in zip(mixed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
