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


def convert(
    cfg: str | Path | None, weights: str | Path, out: str | Path, names: Sequence[str] = (), cutoff: int | None = None
) -> Path:
    """Writes `weights` in the format that the ending of `out` names, and returns its path.

    cfg may be None when `weights` is a checkpoint, which holds its own. cutoff: only the layers before it, in Darknet's
    format whatever the ending, with no images seen (Darknet's `partial`; such files are called NAME.conv.CUTOFF).
    Raises DarknetError for an unknown ending, and what loading and writing raise.
    """
    from darknet_py.model.load import load, load_with_header

    out = Path(out)
    if cutoff is not None:
        if cfg is None:
            raise DarknetError("cutoff: expected the cfg too, got none")
        net = load(cfg, names=names)
        layers = len(net.graph.layers)
        if not 0 < cutoff <= layers:
            raise DarknetError(f"cutoff: expected 1 to {layers} layers of {cfg}, got {cutoff}")
        net.load_weights(weights, cutoff)
        net.save_weights(out, cutoff, seen=0)
        return out
    writer = WRITERS.get(out.suffix)
    if writer is None:
        raise DarknetError(f"{out}: expected an ending of {', '.join(sorted(WRITERS))}, got {out.suffix or 'none'!r}")
    net, header = load_with_header(cfg, weights, names=names)
    writer(net, out, header)
    return out
