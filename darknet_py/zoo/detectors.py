"""The detectors: one function per family, one row of the table at the end per network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from darknet_py.zoo import blocks, heads, necks, net_sections
from darknet_py.zoo.aggregation import elan_net
from darknet_py.zoo.cfg_writer import CfgWriter, Value
from darknet_py.zoo.classifiers import CSP_DARKNET53, CSP_RESNET50, CSP_RESNEXT50, CSPNET, HALVES
from darknet_py.zoo.dense import dense_reference, pelee_reference, peleenet, sparse_peleenet
from darknet_py.zoo.heads import YoloHeads
from darknet_py.zoo.mobile import efficientnet_b0, fastest
from darknet_py.zoo.plain_backbones import csp_darknet_tiny, darknet19, darknet_tiny, elan_tiny
from darknet_py.zoo.residual import Features, darknet53
from darknet_py.zoo.stages import Csp

Neck = Callable[[CfgWriter, Features, YoloHeads], None]


# --- CSPNet


def _cspnet(
    classes: int = 80,
    *,
    name: str,
    backbone: Callable[[CfgWriter], Features],
    neck: Neck = necks.panet,
    neck_name: str = "PANet-SPP",
    size: int = 416,
    subdivisions: int = 4,
) -> CfgWriter:
    cfg = CfgWriter(
        f"{name}-{neck_name}: a CSP backbone with the heads and the training settings of YOLOv3.\n{CSPNET}",
        net_sections.detector_net(size, subdivisions, batches=500500),
    )
    neck(cfg, backbone(cfg), YoloHeads(classes, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS))
    return cfg


def _cspnet_panet_optimal(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "CSPResNeXt50-PANet-SPP with the training settings of YOLOv4: mosaic, CIoU loss, other anchors.\n" + CSPNET,
        net_sections.detector_net(608, 8, rate=0.00261, batches=500500, momentum=0.949, mosaic=1),
    )
    head = YoloHeads(classes, heads.COCO_V4, heads.THREE_SCALES, heads.V4_LOSS, heads.V4_SCALES)
    necks.panet(cfg, CSP_RESNEXT50(cfg), head)
    return cfg


# --- PeleeNet and the partial residual networks


def _pelee(
    classes: int = 80,
    *,
    neck: Neck,
    name: str,
    backbone: Callable[[CfgWriter], Features] = peleenet,
    attention: str = "",
    levels: int = 2,
    random: int = 1,
) -> CfgWriter:
    """attention: of the features that the heads read. random: whether the size of the input changes in training."""
    about = f"{name}: a light backbone with heads at {levels} strides and the training settings of YOLOv3."
    cfg = CfgWriter(f"{about}\n{CSPNET}" if name.startswith("CSP") else about, net_sections.detector_net(416, 8))
    features = backbone(cfg)
    cfg.attention = attention
    loss = {**heads.V3_LOSS, "random": random}
    if levels == 2:
        head = YoloHeads(classes, heads.COCO_TINY, heads.OVERLAPPING, loss)
    else:
        head = YoloHeads(classes, heads.COCO_V3, heads.THREE_SCALES, loss)
    neck(cfg, features, head)
    return cfg


_csp_pelee = partial(_pelee, backbone=partial(peleenet, csp=HALVES))
_PELEE_REFERENCE = partial(pelee_reference, csp=HALVES)


def _enet_coco(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "EfficientNet-B0-PRN (Wang et al., 2019): EfficientNet-B0 with a partial residual neck.",
        net_sections.detector_net(416, 8),
    )
    cfg.activation = "swish"
    features = efficientnet_b0(cfg, dropout=0.0)
    cfg.activation = "leaky"
    features[16] += 1  # the neck reads the features after the expansion of the next block
    loss = {**heads.V3_LOSS, "random": 0}
    necks.prn(cfg, features, YoloHeads(classes, heads.COCO_TINY, heads.OVERLAPPING, loss))
    return cfg


def _yolov3_tiny_prn(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "YOLOv3-tiny-PRN (Wang et al., 2019): YOLOv3-tiny with a partial residual neck, half of its size.",
        net_sections.detector_net(416, 8),
    )
    features = darknet_tiny(cfg, 512)
    cfg.shortcut(features[32], activation=cfg.activation)
    necks.prn(cfg, features, YoloHeads(classes, heads.COCO_TINY, heads.OVERLAPPING, heads.V3_LOSS))
    return cfg


# --- YOLOv2, YOLOv3


def _yolov2(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "YOLOv2 (Redmon and Farhadi, 2016): Darknet-19, one head that also reads the features of stride 16.",
        net_sections.detector_net(416, 8),
    )
    necks.passthrough(cfg, darknet19(cfg))
    heads.region(cfg, classes)
    return cfg


def _yolov2_tiny(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter("YOLOv2-tiny: nine convolutions, one head.", net_sections.detector_net(416, 2))
    darknet_tiny(cfg, 1024)
    cfg.chapter("Head")
    cfg.part("stride 32")
    cfg.conv(512, 3)
    heads.region(cfg, classes, jitter=0.2, rescore=0)
    return cfg


def _yolov3(classes: int = 80, *, spp: bool = False) -> CfgWriter:
    name = "YOLOv3 with spatial pyramid pooling" if spp else "YOLOv3"
    cfg = CfgWriter(
        f"{name} (Redmon and Farhadi, 2018): Darknet-53, a feature pyramid, heads at three strides.",
        net_sections.detector_net(608 if spp else 416, 16),
    )
    head = YoloHeads(classes, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS)
    features = darknet53(cfg)
    if spp:
        necks.spp_fpn(cfg, features, head)
    else:
        necks.fpn(cfg, features, head)
    return cfg


def _yolov3_tiny(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "YOLOv3-tiny: convolutions and max pooling, heads at two strides.", net_sections.detector_net(416, 2)
    )
    head = YoloHeads(classes, heads.COCO_TINY, heads.TWO_SCALES, heads.V3_LOSS)
    necks.tiny_fpn(cfg, darknet_tiny(cfg, 1024), head)
    return cfg


def _yolov3_tiny_3l(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "YOLOv3-tiny with heads at three strides.",
        net_sections.detector_net(608, 16, batches=200000, steps=(180000, 190000)),
    )
    head = YoloHeads(classes, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS)
    necks.tiny_fpn(cfg, darknet_tiny(cfg, 1024), head, narrow=(256, 128, 128))
    return cfg


# --- YOLOv4 and after


def _yolov4(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "YOLOv4 (Bochkovskiy et al., 2020): CSPDarknet-53 with mish, pooling on top, PANet.",
        net_sections.detector_net(608, 8, rate=0.0013, batches=500500, momentum=0.949, mosaic=1),
    )
    cfg.activation = "mish"
    features = CSP_DARKNET53(cfg)
    cfg.activation = "leaky"
    loss = {**heads.V4_LOSS, "max_delta": 5}
    necks.panet(cfg, features, YoloHeads(classes, heads.COCO_V4, heads.THREE_SCALES, loss, heads.V4_SCALES))
    return cfg


def _yolov4_tiny(classes: int = 80, *, levels: int = 2) -> CfgWriter:
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
        net = net_sections.detector_net(416, 1, rate=0.00261, batches=2000200, steps=(1600000, 1800000))
        head = YoloHeads(classes, heads.COCO_TINY, heads.OVERLAPPING, loss)
    else:
        net = net_sections.detector_net(608, 1, rate=0.00261)
        head = YoloHeads(classes, heads.COCO_V4, heads.THREE_SCALES, loss)
    cfg = CfgWriter(f"YOLOv4-tiny (Wang et al., 2020): small CSP stages, heads at {len(head.strides)} strides.", net)
    necks.tiny_fpn(cfg, csp_darknet_tiny(cfg), head)
    return cfg


def _scaled_yolov4(
    classes: int = 80,
    *,
    name: str,
    size: int,
    backbone: Callable[[CfgWriter], Features],
    neck: Neck,
    anchors: tuple[int, ...] = heads.COCO_V4,
    average: float = 0.0,
    by_stride: Mapping[int, Mapping[str, Value]],
) -> CfgWriter:
    """average: decay of the moving average of the weights. by_stride: stride → loss options."""
    cfg = CfgWriter(
        f"{name} (Scaled-YOLOv4, Wang et al., 2020): CSP stages in backbone and neck, mish activations.",
        net_sections.detector_net(size, 8, batches=500500, momentum=0.949, average=average, mosaic=1, letter_box=1),
    )
    cfg.activation = "mish"
    masks = heads.masks(list(by_stride), len(anchors) // 2)
    neck(cfg, backbone(cfg), YoloHeads(classes, anchors, masks, heads.CSP_LOSS, by_stride, activation="logistic"))
    return cfg


def _yolov4_pacsp(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "YOLOv4-PACSP: the layers of YOLOv4-CSP with leaky activations and the training settings of YOLOv4.",
        net_sections.detector_net(512, 8, rate=0.00261, batches=500500, momentum=0.949, mosaic=1),
    )
    loss = {**heads.V4_LOSS, "random": 1, "scale_x_y": 1.05}
    head = YoloHeads(classes, heads.COCO_V4, heads.THREE_SCALES, loss)
    necks.csp_panet(cfg, _SCALED_CSP_DARKNET53(cfg), head)
    return cfg


def _yolov7_tiny(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "YOLOv7-tiny (Wang et al., 2022): ELAN blocks, which concatenate all convolutions, in backbone and PANet.",
        net_sections.detector_net(416, 1, rate=0.00261, batches=2000200, steps=(1600000, 1800000)),
    )
    loss = {**heads.CSP_LOSS, "obj_normalizer": 1.0, "objectness_smooth": 1, "max_delta": 2}
    head = YoloHeads(classes, heads.COCO_V3, heads.THREE_SCALES, loss, activation="logistic")
    necks.elan_panet(cfg, elan_tiny(cfg), head)
    return cfg


def _yolov7(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "YOLOv7 (Wang et al., 2022): ELAN blocks, which concatenate all convolutions, in backbone and PANet.",
        net_sections.detector_net(
            640, 1, batch=8, rate=0.00261, batches=2000200, steps=(1600000, 1800000), momentum=0.9
        ),
    )
    cfg.activation = "swish"
    head = YoloHeads(classes, heads.COCO_V4, heads.THREE_SCALES, {**heads.CSP_LOSS, **_LARGE}, activation="logistic")
    necks.dense_elan_panet(cfg, elan_net(cfg), head)
    return cfg


# --- Yolo-Fastest


def _yolo_fastest(classes: int = 80) -> CfgWriter:
    cfg = CfgWriter(
        "Yolo-Fastest 1.1: inverted residual blocks, 0.3 million parameters, heads at two strides.",
        net_sections.detector_net(320, 1, batch=32, burn_in=4000, batches=500000, momentum=0.949),
    )
    _fastest_layers(cfg, classes, _FASTEST_LOSS)
    return cfg


def _yolo_fastest_bccd(classes: int = 3) -> CfgWriter:
    cfg = CfgWriter(
        "Yolo-Fastest 1.1 for fine-tuning on BCCD (blood cells): 200 iterations from the COCO weights.",
        net_sections.detector_net(
            320, 1, batch=16, rate=0.0005, burn_in=30, batches=200, steps=(160, 180), momentum=0.949
        ),
    )
    _fastest_layers(cfg, classes, {**_FASTEST_LOSS, "max_delta": 2})
    return cfg


def _fastest_layers(cfg: CfgWriter, classes: int, loss: dict[str, Value]) -> None:
    head = YoloHeads(classes, heads.COCO_FASTEST, heads.TWO_SCALES, loss)
    necks.light_fpn(cfg, fastest(cfg), head)


_FASTEST_LOSS: dict[str, Value] = {**heads.V4_LOSS, "jitter": 0.15, "ignore_thresh": 0.5, "random": 0, "scale_x_y": 1.0}

_SCALED_CSP_DARKNET53 = partial(darknet53, csp=Csp(), first=0)
_CSP_BY_STRIDE: dict[int, dict[str, Value]] = {
    8: {"obj_normalizer": 4.0, "objectness_smooth": 0, "max_delta": 5},
    16: {"obj_normalizer": 1.0, "objectness_smooth": 1, "max_delta": 5},
    32: {"obj_normalizer": 0.4, "objectness_smooth": 1, "max_delta": 2},
}
_LARGE: dict[str, Value] = {"obj_normalizer": 1.0, "objectness_smooth": 1, "max_delta": 2}

# Scaled-YOLOv4's large models: P5, P6 and P7 have their coarsest heads at strides 32, 64 and 128.
_COCO_P5 = (13, 17, 31, 25, 24, 51, 61, 45, 48, 102, 119, 96, 97, 189, 217, 184, 171, 384, 324, 451, 616, 618, 800, 800)
_COCO_P6 = (
    *(13, 17, 31, 25, 24, 51, 61, 45, 61, 45, 48, 102, 119, 96, 97, 189),
    *(97, 189, 217, 184, 171, 384, 324, 451, 324, 451, 545, 357, 616, 618, 1024, 1024),
)
_COCO_P7 = (
    *(13, 17, 22, 25, 27, 66, 55, 41, 57, 88, 112, 69, 69, 177, 136, 138, 136, 138, 287, 114),
    *(134, 275, 268, 248, 268, 248, 232, 504, 445, 416, 640, 640, 812, 393, 477, 808, 1070, 908, 1408, 1408),
)
_P5_NECK = partial(necks.csp_panet, pairs=3, heads_last=True)
_P5 = partial(
    _scaled_yolov4,
    size=896,
    backbone=partial(darknet53, csp=Csp(), first=64, counts=(1, 3, 15, 15, 7)),
    anchors=_COCO_P5,
    average=0.9998,
    by_stride=dict.fromkeys((8, 16, 32), _LARGE),
)
_P6_NECK = partial(_P5_NECK, widths={8: 128, 16: 256, 32: 512, 64: 512})
_P6 = partial(
    _scaled_yolov4,
    size=1280,
    backbone=partial(darknet53, csp=Csp(), first=64, counts=(1, 3, 15, 15, 7, 7)),
    anchors=_COCO_P6,
    average=0.9998,
    by_stride=dict.fromkeys((8, 16, 32, 64), _LARGE),
)
_P7 = partial(darknet53, csp=Csp(), first=0, counts=(1, 3, 15, 15, 7, 7, 7), stem=80, base=80)
_P7_NECK = partial(
    necks.csp_panet,
    widths={8: 128, 16: 320, 32: 640, 64: 640, 128: 640},
    wide={8: 320, 16: 640, 32: 1280, 64: 1280, 128: 1280},
    pairs=3,
    heads_last=True,
    attention=True,
)
_P7_WIDTHS = {8: 160, 16: 320, 32: 640, 64: 640, 128: 640}
_P7_OBJECTNESS = {8: 4.0, 16: 1.0, 32: 0.5, 64: 0.4, 128: 0.1}

DETECTORS: dict[str, Callable[..., CfgWriter]] = {
    "csdarknet53-panet-spp": partial(_cspnet, name="CSPDarknet53", backbone=CSP_DARKNET53),
    "csresnet50-panet-spp": partial(_cspnet, name="CSPResNet50", backbone=CSP_RESNET50),
    "csresnext50-panet-spp": partial(_cspnet, name="CSPResNeXt50", backbone=CSP_RESNEXT50, size=512, subdivisions=16),
    "csresnext50-panet-spp-original-optimal": _cspnet_panet_optimal,
    "csresnext50-yolo-spp": partial(
        _cspnet, name="CSPResNeXt50", backbone=CSP_RESNEXT50, neck=necks.spp_fpn, neck_name="YOLO-SPP", subdivisions=16
    ),
    "csresnext50-fpn-spp": partial(
        _cspnet,
        name="CSPResNeXt50",
        backbone=CSP_RESNEXT50,
        neck=partial(necks.spp_fpn, lateral=True),
        neck_name="FPN-SPP",
        subdivisions=16,
    ),
    "pelee-prn": partial(_pelee, name="Pelee-PRN", neck=necks.prn),
    "pelee-prn-3l": partial(_pelee, name="Pelee-PRN-3l", neck=necks.prn, levels=3),
    "pelee-yolov3": partial(
        _pelee, name="Pelee-YOLOv3", neck=partial(necks.tiny_fpn, narrow=(256, 128), wide=8, deep=True)
    ),
    "pelee-fpn": partial(_pelee, name="Pelee-FPN", neck=necks.added_fpn),
    "pelee-pan": partial(_pelee, name="Pelee-PAN", neck=necks.tiny_pan),
    "pelee-pan2": partial(_pelee, name="Pelee-PAN2", neck=partial(necks.tiny_pan, narrow=True)),
    "mpelee-prn": partial(_pelee, name="mPelee-PRN", neck=necks.prn, backbone=partial(peleenet, counts=(3, 5, 10, 6))),
    "sparsepelee-prn": partial(_pelee, name="SparsePelee-PRN", neck=necks.prn, backbone=sparse_peleenet),
    "partialpelee-prn": partial(
        _pelee,
        name="PartialPelee-PRN",
        neck=necks.prn,
        backbone=partial(peleenet, csp=Csp(fusion="first", split="groups"), pool="after"),
    ),
    "cspeleenet-prn": partial(_csp_pelee, name="CSPPeleeNet-PRN", neck=necks.prn),
    "cspeleenet-prn-3l": partial(_csp_pelee, name="CSPPeleeNet-PRN (3l)", neck=necks.prn, levels=3),
    "cspeleenet-cem": partial(_csp_pelee, name="CSPPeleeNet-CEM", neck=necks.cem, random=0),
    "cspeleenet-cem-sam": partial(_csp_pelee, name="CSPPeleeNet-CEM (SAM)", neck=necks.cem, attention="sam", random=0),
    "cspeleenet-gfm": partial(_csp_pelee, name="CSPPeleeNet-GFM", neck=necks.gfm, levels=3),
    "cspeleenet-efm": partial(_csp_pelee, name="CSPPeleeNet-EFM", neck=necks.efm, levels=3),
    "cspeleenet-efm-sam": partial(_csp_pelee, name="CSPPeleeNet-EFM (SAM)", neck=necks.efm, attention="sam", levels=3),
    "cspeleenet-efm-spp": partial(
        _csp_pelee, name="CSPPeleeNet-EFM (SPP)", neck=partial(necks.efm, top=blocks.spp_maxout), levels=3
    ),
    "cspeleenet-ref-prn-3l": partial(
        _pelee, name="CSPPeleeNet Ref.-PRN (3l)", neck=necks.prn, backbone=_PELEE_REFERENCE, levels=3
    ),
    "cspeleenet-ref-efm-sam": partial(
        _pelee, name="CSPPeleeNet Ref.-EFM (SAM)", neck=necks.efm, backbone=_PELEE_REFERENCE, attention="sam", levels=3
    ),
    "csdensenet-ref-efm-sam": partial(
        _pelee,
        name="CSPDenseNet Ref.-EFM (SAM)",
        neck=necks.efm,
        backbone=partial(dense_reference, csp=HALVES),
        attention="sam",
        levels=3,
    ),
    "csdensenetb-ref-prn": partial(
        _pelee, name="CSPDenseNetb Ref.-PRN", neck=necks.prn, backbone=partial(dense_reference, csp=HALVES, top=1)
    ),
    "enet-coco": _enet_coco,
    "yolov2": _yolov2,
    "yolov2-tiny": _yolov2_tiny,
    "yolov3": _yolov3,
    "yolov3-spp": partial(_yolov3, spp=True),
    "yolov3-tiny": _yolov3_tiny,
    "yolov3-tiny-3l": _yolov3_tiny_3l,
    "yolov3-tiny-prn": _yolov3_tiny_prn,
    "yolov4": _yolov4,
    "yolov4-csp": partial(
        _scaled_yolov4,
        name="YOLOv4-CSP",
        size=512,
        backbone=_SCALED_CSP_DARKNET53,
        neck=necks.csp_panet,
        average=0.9998,
        by_stride=_CSP_BY_STRIDE,
    ),
    "yolov4x-mish": partial(
        _scaled_yolov4,
        name="YOLOv4x-mish",
        size=640,
        backbone=partial(_SCALED_CSP_DARKNET53, counts=(1, 3, 10, 10, 5), base=80),
        neck=partial(necks.csp_panet, width=20, pairs=3, top_pairs=2, stop_backward=800),
        by_stride=_CSP_BY_STRIDE,
    ),
    "yolov4-p5": partial(_P5, name="YOLOv4-P5", neck=_P5_NECK),
    "yolov4-p6": partial(_P6, name="YOLOv4-P6", neck=_P6_NECK),
    "yolov4-p7": partial(
        _scaled_yolov4,
        name="CSPX-P7, a wider YOLOv4-P7 with SAM before its heads",
        size=1536,
        backbone=_P7,
        neck=_P7_NECK,
        anchors=_COCO_P7,
        by_stride={
            stride: {"obj_normalizer": weight, "objectness_smooth": 1, "max_delta": 40}
            for stride, weight in _P7_OBJECTNESS.items()
        },
    ),
    "yolov4-p5-large": partial(_P5, name="YOLOv4-P5-large", neck=partial(_P5_NECK, renormalize=True)),
    "yolov4-p6-large": partial(_P6, name="YOLOv4-P6-large", neck=partial(_P6_NECK, renormalize=True)),
    "yolov4-p7-large": partial(
        _scaled_yolov4,
        name="YOLOv4-P7-large",
        size=1536,
        backbone=partial(_P7, first=80, stem=40),
        neck=partial(_P5_NECK, widths=_P7_WIDTHS, renormalize=True),
        anchors=_COCO_P7,
        by_stride=dict.fromkeys((8, 16, 32, 64, 128), _LARGE),
    ),
    "yolov4-pacsp": _yolov4_pacsp,
    "yolov4-tiny": _yolov4_tiny,
    "yolov4-tiny-3l": partial(_yolov4_tiny, levels=3),
    "yolov7": _yolov7,
    "yolov7-tiny": _yolov7_tiny,
    "yolo-fastest-1.1": _yolo_fastest,
    "yolo-fastest-1.1-bccd": _yolo_fastest_bccd,
}
