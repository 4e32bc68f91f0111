"""The backbones of a design. Each writes its layers, plain or cross stage partial."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

from darknet_py.zoo.aggregation import (
    C2F_SMALL,
    C3_SMALL,
    STACKREP,
    STACKREP_DEPLOY,
    elan_net,
    extended_elan,
    gelan_c,
    gelan_t,
    vovnet,
)
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.dense import dense_reference, densenet201, pelee_reference, peleenet
from darknet_py.zoo.mobile import efficientnet_b0, mobilenet_v2
from darknet_py.zoo.plain_backbones import reference
from darknet_py.zoo.residual import Features, darknet53, resnet, small_resnet
from darknet_py.zoo.stages import Csp


class BackboneWriter(Protocol):
    def __call__(self, cfg: CfgWriter, csp: Csp | None = None) -> Features: ...


class Backbone(NamedTuple):
    """A backbone of a design.

    Attributes:
        title: Name for comments.
        write: Writes the layers.
        light: Whether its necks are half as wide.
        elastic: Whether its blocks have an elastic version.
        activation: Activation of the original network.
        stride: Largest stride.
        divides: Whether its blocks are cross stage partial already, so that it takes no `Csp`.
    """

    title: str
    write: BackboneWriter
    light: bool = False
    elastic: bool = False
    activation: str = "leaky"
    stride: int = 32
    divides: bool = False


_small = partial(small_resnet, project=True)
_deep = partial(resnet, project=True)

BACKBONES: dict[str, Backbone] = {
    "resnet10": Backbone("ResNet-10", _small, light=True),
    "resnet18": Backbone("ResNet-18", partial(_small, counts=(2, 2, 2, 2)), light=True),
    "resnet34": Backbone("ResNet-34", partial(_small, counts=(3, 4, 6, 3))),
    "resnet50": Backbone("ResNet-50", _deep, elastic=True),
    "resnet101": Backbone("ResNet-101", partial(_deep, counts=(3, 4, 23, 3)), elastic=True),
    "resnext50": Backbone("ResNeXt-50", partial(_deep, groups=32), elastic=True),
    "resnext101": Backbone("ResNeXt-101", partial(_deep, counts=(3, 4, 23, 3), groups=32), elastic=True),
    "darknet53": Backbone("Darknet-53", darknet53, elastic=True),
    "darknet-ref": Backbone("Darknet reference", reference, light=True, stride=64),
    "densenet201": Backbone("DenseNet-201", densenet201, elastic=True),
    "densenet-ref": Backbone("DenseNet reference", dense_reference, light=True),
    "peleenet": Backbone("PeleeNet", peleenet, light=True),
    "peleenet-ref": Backbone("PeleeNet reference", pelee_reference, light=True),
    "mobilenet-v2": Backbone("MobileNet-v2", mobilenet_v2, light=True, activation="relu"),
    "vovnet39": Backbone("VoVNet-39", vovnet, activation="relu"),
    "elan": Backbone("ELAN (YOLOv7)", elan_net, activation="swish", divides=True),
    "e-elan": Backbone("E-ELAN", partial(elan_net, block=extended_elan), activation="swish", divides=True),
    "gelan-c": Backbone("GELAN-C (YOLOv9-c)", gelan_c, activation="swish", divides=True),
    "gelan-t": Backbone("GELAN-T (YOLOv9-t)", gelan_t, light=True, activation="swish", divides=True),
    "c3": Backbone("C3 (YOLOv5s)", C3_SMALL, light=True, activation="swish", divides=True),
    "c2f": Backbone("C2f (YOLOv8s)", C2F_SMALL, light=True, activation="swish", divides=True),
    "csp-stackrep": Backbone("CSPStackRep, to train", STACKREP, activation="relu", divides=True),
    "csp-stackrep-deploy": Backbone("CSPStackRep, merged", STACKREP_DEPLOY, activation="relu", divides=True),
    "efficientnet-b0": Backbone("EfficientNet-B0", efficientnet_b0, light=True, activation="swish"),
}
