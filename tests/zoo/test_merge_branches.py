"""Re-parameterization: merged networks compute the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from darknet_py.cli import main
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import parse_text
from darknet_py.model.load import read_trained
from darknet_py.model.network import Network
from darknet_py.zoo.design import Design
from darknet_py.zoo.merge_branches import find_branches, merge_branches

NET = "[net]\nwidth=16\nheight=16\nchannels=3\n[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"


def branch(size: int, norm: int, extra: str = "", activation: str = "linear") -> str:
    return f"[convolutional]\nbatch_normalize={norm}\nfilters=8\nsize={size}\npad=1\n{extra}activation={activation}\n"


def pair(first: str, second: str, activation: str = "relu") -> str:
    return f"{first}[route]\nlayers=-2\n{second}[shortcut]\nfrom=-3\nactivation={activation}\n"


def with_identity(first: str, second: str) -> str:
    """RepVGG's three branches."""
    identity = "[route]\nlayers=-4\n[batchnorm]\n[shortcut]\nfrom=-3,-5\nactivation=relu\n"
    return f"{first}[route]\nlayers=-2\n{second}{identity}"


def trained(text: str) -> Network:
    """A network with weights and statistics as after a training."""
    torch.manual_seed(0)
    net = Network(parse_text(text)).eval()
    with torch.no_grad():
        for name, array in net.state_dict().items():
            if name.endswith("variance"):
                array.uniform_(0.2, 3)
            elif name.endswith(("mean", "bias", "scale")):
                array.uniform_(-1, 1)
    return net


@pytest.mark.parametrize(
    "text",
    [
        pair(branch(3, 1), branch(1, 1)),
        pair(branch(1, 1), branch(5, 0)),
        pair(branch(3, 1, "stride=2\n"), branch(1, 0, "stride=2\n"), "leaky"),
        pair(branch(3, 1, "groups=4\n"), branch(3, 1, "groups=4\n"), "mish"),
        pair(branch(3, 1), branch(1, 1))
        + "[shortcut]\nfrom=-5\n"
        + pair(branch(3, 1), branch(1, 1))
        + "[route]\nlayers=-1,0,5\n",
        with_identity(branch(3, 1), branch(1, 1)),
        with_identity(branch(3, 1, "groups=4\n"), branch(1, 1, "groups=4\n")),
        f"{branch(3, 1)}[route]\nlayers=-2\n[batchnorm]\n[shortcut]\nfrom=-3\nactivation=relu\n",
        f"[batchnorm]\n[route]\nlayers=-2\n{branch(3, 0)}[shortcut]\nfrom=-3\n",
    ],
)
def test_outputs_are_equal(text: str):
    net = trained(NET + text)
    merged = merge_branches(net)
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected, ours = net(image), merged(image)
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    count = len(find_branches(net.graph))
    dropped = sum(len(branches.dropped) for branches in find_branches(net.graph))
    assert count >= 1 and len(merged.graph.layers) == len(net.graph.layers) - dropped
    assert find_branches(merged.graph) == []


@pytest.mark.parametrize(
    "text",
    [
        pair(branch(3, 1, activation="relu"), branch(1, 1)),  # not linear
        pair(branch(3, 1), branch(1, 1)) + "[route]\nlayers=1\n",  # read by another layer
        pair(branch(3, 1), branch(1, 1)).replace("layers=-2", "layers=-1"),  # one after the other
        pair(branch(3, 1), branch(1, 1)).replace("from=-3", "from=-3\nweights_type=per_feature"),
        pair(branch(4, 1), branch(1, 1)).replace("size=4\npad=1", "size=3\npadding=0"),
        pair(branch(3, 1, "groups=2\n"), branch(1, 1)),
        pair(branch(3, 1), branch(1, 1)) + branch(1, 1, "share_index=3\n"),
        with_identity(branch(3, 1), branch(1, 1)).replace("layers=-4", "layers=-3"),  # of another layer
        with_identity(branch(3, 1), branch(1, 1)).replace("[batchnorm]", "[dropout]\nprobability=.5"),
        "[batchnorm]\n[route]\nlayers=-2\n[batchnorm]\n[shortcut]\nfrom=-3\n",  # nothing to merge into
    ],
)
def test_others_are_left_alone(text: str):
    net = trained(NET + text)
    with pytest.raises(DarknetError, match="expected linear convolutions of the same input that are added, got none"):
        merge_branches(net)


def test_designed_network_is_merged_into_its_deployed_design(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    parts = {"head": "classifier", "classes": 5, "size": (64, 64)}
    net = trained(Design("csp-stackrep", **parts).text())  # type: ignore[arg-type]
    cfg, weights, out, out_weights = (
        tmp_path / name for name in ("rep.cfg", "rep.weights", "merged.cfg", "merged.weights")
    )
    cfg.write_text(net.graph.text)
    net.save_weights(weights)
    assert main(["merge", *map(str, (cfg, weights, out, out_weights))]) == 0
    assert "merged 14 sums of parallel convolutions" in capsys.readouterr().out
    merged = read_trained(out, out_weights)
    deployed = parse_text(Design("csp-stackrep-deploy", **parts).text())  # type: ignore[arg-type]
    assert [(n.type, n.sources, n.spec) for n in merged.graph] == [(n.type, n.sources, n.spec) for n in deployed]
    image = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(merged(image), net(image), atol=1e-4)
    assert main(["merge", *map(str, (out, out_weights, cfg, weights))]) == 1  # nothing is left to merge
