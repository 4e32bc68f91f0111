"""The layer table: section name → spec class. A new layer type is one file and one line here."""

from __future__ import annotations

from darknet_py.layers.base import Spec
from darknet_py.layers.classify import CostSpec, Softmax
from darknet_py.layers.connected import Connected
from darknet_py.layers.contrastive import Contrastive
from darknet_py.layers.conv_recurrent import ConvLstm, Crnn, History
from darknet_py.layers.convolutional import Convolutional
from darknet_py.layers.crop import Crop
from darknet_py.layers.deconvolutional import Deconvolutional
from darknet_py.layers.detection import DetectionSpec
from darknet_py.layers.gaussian_yolo import GaussianYolo
from darknet_py.layers.implicit import ControlChannels, Implicit, ImplicitAdd, ImplicitMul, ShiftChannels
from darknet_py.layers.local import Local
from darknet_py.layers.merge import ActivationLayer, Empty, Route, RouteLeftHalf, Sam, ScaleChannels, Shortcut
from darknet_py.layers.normalize import BatchNorm, L2Norm, Lrn
from darknet_py.layers.pool import AvgPool, Dropout, LocalAvgPool, MaxPool
from darknet_py.layers.recurrent import Gru, Lstm, Rnn
from darknet_py.layers.region import Region
from darknet_py.layers.resample import Reorg, Reorg3d, Upsample
from darknet_py.layers.segment import Iseg, Logistic
from darknet_py.layers.yolo import Yolo

LAYERS: dict[str, type[Spec]] = {
    "Gaussian_yolo": GaussianYolo,
    "activation": ActivationLayer,
    "avgpool": AvgPool,
    "batchnorm": BatchNorm,
    "connected": Connected,
    "contrastive": Contrastive,
    "control_channels": ControlChannels,
    "conv_lstm": ConvLstm,
    "convolutional": Convolutional,
    "cost": CostSpec,
    "crnn": Crnn,
    "crop": Crop,
    "deconvolutional": Deconvolutional,
    "detection": DetectionSpec,
    "dropout": Dropout,
    "empty": Empty,
    "gru": Gru,
    "history": History,
    "implicit": Implicit,
    "implicit_add": ImplicitAdd,
    "implicit_mul": ImplicitMul,
    "iseg": Iseg,
    "l2norm": L2Norm,
    "local": Local,
    "local_avgpool": LocalAvgPool,
    "logistic": Logistic,
    "lstm": Lstm,
    "maxpool": MaxPool,
    "normalization": Lrn,
    "region": Region,
    "reorg": Reorg,
    "reorg3d": Reorg3d,
    "rnn": Rnn,
    "route": Route,
    "route_lhalf": RouteLeftHalf,
    "sam": Sam,
    "scale_channels": ScaleChannels,
    "shift_channels": ShiftChannels,
    "shortcut": Shortcut,
    "softmax": Softmax,
    "upsample": Upsample,
    "yolo": Yolo,
}

# Darknet's other spellings (`string_to_layer_type`).
ALIASES: dict[str, str] = {
    "avg": "avgpool",
    "conn": "connected",
    "conv": "convolutional",
    "deconv": "deconvolutional",
    "local_avg": "local_avgpool",
    "lrn": "normalization",
    "max": "maxpool",
    "network": "net",
    "silence": "empty",
    "soft": "softmax",
}
