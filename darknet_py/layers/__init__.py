"""The layer table: section name → spec class. A new layer type is one file and one line here."""

from __future__ import annotations

from darknet_py.layers.base import Spec
from darknet_py.layers.classification_heads import CostSpec, SoftmaxSpec
from darknet_py.layers.connected import ConnectedSpec
from darknet_py.layers.contrastive import ContrastiveSpec
from darknet_py.layers.conv_recurrent import ConvLstmSpec, CrnnSpec, HistorySpec
from darknet_py.layers.convolutional import ConvolutionalSpec, DepthwiseSpec
from darknet_py.layers.crop import CropSpec
from darknet_py.layers.deconvolutional import DeconvolutionalSpec
from darknet_py.layers.detection import DetectionSpec
from darknet_py.layers.gaussian_yolo import GaussianYoloSpec
from darknet_py.layers.implicit import (
    ControlChannelsSpec,
    ImplicitAddSpec,
    ImplicitMulSpec,
    ImplicitSpec,
    ShiftChannelsSpec,
)
from darknet_py.layers.local import LocalSpec
from darknet_py.layers.merge import (
    ActivationSpec,
    EmptySpec,
    RouteLeftHalfSpec,
    RouteSpec,
    SamSpec,
    ScaleChannelsSpec,
    ShortcutSpec,
)
from darknet_py.layers.normalize import BatchNormSpec, L2NormSpec, LrnSpec
from darknet_py.layers.pool import AvgPoolSpec, DropoutSpec, LocalAvgPoolSpec, MaxPoolSpec
from darknet_py.layers.prelu import PreluSpec
from darknet_py.layers.recurrent import GruSpec, LstmSpec, RnnSpec
from darknet_py.layers.region import RegionSpec
from darknet_py.layers.resample import Reorg3dSpec, ReorgSpec, UpsampleSpec
from darknet_py.layers.segmentation_heads import IsegSpec, LogisticSpec
from darknet_py.layers.squeeze_excitation import SqueezeExcitationSpec
from darknet_py.layers.yolo import YoloSpec

LAYERS: dict[str, type[Spec]] = {
    "Gaussian_yolo": GaussianYoloSpec,
    "activation": ActivationSpec,
    "avgpool": AvgPoolSpec,
    "batchnorm": BatchNormSpec,
    "connected": ConnectedSpec,
    "contrastive": ContrastiveSpec,
    "control_channels": ControlChannelsSpec,
    "conv_lstm": ConvLstmSpec,
    "convolutional": ConvolutionalSpec,
    "cost": CostSpec,
    "crnn": CrnnSpec,
    "crop": CropSpec,
    "deconvolutional": DeconvolutionalSpec,
    "depthwise": DepthwiseSpec,
    "detection": DetectionSpec,
    "dropout": DropoutSpec,
    "empty": EmptySpec,
    "gru": GruSpec,
    "history": HistorySpec,
    "implicit": ImplicitSpec,
    "implicit_add": ImplicitAddSpec,
    "implicit_mul": ImplicitMulSpec,
    "iseg": IsegSpec,
    "l2norm": L2NormSpec,
    "local": LocalSpec,
    "local_avgpool": LocalAvgPoolSpec,
    "logistic": LogisticSpec,
    "lstm": LstmSpec,
    "maxpool": MaxPoolSpec,
    "normalization": LrnSpec,
    "prelu": PreluSpec,
    "region": RegionSpec,
    "reorg": ReorgSpec,
    "reorg3d": Reorg3dSpec,
    "rnn": RnnSpec,
    "route": RouteSpec,
    "route_lhalf": RouteLeftHalfSpec,
    "sam": SamSpec,
    "scale_channels": ScaleChannelsSpec,
    "se": SqueezeExcitationSpec,
    "shift_channels": ShiftChannelsSpec,
    "shortcut": ShortcutSpec,
    "softmax": SoftmaxSpec,
    "upsample": UpsampleSpec,
    "yolo": YoloSpec,
}

# Darknet's other spellings (`string_to_layer_type`), and names of forks for the same section: sowson's [yolo4] decodes
# as AlexeyAB's [yolo] does (its own [yolo] is pjreddie's).
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
    "yolo4": "yolo",
}
