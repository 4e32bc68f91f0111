"""From one file of trained weights to another, by the ending of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from darknet_py.errors import DarknetError
from darknet_py.model.model_file import CHECKPOINT_SUFFIXES, ModelFile
from darknet_py.model.weights import Header

SUFFIXES = (*CHECKPOINT_SUFFIXES, ".weights")


def convert(
    cfg: str | Path | None, weights: str | Path, out: str | Path, names: Sequence[str] = (), cutoff: int | None = None
) -> Path:
    """Writes trained weights in another format. No module is built; `.weights` to `.pt` and back gives the same bytes.

    Args:
        cfg: A Darknet cfg; None when `weights` is a checkpoint, which holds its own.
        weights: A `.weights` file or a `.pt` checkpoint.
        out: The file to write. Its ending names the format: .pt, .pth or .weights.
        names: Class names to keep in a checkpoint (default: those of `weights`).
        cutoff: Only the layers before this one, as a `.weights` file whatever the ending, with no images seen
            (Darknet's `partial`; such files are called NAME.conv.N).

    Returns:
        The path of the file written.

    Raises:
        DarknetError: The ending is unknown, or the cutoff does not fit.
        CfgError: The cfg is wrong.
        WeightsError: The weights do not fit the cfg, or the file cannot be written.
    """
    out = Path(out)
    if cutoff is not None:
        if cfg is None:
            raise DarknetError("cutoff: expected the cfg too, got none")
        model = ModelFile.read(cfg, weights, cutoff=cutoff, names=names)
        count = len(model.graph.layers)
        if not 0 < cutoff <= count:
            raise DarknetError(f"cutoff: expected 1 to {count} layers of {cfg}, got {cutoff}")
        replace(model, header=Header()).write_weights(out, cutoff)
        return out
    if out.suffix not in SUFFIXES:
        raise DarknetError(f"{out}: expected an ending of {', '.join(SUFFIXES)}, got {out.suffix or 'none'!r}")
    ModelFile.read(cfg, weights, names=names).write(out)
    return out
