"""Cfgs written from architecture: backbone × stage × neck × head.

`build("yolov4")` gives the text of a network; `python -m darknet_py.zoo` lists the names, prints one, and writes the
files of `cfg/`. Of the rooms, each uses only those above it:

    text.py       Cfg: one call, one section; layers are named by the index that the call gave
    recipes.py    [net]: input size, training, augmentation
    blocks.py     residual blocks, CSP stages, sets of convolutions, pyramid pooling
    backbones.py  stem and stages; gives stride → layer
    heads.py      [yolo] by stride, [region], classifier; anchors and losses
    necks.py      FPN, PANet, PRN; joins the strides that the head wants
    networks.py   the table  name → function

To add a network, write what is missing of its blocks, backbone or neck, then a function in `networks.py` that puts
them together, and its row in the table:

    def _my_detector(classes: int = 80) -> Cfg:
        cfg = Cfg("What it is and where it comes from.", recipes.detector(416, 8))
        features = backbones.darknet53(cfg)
        head = Yolo(classes, heads.COCO_V3, heads.THREE_SCALES, heads.V3_LOSS)
        necks.panet(cfg, features, head)
        return cfg

`make cfgs` then writes its file, and its figures go into `tests/golden/zoo.json`. A network that somebody published
is compared with that file in `tests/zoo/test_zoo_published.py`: same sections, same meaning of every option.
"""

from __future__ import annotations

from darknet_py.cfg.options import did_you_mean
from darknet_py.errors import DarknetError
from darknet_py.zoo.networks import ZOO

__all__ = ["ZOO", "build"]


def build(name: str, classes: int | None = None) -> str:
    """The cfg text of a network of the zoo, for another number of classes if given.

    Raises DarknetError for a name that the zoo does not have.
    """
    if name not in ZOO:
        raise DarknetError(f"wanted a network of the zoo, found {name!r}{did_you_mean(name, sorted(ZOO))}")
    write = ZOO[name]
    return (write() if classes is None else write(classes)).text()
