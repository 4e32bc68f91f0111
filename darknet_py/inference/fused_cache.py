"""The fused copy that a network keeps for detection; changed weights make another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from darknet_py.inference.fuse import Fused, fuse


@dataclass(frozen=True)
class _Entry(Generic[Fused]):
    """A copy and what shows that the network it was made of is still the same."""

    copy: Fused
    versions: list[tuple[int, int]]
    first_values: list[Tensor]  # views of the arrays
    copied_values: Tensor

    @classmethod
    def of(cls, net: Fused) -> _Entry[Fused]:
        tensors = _tensors(net)
        first_values = [tensor.detach().as_strided((1,), (1,)) for tensor in tensors if tensor.numel()]
        return cls(fuse(net), _versions(tensors), first_values, _joined(first_values))

    def is_current(self, net: Fused) -> bool:
        return self.versions == _versions(_tensors(net)) and self.copied_values.equal(_joined(self.first_values))


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
    arrays = (array for module in net.modules() for array in (*module._parameters.values(), *module._buffers.values()))
    return [array for array in arrays if array is not None]


def _versions(tensors: list[Tensor]) -> list[tuple[int, int]]:
    # Tensors made in inference mode have no version.
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def _joined(values: list[Tensor]) -> Tensor:
    return torch.cat(values) if values else torch.empty(0)
