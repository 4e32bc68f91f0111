"""The classifiers: one row of the table at the end per network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from darknet_py.zoo import blocks, heads, net_sections
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
from darknet_py.zoo.dense import dense_reference, densenet201, densenet264, pelee_reference, peleenet, sparse_peleenet
from darknet_py.zoo.mobile import csp_mobilenet_v2, efficientnet_b0, mobilenet_v2
from darknet_py.zoo.plain_backbones import darknet19, reference
from darknet_py.zoo.residual import csp_resnet, darknet53, res2netlite72, resnet, small_resnet
from darknet_py.zoo.stages import Csp

CSPNET = (
    "CSPNet (Wang et al., 2019): one part of the features goes through the blocks of a stage, the other skips them."
)

CSP_DARKNET53 = partial(darknet53, csp=Csp())
CSP_RESNET50 = partial(csp_resnet, csp=Csp(), linear=(1, 2))
CSP_RESNEXT50 = partial(csp_resnet, csp=Csp(), linear=(1, 2), groups=32)
HALVES = Csp(split="groups")  # the dense layers start from half of the channels, without a convolution


def _classifier(
    classes: int = 1000,
    *,
    name: str,
    backbone: Callable[[CfgWriter], object],
    size: int = 256,
    subdivisions: int = 4,
    activation: str = "leaky",
    attention: str = "",
    elastic: bool = False,
    omega: bool = False,
    pool_first: bool = True,
    cost: bool = False,
) -> CfgWriter:
    """omega: mish, label smoothing, mosaic and CutMix, a longer schedule. cost: adds a [cost] section at the end."""
    if omega:
        about = f"{name} with mish and stronger augmentation, as an ImageNet classifier."
        net = net_sections.classifier_net(subdivisions, batches=1200000, label_smooth_eps=0.1, mosaic=1, cutmix=1)
    else:
        about = f"{name}, as an ImageNet classifier."
        net = net_sections.classifier_net(subdivisions, size=size)
    cfg = CfgWriter(f"{about}\n{CSPNET}" if name.startswith("CSP") else about, net)
    cfg.activation = "mish" if omega else activation
    cfg.attention, cfg.elastic = attention, elastic
    backbone(cfg)
    heads.classifier(cfg, classes, pool_first=pool_first)
    if cost:
        cfg.section("cost", type="sse")
    return cfg


def _darknet19(classes: int = 1000) -> CfgWriter:
    cfg = CfgWriter("Darknet-19, the backbone of YOLOv2, as an ImageNet classifier.", net_sections.darknet19_net())
    darknet19(cfg)
    heads.classifier(cfg, classes, pool_first=False)
    cfg.section("cost", type="sse")
    return cfg


def _enetb0(classes: int = 1000) -> CfgWriter:
    cfg = CfgWriter("EfficientNet-B0 (Tan and Le, 2019), as an ImageNet classifier.", net_sections.efficientnet_net())
    cfg.activation = "swish"
    efficientnet_b0(cfg)
    heads.classifier(cfg, classes, dropout=0.2)
    return cfg


_swish = partial(_classifier, activation="swish", size=224, subdivisions=2)
_swish_se = partial(_swish, attention="se")

# The backbones of blocks after CSPNet, with the activation of the networks that use them.
_AGGREGATION: dict[str, tuple[str, Callable[[CfgWriter], object], str]] = {
    "vovnet39": ("VoVNet-39", vovnet, "relu"),
    "csvovnet39": ("CSPVoVNet-39", partial(vovnet, csp=Csp()), "relu"),
    "elan": ("ELAN, the backbone of YOLOv7", elan_net, "swish"),
    "e-elan": ("E-ELAN", partial(elan_net, block=extended_elan), "swish"),
    "gelan-c": ("GELAN-C, the backbone of YOLOv9-c", gelan_c, "swish"),
    "gelan-t": ("GELAN-T, the backbone of YOLOv9-t", gelan_t, "swish"),
    "c3": ("C3, the backbone of YOLOv5s", C3_SMALL, "swish"),
    "c2f": ("C2f, the backbone of YOLOv8s", C2F_SMALL, "swish"),
    "csp-stackrep": ("CSPStackRep, to train", STACKREP, "relu"),
    "csp-stackrep-deploy": ("CSPStackRep, merged", STACKREP_DEPLOY, "relu"),
}

CLASSIFIERS: dict[str, Callable[..., CfgWriter]] = {
    "csdarknet53": partial(_classifier, name="CSPDarknet-53", backbone=CSP_DARKNET53),
    "csdarknet53-elastic": partial(
        _classifier, name="CSPDarknet-53 with Elastic", backbone=CSP_DARKNET53, elastic=True, subdivisions=8
    ),
    "csdarknet53-omega": partial(_classifier, name="CSPDarknet-53", backbone=CSP_DARKNET53, omega=True),
    "csdensenet-ref": partial(
        _classifier, name="CSPDenseNet Ref.", backbone=partial(dense_reference, csp=HALVES), subdivisions=1
    ),
    "csdensenetb-ref": partial(
        _classifier, name="CSPDenseNetb Ref.", backbone=partial(dense_reference, csp=HALVES, top=1), subdivisions=1
    ),
    "csdensenet201-elastic": partial(
        _classifier,
        name="CSPDenseNet-201 with Elastic",
        backbone=partial(densenet201, csp=HALVES),
        size=224,
        elastic=True,
    ),
    "csmobilenet-v2": partial(
        _classifier, name="CSPMobileNet-v2", backbone=csp_mobilenet_v2, size=224, subdivisions=2, activation="relu"
    ),
    "cspeleenet": partial(
        _classifier, name="CSPPeleeNet", backbone=partial(peleenet, csp=HALVES), size=224, subdivisions=2
    ),
    "cspeleenet-swish": partial(_swish, name="CSPPeleeNet", backbone=partial(peleenet, csp=HALVES)),
    "cspeleenet-swish-se": partial(_swish_se, name="CSPPeleeNet-SE", backbone=partial(peleenet, csp=HALVES)),
    "cspeleenet-ref": partial(
        _classifier, name="CSPPeleeNet Ref.", backbone=partial(pelee_reference, csp=HALVES), size=224, subdivisions=1
    ),
    "cspeleenetb-ref": partial(
        _classifier,
        name="CSPPeleeNetb Ref.",
        backbone=partial(pelee_reference, csp=HALVES, top=1),
        size=224,
        subdivisions=1,
    ),
    "csresnet10": partial(_classifier, name="CSPResNet-10", backbone=partial(small_resnet, csp=Csp()), subdivisions=1),
    "csresnet50": partial(_classifier, name="CSPResNet-50", backbone=CSP_RESNET50),
    "csresnet50-elastic": partial(_classifier, name="CSPResNet-50 with Elastic", backbone=CSP_RESNET50, elastic=True),
    "csresnet50-omega": partial(_classifier, name="CSPResNet-50", backbone=CSP_RESNET50, omega=True),
    "csresnext50": partial(_classifier, name="CSPResNeXt-50", backbone=CSP_RESNEXT50),
    "csresnext50-elastic": partial(
        _classifier, name="CSPResNeXt-50 with Elastic", backbone=CSP_RESNEXT50, elastic=True
    ),
    "csresnext50-plus-elastic": partial(
        _classifier,
        name="CSPResNeXt-50 + Elastic",
        backbone=partial(CSP_RESNEXT50, counts=(6, 7, 4, 2), block=blocks.added_elastic),
        subdivisions=8,
    ),
    "csresnext50-omega": partial(_classifier, name="CSPResNeXt-50", backbone=CSP_RESNEXT50, omega=True),
    "darknet": partial(_classifier, name="Darknet reference", backbone=reference, subdivisions=1),
    "darknet19": _darknet19,
    "darknet53": partial(_classifier, name="Darknet-53", backbone=darknet53),
    "densenet201": partial(_classifier, name="DenseNet-201", backbone=densenet201, subdivisions=1, pool_first=False),
    "densenet201-elastic": partial(
        _classifier, name="DenseNet-201 with Elastic", backbone=densenet201, size=224, elastic=True
    ),
    "densenet264": partial(_classifier, name="DenseNet-264", backbone=densenet264, size=224),
    "enetb0": _enetb0,
    "mobilenet-v2": partial(
        _classifier, name="MobileNet-v2", backbone=mobilenet_v2, size=224, subdivisions=2, activation="relu"
    ),
    "peleenet": partial(_classifier, name="PeleeNet", backbone=peleenet, size=224, subdivisions=2),
    "peleenet-swish": partial(_swish, name="PeleeNet", backbone=peleenet),
    "peleenet-swish-se": partial(_swish_se, name="PeleeNet-SE", backbone=peleenet),
    "peleenext": partial(_classifier, name="PeleeNeXt", backbone=partial(peleenet, groups=4), size=224, subdivisions=2),
    "res2netlite72": partial(_classifier, name="Res2NetLite-72", backbone=res2netlite72, size=224, subdivisions=2),
    "resnet10": partial(_classifier, name="ResNet-10", backbone=small_resnet, subdivisions=1),
    "resnet50": partial(_classifier, name="ResNet-50", backbone=resnet, pool_first=False),
    "resnet101": partial(
        _classifier,
        name="ResNet-101",
        backbone=partial(resnet, counts=(3, 4, 23, 3)),
        pool_first=False,
        subdivisions=2,
        cost=True,
    ),
    "resnet152": partial(
        _classifier,
        name="ResNet-152, with projections on its skip connections",
        backbone=partial(resnet, counts=(3, 8, 36, 3), project=True),
        size=224,
    ),
    "resnext50": partial(_classifier, name="ResNeXt-50", backbone=partial(resnet, groups=32)),
    "sparsepeleenet": partial(_classifier, name="SparsePeleeNet", backbone=sparse_peleenet, size=224, subdivisions=2),
    **{
        key: partial(_classifier, name=name, backbone=backbone, size=224, activation=activation)
        for key, (name, backbone, activation) in _AGGREGATION.items()
    },
}
