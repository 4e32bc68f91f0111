"""Cfgs written from architecture: backbone × stage × neck × head.

`build("yolov4")` gives the text of a network; `python -m darknet_py.zoo` lists the names, prints one, and writes the
files of `cfg/`. Any other combination: `Design` (design.py), and `python -m darknet_py design` on the command line. Of
the rooms, each uses only those above it:

    text.py           Cfg: one call, one section; layers are named by the index that the call gave
    recipes.py        [net]: input size, training, augmentation
    blocks.py         residual and dense blocks, attention, sets of convolutions, pooling
    stages.py         Csp: how a stage's channels are divided (γ) and joined again (fusion)
    residual.py dense.py mobile.py convolutional.py      backbones: stem and stages; they give stride → layer
    heads.py          [yolo] by stride, [region], classifier; anchors and losses
    necks.py          FPN, PANet, PRN, GFM, EFM; they join the strides that the head wants
    classifiers.py detectors.py small.py                 the tables  name → function
    backbones.py      the backbones that a design can name
    design.py         a network from its parts' names; crossing.py a given plain cfg, made cross stage partial

To add a network, write what is missing of its blocks, backbone or neck, then a function in `detectors.py` that puts
them together, and its row in the table:

    def _my_detector(classes: int = 80) -> Cfg:
        cfg = Cfg("What it is and where it comes from.", recipes.detector(416, 8))
        features = darknet53(cfg, Csp(gamma=0.25))
        head = Yolo(classes, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS)
        necks.panet(cfg, features, head)
        return cfg

`make cfgs` then writes its file, and C's figures of it go into `tests/golden/zoo.json` (tools/zoo/c_darknet.py). A
network that somebody published is compared with its cfg: same sections, same meaning of every option.
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
    """The cfg text of a network of the zoo, for another number of classes if given.

    Raises DarknetError for a name that the zoo does not have, and for less than one class.
    """
    if name not in ZOO:
        raise DarknetError(f"expected a network of the zoo, got {name!r}{did_you_mean(name, sorted(ZOO))}")
    if classes is not None and classes < 1:
        raise DarknetError(f"classes: expected at least 1, got {classes}")
    write = ZOO[name]
    return (write() if classes is None else write(classes)).text()
