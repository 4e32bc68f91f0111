from __future__ import annotations

import pytest
import torch

from darknet_py.layers.assisted_excitation import AssistedExcitation, box_mask
from darknet_py.layers.base import TrainState


class TestAssistedExcitation:
    def test_cells_inside_boxes(self) -> None:
        truth = torch.tensor([[0, 2, 0.5, 0.5, 0.25, 0.5], [1, 0, 0.0, 0.0, 0.1, 0.1], [0, 1, 0.9, 0.1, 0.4, 0.4]])
        result = box_mask(truth, 2, 4, 8)
        expected = torch.zeros(2, 4, 8, dtype=torch.bool)
        expected[0, 1:3, 3:6] = True  # columns 3, 4 and the one after
        expected[0, 0:2, 5:8] = True
        expected[1, 0, 0:2] = True
        assert torch.equal(result, expected)

    def test_only_acts_in_training(self) -> None:
        layer = AssistedExcitation(1, 0)
        layer.state = TrainState(iteration=0, max_batches=100, truth=torch.tensor([[0, 0, 0.5, 0.5, 1.0, 1.0]]))
        x = torch.rand(1, 3, 2, 2, requires_grad=True)
        y = layer.train()(x)
        assert torch.allclose(y, x + x.mean(1, keepdim=True))
        y.sum().backward()
        assert x.grad is not None and (x.grad == 1).all()
        assert torch.equal(layer.eval()(x), x)
        layer.state.iteration = 51
        assert torch.equal(layer.train()(x), x)

    def test_until_an_iteration(self) -> None:
        layer = AssistedExcitation(80, 20).train()
        layer.state = TrainState(truth=torch.tensor([[0, 0, 0.5, 0.5, 1.0, 1.0]]))
        x = torch.ones(1, 1, 1, 1)
        alphas = {}
        for iteration in (0, 20, 50, 80, 81):
            layer.state.iteration = iteration
            alphas[iteration] = float(layer(x) - x)
        assert alphas == pytest.approx({0: 0, 20: 0.904508, 50: 0.5, 80: 0.0954915, 81: 0}, abs=1e-5)
