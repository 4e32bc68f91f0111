"""`bench --backend`: the back ends in turns, with the difference of their boxes from torch's in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.backends.choose import BoxDifference, box_difference, pairs_to_try, start
from darknet_py.backends.runners import BACKENDS
from darknet_py.cli.benchmark import Timing, random_images, threshold, time_in_turns
from darknet_py.errors import DarknetError
from darknet_py.inference.nms import postprocess
from darknet_py.model.network import Network


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


def compare_backends(net: Network, names: Sequence[str], *, batch: int, seconds: float) -> list[BackendTiming]:
    """Measures back ends in turns with torch in float32.

    Args:
        net: A detector.
        names: Names of `BACKENDS`, or "all": those installed, without the compiler.
        batch: Images per call.
        seconds: Time to measure.

    Raises:
        MissingExtra: A back end that was named is not installed.
        DarknetError: The network has no detection layer.
    """
    if not net.detectors:
        raise DarknetError(f"{net.graph.path}: this network has no detection layer; back ends run detectors")
    chosen = [
        name
        for name, item in BACKENDS.items()
        if name in names or ("all" in names and item.measured and item.is_installed)
    ]
    pairs = [pair for name in dict.fromkeys(["torch", *chosen]) for pair in pairs_to_try(net, name, "auto")]
    x = random_images(net, batch, net.device)
    rows: dict[tuple[str, str], BackendTiming] = {}
    functions: dict[str, Callable[[], object]] = {}
    with torch.inference_mode():
        expected = start(net, "torch", "fp32", batch).predict(x)
        suppression = (threshold(expected), 0.45, *net.nms_kind)

        def run(opened: BackendNetwork) -> object:
            return postprocess(opened.predict(x), *suppression)

        for backend, precision in pairs:
            try:
                opened = start(net, backend, precision, batch)
                difference = box_difference(expected, opened.predict(x))
            except DarknetError as error:
                if backend in names:
                    raise
                rows[backend, precision] = BackendTiming(backend, precision, None, None, str(error))
                continue
            rows[backend, precision] = BackendTiming(backend, precision, None, difference)
            functions[f"{backend} {precision}"] = partial(run, opened)
        times = time_in_turns(functions, net.device, seconds)
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
