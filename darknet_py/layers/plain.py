"""Layers in plain torch. `Spec.source` names those that it needs, and the standalone export copies their source.

They are for inference, so that they are shorter than the modules that also train. Nothing here may use another part of
the package: a copy has to run with torch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution, batch norm, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int | tuple[int, int] = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        norm: bool = True,
        *,
        activation: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, groups, bias=not norm)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.01) if norm else nn.Identity()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class XnorConv(Conv):
    """A convolution of signs: inputs are ±1, weights are ± the mean magnitude of their filter."""

    def forward(self, x: Tensor) -> Tensor:
        conv, weight = self.conv, self.conv.weight
        mean = weight.abs().mean((1, 2, 3), keepdim=True)
        weight = torch.where(weight > 0, mean, -mean)
        x = torch.where(x > 0, 1.0, -1.0)
        return self.activation(self.norm(F.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation)))


class Deconv(nn.Module):
    """Transposed convolution, batch norm, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        norm: bool = True,
        *,
        activation: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, size, stride, padding, bias=not norm)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.01) if norm else nn.Identity()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class Connected(nn.Module):
    """A fully connected layer on all values of an image: (B, C, H, W) to (B, outputs, 1, 1)."""

    def __init__(self, inputs: int, outputs: int, norm: bool = False, *, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=not norm)
        self.norm = nn.BatchNorm1d(outputs, eps=1e-5, momentum=0.01) if norm else nn.Identity()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.linear(x.flatten(1))))[:, :, None, None]


class Recurrent(nn.Module):
    """A layer that remembers: each call is one step, each row of a batch a stream. Without `memory` a stream begins."""

    def __init__(self, layers: dict[str, nn.Module]):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.memory: tuple[Tensor, ...] | None = None

    def remembered(self, blank: Tensor, parts: int = 1) -> tuple[Tensor, ...]:
        if self.memory is None or self.memory[0].shape != blank.shape:
            return (blank,) * parts
        return self.memory


class Rnn(Recurrent):
    """state = input_layer(x) + self_layer(state) (+ state with a shortcut); gives output_layer(state)."""

    def __init__(self, layers: dict[str, nn.Module], shortcut: bool = False):
        super().__init__(layers)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        total = self.layers["input_layer"](x)
        (state,) = self.remembered(torch.zeros_like(total))
        total = total + self.layers["self_layer"](state)
        total = total + state if self.shortcut else total
        self.memory = (total,)
        output: Tensor = self.layers["output_layer"](total)
        return output


class Gru(Recurrent):
    """state = z · state + (1 − z) · h."""

    def __init__(self, layers: dict[str, nn.Module], activation: Callable[[Tensor], Tensor]):
        super().__init__(layers)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        z, r, h = (self.layers[f"input_{gate}"](x) for gate in "zrh")
        (state,) = self.remembered(torch.zeros_like(z))
        z = torch.sigmoid(z + self.layers["state_z"](state))
        r = torch.sigmoid(r + self.layers["state_r"](state))
        h = self.activation(h + self.layers["state_h"](r * state))
        state = z * state + (1 - z) * h
        self.memory = (state,)
        return state


class Lstm(Recurrent):
    """c = f · c + i · g, h = o · tanh(c)."""

    def forward(self, x: Tensor) -> Tensor:
        read = {gate: self.layers[f"u{gate}"](x) for gate in "figo"}
        h, c = self.remembered(torch.zeros_like(read["f"]), 2)
        f, i, g, o = (read[gate] + self.layers[f"w{gate}"](h) for gate in "figo")
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        self.memory = (h, c)
        return h


class ConvLstm(Recurrent):
    """c = f · c + i · g, h = o · activation(c), of maps.

    With layers vf, vi, vo the gates also read c. With one layer wf alone, that reads h and x together and all gates
    read it; a shortcut then adds the first half of its channels to the output. c stays within ± limit.
    """

    def __init__(
        self,
        layers: dict[str, nn.Module],
        limit: float,
        shortcut: bool = False,
        *,
        activation: Callable[[Tensor], Tensor],
    ):
        super().__init__(layers)
        self.limit, self.shortcut, self.activation = limit, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        joined = None
        if "wi" in self.layers:
            sums = {gate: self.layers[f"u{gate}"](x) for gate in "figo"}
            h, c = self.remembered(torch.zeros_like(sums["f"]), 2)
            sums = {gate: total + self.layers[f"w{gate}"](h) for gate, total in sums.items()}
        else:
            h, c = self.remembered(torch.zeros_like(x), 2)
            joined = self.activation(self.layers["wf"](torch.cat((h, x), 1)))
            sums = {gate: self.layers[f"u{gate}"](joined) for gate in "figo"}
        f = torch.sigmoid(sums["f"] + self.peephole("f", c))
        i = torch.sigmoid(sums["i"] + self.peephole("i", c))
        c = f * c + i * self.activation(sums["g"])
        o = torch.sigmoid(sums["o"] + self.peephole("o", c))
        h = o * self.activation(c)
        self.memory = (h, c.clamp(-self.limit, self.limit) if self.limit else c)
        if joined is None or not self.shortcut:
            return h
        first = torch.arange(joined.shape[1], device=x.device) < joined.shape[1] // 2
        return h + joined * first[:, None, None]

    def peephole(self, gate: str, c: Tensor) -> Tensor | float:
        name = f"v{gate}"
        return self.layers[name](c) if name in self.layers else 0.0


class History(Recurrent):
    """This input and those of the calls before it, `size` in all, newest first; zeros if it remembers nothing."""

    def __init__(self, size: int, remembers: bool):
        super().__init__({})
        self.size, self.remembers = size, remembers

    def forward(self, x: Tensor) -> Tensor:
        blank = x.new_zeros(len(x), x.shape[1] * self.size, *x.shape[2:])
        (before,) = self.remembered(blank)
        history = torch.cat((x, (before if self.remembers else blank)[:, : -x.shape[1]]), 1)
        self.memory = (history,) if self.remembers else (before,)
        return history


class Local(nn.Module):
    """A convolution with other weights at every pixel: weight (pixels, filters, channels · size²)."""

    def __init__(
        self,
        channels: int,
        output: tuple[int, int, int],
        size: int,
        stride: int,
        padding: tuple[int, int],
        *,
        activation: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        filters, height, width = output
        self.weight = nn.Parameter(torch.zeros(height * width, filters, channels * size**2))
        self.bias = nn.Parameter(torch.zeros(output))
        self.size, self.stride, self.padding, self.activation = size, stride, padding, activation

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(F.pad(x, self.padding * 2), self.size, stride=self.stride)
        y = torch.einsum("bkp,pfk->bfp", patches, self.weight).unflatten(2, self.bias.shape[1:])
        return self.activation(y + self.bias)


class BlurPool(nn.Module):
    """A low-pass filter with a stride: a binomial one of 3 x 3 pixels, or a mean of 2 x 2."""

    def __init__(self, channels: int, size: int, stride: tuple[int, int]):
        super().__init__()
        side = torch.tensor([0.5, 0.5] if size == 2 else [0.25, 0.5, 0.25])
        kernel = (side[:, None] * side).expand(channels, 1, size, size).clone()
        self.kernel: Tensor
        self.register_buffer("kernel", kernel, persistent=False)
        self.stride, self.padding = stride, size // 3

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, None, self.stride, self.padding, groups=x.shape[1])


class WeightedSum(nn.Module):
    """The sum of maps of one size, each with a weight, or one for each channel."""

    def __init__(self, inputs: int, weights: int, normalization: str, *, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs, weights))
        self.normalization, self.activation = normalization, activation

    def forward(self, *inputs: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if self.normalization != "none":
            weight = F.relu(weight) if self.normalization == "relu" else torch.exp(weight - weight.amax(0))
            weight = weight / (weight.sum(0) + 1e-4)
        total = torch.zeros_like(inputs[0])
        for x, factor in zip(inputs, weight, strict=True):
            total = total + x * factor[:, None, None]
        return self.activation(total)


class Implicit(nn.Module):
    """Learned values, the same for every image."""

    def __init__(self, filters: int, atoms: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(filters, atoms, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(len(x), *self.weight.shape)


def local_average(x: Tensor, size: int, stride: tuple[int, int], pads: tuple[int, int, int, int]) -> Tensor:
    """The mean over the pixels of each window that lie inside the map. pads: at left, right, top, bottom."""
    inside = F.pad(torch.ones_like(x[:1, :1]), pads)
    total = F.avg_pool2d(F.pad(x, pads), size, stride, divisor_override=1)
    return total / F.avg_pool2d(inside, size, stride, divisor_override=1)


def spread_phases(x: Tensor, s: int) -> Tensor:
    """(B, C, H, W) to (B, C·s², H/s, W/s): the s² phases of the pixels one after another."""
    b, c, h, w = x.shape
    phases = x.reshape(b, c, h // s, s, w // s, s)
    return phases.permute(0, 3, 5, 1, 2, 4).reshape(b, c * s**2, h // s, w // s)


def gather_phases(x: Tensor, s: int) -> Tensor:
    """(B, C, H, W) to (B, C/s², H·s, W·s): the inverse of `spread_phases`."""
    b, c, h, w = x.shape
    phases = x.reshape(b, s, s, c // s**2, h, w)
    return phases.permute(0, 3, 4, 1, 5, 2).reshape(b, c // s**2, h * s, w * s)


def reorg(x: Tensor, s: int) -> Tensor:
    """Darknet's old space-to-depth: reads (C, H, W) as (C/s², H·s, W·s) and writes its s² phases in a row."""
    b, c, h, w = x.shape
    return spread_phases(x.reshape(b, c // s**2, h * s, w * s), s).reshape(b, c * s**2, h // s, w // s)


def reversed_reorg3d(x: Tensor, s: int) -> Tensor:
    """Darknet's [reorg3d] with reverse=1: works on (C, H, W) read as (C/s², H·s, W·s)."""
    b, c, h, w = x.shape
    shape = (b, c // s**2, h * s, w * s)
    return gather_phases(x.reshape(shape), s).reshape(shape)


def depth_max(x: Tensor, channels: int) -> Tensor:
    """The maximum over the channels g, g + channels, … of each pixel."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % channels), value=-torch.inf)
    b, _, h, w = x.shape
    return x.reshape(b, -1, channels, h, w).amax(1)


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, kappa: float) -> Tensor:
    """Darknet's normalization over neighboring channels, whose running sum lacks the channel size // 2."""
    squares = x.square()
    window = F.pad(squares, (0, 0, 0, 0, (size - 1) // 2, size // 2)).unfold(1, size, 1).sum(-1)
    missing = squares[:, size // 2 : size // 2 + 1]
    return x * (kappa + alpha * (window - missing if missing.shape[1] else window)) ** -beta


def crop_center(x: Tensor, height: int, width: int) -> Tensor:
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]


class Yolo(nn.Module):
    """Decodes the anchors of a grid: boxes (center x, center y, width, height) relative to the image."""

    def __init__(self, anchors: Sequence[tuple[float, float]], scale_x_y: float = 1.0, new_coords: bool = False):
        super().__init__()
        self.anchors: Tensor
        self.register_buffer("anchors", torch.tensor(anchors), persistent=False)  # in pixels of the input
        self.scale_x_y, self.new_coords = scale_x_y, new_coords

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes (B, N, 4), objectness (B, N) and scores (B, N, classes)."""
        batch, _, rows, columns = x.shape
        x = x.view(batch, len(self.anchors), -1, rows, columns).permute(0, 1, 3, 4, 2)
        entries = x if self.new_coords else x.sigmoid()
        column = torch.arange(columns, device=x.device)
        row = torch.arange(rows, device=x.device)[:, None]
        center = entries[..., :2] * self.scale_x_y - 0.5 * (self.scale_x_y - 1)
        center_x, center_y = (center[..., 0] + column) / columns, (center[..., 1] + row) / rows
        size = (2 * x[..., 2:4]) ** 2 if self.new_coords else x[..., 2:4].exp()
        size = size * self.anchors[:, None, None]
        width, height = size[..., 0] / image.shape[3], size[..., 1] / image.shape[2]
        boxes = torch.stack((center_x, center_y, width, height), -1)
        objectness = entries[..., 4]
        scores = objectness[..., None] * entries[..., 5:]
        return boxes.flatten(1, 3), objectness.flatten(1), scores.flatten(1, 3)


class GaussianYolo(nn.Module):
    """As a YOLO layer, but every value of a box is followed by its deviation; `shift` moves the point to the center."""

    def __init__(self, anchors: Sequence[tuple[float, float]], scale_x_y: float = 1.0, shift: float = 0.0):
        super().__init__()
        self.anchors: Tensor
        self.register_buffer("anchors", torch.tensor(anchors), persistent=False)  # in pixels of the input
        self.scale_x_y, self.shift = scale_x_y, shift

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes (B, N, 4), objectness (B, N) and scores (B, N, classes)."""
        batch, _, rows, columns = x.shape
        x = x.view(batch, len(self.anchors), -1, rows, columns).permute(0, 1, 3, 4, 2)
        entries = x.sigmoid()
        column = torch.arange(columns, device=x.device)
        row = torch.arange(rows, device=x.device)[:, None]
        width = x[..., 4].exp() * self.anchors[:, 0, None, None] / image.shape[3]
        height = x[..., 6].exp() * self.anchors[:, 1, None, None] / image.shape[2]
        point = entries[..., 0:4:2] * self.scale_x_y - 0.5 * (self.scale_x_y - 1)
        center_x = (point[..., 0] + column) / columns - self.shift * width
        center_y = (point[..., 1] + row) / rows - self.shift * height
        boxes = torch.stack((center_x, center_y, width, height), -1)
        objectness, certainty = entries[..., 8], 1 - entries[..., 1:8:2].mean(-1)
        scores = objectness[..., None] * entries[..., 9:] * certainty[..., None]
        return boxes.flatten(1, 3), objectness.flatten(1), scores.flatten(1, 3)


class Region(nn.Module):
    """Decodes the anchors of YOLOv2, which are measured in grid cells."""

    def __init__(self, anchors: Sequence[tuple[float, float]], softmax: bool, drop_unlikely: bool = False):
        super().__init__()
        self.anchors: Tensor
        self.register_buffer("anchors", torch.tensor(anchors), persistent=False)
        self.softmax, self.drop_unlikely = softmax, drop_unlikely

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes (B, N, 4), objectness (B, N) and scores (B, N, classes)."""
        batch, _, rows, columns = x.shape
        x = x.view(batch, len(self.anchors), -1, rows, columns).permute(0, 1, 3, 4, 2)
        column = torch.arange(columns, device=x.device)
        row = torch.arange(rows, device=x.device)[:, None]
        center_x, center_y = (x[..., 0].sigmoid() + column) / columns, (x[..., 1].sigmoid() + row) / rows
        size = x[..., 2:4].exp() * self.anchors[:, None, None]
        boxes = torch.stack((center_x, center_y, size[..., 0] / columns, size[..., 1] / rows), -1)
        objectness = x[..., 4].sigmoid()
        if self.drop_unlikely:
            objectness = torch.where(objectness < 0.5, 0.0, objectness)
        objectness, scores = self.score(objectness, x[..., 5:])
        return boxes.flatten(1, 3), objectness.flatten(1), scores.flatten(1, 3)

    def score(self, objectness: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        scores = objectness[..., None] * (classes.softmax(-1) if self.softmax else classes)
        return torch.maximum(objectness, scores.amax(-1)), scores


class ClassTree(nn.Module):
    """Classes with parents (-1: none), siblings beside each other; a probability is that within its siblings."""

    def __init__(self, classes: int):
        super().__init__()
        self.parent: Tensor
        self.register_buffer("parent", torch.zeros(classes, dtype=torch.long))

    def softmax(self, x: Tensor) -> Tensor:
        group = F.pad((self.parent[1:] != self.parent[:-1]).cumsum(0), (1, 0)).expand_as(x)
        largest = torch.full_like(x, -torch.inf).scatter_reduce(-1, group, x, "amax")
        e = (x - largest.gather(-1, group)).exp()
        return e / torch.zeros_like(x).scatter_add(-1, group, e).gather(-1, group)

    def absolute(self, probabilities: Tensor) -> Tensor:
        result, step = probabilities, self.parent
        while (step >= 0).any():
            result = result * torch.where(step >= 0, probabilities[..., step.clamp(min=0)], 1.0)
            step = torch.where(step >= 0, self.parent[step.clamp(min=0)], -1)
        return result


class TreeRegion(Region):
    """`Region` with a class tree: the last class whose probability is above `hier` has a score.

    With mapped > 0 so many classes of the tree have scores, each times the objectness.
    """

    def __init__(
        self, anchors: Sequence[tuple[float, float]], classes: int, mapped: int = 0, drop_unlikely: bool = False
    ):
        super().__init__(anchors, True, drop_unlikely)
        self.tree = ClassTree(classes)
        self.class_map: Tensor | None
        self.register_buffer("class_map", torch.zeros(mapped, dtype=torch.long) if mapped else None)
        self.hier = 0.5

    def score(self, objectness: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        absolute = self.tree.absolute(self.tree.softmax(classes))
        if self.class_map is not None:
            return objectness, objectness[..., None] * absolute[..., self.class_map]
        probable = absolute > self.hier
        last = probable & (probable.flip(-1).cumsum(-1).flip(-1) == 1)
        return objectness, absolute * last


def decode_cells(
    x: Tensor, side: int, boxes_per_cell: int, classes: int, square: bool, softmax: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """YOLOv1: boxes (B, N, 4), objectness (B, N) and scores (B, N, classes) of side x side cells."""
    cells = side**2
    parts = x.flatten(1).split((cells * classes, cells * boxes_per_cell, cells * boxes_per_cell * 4), 1)
    probability = parts[0].unflatten(1, (cells, 1, classes))
    probability = probability.softmax(-1) if softmax else probability
    objectness = parts[1].unflatten(1, (cells, boxes_per_cell))
    left, top, width, height = parts[2].unflatten(1, (cells, boxes_per_cell, 4)).unbind(-1)
    cell = torch.arange(cells, device=x.device)[:, None]
    if square:
        width, height = width**2, height**2
    boxes = torch.stack(((left + cell % side) / side, (top + cell // side) / side, width, height), -1)
    scores = (objectness[..., None] * probability).flatten(1, 2)
    return boxes.flatten(1, 2), torch.maximum(objectness.flatten(1), scores.amax(-1)), scores
