"""The fused copy that a network keeps for detection; changed weights make another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Tensor, nn

from darknet_py.inference.fuse import Fused, fuse


@dataclass(frozen=True)
class _Entry(Generic[Fused]):
    """A copy and what shows that the network it was made of is still the same."""

    copy: Fused
    versions: list[tuple[int, int]]
    first_values: _FirstValues
    copied_values: list[bytes]

    @classmethod
    def of(cls, net: Fused) -> _Entry[Fused]:
        tensors = _tensors(net)
        first_values = _FirstValues(tensors)
        return cls(fuse(net), _versions(tensors), first_values, first_values.read())

    def is_current(self, net: Fused) -> bool:
        return self.versions == _versions(_tensors(net)) and self.copied_values == self.first_values.read()


class _FirstValues:
    """The first value of each array, looked at before every detection.

    NumPy reads those of 400 arrays in a twentieth of the time that `torch.cat` takes.
    """

    def __init__(self, tensors: list[Tensor]):
        first = [tensor.detach().as_strided((1,), (1,)).view(torch.uint8) for tensor in tensors if tensor.numel()]
        self._here = [value.numpy() for value in first if value.device.type == "cpu"]
        self._elsewhere = [value for value in first if value.device.type != "cpu"]

    def read(self) -> list[bytes]:
        values = [value.tobytes() for value in self._here]
        return [*values, torch.cat(self._elsewhere).cpu().numpy().tobytes()] if self._elsewhere else values


class FusedCache(Generic[Fused]):
    """Holds the fused copy of one network.

    A copied or unpickled network starts with an empty cache: packed weights belong to this process.
    """

    def __init__(self) -> None:
        self._entry: _Entry[Fused] | None = None

    def get(self, net: Fused) -> Fused:
        """The copy for inference; the network itself while it trains, and where it is such a copy already.

        Changed weights are noticed by torch's version counters and, where someone went around these (`.data`, NumPy),
        by the first value of each array.
        """
        if net.training or net.is_fused:
            self._entry = None
            return net
        if self._entry is None or not self._entry.is_current(net):
            self._entry = None  # frees the memory first
            self._entry = _Entry.of(net)
        self._entry.copy.names = net.names
        return self._entry.copy

    def __deepcopy__(self, memo: dict[int, object]) -> FusedCache[Fused]:
        return FusedCache()

    def __reduce__(self) -> tuple[type[FusedCache[Fused]], tuple[()]]:
        return FusedCache, ()


def _tensors(net: Fused) -> list[Tensor]:
    # As `parameters()` and `buffers()` list them, which take twenty times as long: a tenth of yolo-fastest's time.
    return [array for arrays in _arrays(net.layers, []) for array in arrays.values() if array is not None]


def _arrays(module: nn.Module, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The dictionaries of a module's arrays and of those below it, some of them more than once."""
    found += (module._parameters, module._buffers)
    for child in module._modules.values():
        if child is not None:
            _arrays(child, found)
    return found


def _versions(tensors: list[Tensor]) -> list[tuple[int, int]]:
    # Tensors made in inference mode have no version.
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
