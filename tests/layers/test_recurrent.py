"""Recurrent layers: what they keep, when they forget, and that training steps equal single ones."""

from __future__ import annotations

import pytest
import torch

from darknet_py.errors import DarknetError
from darknet_py.graph.graph import parse_text
from darknet_py.layers.recurrent import RecurrentLayer, reset_state
from darknet_py.model.network import Network

SECTIONS = {
    "rnn": "[rnn]\noutput=5\nhidden=4\nactivation=tanh\nshortcut=1\n",
    "gru": "[gru]\noutput=5\n",
    "lstm": "[lstm]\noutput=5\n",
    "crnn": "[crnn]\npad=1\nhidden=4\noutput=5\nactivation=tanh\n",
    "conv_lstm": "[conv_lstm]\npad=1\noutput=5\npeephole=1\n",
    "conv_lstm bottleneck": "[conv_lstm]\npad=1\noutput=3\nbottleneck=1\nshortcut=1\nactivation=leaky\n",
    "history": "[history]\nhistory_size=3\n",
}
PIXELS = ("crnn", "conv_lstm", "conv_lstm bottleneck", "history")


def network(name: str, time_steps: int = 3) -> Network:
    torch.manual_seed(0)
    size = "width=6\nheight=4\nchannels=3\n" if name in PIXELS else "inputs=7\n"
    return Network(parse_text(f"[net]\n{size}time_steps={time_steps}\n{SECTIONS[name]}"))


def rows(name: str, count: int) -> torch.Tensor:
    shape = (3, 4, 6) if name in PIXELS else (7,)
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SECTIONS)
def test_a_training_batch_is_the_steps_one_after_another(name: str) -> None:
    net, x = network(name), rows(name, 6)
    together = net.train()(x)
    single = torch.cat([net.eval()(part) for part in x.split(2)])
    assert torch.allclose(together, single, atol=1e-6)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_memory_stays_between_calls_until_it_is_reset(name: str) -> None:
    net, x = network(name).eval(), rows(name, 2)
    first, second = net(x), net(x)
    assert not torch.allclose(first, second)
    reset_state(net)
    assert torch.equal(net(x), first)


@pytest.mark.parametrize("name", SECTIONS)
def test_one_stream_can_be_reset(name: str) -> None:
    net, x = network(name).eval(), rows(name, 2)
    first, second = net(x), net(x)
    reset_state(net)
    net(x)
    reset_state(net, 1)
    again = net(x)
    assert torch.allclose(again[0], second[0]) and torch.allclose(again[1], first[1])


@pytest.mark.parametrize("name", SECTIONS)
def test_other_streams_or_another_mode_start_with_an_empty_memory(name: str) -> None:
    net, x = network(name).eval(), rows(name, 6)
    first = net(x[:2])
    net(x[:3])
    assert torch.equal(net(x[:2]), first)
    net.train()(x)
    assert torch.equal(net.eval()(x[:2]), first)


@pytest.mark.parametrize("name", SECTIONS)
def test_what_training_carries_on(name: str) -> None:
    """C empties the state of [rnn] and [crnn] at each mini-batch; the others go on, without a gradient."""
    net, x = network(name).train(), rows(name, 6).requires_grad_()
    first = net(x)
    first.sum().backward()
    second = net(x)
    assert torch.equal(first, second) == (name in ("rnn", "crnn"))
    second.sum().backward()  # the graph of the first mini-batch is gone


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "crnn"])
def test_gradients_pass_back_through_time(name: str) -> None:
    net = network(name).train().double()
    x = rows(name, 6).double().requires_grad_()
    memory = [module for module in net.modules() if isinstance(module, RecurrentLayer)]

    def fresh(values: torch.Tensor) -> torch.Tensor:
        for module in memory:
            module.reset_state()
        return net(values)

    assert torch.autograd.gradcheck(fresh, (x,), eps=1e-6, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("normalized", [False, True])
def test_each_step_has_separate_statistics(normalized: bool) -> None:
    norm = "batch_normalize=1\n" if normalized else ""
    net = Network(parse_text(f"[net]\ninputs=7\ntime_steps=2\n[rnn]\noutput=5\nhidden=4\nactivation=linear\n{norm}"))
    x = rows("rnn", 8)
    together = net.train()(x)[:4]
    net.layers[0].time_steps = 1
    assert torch.allclose(together, net(x[:4]), atol=1e-5)


def test_a_batch_must_hold_whole_steps() -> None:
    with pytest.raises(DarknetError, match="expected a multiple of time_steps=3 rows in a mini-batch, got 4"):
        network("lstm").train()(rows("lstm", 4))


def test_batch_norm_of_a_batch_of_steps_is_saved(tmp_path: pytest.TempPathFactory) -> None:
    net = network("lstm")
    path = f"{tmp_path}/w"
    net.save_weights(path)
    other = network("lstm")
    torch.nn.init.zeros_(other.layers[0].gates["wf"].weight)
    other.load_weights(path)
    assert torch.equal(other.eval()(rows("lstm", 2)), net.eval()(rows("lstm", 2)))


def test_hidden_is_the_output_where_it_is_missing() -> None:
    assert parse_text("[net]\ninputs=7\n[rnn]\noutput=5\n").layers[0].parameters == 5 * 8 + 5 * 6 * 2
