"""Every network of the zoo runs on tiny inputs: forward, loss, backward, saved and loaded weights, torch.export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from darknet_py.graph.graph import Graph, parse_text
from darknet_py.model.network import Network
from darknet_py.zoo import ZOO, build

# One of each backbone, neck and head; the others are marked slow.
QUICK = {
    *("csdensenetb-ref", "csmobilenet-v2", "cspeleenet-swish-se", "cspeleenet-efm-sam", "cspeleenet-gfm", "csresnet10"),
    *("darknet", "enet-coco", "pelee-fpn", "pelee-prn", "yolov3-tiny", "yolov4-tiny-3l", "yolov7-tiny"),
    *("c2f", "csp-stackrep", "cspeleenet-cem", "gelan-t", "pelee-pan", "sparsepeleenet"),
    *("yolo-fastest-1.1", "yolov1-tiny-shapes", "yolov2-tiny-shapes", "gaussian-yolov3-tiny-shapes"),
}
TEXT = "lstm-text"  # has a memory and no images; see tests/training/test_text.py and test_recipes.py
TRUTH = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.3], [1, 2, 0.3, 0.6, 0.2, 0.2]])


def smallest(name: str) -> Graph:
    """A network with an input of a few cells of its coarsest stride; [detection] only fits its own input."""
    graph = parse_text(build(name), strict=True)
    if graph.layers[-1].type == "detection":
        return graph
    deepest = min(node.output.w for node in graph if node.output.w > 1)
    side = max(graph.net.width // deepest * 2, 64)
    return parse_text(graph.text, name, width=side, height=side, strict=True)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ZOO if name != TEXT]
)
def test_network_learns_keeps_its_weights_and_exports(name: str, tmp_path: Path):
    torch.manual_seed(0)
    network = Network(smallest(name))
    image = torch.rand(2, *network.graph.input)
    network.train()
    report = network.loss(image, _truth(network.graph))
    report.total.backward()
    assert torch.isfinite(report.total)
    without_gradient = [key for key, value in network.named_parameters() if value.grad is None]
    assert without_gradient == []
    network.zero_grad(set_to_none=True)

    path = tmp_path / f"{name}.weights"
    network.save_weights(path)
    assert path.stat().st_size == 20 + 4 * network.graph.parameters
    expected = {key: value.double().sum() for key, value in network.state_dict().items()}
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            value.zero_()
    network.load_weights(path)
    for key, value in network.state_dict().items():
        assert value.double().sum() == expected[key], key
    path.unlink()

    network.eval()
    exported = torch.export.export(network, (image,)).module()
    with torch.no_grad():
        for ours, theirs in zip(tree_leaves(network(image)), tree_leaves(exported(image)), strict=True):
            assert torch.equal(ours, theirs)


def _truth(graph: Graph) -> torch.Tensor:
    """Two boxes in two images, or two classes."""
    softmax = next((node for node in graph if node.type == "softmax"), None)
    return TRUTH if softmax is None else torch.eye(softmax.output.c)[[3, 5]]
