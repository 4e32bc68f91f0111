"""`bench --backend`: the back ends in turns, with the difference of their boxes from torch's in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.backends.choose import BoxDifference, output_difference, pairs_to_try, start
from darknet_py.backends.runners import BACKENDS, Request
from darknet_py.cli.benchmark import Timing, random_images, threshold
from darknet_py.errors import DarknetError
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network
from darknet_py.timing import SETTLING, time_in_turns


class BackendTiming(NamedTuple):
    """A back end in a precision.

    times: images to detections, per batch. difference: of the boxes from torch's in float32.
    reason: why it did not run.
    """

    backend: str
    precision: str
    times: Timing | None
    difference: BoxDifference | None
    reason: str = ""


def compare_backends(
    net: Network, names: Sequence[str], *, batch: int, seconds: float, calibrate: str | Path = ""
) -> list[BackendTiming]:
    """Measures back ends in turns with torch in float32.

    Args:
        net: A network.
        names: Names of `BACKENDS`, or "all": those installed, without the compiler.
        batch: Images per call.
        seconds: Time to measure.
        calibrate: Images for int8; without, it is not among the precisions.

    Raises:
        MissingExtra: A back end that was named is not installed.
        DarknetError: A back end that was named cannot run the network.
    """
    chosen = [
        name
        for name, item in BACKENDS.items()
        if name in names or ("all" in names and item.measured and item.is_installed)
    ]
    pairs = [pair for name in dict.fromkeys(["torch", *chosen]) for pair in pairs_to_try(net, name, "auto")]
    request = Request(net, batch=batch, calibrate=calibrate)
    if calibrate:
        pairs += [(name, "int8") for name in chosen if "int8" in BACKENDS[name].precisions]
    x = random_images(net, batch, net.device)
    rows: dict[tuple[str, str], BackendTiming] = {}
    functions: dict[str, Callable[[], object]] = {}
    with torch.inference_mode():
        expected = start(request, "torch")(x)
        suppression = (threshold(expected), 0.45, *net.nms_kind) if isinstance(expected, Predictions) else None

        def run(opened: BackendNetwork) -> object:
            output = opened(x)
            return postprocess(output, *suppression) if suppression and isinstance(output, Predictions) else output

        for backend, precision in pairs:
            try:
                opened = start(replace(request, precision=precision), backend)
                difference = output_difference(expected, opened(x))
            except DarknetError as error:
                if backend in names:
                    raise
                rows[backend, precision] = BackendTiming(backend, precision, None, None, str(error))
                continue
            rows[backend, precision] = BackendTiming(backend, precision, None, difference)
            functions[f"{backend} {precision}"] = partial(run, opened)
        times = time_in_turns(functions, net.device, seconds, settling=SETTLING)
    return [
        row._replace(times=Timing.of(times[f"{row.backend} {row.precision}"])) if row.difference else row
        for row in rows.values()
    ]


def backend_lines(rows: Sequence[BackendTiming]) -> list[str]:
    """The table on stdout."""
    head = f"{'back ends in turns, with NMS':<34}{'median':>10}{'p90':>10}{'min':>10}  ms, and boxes' differences"
    lines = ["", head]
    for row in rows:
        name = f"  {row.backend + ' ' + row.precision:<32}"
        if row.times is None:
            lines.append(f"{name}{row.reason}")
        else:
            lines.append(name + "".join(f"{value:10.2f}" for value in row.times) + f"      {row.difference}")
    return lines
