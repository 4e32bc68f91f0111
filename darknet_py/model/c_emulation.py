"""What C Darknet's CPU builds keep in l.output, faults included, for `Network.outputs`.

Detection, training and `net(x)` compute what is meant, and so do C's GPU builds but for mish and similar activations.

    alexeyab    relu6 gives 0; so do mish, swish and similar ones in layers other than [convolutional] and (mish, swish)
                [shortcut]. [shortcut] adds a layer with more channels at the wrong place for all images but the
                first. [history] with time_steps=1 packs the inputs of a mini-batch.
    pjreddie    batch norm adds 1e-6 to the root of the variance instead of 1e-5 to the variance. [cost] keeps zeros.
                Only cfgs that AlexeyAB's build cannot run follow this build.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from darknet_py.layers.activations import ACTIVATIONS
from darknet_py.layers.base import Node, Spec
from darknet_py.layers.classification_heads import CostSpec
from darknet_py.layers.connected import ConnectedLayer
from darknet_py.layers.conv_recurrent import HistoryLayer
from darknet_py.layers.convolutional import ConvolutionalLayer
from darknet_py.layers.deconvolutional import DeconvolutionalSpec
from darknet_py.layers.local import LocalLayer
from darknet_py.layers.merge import ActivationLayer, MultiplyLayer, RouteSpec, ShortcutLayer, ShortcutSpec
from darknet_py.layers.normalize import L2NormSpec, NormalizedLayer
from darknet_py.layers.pool import MaxPoolLayer
from darknet_py.layers.resample import ReorgExtraSpec
from darknet_py.layers.segmentation_heads import IsegSpec, LogisticSpec

# Layers that AlexeyAB's Darknet does not have.
_PJREDDIE: tuple[type[Spec], ...] = (DeconvolutionalSpec, IsegSpec, L2NormSpec, LogisticSpec, ReorgExtraSpec)

# Activations with functions of their own in C; its `activate` has no case for them, nor for relu6, and gives 0.
_SPECIAL = {"swish", "mish", "hard_mish"} | {name for name in ACTIVATIONS if name.startswith("normalize_channels")}
_LOST_ACTIVATIONS: dict[type[nn.Module], set[str]] = {
    ConvolutionalLayer: {"relu6"},
    ShortcutLayer: {"relu6"} | _SPECIAL - {"swish", "mish"},
    ActivationLayer: {"relu6"} | _SPECIAL,
    ConnectedLayer: {"relu6"} | _SPECIAL,
    LocalLayer: {"relu6"} | _SPECIAL,
    MultiplyLayer: {"relu6"} | _SPECIAL,
}


class CEmulation:
    """A C build's view of a network."""

    def __init__(self, nodes: Sequence[Node], modules: Sequence[nn.Module]):
        self.nodes, self.modules = nodes, modules
        self.is_pjreddie = any(_needs_pjreddie(node) for node in nodes)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """While it is entered, the modules compute as C does. Hooks do so from outside; they are removed at the end."""
        with ExitStack() as stack:
            for node, top in zip(self.nodes, self.modules, strict=True):
                for module in top.modules():
                    if self.is_pjreddie:
                        if isinstance(module, NormalizedLayer) and module.has_batch_norm:
                            module.batch_norm = partial(_pjreddie_batch_norm, module)  # type: ignore[method-assign]
                            stack.callback(delattr, module, "batch_norm")
                    elif _loses_activation(module):
                        stack.callback(module.register_forward_hook(_zeros).remove)
                    elif isinstance(module, HistoryLayer) and module.time_steps == 1:
                        stack.callback(module.register_forward_hook(_packed_history).remove)
                if not self.is_pjreddie and _misplaces(node, self.nodes):
                    stack.callback(top.register_forward_hook(_misplaced_sum).remove)
            yield

    def output(self, node: Node, module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> Tensor | None:
        """What C keeps in l.output when the module gave `output`: (B, C, H, W), or (B, N) for vectors.

        None where it keeps nothing.
        """
        if isinstance(module, ConvolutionalLayer) and module.blur is not None:
            sharp = module.convolve(inputs[0])
            return _overlaid(torch.zeros_like(sharp) if self._is_lost(module) else sharp, output)
        if isinstance(module, MaxPoolLayer) and module.blur is not None:
            return _overlaid(module.pool(inputs[0]), output)
        output = output.flatten(1) if node.spec.vector else output
        if isinstance(node.spec, CostSpec):
            return torch.zeros_like(output) if self.is_pjreddie else None
        return output

    def _is_lost(self, module: nn.Module) -> bool:
        return not self.is_pjreddie and _loses_activation(module)


def _needs_pjreddie(node: Node) -> bool:
    """AlexeyAB's Darknet cannot run this layer, pjreddie's can."""
    if isinstance(node.spec, ShortcutSpec):
        return any(shape[1:] != node.output[1:] for shape in node.inputs)
    return isinstance(node.spec, _PJREDDIE)


def _loses_activation(module: nn.Module) -> bool:
    lost = _LOST_ACTIVATIONS.get(type(module))
    return lost is not None and module.activation in lost


def _misplaces(node: Node, nodes: Sequence[Node]) -> bool:
    """Whether `forward_shortcut_layer` adds memory to memory, across images.

    It does so where the only other layer *reads* this layer's shape but gives more channels.
    """
    spec = node.spec
    if not isinstance(spec, ShortcutSpec) or spec.weights_type != "none" or len(spec.layers) != 1:
        return False
    other = nodes[spec.layers[0]]
    reads = other.inputs[0] if other.inputs and not isinstance(other.spec, RouteSpec) else None
    more = other.output[1:] == node.output[1:] and other.output.c > node.output.c
    return reads == node.output and more


def _zeros(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _packed_history(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    values = torch.zeros_like(output).flatten()
    values[: inputs[0].numel()] = inputs[0].flatten()
    return values.view(output.shape)


def _misplaced_sum(module: ShortcutLayer, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    x, other = inputs
    return module.activate(x + other.flatten()[: x.numel()].view(x.shape))


def _pjreddie_batch_norm(module: NormalizedLayer, x: Tensor) -> Tensor:
    """`normalize_cpu` of pjreddie's build."""
    mean, deviation, scale, bias = (
        values.view(-1, *(1,) * (x.dim() - 2))
        for values in (module.mean, module.variance.sqrt(), module.scale, module.bias)
    )
    return (x - mean) / (deviation + 1e-6) * scale + bias


def _overlaid(sharp: Tensor, blurred: Tensor) -> Tensor:
    """What C keeps of an antialiased layer: the blurred values, written over the front of the layer's own.

    Layers after it read the blurred values only. (C's [route] and [shortcut] take the sharp layer's size and read
    beyond them; here they see the blurred map.)
    """
    memory = sharp.flatten().clone()
    memory[: blurred.numel()] = blurred.flatten()
    return memory.view(sharp.shape)
