"""`darknet_py.load`: a network ready for inference, by torch or by another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import torch

from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.backends.choose import open_backend
from darknet_py.model.load import read_trained
from darknet_py.model.network import Network

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from darknet_py.model.load import LoadOptions


@overload
def load(
    cfg: str | Path | None,
    weights: str | Path | None = None,
    *,
    backend: None = None,
    precision: str = "fp32",
    batch: int = 1,
    calibrate: str | Path = "",
    **options: Unpack[LoadOptions],
) -> Network: ...


@overload
def load(
    cfg: str | Path | None,
    weights: str | Path | None = None,
    *,
    backend: str,
    precision: str = "fp32",
    batch: int = 1,
    calibrate: str | Path = "",
    **options: Unpack[LoadOptions],
) -> BackendNetwork: ...


def load(
    cfg: str | Path | None,
    weights: str | Path | None = None,
    *,
    width: int | None = None,
    height: int | None = None,
    device: str | torch.device = "cpu",
    names: Sequence[str] = (),
    random_weights: bool = False,
    ignore_rest: bool = False,
    backend: str | None = None,
    precision: str = "fp32",
    batch: int = 1,
    calibrate: str | Path = "",
) -> Network | BackendNetwork:
    """Loads a network, ready for inference.

    Args:
        cfg: A Darknet cfg, or a `.pt` checkpoint, which holds its cfg and weights; None when `weights` is a checkpoint.
        weights: A `.weights` file or a checkpoint. Without one the weights are random, as Darknet initializes them:
            such a network can be trained or examined, and detects only with `random_weights`.
        width: Input width in pixels, instead of the cfg's.
        height: Input height in pixels, instead of the cfg's.
        device: Where it runs: "cpu", "cuda", "cuda:1" …
        names: Class names. Default: a checkpoint's, or those that a training left beside its weights.
        random_weights: Whether layers may keep random weights, where `weights` is a partial file (`*.conv.N`), and
            whether a network with random weights detects.
        ignore_rest: Whether a `.weights` file may go on after the last layer, as in Darknet.
        backend: Detectors: the runtime, see `open_backend`: torch, compile, onnxruntime, openvino or auto.
        precision: With a back end: fp32, bf16, fp16, int8 or auto.
        batch: With a back end: images per call.
        calibrate: With int8: a folder, glob or list of images like those to come.

    Returns:
        The network in evaluation mode, `loaded_layers` of it with weights from the file; with `backend` a detector that
        has `detect`, `boxes` and `predict` only.

    Raises:
        CfgError: The cfg is wrong; the error lists every problem.
        DataError: The cfg cannot be read.
        WeightsError: The weights cannot be read or do not fit the cfg.
        MissingExtra: A package of the back end is not installed.
        DarknetError: No cfg was given, the device does not exist, or the back end cannot run the network.
    """
    net = read_trained(
        cfg,
        weights,
        width=width,
        height=height,
        device=device,
        names=names,
        random_weights=random_weights,
        ignore_rest=ignore_rest,
    )
    return net if backend is None else open_backend(net, backend, precision, batch, calibrate=calibrate)
