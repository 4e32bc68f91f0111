"""From one file of trained weights to another format, by the ending of the target."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from darknet_py.errors import DarknetError
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.exporter import Exporter, Job, check_offered
from darknet_py.export.onnx import OnnxExporter
from darknet_py.export.openvino import OpenvinoExporter
from darknet_py.export.safe_unpickle import is_foreign
from darknet_py.export.standalone import StandaloneExporter
from darknet_py.export.state_dicts import read_state_dict
from darknet_py.export.torch_export import CompiledExporter, ExportedProgramExporter, TorchScriptExporter
from darknet_py.export.weight_tools import partial
from darknet_py.files import check_output_file
from darknet_py.model.model_file import WEIGHT_SUFFIXES, ModelFile
from darknet_py.model.network import Network

logger = logging.getLogger(__name__)

# Formats that hold a network which other programs run.
EXPORTERS: dict[str, Exporter] = {
    ".onnx": OnnxExporter(),
    ".xml": OpenvinoExporter(),
    ".aoti.pt2": CompiledExporter(),
    ".pt2": ExportedProgramExporter(),
    ".torchscript": TorchScriptExporter(),
    ".ts": TorchScriptExporter(),
    ".py": StandaloneExporter(),
}

SUFFIXES = (*WEIGHT_SUFFIXES, *EXPORTERS)


def convert(
    cfg: str | Path | None,
    weights: str | Path | None,
    out: str | Path,
    names: Sequence[str] = (),
    cutoff: int | None = None,
    options: ExportOptions | None = None,
    *,
    random_weights: bool = False,
    ignore_rest: bool = False,
    seed: int = 0,
) -> Path:
    """Writes a network in another format.

    `.weights` to `.pt` and back gives the same bytes. Without weights, a `.weights` file or a checkpoint of an
    initialized network is written. An exported network (.onnx …) is run beside ours on a check image first, and
    written only if both give the same.

    Args:
        cfg: A Darknet cfg or a checkpoint; None when `weights` is a checkpoint, which holds its own.
        weights: A `.weights` file or a checkpoint (.pt, .safetensors), or a PyTorch file of another program
            (`export.state_dicts`); None takes those of a checkpoint given as `cfg`, or initial ones.
        out: The file to write. Its ending names the format, one of `SUFFIXES`.
        names: Class names to keep (default: those of `weights`).
        cutoff: Only the layers before this one, with no images seen (Darknet's `partial`). Any ending but those of
            checkpoints then is a `.weights` file; such files are called NAME.conv.N.
        options: Outputs, precision and input of an exported network.
        random_weights: Whether layers that a partial file leaves out get initial weights.
        ignore_rest: Whether a `.weights` file may go on after the last layer, as in Darknet.
        seed: Of initial weights.

    Returns:
        The path of the file written. What was compared, and what the target cannot do, is logged.

    Raises:
        DarknetError: The ending is unknown, the cutoff does not fit, or the exported network differs from ours.
        CfgError: The cfg is wrong.
        WeightsError: The weights do not fit the cfg, are not finite, or end before the last layer (before `cutoff`);
            or the file cannot be written.
        MissingExtra: A package that the format needs is not installed.
    """
    out = Path(out)
    if cutoff is None and out.suffix not in SUFFIXES:
        raise DarknetError(f"{out}: expected an ending of {', '.join(SUFFIXES)}, got {out.suffix or 'none'!r}")
    exporter = exporter_of(out) if cutoff is None else None
    if exporter is None and options is not None:
        raise DarknetError(f"{out}: options of an exported network do not apply to weights")
    if weights is None and cfg is not None and Path(cfg).suffix == ".weights":
        raise DarknetError(f"{cfg}: expected the cfg of these weights too: CFG {cfg} {out}")
    if exporter is not None:
        options = options or ExportOptions()
        options.check()
        check_offered(exporter, out, options)
        check_output_file(out)  # before minutes of work
    model = read_source(cfg, weights, names, cutoff, ignore_rest)
    if random_weights or not (exporter or weights or model.tensors):
        model = _with_initial_weights(model, seed)
    if cutoff is not None:
        partial(model, cutoff).write(out)
        return out
    model.require_weights()
    if exporter is not None and options is not None:
        exporter.export(Job.of(model, options), out).write()
    else:
        model.write(out)
    return out


def exporter_of(out: Path) -> Exporter | None:
    """The exporter of a file's ending; None for checkpoints and `.weights`."""
    return next((exporter for suffix, exporter in EXPORTERS.items() if out.name.endswith(suffix)), None)


def read_source(
    cfg: str | Path | None, weights: str | Path | None, names: Sequence[str], cutoff: int | None, ignore_rest: bool
) -> ModelFile:
    """The network of a cfg with the arrays of any file that has them; arguments and errors as of `convert`."""
    if cfg is None or weights is None or Path(weights).suffix == ".weights" or not is_foreign(weights):
        return ModelFile.read(cfg, weights, cutoff=cutoff, names=names, ignore_rest=ignore_rest)
    return read_state_dict(ModelFile.read(cfg, names=names), weights)


def _with_initial_weights(model: ModelFile, seed: int) -> ModelFile:
    """The same with initial weights in place of those that are missing. Torch's random numbers are left as they are."""
    if model.loaded_layers == len(model.graph.layers):
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initial = Network(model.graph).state_dict()
    where = f"layers from {model.loaded_layers} on" if model.tensors else "all layers"
    logger.info("%s: initial weights (seed %d) in %s", model.graph.path, seed, where)
    return replace(model, tensors={**initial, **model.tensors})
