"""Networks of a few layers on small images."""

from __future__ import annotations

import torch

from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network

NET = "[net]\nwidth=8\nheight=6\nchannels=4\nbatch=4\nsubdivisions=2\nmax_batches=100\n"


def network(*sections: str) -> Network:
    """A network of these sections; its input has 4 channels, 6 rows and 8 columns."""
    return Network(parse_text(NET + "".join(sections)))


def image(batch: int = 2, seed: int = 0) -> torch.Tensor:
    """(batch, 4, 6, 8) in 0..1."""
    return torch.rand(batch, 4, 6, 8, generator=torch.Generator().manual_seed(seed))
