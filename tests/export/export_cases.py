"""Small networks with each kind of head, for the tests of exported networks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network

_NET = "[net]\nwidth=64\nheight=32\nchannels=3\n"


def _conv(filters: int, size: int = 3, stride: int = 1, norm: int = 1, activation: str = "leaky") -> str:
    return (
        f"[convolutional]\nbatch_normalize={norm}\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\n"
        f"activation={activation}\n"
    )


def _linear(filters: int, activation: str = "linear") -> str:
    return _conv(filters, 1, 1, 0, activation)


_BODY = _conv(8, stride=2, activation="mish") + _conv(8, stride=2)
_YOLO = "[yolo]\nmask=0,1\nanchors=10,14, 20,30, 40,20\nnum=3\nclasses=2\n"
_TWO_SCALES = "[route]\nlayers=-3\n[upsample]\nstride=2\n[route]\nlayers=-1,0\n"
_REGION = "[region]\nanchors=1,2, 3,1.5\nnum=2\nclasses=3\nsoftmax=1\n"

CASES = {
    "yolov3": _NET + _BODY + _linear(14) + _YOLO + _TWO_SCALES + _linear(14) + _YOLO,
    "yolov4": _NET + _BODY + _linear(14) + _YOLO + "scale_x_y=1.2\nnms_kind=greedynms\nbeta_nms=0.6\n",
    "yolov7": _NET + _BODY + _linear(14, "logistic") + _YOLO + "scale_x_y=2.0\nnew_coords=1\n",
    "gaussian": _NET + _BODY + _linear(22) + "[Gaussian_yolo]\n" + _YOLO.partition("\n")[2] + "scale_x_y=1.1\n",
    "region": _NET + _BODY + _linear(16) + _REGION,
    "tree": _NET + _BODY + _linear(20) + "[region]\nanchors=1,2, 3,1.5\nnum=2\nclasses=5\nsoftmax=1\ntree=TREE\n",
    "detection": _NET + _BODY + "[connected]\noutput=72\nactivation=linear\n"
    "[detection]\nclasses=3\ncoords=4\nside=3\nnum=1\nsoftmax=1\nsqrt=1\n",
    "classifier": _NET + _BODY + _linear(5) + "[avgpool]\n[softmax]\ngroups=1\n",
    "segmentation": _NET + _BODY + _linear(4, "logistic") + "[upsample]\nstride=4\n",
}
RECURRENT = {
    "crnn": _NET + _BODY + "[crnn]\nbatch_normalize=1\nsize=3\npad=1\noutput=4\nhidden=4\nactivation=leaky\n",
    "conv_lstm": _NET.replace("[net]\n", "[net]\ntime_steps=3\n")
    + _BODY
    + "[conv_lstm]\nbatch_normalize=1\nsize=3\npad=1\noutput=4\npeephole=1\nactivation=leaky\n"
    + "[history]\nhistory_size=2\n",
    "text": "[net]\ninputs=8\n[rnn]\noutput=6\nhidden=6\nactivation=tanh\n[connected]\noutput=8\n[softmax]\n",
    "lstm": "[net]\ninputs=8\n[lstm]\noutput=6\n[gru]\noutput=5\n",
}


class Files(NamedTuple):
    """A network's files, and itself in evaluation mode."""

    cfg: Path
    weights: Path
    net: Network


def write_case(name: str, folder: Path) -> Files:
    """Writes the cfg and random weights of a case. Weights are large enough that the outputs vary."""
    (folder / "case.tree").write_text("a -1\nb -1\nc 0\nd 0\ne 1\n")
    return write_cfg(CASES[name].replace("TREE", str(folder / "case.tree")), folder / f"{name}.cfg")


def write_cfg(text: str, path: Path) -> Files:
    """Writes a cfg, and weights beside it: normal values, and batch norm statistics that are not 0 and 1."""
    path.write_text(text)
    net = Network(parse_text(text, str(path)), ["first", "second"]).eval()
    generator = torch.Generator().manual_seed(3)
    for name, values in net.state_dict().items():
        fresh = torch.rand(values.shape, generator=generator)
        values.copy_(fresh + 0.5 if name.endswith((".variance", ".scale")) else fresh - 0.5)
    weights = path.with_suffix(".weights")
    net.save_weights(weights)
    return Files(path, weights, net)
