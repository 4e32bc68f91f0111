"""The networks, by name. A function writes a family; a row of the table at the end is a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from darknet_py.zoo import backbones, heads, necks, recipes
from darknet_py.zoo.heads import Yolo
from darknet_py.zoo.text import Cfg, Value

_CSPNET = "CSPNet (Wang et al., 2019): of a stage's features one part goes through its blocks, the other skips them."


def _cspnet_panet(
    classes: int = 80,
    *,
    name: str,
    backbone: Callable[[Cfg], backbones.Features],
    size: int = 416,
    subdivisions: int = 4,
) -> Cfg:
    cfg = Cfg(
        f"{name}-PANet-SPP: a CSP backbone under PANet, with the heads and the training of YOLOv3.\n{_CSPNET}",
        recipes.detector(size, subdivisions, batches=500500),
    )
    necks.panet(cfg, backbone(cfg), Yolo(classes, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS))
    return cfg


def _cspnet_panet_optimal(classes: int = 80) -> Cfg:
    cfg = Cfg(
        "CSPResNeXt50-PANet-SPP, trained in YOLOv4's way: mosaic, loss by complete IoU, other anchors.\n" + _CSPNET,
        recipes.detector(608, 8, rate=0.00261, batches=500500, momentum=0.949, mosaic=1),
    )
    head = Yolo(classes, heads.COCO_V4, heads.THREE_SCALES, heads.V4_LOSS, _V4_SCALES)
    necks.panet(cfg, _CSP_RESNEXT50(cfg), head)
    return cfg


def _yolov2(classes: int = 80) -> Cfg:
    cfg = Cfg(
        "YOLOv2 (Redmon and Farhadi, 2016): Darknet-19, one head that also reads the stride 16.",
        recipes.detector(416, 8),
    )
    features = backbones.darknet19(cfg)
    cfg.chapter("Neck and head")
    cfg.part("stride 32")
    cfg.conv(1024, 3)
    top = cfg.conv(1024, 3)
    cfg.part("passthrough: 2 x 2 cells of stride 16 as channels of one cell")
    cfg.route(features[16])
    cfg.conv(64)
    fine = cfg.section("reorg", stride=2)
    cfg.route(fine, top)
    cfg.conv(1024, 3)
    heads.region(cfg, classes, jitter=0.3, rescore=1)
    return cfg


def _yolov2_tiny(classes: int = 80) -> Cfg:
    cfg = Cfg("YOLOv2-tiny: nine convolutions, one head.", recipes.detector(416, 2))
    backbones.darknet_tiny(cfg, 1024)
    cfg.chapter("Head")
    cfg.part("stride 32")
    cfg.conv(512, 3)
    heads.region(cfg, classes, jitter=0.2, rescore=0)
    return cfg


def _yolov3(classes: int = 80, *, spp: bool = False) -> Cfg:
    name = "YOLOv3 with spatial pyramid pooling" if spp else "YOLOv3"
    cfg = Cfg(
        f"{name} (Redmon and Farhadi, 2018): Darknet-53, a feature pyramid, heads at three strides.",
        recipes.detector(608 if spp else 416, 16),
    )
    head = Yolo(classes, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS)
    necks.fpn(cfg, backbones.darknet53(cfg), head, spp=spp)
    return cfg


def _yolov3_tiny(classes: int = 80) -> Cfg:
    cfg = Cfg("YOLOv3-tiny: convolutions and maxima, heads at two strides.", recipes.detector(416, 2))
    head = Yolo(classes, heads.COCO_TINY, heads.TWO_SCALES, heads.V3_LOSS)
    necks.tiny_fpn(cfg, backbones.darknet_tiny(cfg, 1024), head)
    return cfg


def _yolov3_tiny_prn(classes: int = 80) -> Cfg:
    cfg = Cfg(
        "YOLOv3-tiny-PRN (Wang et al., 2019): YOLOv3-tiny with a partial residual neck, at half of its size.",
        recipes.detector(416, 8),
    )
    head = Yolo(classes, heads.COCO_TINY, _OVERLAPPING, heads.V3_LOSS)
    necks.prn(cfg, backbones.darknet_tiny(cfg, 512), head)
    return cfg


def _yolov4(classes: int = 80) -> Cfg:
    cfg = Cfg(
        "YOLOv4 (Bochkovskiy et al., 2020): CSPDarknet-53 with mish, pooling on top, PANet.",
        recipes.detector(608, 8, rate=0.0013, batches=500500, momentum=0.949, mosaic=1),
    )
    cfg.activation = "mish"
    features = _CSP_DARKNET53(cfg)
    cfg.activation = "leaky"
    loss = {**heads.V4_LOSS, "max_delta": 5}
    necks.panet(cfg, features, Yolo(classes, heads.COCO_V4, heads.THREE_SCALES, loss, _V4_SCALES))
    return cfg


def _yolov4_tiny(classes: int = 80, *, levels: int = 2) -> Cfg:
    loss: dict[str, Value] = {
        "jitter": 0.3,
        "resize": 1.5,
        "ignore_thresh": 0.7,
        "truth_thresh": 1,
        "random": 0,
        "scale_x_y": 1.05,
        **heads.CIOU,
    }
    if levels == 2:
        net = recipes.detector(416, 1, rate=0.00261, batches=2000200, steps=(1600000, 1800000))
        head = Yolo(classes, heads.COCO_TINY, _OVERLAPPING, loss)
    else:
        net = recipes.detector(608, 1, rate=0.00261)
        head = Yolo(classes, heads.COCO_V4, heads.THREE_SCALES, loss)
    cfg = Cfg(f"YOLOv4-tiny (Wang et al., 2020): small CSP stages, heads at {len(head.strides)} strides.", net)
    necks.tiny_fpn(cfg, backbones.csp_darknet_tiny(cfg), head)
    return cfg


def _yolov4_csp(classes: int = 80) -> Cfg:
    cfg = Cfg(
        "YOLOv4-CSP (Scaled-YOLOv4, Wang et al., 2020): CSP stages in the neck too, mish throughout.",
        recipes.detector(512, 8, batches=500500, momentum=0.949, average=0.9998, mosaic=1, letter_box=1),
    )
    cfg.activation = "mish"
    by_stride: dict[int, dict[str, Value]] = {
        8: {"obj_normalizer": 4.0, "objectness_smooth": 0, "max_delta": 5},
        16: {"obj_normalizer": 1.0, "objectness_smooth": 1, "max_delta": 5},
        32: {"obj_normalizer": 0.4, "objectness_smooth": 1, "max_delta": 2},
    }
    head = Yolo(classes, heads.COCO_V4, heads.THREE_SCALES, heads.CSP_LOSS, by_stride, activation="logistic")
    necks.csp_panet(cfg, _SCALED_CSP_DARKNET53(cfg), head)
    return cfg


def _yolov4_pacsp(classes: int = 80) -> Cfg:
    cfg = Cfg(
        "YOLOv4-PACSP: the layers of YOLOv4-CSP with leaky activations, trained in YOLOv4's way.",
        recipes.detector(512, 8, rate=0.00261, batches=500500, momentum=0.949, mosaic=1),
    )
    loss = {**heads.V4_LOSS, "random": 1, "scale_x_y": 1.05}
    head = Yolo(classes, heads.COCO_V4, heads.THREE_SCALES, loss)
    necks.csp_panet(cfg, _SCALED_CSP_DARKNET53(cfg), head)
    return cfg


def _yolo_fastest(classes: int = 80) -> Cfg:
    cfg = Cfg(
        "Yolo-Fastest 1.1: inverted residual blocks, a third of a million parameters, heads at two strides.",
        recipes.detector(320, 1, batch=32, burn_in=4000, batches=500000, momentum=0.949),
    )
    _fastest_layers(cfg, classes, _FASTEST_LOSS)
    return cfg


def _yolo_fastest_bccd(classes: int = 3) -> Cfg:
    cfg = Cfg(
        "Yolo-Fastest 1.1 for a short fine-tuning on BCCD (blood cells): 200 updates from COCO's weights.",
        recipes.detector(320, 1, batch=16, rate=0.0005, burn_in=30, batches=200, steps=(160, 180), momentum=0.949),
    )
    _fastest_layers(cfg, classes, {**_FASTEST_LOSS, "max_delta": 2})
    return cfg


def _fastest_layers(cfg: Cfg, classes: int, loss: dict[str, Value]) -> None:
    head = Yolo(classes, heads.COCO_FASTEST, heads.TWO_SCALES, loss)
    necks.light_fpn(cfg, backbones.fastest(cfg), head)


def _darknet19(classes: int = 1000) -> Cfg:
    cfg = Cfg("Darknet-19, the backbone of YOLOv2, as an ImageNet classifier.", recipes.darknet19())
    backbones.darknet19(cfg)
    heads.classifier(cfg, classes, pool_first=False)
    cfg.section("cost", type="sse")
    return cfg


def _classifier(
    classes: int = 1000,
    *,
    name: str,
    backbone: Callable[[Cfg], object],
    pool_first: bool = True,
    subdivisions: int = 4,
    omega: bool = False,
) -> Cfg:
    """omega: mish, label smoothing, mosaic and cutmix, in a longer training."""
    if omega:
        about = f"{name} with mish and stronger augmentation, as an ImageNet classifier."
        net = recipes.classifier(subdivisions, batches=1200000, label_smooth_eps=0.1, mosaic=1, cutmix=1)
    else:
        about = f"{name}, as an ImageNet classifier."
        net = recipes.classifier(subdivisions)
    cfg = Cfg(f"{about}\n{_CSPNET}" if name.startswith("CSP") else about, net)
    cfg.activation = "mish" if omega else "leaky"
    backbone(cfg)
    heads.classifier(cfg, classes, pool_first=pool_first)
    return cfg


def _resnet101(classes: int = 1000) -> Cfg:
    backbone = partial(backbones.resnet, counts=(3, 4, 23, 3))
    cfg = _classifier(classes, name="ResNet-101", backbone=backbone, pool_first=False, subdivisions=2)
    cfg.section("cost", type="sse")
    return cfg


_OVERLAPPING = {16: (1, 2, 3), 32: (3, 4, 5)}  # as published: anchor 3 at both strides, anchor 0 at none
_V4_SCALES: dict[int, dict[str, Value]] = {
    8: {"scale_x_y": 1.2},
    16: {"scale_x_y": 1.1},
    32: {"scale_x_y": 1.05, "random": 1},  # Darknet reads `random` of the last head only
}
_FASTEST_LOSS: dict[str, Value] = {**heads.V4_LOSS, "jitter": 0.15, "ignore_thresh": 0.5, "random": 0, "scale_x_y": 1.0}

_CSP_DARKNET53 = partial(backbones.darknet53, csp=(True,) * 5)
_SCALED_CSP_DARKNET53 = partial(backbones.darknet53, csp=(False, *(True,) * 4))
_RESNEXT50 = partial(backbones.resnet, groups=32)
_CSP_RESNEXT50 = partial(backbones.csp_resnet50, groups=32)

ZOO: dict[str, Callable[..., Cfg]] = {
    "csdarknet53-panet-spp": partial(_cspnet_panet, name="CSPDarknet53", backbone=_CSP_DARKNET53),
    "csresnet50-panet-spp": partial(_cspnet_panet, name="CSPResNet50", backbone=backbones.csp_resnet50),
    "csresnext50-panet-spp": partial(
        _cspnet_panet, name="CSPResNeXt50", backbone=_CSP_RESNEXT50, size=512, subdivisions=16
    ),
    "csresnext50-panet-spp-original-optimal": _cspnet_panet_optimal,
    "yolov2": _yolov2,
    "yolov2-tiny": _yolov2_tiny,
    "yolov3": _yolov3,
    "yolov3-spp": partial(_yolov3, spp=True),
    "yolov3-tiny": _yolov3_tiny,
    "yolov3-tiny-prn": _yolov3_tiny_prn,
    "yolov4": _yolov4,
    "yolov4-csp": _yolov4_csp,
    "yolov4-pacsp": _yolov4_pacsp,
    "yolov4-tiny": _yolov4_tiny,
    "yolov4-tiny-3l": partial(_yolov4_tiny, levels=3),
    "yolo-fastest-1.1": _yolo_fastest,
    "yolo-fastest-1.1-bccd": _yolo_fastest_bccd,
    "csdarknet53": partial(_classifier, name="CSPDarknet-53", backbone=_CSP_DARKNET53),
    "csdarknet53-omega": partial(_classifier, name="CSPDarknet-53", backbone=_CSP_DARKNET53, omega=True),
    "csresnet50": partial(_classifier, name="CSPResNet-50", backbone=backbones.csp_resnet50),
    "csresnet50-omega": partial(_classifier, name="CSPResNet-50", backbone=backbones.csp_resnet50, omega=True),
    "csresnext50": partial(_classifier, name="CSPResNeXt-50", backbone=_CSP_RESNEXT50),
    "csresnext50-omega": partial(_classifier, name="CSPResNeXt-50", backbone=_CSP_RESNEXT50, omega=True),
    "darknet19": _darknet19,
    "darknet53": partial(_classifier, name="Darknet-53", backbone=backbones.darknet53),
    "resnet50": partial(_classifier, name="ResNet-50", backbone=backbones.resnet, pool_first=False),
    "resnet101": _resnet101,
    "resnext50": partial(_classifier, name="ResNeXt-50", backbone=_RESNEXT50),
}
