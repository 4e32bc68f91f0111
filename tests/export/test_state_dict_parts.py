"""State dicts of CSP blocks from YAML files: their order, their shared batch norm, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from darknet_py.errors import WeightsError
from darknet_py.export.state_dicts import read_state_dict
from darknet_py.graph.graph import parse_text
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

EPS = 1e-3
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "mish": nn.Mish,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "swish": nn.SiLU,
}


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPS)


class Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int, stride: int, activation: str):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.bn = norm(outputs)
        self.activate = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.activate(self.bn(self.conv(x)))
        return output


class Pair(nn.Module):
    """A 1x1 and a 3x3 convolution, with or without a shortcut."""

    def __init__(self, width: int, shortcut: bool, activation: str):
        super().__init__()
        self.cv1 = Convolution(width, width, 1, 1, activation)
        self.cv2 = Convolution(width, width, 3, 1, activation)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class Block(nn.Module):
    """The common part of the blocks: two branches are concatenated and normalized."""

    bn: nn.BatchNorm2d

    def __init__(self, activation: str):
        super().__init__()
        self.activate = ACTIVATIONS[activation]()

    def join(self, *branches: Tensor) -> Tensor:
        output: Tensor = self.activate(self.bn(torch.cat(branches, 1)))
        return output


class Residual(Block):
    """Both branches end with a plain convolution (BottleneckCSP)."""

    def __init__(self, inputs: int, outputs: int, activation: str):
        width = outputs // 2
        super().__init__(activation)
        self.cv1 = Convolution(inputs, width, 1, 1, activation)
        self.cv2 = nn.Conv2d(inputs, width, 1, bias=False)
        self.cv3 = nn.Conv2d(width, width, 1, bias=False)
        self.cv4 = Convolution(2 * width, outputs, 1, 1, activation)
        self.bn = norm(2 * width)
        self.m = nn.Sequential(*[Pair(width, True, activation) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.cv4(self.join(self.cv3(self.m(self.cv1(x))), self.cv2(x)))
        return output


class Plain(Block):
    """One branch is a plain convolution (BottleneckCSP2)."""

    def __init__(self, inputs: int, width: int, activation: str):
        super().__init__(activation)
        self.cv1 = Convolution(inputs, width, 1, 1, activation)
        self.cv2 = nn.Conv2d(width, width, 1, bias=False)
        self.cv3 = Convolution(2 * width, width, 1, 1, activation)
        self.bn = norm(2 * width)
        self.m = nn.Sequential(*[Pair(width, False, activation) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        output: Tensor = self.cv3(self.join(self.m(x), self.cv2(x)))
        return output


class Pooling(Block):
    """One branch is a plain convolution, the other one pools (SPPCSP)."""

    def __init__(self, inputs: int, width: int, activation: str):
        super().__init__(activation)
        self.cv1 = Convolution(inputs, width, 1, 1, activation)
        self.cv2 = nn.Conv2d(inputs, width, 1, bias=False)
        self.cv3 = Convolution(width, width, 3, 1, activation)
        self.cv4 = Convolution(width, width, 1, 1, activation)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (3, 5, 7))
        self.cv5 = Convolution(4 * width, width, 1, 1, activation)
        self.cv6 = Convolution(width, width, 3, 1, activation)
        self.bn = norm(2 * width)
        self.cv7 = Convolution(2 * width, width, 1, 1, activation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv4(self.cv3(self.cv1(x)))
        y = self.cv6(self.cv5(torch.cat([y, *(pool(y) for pool in self.m)], 1)))
        output: Tensor = self.cv7(self.join(y, self.cv2(x)))
        return output


class Heads(nn.Module):
    def __init__(self, *inputs: int):
        super().__init__()
        self.m = nn.ModuleList(nn.Conv2d(channels, 6, 1) for channels in inputs)


class Foreign(nn.Module):
    """A network of two levels. The convolution before a head follows its level; the heads are last."""

    def __init__(self, activation: str):
        super().__init__()
        self.model = nn.Sequential(
            Convolution(3, 8, 3, 1, activation),
            Residual(8, 8, activation),
            Convolution(8, 16, 3, 2, activation),
            Pooling(16, 8, activation),
            Plain(8, 8, activation),
            Convolution(8, 16, 3, 1, activation),
            Convolution(8, 16, 3, 2, activation),
            Plain(16, 16, activation),
            Convolution(16, 16, 3, 1, activation),
            Heads(16, 16),
        )
        generator = torch.Generator().manual_seed(2)
        for name, values in self.state_dict().items():
            if name.endswith("running_var") or name.endswith("bn.weight"):
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
            elif values.is_floating_point():
                values.copy_(torch.randn(values.shape, generator=generator) * 0.3)

    def forward(self, x: Tensor) -> list[Tensor]:
        level = self.model[:5](x)
        coarse = self.model[6:8](level)
        fine, coarse = self.model[5](level), self.model[8](coarse)
        heads = self.model[9]
        assert isinstance(heads, Heads)
        return [head(x) for head, x in zip(heads.m, (fine, coarse), strict=True)]


def convolution(filters: int, size: int = 1, stride: int = 1, groups: int = 1) -> str:
    return (
        f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\n"
        f"groups={groups}\nactivation=ACTIVATION\n"
    )


def route(*layers: int) -> str:
    return f"[route]\nlayers={','.join(map(str, layers))}\n"


def head() -> str:
    return "[convolutional]\nfilters=6\nsize=1\nactivation=linear\n[yolo]\nmask=0\nanchors=4,4\nnum=1\nclasses=1\n"


def plain(width: int, alone: str) -> str:
    skipped = convolution(width) + convolution(width) + route(-2)
    return (
        skipped
        + 2 * (convolution(width) + convolution(width, 3))
        + alone
        + route(-1, -6 - alone.count("["))
        + convolution(width)
    )


ALONE = convolution(8, groups=8)
POOLS = "".join(f"[maxpool]\nsize={size}\nstride=1\n{back}" for size, back in ((3, route(-2)), (5, route(-4)), (7, "")))


def cfg(*, joined: str = route(-1, -10), pooled: str = route(-1, -3, -5, -6), alone: str = ALONE) -> str:
    """The network of `Foreign`, its heads after everything else."""
    shortcut = "[shortcut]\nfrom=-3\nactivation=linear\n"
    residual = convolution(4) + route(-2) + convolution(4) + 2 * (convolution(4) + convolution(4, 3) + shortcut)
    residual += convolution(4) + joined + convolution(8)
    spatial = convolution(8) + route(-2) + convolution(8) + convolution(8, 3) + convolution(8) + POOLS + pooled
    spatial += convolution(8) + convolution(8, 3) + alone + route(-1, -13 - alone.count("[")) + convolution(8)
    body = convolution(8, 3) + residual + convolution(16, 3, 2) + spatial + plain(8, alone)
    fine = body.count("[") - 1
    body += convolution(16, 3, 2) + plain(16, alone.replace("8", "16"))
    coarse = body.count("[") - 1
    heads = (route(level) + convolution(16, 3) + head() for level in (fine, coarse))
    return "[net]\nwidth=16\nheight=16\nchannels=3\n" + body + "".join(heads)


def save(path: Path, activation: str = "mish", **changes: Tensor) -> Foreign:
    net = Foreign(activation).eval()
    torch.save({**net.state_dict(), **changes}, path)
    return net


def read(text: str, path: Path, activation: str = "mish") -> ModelFile:
    return read_state_dict(ModelFile(parse_text(text.replace("ACTIVATION", activation))), path)


def check_heads(model: ModelFile, net: Foreign) -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    network = Network.of(model).eval()
    outputs: list[Tensor] = []
    for head in model.graph.heads:
        network.layers[head.index].register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    with torch.no_grad():
        network(x)
        expected = net(x)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=5e-5)


BATCHNORM = "[batchnorm]\n[activation]\nactivation=ACTIVATION\n"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_of_csp_blocks(activation: str, tmp_path: Path) -> None:
    net = save(tmp_path / "a.pt", activation)
    check_heads(read(cfg(), tmp_path / "a.pt", activation), net)


@pytest.mark.parametrize(
    "text",
    [cfg(alone=BATCHNORM), cfg(pooled=route(-6, -5, -3, -1)), cfg(pooled=route(-3, -6, -1, -5))],
    ids=["batchnorm", "map first", "any order"],
)
def test_other_cfgs_of_the_same_network(text: str, tmp_path: Path) -> None:
    net = save(tmp_path / "a.pt")
    check_heads(read(text, tmp_path / "a.pt"), net)


class Spatial(nn.Module):
    """A map and its poolings between two convolutions (SPP)."""

    def __init__(self) -> None:
        super().__init__()
        self.cv1 = Convolution(3, 4, 1, 1, "leaky")
        self.cv2 = Convolution(16, 6, 1, 1, "leaky")
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (3, 5, 7))

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        output: Tensor = self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))
        return output


@pytest.mark.parametrize("pooled", [route(-1, -3, -5, -6), route(-6, -5, -3, -1)])
def test_spatial_pyramid_pooling(pooled: str, tmp_path: Path) -> None:
    net = Spatial().eval()
    torch.save({f"model.0.{name}": values for name, values in net.state_dict().items()}, tmp_path / "a.pt")
    text = "[net]\nwidth=16\nheight=16\nchannels=3\n" + convolution(4) + POOLS + pooled + convolution(6)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(Network.of(read(text, tmp_path / "a.pt", "leaky")).eval()(x), net(x))


def test_whole_module(tmp_path: Path) -> None:
    """Its epsilons are in the file."""
    net = Foreign("mish").eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.01
    torch.save({"epoch": 1, "model": net, "optimizer": None}, tmp_path / "a.pt")
    check_heads(read(cfg(), tmp_path / "a.pt"), net)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            cfg(alone=""),
            r"expected 34 layers with batch norm, got 37; first difference: layer 28 \[convolutional\]: expected "
            r"\(8, 16, 1, 1\) with batch norm, got model\.3\.bn \(8,\); Ultralytics .*normalize and activate a branch",
        ),
        (cfg(joined=route(-10, -1)), r"layer 12 \[convolutional\]: expected .* a \[route\] .* ends with layer 1"),
        (
            cfg(pooled=route(-1, -3, -1, -6)),
            r"layer 25 \[convolutional\]: expected .* of a layer and three \[maxpool\]",
        ),
        (cfg(alone=convolution(8)), r"layer 27 \[convolutional\]: expected \(8, 8, 1, 1\) .*, got model\.3\.bn \(8,\)"),
    ],
    ids=["normalized once", "branches swapped", "pools", "not alone"],
)
def test_other_networks_are_refused(text: str, message: str, tmp_path: Path) -> None:
    save(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=message):
        read(text, tmp_path / "a.pt")
