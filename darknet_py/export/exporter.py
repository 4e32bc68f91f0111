"""The contract of a target format."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.export import ExportedProgram

from darknet_py.errors import DarknetError, WeightsError
from darknet_py.export.export_options import ExportOptions, example_size, size_step
from darknet_py.export.metadata import describe
from darknet_py.export.quantize import calibration_inputs
from darknet_py.export.traceable import TraceableNetwork, traceable
from darknet_py.export.tracing import trace
from darknet_py.export.verify import Difference, Runner, check_images, verify
from darknet_py.files import write_atomically
from darknet_py.graph.graph import Graph, resized
from darknet_py.model.model_file import ModelFile

logger = logging.getLogger(__name__)

_COMPARED_IMAGES = 8  # of the calibration images


@dataclass(frozen=True, eq=False)
class Job:
    """One network to export.

    Attributes:
        network: What is traced, in the precision asked for.
        reference: The same in float32.
        outputs: "raw", "boxes" or "nms".
        options: How it is exported.
        metadata: Texts that the file contains.
        example: Images that the network is traced with, and states of its recurrent layers.
        inputs: The same, to compare with.
        step: Pixels by which an open size grows; 0 where the size is fixed.
        model: What the network is built from, at the size of the export.
        calibration: Inputs from which the scales of int8 come; empty in other precisions.
    """

    network: TraceableNetwork
    reference: TraceableNetwork
    outputs: str
    options: ExportOptions
    metadata: Mapping[str, str]
    example: Sequence[Tensor]
    inputs: Sequence[Sequence[Tensor]]
    step: int
    model: ModelFile
    calibration: Sequence[Tensor] = ()

    @classmethod
    def of(cls, model: ModelFile, options: ExportOptions) -> Job:
        """Builds the network of a file. Raises DarknetError where it cannot be exported, CfgError for a wrong size."""
        graph = resized(model.graph, options.width, options.height)
        outputs = options.chosen_outputs(graph)
        traced = "raw" if outputs == "raw" else "boxes"
        model = replace(model, graph=graph)
        reference = traceable(model, traced, hier=options.hier)
        network = reference
        if options.precision in ("fp16", "bf16"):
            network = traceable(model, traced, options.precision, options.hier)
        if reference.states:
            _check_recurrent(graph, options, outputs)
        step = size_step(graph) if options.any_size else 0
        height, width = example_size(graph.net, step) if step else (graph.net.height, graph.net.width)
        batch = 2 if options.any_batch else options.batch
        example = _example(reference, batch, height, width)
        inputs: Sequence[Sequence[Tensor]] = [example]
        if options.dynamic != "none":  # another number and size than those of the example
            more = 3 if options.any_batch else batch
            inputs = [example, _example(reference, more, height + step, width + 2 * step, seed=1)]
        calibration: Sequence[Tensor] = ()
        if options.precision == "int8":  # its scales are those of real images; noise is outside of them
            calibration = calibration_inputs(graph, options.calibrate, batch)
            inputs = [(images,) for images in calibration[: -(-_COMPARED_IMAGES // batch)]]
        metadata = describe(graph, model.names, options, reference.output_names, reference.states)
        return cls(network, reference, outputs, options, metadata, example, inputs, step, model, calibration)

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as torch traced it. Raises DarknetError where it cannot be traced."""
        return trace(self.network, self.example, self.options.any_batch, self.step)

    def compare(self, what: str, run: Runner, inputs: Sequence[Sequence[Tensor]] | None = None) -> list[Difference]:
        """Compares the exported network with ours. Raises DarknetError where they differ."""
        images = self.inputs if inputs is None else inputs
        return verify(what, self.reference.output_names, self.reference, run, images, self.options.precision)


def _check_recurrent(graph: Graph, options: ExportOptions, outputs: str) -> None:
    """Raises DarknetError for what is not offered with states as inputs."""
    for name, value, expected in (
        ("outputs", outputs, ("raw", "boxes")),
        ("dynamic", options.dynamic, ("none", "batch")),
        ("precision", options.precision, ("fp32", "fp16", "bf16")),
    ):
        if value not in expected:
            kinds = " or ".join(expected)
            raise DarknetError(f"{name}: {graph.path} has recurrent layers; expected {kinds}, got {value}")


def _example(network: TraceableNetwork, batch: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Images, and states as after some steps."""
    graph = network.net.graph
    if graph.reads_text:
        images = check_images(batch, graph.input.c, 1, 1, seed).flatten(1)
    else:
        images = check_images(batch, graph.net.channels, height, width, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    return images, *(torch.rand(empty.shape, generator=generator) - 0.5 for empty in network.empty_states(images))


@dataclass(frozen=True, eq=False)
class ExportResult:
    """An exported network that is not on disk yet.

    Attributes:
        files: The contents by the path to write; the last is the one that was asked for.
        differences: From our own output.
        notes: What the user should know.
    """

    files: Mapping[Path, bytes]
    differences: Sequence[Difference] = ()
    notes: Sequence[str] = field(default=())

    def write(self) -> None:
        """Writes all files, each complete or not there; none stays where one cannot be written. Raises WeightsError."""
        written: list[Path] = []
        try:
            for path, content in self.files.items():
                write_atomically(path, content, WeightsError)
                written.append(path)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise
        for note in self.notes:
            logger.info("%s", note)
        if self.differences:
            logger.info("checked against our own output; largest difference: %s", "; ".join(map(str, self.differences)))


class Exporter(Protocol):
    """A target format. Heavy packages are imported when it is used."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The kinds of outputs that it can have."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that it can have."""

    def export(self, job: Job, out: Path) -> ExportResult:
        """The contents of the file, verified. Raises DarknetError, MissingExtra."""


def check_offered(exporter: Exporter, out: Path, options: ExportOptions) -> None:
    """Raises DarknetError where a format lacks the outputs or the precision asked for."""
    if options.outputs and options.outputs not in exporter.outputs:
        raise DarknetError(f"{out.suffix}: expected outputs of {', '.join(exporter.outputs)}, got {options.outputs}")
    if options.precision not in exporter.precisions:
        expected = ", ".join(exporter.precisions)
        raise DarknetError(f"{out.suffix}: expected a precision of {expected}, got {options.precision}")
