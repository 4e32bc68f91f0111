"""A network as its files hold it: the graph, the class names and the trained arrays, without any module."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.errors import DarknetError, WeightsError
from darknet_py.files import check_checksum
from darknet_py.graph.graph import Graph, parse_text, resized
from darknet_py.layers.base import LayerArray, Node
from darknet_py.model import checkpoint, safetensors_file
from darknet_py.model.companions import names_beside, threshold_beside
from darknet_py.model.header import DEFAULT_HEADER, Header
from darknet_py.model.layout import arrays, is_loaded, stored_arrays, tensor_name
from darknet_py.model.published_weights import find_weights
from darknet_py.model.weights import read_weights_file, write_weights_file
from darknet_py.shipped import find
from darknet_py.untrusted import MAX_TEXT, decode_text, open_regular, read_content

CHECKPOINT_SUFFIXES = (".pt", ".pth")
WEIGHT_SUFFIXES = (*CHECKPOINT_SUFFIXES, ".weights", safetensors_file.SUFFIX)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a cfg and a `.weights` file, or a `.pt` checkpoint alone, say about a network.

    Attributes:
        graph: The network's layers.
        names: Class names; may be empty.
        header: Header of the `.weights` file, with the number of images seen.
        tensors: Trained arrays by their names in the state dict of a `Network` ("layers.0.weight"). A partial file
            (`*.conv.N`) has those of the first layers, a cfg without weights has none.
        thresh: Confidence threshold of the best F1 on the validation list; None where it is not known.
        source: Path of the file that the arrays are from, for messages; empty where there is none.
    """

    graph: Graph
    names: Sequence[str] = ()
    header: Header = DEFAULT_HEADER
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    thresh: float | None = None
    source: str = ""

    @property
    def loaded_layers(self) -> int:
        """Number of layers before the first one whose arrays are missing (C's "Loaded N layers from weights-file")."""
        stored = stored_arrays(self.graph)
        return next(
            (node.index for node, array in stored if tensor_name(node, array) not in self.tensors),
            len(self.graph.layers),
        )

    @property
    def is_complete(self) -> bool:
        """Whether it has every array of its graph, those included that `dontload` leaves out."""
        return all(tensor_name(node, array) in self.tensors for node, array in arrays(self.graph))

    def require_weights(self, cutoff: int | None = None) -> None:
        """Checks that all layers (before `cutoff`) have weights from a file. Raises WeightsError."""
        check_trained(self.source or self.graph.path, self.loaded_layers, cutoff or len(self.graph.layers))

    @classmethod
    def read(
        cls,
        cfg: str | Path | None,
        weights: str | Path | None = None,
        *,
        width: int | None = None,
        height: int | None = None,
        cutoff: int | None = None,
        names: Sequence[str] = (),
        strict: bool = False,
        ignore_rest: bool = False,
    ) -> ModelFile:
        """Reads a network; each file is opened once. Logs how many layers have weights.

        Args:
            cfg: A Darknet cfg, or a checkpoint; None when `weights` is a checkpoint, which holds its cfg.
            weights: A `.weights` file or a checkpoint; None takes the arrays of a checkpoint given as `cfg`.
            width: Input width in pixels, instead of the cfg's.
            height: Input height in pixels, instead of the cfg's.
            cutoff: Only the arrays of the layers before this one are read.
            names: Class names, instead of a checkpoint's or those beside the weights (see `companions`).
            strict: Whether an unknown key of the cfg is an error.
            ignore_rest: Whether a `.weights` file may go on after the last layer, as in Darknet.

        Returns:
            The network's file contents. The arrays fit the graph; those of a partial file are of its first layers.

        Raises:
            CfgError: The cfg is wrong.
            DataError: The cfg cannot be read.
            WeightsError: The weights cannot be read or do not fit the cfg.
            DarknetError: No cfg was given.
        """
        if cfg is not None:
            if weights is not None:
                weights = _found(weights)
            model = read_cfg(cfg, width, height, strict)
            if weights is not None:
                model = model.with_weights(weights, cutoff, ignore_rest)
            elif model.tensors:
                model = model.before(cutoff).fit(model.graph, cutoff)
                model.log_loaded()
        elif weights is not None:
            stored = cls.read_weights(weights, None, cutoff=cutoff)
            model = stored.fit(resized(stored.graph, width, height), cutoff)
            model.log_loaded()
        else:
            raise DarknetError(NO_CFG)
        return replace(model, names=tuple(names or model.names))

    def with_weights(self, path: str | Path, cutoff: int | None = None, ignore_rest: bool = False) -> ModelFile:
        """This network with the arrays, the header and any class names of another file.

        Args:
            path: A `.weights` file or a checkpoint.
            cutoff: Only the arrays of the layers before this one are read.
            ignore_rest: Whether a `.weights` file may go on after the last layer, as in Darknet.

        Returns:
            The file contents. The arrays fit the graph.

        Raises:
            WeightsError: The weights cannot be read or do not fit.
        """
        stored = ModelFile.read_weights(path, self.graph, cutoff=cutoff, ignore_rest=ignore_rest)
        model = stored.fit(self.graph, cutoff)
        model.log_loaded()
        return replace(model, names=stored.names or self.names)

    @classmethod
    def read_weights(
        cls, path: str | Path, layout: Graph | None, *, cutoff: int | None = None, ignore_rest: bool = False
    ) -> ModelFile:
        """Reads the arrays of a `.weights` file or a checkpoint, as they are: they may hold NaN or infinite values.

        Args:
            path: The file.
            layout: The graph that a `.weights` file is of. A checkpoint keeps its own.
            cutoff: Only the arrays of the layers before this one are read.
            ignore_rest: Whether a `.weights` file may go on after the last layer, as in Darknet.

        Returns:
            The file's contents, with the graph that they are of.

        Raises:
            WeightsError: The file cannot be read, or does not fit its graph.
            DarknetError: The file is a `.weights` file and there is no layout.
        """
        path = _found(path)
        with open_regular(path, "weights", WeightsError) as file:
            stored = _read_stored(file, path)
            if stored:
                return stored.before(cutoff)
            if layout is None:
                raise DarknetError(NO_CFG)
            check_checksum(file, path, WeightsError)
            header, tensors = read_weights_file(file, path, layout, cutoff, ignore_rest)
            return cls(layout, names_beside(path, layout), header, tensors, threshold_beside(path), str(path))

    def log_loaded(self) -> None:
        """Logs how many layers have weights."""
        loaded, count = self.loaded_layers, len(self.graph.layers)
        logger.info("%s: loaded %d of %d layers", self.source or self.graph.path, loaded, count)

    def fit(self, graph: Graph, cutoff: int | None = None) -> ModelFile:
        """The same arrays for a graph, as float32.

        Arrays may be missing where the graph's cfg leaves them out (`dontload`), and from some layer on for all that
        follow, as in a partial file.

        Args:
            graph: The network that is to have them.
            cutoff: Only the arrays of the layers before this one are needed, and others are allowed.

        Returns:
            The file contents with that graph.

        Raises:
            WeightsError: An array is missing, has another shape, belongs to no layer, or holds values that are not
                finite; the message names it.
        """
        source = self.source or self.graph.path
        expected = [(node, array, tensor_name(node, array)) for node, array in arrays(graph, cutoff)]
        last = max((node.index for node, _, name in expected if name in self.tensors), default=-1)
        fitting: dict[str, tuple[Node, LayerArray, Tensor]] = {}
        for node, array, name in expected:
            found = self.tensors.get(name)
            if found is None and (not self.tensors or node.index > last >= 0 or not is_loaded(node, array)):
                continue
            if found is None or tuple(found.shape) != array.shape:
                have = "none" if found is None else str(tuple(found.shape))
                raise WeightsError(
                    f"{source}: layer {node.index} [{node.type}], {name}: expected {array.shape}, got {have}"
                    f"{_other_network(self.graph, graph)}"
                )
            fitting[name] = (node, array, found.float())
        extra = sorted(set(self.tensors) - {name for _, _, name in expected})
        if extra and cutoff is None:
            raise WeightsError(
                f"{source}: expected nothing beyond this network's tensors, got {extra[0]} and others"
                f"{_other_network(self.graph, graph)}"
            )
        _check_finite(source, list(fitting.values()))
        return replace(self, graph=graph, tensors={name: values for name, (_, _, values) in fitting.items()})

    def before(self, cutoff: int | None) -> ModelFile:
        """The same file with the arrays of the layers before `cutoff` only; None keeps all."""
        if cutoff is None:
            return self
        kept = {tensor_name(node, array) for node, array in arrays(self.graph, cutoff)}
        return replace(self, tensors={name: tensor for name, tensor in self.tensors.items() if name in kept})

    def matching(self, graph: Graph) -> tuple[dict[str, Tensor], list[int]]:
        """The arrays that fit another graph, layers paired by their index.

        Args:
            graph: A network that differs in a few layers.

        Returns:
            The arrays of the shape that the graph's have, and the indices of its layers with an array that is missing.

        Raises:
            WeightsError: An array that fits holds values that are not finite.
        """
        fitting: dict[str, tuple[Node, LayerArray, Tensor]] = {}
        missing: dict[int, None] = {}
        for node, array in arrays(graph):
            values = self.tensors.get(tensor_name(node, array))
            if values is not None and tuple(values.shape) == array.shape:
                fitting[tensor_name(node, array)] = (node, array, values.float())
            else:
                missing[node.index] = None
        _check_finite(self.source, list(fitting.values()))
        return {name: values for name, (_, _, values) in fitting.items()}, list(missing)

    def write(self, path: str | Path) -> None:
        """Writes a checkpoint where the path ends in .pt or .pth, a `.safetensors` or else a `.weights` file.

        Args:
            path: The file to write. It is complete or not there.

        Raises:
            WeightsError: It cannot be written.
        """
        if Path(path).suffix in CHECKPOINT_SUFFIXES:
            self.write_checkpoint(path)
        elif Path(path).suffix == safetensors_file.SUFFIX:
            safetensors_file.write_safetensors(path, self._checkpoint())
        else:
            self.write_weights(path)

    def write_checkpoint(self, path: str | Path) -> None:
        """Writes a PyTorch checkpoint, whatever the path's ending. Raises WeightsError."""
        checkpoint.write_checkpoint(path, self._checkpoint())

    def _checkpoint(self) -> checkpoint.Checkpoint:
        return checkpoint.Checkpoint(self.graph, self.names, self.header, self.tensors, self.thresh)

    def write_weights(self, path: str | Path, cutoff: int | None = None) -> None:
        """Writes a `.weights` file of the layers before `cutoff` (default: all). Raises WeightsError."""
        write_weights_file(path, self.graph, self.tensors, self.header, cutoff)


NO_CFG = "expected a cfg, got none (only a .pt checkpoint holds its own)"


def check_trained(source: str, loaded: int, count: int) -> None:
    """The rule for all that needs trained weights. Raises WeightsError.

    Args:
        source: The file of the weights, or the cfg where there is none.
        loaded: Layers with weights from a file.
        count: Layers that need them.
    """
    if loaded >= count:
        return
    partial = f"those of the first {loaded} (a partial file, NAME.conv.{loaded}, or one that is cut off)"
    got = partial if loaded else "none"
    raise WeightsError(
        f"{source}: expected trained weights of {counted(count, 'layer')} (--weights FILE), got {got}; "
        "random values in their place are used only with --random-weights (random_weights=True)"
    )


def _check_finite(source: str, found: Sequence[tuple[Node, LayerArray, Tensor]]) -> None:
    """Raises WeightsError where an array holds NaN or infinite values: what a network computes with them is nothing."""
    bad = [(node, array, values) for node, array, values in found if not _is_finite(values)]
    if not bad:
        return
    node, array, values = bad[0]
    nans, infinities = int(torch.isnan(values).sum()), int(torch.isinf(values).sum())
    kinds = [f"{count} {kind}" for count, kind in ((nans, "NaN"), (infinities, "infinite")) if count]
    others = f", and so do {counted(len(bad) - 1, 'other array')}" if len(bad) > 1 else ""
    before = f", or the layers before by --cutoff {node.index} in train and convert" if node.index else ""
    raise WeightsError(
        f"{source}: layer {node.index} [{node.type}], {array.role}: expected finite values, got {' and '.join(kinds)} "
        f"of {values.numel()}{others}; use weights saved earlier{before}"
    )


def _is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite: none is where their sum is finite, which is 20 times as fast to find out."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def _other_network(stored: Graph, graph: Graph) -> str:
    """How the network of a checkpoint differs from the one that is to have its arrays."""
    if stored is graph:
        return ""
    theirs, ours = (max((spec.classes for spec in net.detection_specs), default=0) for net in (stored, graph))
    if theirs != ours:
        return f"; the checkpoint is of {stored.path} with {counted(theirs, 'class')}, this cfg has {ours}"
    return f"; the checkpoint is of {stored.path} and holds its cfg"


def _found(path: str | Path) -> Path:
    """The file, also of published weights that were downloaded, by their name."""
    found = find_weights(path)
    if not os.path.exists(found):
        raise WeightsError(f"{path!s:.300}: weights file not found")
    return found


def _read_stored(file: BinaryIO, path: str | Path) -> ModelFile | None:
    """What an open file holds that has a cfg of its own, a checkpoint or `.safetensors`; None for any other."""
    if Path(path).suffix == safetensors_file.SUFFIX:
        return ModelFile(*safetensors_file.read_safetensors(path), str(path))
    if checkpoint.is_archive(file):
        return ModelFile(*checkpoint.read_checkpoint(file, path), str(path))
    return None


def read_cfg(path: str | Path, width: int | None = None, height: int | None = None, strict: bool = False) -> ModelFile:
    """The graph of a cfg, or all of a checkpoint; also a shipped cfg by its bare name.

    Raises CfgError, DataError, WeightsError.
    """
    path = find(path, "cfg")
    with open_regular(path, "cfg") as file:
        stored = _read_stored(file, path)
        if stored:
            return replace(stored, graph=resized(stored.graph, width, height))
        text = decode_text(read_content(file, path, "cfg", limit=MAX_TEXT), path, "cfg", keep_bytes=True)
    return ModelFile(parse_text(text, str(path), width=width, height=height, strict=strict))
