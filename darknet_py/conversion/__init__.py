"""From one file of trained weights to another, by the ending of the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from darknet_py.errors import DarknetError

if TYPE_CHECKING:
    from darknet_py.model.network import Network
    from darknet_py.model.weights import Header


def _checkpoint(net: Network, out: Path, header: Header) -> None:
    from darknet_py.model import checkpoint

    checkpoint.write(net, out, header)


def _weights(net: Network, out: Path, header: Header) -> None:
    from darknet_py.model import weights

    weights.save(net, out, seen=header.seen, header=header)


WRITERS: dict[str, Callable[[Network, Path, Header], None]] = {
    ".pt": _checkpoint,
    ".pth": _checkpoint,
    ".weights": _weights,
}


def convert(cfg: str | Path | None, weights: str | Path, out: str | Path, names: Sequence[str] = ()) -> Path:
    """Writes `weights` in the format that the ending of `out` names, and returns its path.

    cfg may be None when `weights` is a checkpoint, which holds its own. Raises DarknetError for an unknown ending, and
    what loading and writing raise.
    """
    from darknet_py.model.load import load_with_header

    out = Path(out)
    writer = WRITERS.get(out.suffix)
    if writer is None:
        raise DarknetError(f"{out}: wanted an ending of {', '.join(sorted(WRITERS))}, found {out.suffix or 'none'!r}")
    net, header = load_with_header(cfg, weights, names=names)
    writer(net, out, header)
    return out
