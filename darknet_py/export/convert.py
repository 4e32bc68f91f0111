"""From one file of trained weights to another format, by the ending of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from darknet_py.errors import DarknetError
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.exporter import Exporter, Job, check_offered
from darknet_py.export.onnx import OnnxExporter
from darknet_py.export.openvino import OpenvinoExporter
from darknet_py.export.safe_unpickle import is_foreign
from darknet_py.export.state_dicts import read_state_dict
from darknet_py.export.torch_export import ExportedProgramExporter, TorchScriptExporter
from darknet_py.model.model_file import WEIGHT_SUFFIXES, ModelFile
from darknet_py.model.weights import Header

# Formats that hold a network which other programs run.
EXPORTERS: dict[str, Exporter] = {
    ".onnx": OnnxExporter(),
    ".xml": OpenvinoExporter(),
    ".pt2": ExportedProgramExporter(),
    ".torchscript": TorchScriptExporter(),
    ".ts": TorchScriptExporter(),
}

SUFFIXES = (*WEIGHT_SUFFIXES, *EXPORTERS)


def convert(
    cfg: str | Path | None,
    weights: str | Path | None,
    out: str | Path,
    names: Sequence[str] = (),
    cutoff: int | None = None,
    options: ExportOptions | None = None,
) -> Path:
    """Writes a trained network in another format.

    `.weights` to `.pt` and back gives the same bytes. An exported network (.onnx …) is run beside ours on a check image
    first, and written only if both give the same.

    Args:
        cfg: A Darknet cfg; None when `weights` is a checkpoint, which holds its own.
        weights: A `.weights` file or a checkpoint (.pt, .safetensors), or a PyTorch file of another program
            (`export.state_dicts`); None takes those of a checkpoint given as `cfg`.
        out: The file to write. Its ending names the format, one of `SUFFIXES`.
        names: Class names to keep (default: those of `weights`).
        cutoff: Only the layers before this one, as a `.weights` file whatever the ending, with no images seen
            (Darknet's `partial`; such files are called NAME.conv.N).
        options: Outputs, precision and input of an exported network.

    Returns:
        The path of the file written. What was compared, and what the target cannot do, is logged.

    Raises:
        DarknetError: The ending is unknown, the cutoff does not fit, or the exported network differs from ours.
        CfgError: The cfg is wrong.
        WeightsError: The weights do not fit the cfg, or the file cannot be written.
        MissingExtra: A package that the format needs is not installed.
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
    exporter = EXPORTERS.get(out.suffix)
    if exporter is None:
        if options is not None:
            raise DarknetError(f"{out}: options of an exported network do not apply to weights")
        _read(cfg, weights, names).write(out)
        return out
    options = options or ExportOptions()
    options.check()
    check_offered(exporter, out, options)
    _check_writable(out)
    model = _read(cfg, weights, names)
    if not model.tensors:
        raise DarknetError(f"{out}: expected trained weights, got none")
    exporter.export(Job.of(model, options), out).write()
    return out


def _check_writable(out: Path) -> None:
    """Raises DarknetError before minutes of work are spent on a file that cannot be written."""
    if not out.parent.is_dir():
        raise DarknetError(f"{out}: cannot write: there is no folder {out.parent}")


def _read(cfg: str | Path | None, weights: str | Path | None, names: Sequence[str]) -> ModelFile:
    """The network of a cfg with the arrays of any file that has them."""
    if cfg is None or weights is None or not is_foreign(weights):
        return ModelFile.read(cfg, weights, names=names)
    return read_state_dict(ModelFile.read(cfg, names=names), weights)
