"""The layer table: section name → spec class. A new layer type is one file and one line here."""

from __future__ import annotations

from darknet_py.layers.base import Spec
from darknet_py.layers.connected import Connected
from darknet_py.layers.convolutional import Convolutional
from darknet_py.layers.merge import ActivationLayer, Route, Sam, ScaleChannels, Shortcut
from darknet_py.layers.normalize import BatchNorm
from darknet_py.layers.pool import AvgPool, Dropout, LocalAvgPool, MaxPool
from darknet_py.layers.resample import Reorg, Upsample

LAYERS: dict[str, type[Spec]] = {
    "activation": ActivationLayer,
    "avgpool": AvgPool,
    "batchnorm": BatchNorm,
    "connected": Connected,
    "convolutional": Convolutional,
    "dropout": Dropout,
    "local_avgpool": LocalAvgPool,
    "maxpool": MaxPool,
    "reorg": Reorg,
    "route": Route,
    "sam": Sam,
    "scale_channels": ScaleChannels,
    "shortcut": Shortcut,
    "upsample": Upsample,
}

# Darknet's other spellings (`string_to_layer_type`).
ALIASES: dict[str, str] = {
    "avg": "avgpool",
    "conn": "connected",
    "conv": "convolutional",
    "local_avg": "local_avgpool",
    "lrn": "normalization",
    "max": "maxpool",
    "network": "net",
    "silence": "empty",
    "soft": "softmax",
}
