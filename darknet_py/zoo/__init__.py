"""Writes the cfgs in `cfg/` from their architecture: backbone, CSP stages, neck and heads.

`build("yolov4")` returns the text of a network. `python -m darknet_py.zoo` lists the names, prints one network or
writes all files of `cfg/`. For other combinations see `Design` (design.py) and `darknet-py design`. Each module uses
only those listed above it:

    cfg_writer.py     CfgWriter: one call per section; each call returns the layer index for later calls
    net_sections.py   [net]: input size, training, augmentation
    blocks.py         residual and dense blocks, attention, sets of convolutions, pooling
    stages.py         Csp: how the channels of a stage are split (γ) and concatenated again (fusion)
    residual.py dense.py mobile.py plain_backbones.py      backbones: stem and stages; they return stride → layer
    aggregation.py        the same of blocks after CSPNet: OSA, ELAN, GELAN, CSPStackRep, C3, C2f
    heads.py          [yolo] per stride, [region], classifier; anchors and loss options
    necks.py          FPN, PANet, PRN, GFM, EFM: they fuse the features of several strides for the heads
    classifiers.py detectors.py builtin_networks.py        the tables: name → function
    backbones.py      the backbones available to a design
    design.py         a network from the names of its parts; search.py combines them
    scale_filters.py  changes the width of a network; csp_transform.py converts a plain cfg
    merge_branches.py     re-parameterization: the parallel convolutions of a trained network become single ones

To add a network, write the block, backbone or neck that is missing, a function in `detectors.py` that combines the
parts, and its row in the table:

    def _my_detector(classes: int = 80) -> CfgWriter:
        cfg = CfgWriter("What it is and where it comes from.", net_sections.detector_net(416, 8))
        features = darknet53(cfg, Csp(gamma=0.25))
        head = YoloHeads(classes, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS)
        necks.panet(cfg, features, head)
        return cfg

`make cfgs` then writes its file. `tools/zoo/c_darknet.py` adds C Darknet's values for it to `tests/golden/zoo.json`. A
published network is compared with the published cfg: the same sections, and the same meaning of every option.
"""

from __future__ import annotations

from collections.abc import Callable

from darknet_py.cfg.options import did_you_mean
from darknet_py.errors import DarknetError
from darknet_py.zoo.builtin_networks import SMALL
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.classifiers import CLASSIFIERS
from darknet_py.zoo.detectors import DETECTORS

__all__ = ["ZOO", "build"]

ZOO: dict[str, Callable[..., CfgWriter]] = {**DETECTORS, **CLASSIFIERS, **SMALL}


def build(name: str, classes: int | None = None) -> str:
    """Writes the cfg of a network of the zoo.

    Args:
        name: Name of the network, a key of `ZOO`.
        classes: Number of classes; default: that of the published network.

    Returns:
        The text of the cfg.

    Raises:
        DarknetError: Unknown name, or classes below 1.
    """
    if name not in ZOO:
        raise DarknetError(f"expected a network of the zoo, got {name!r}{did_you_mean(name, sorted(ZOO))}")
    if classes is not None and classes < 1:
        raise DarknetError(f"classes: expected at least 1, got {classes}")
    write = ZOO[name]
    return (write() if classes is None else write(classes)).text()
