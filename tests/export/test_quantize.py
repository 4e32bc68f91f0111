"""INT8: the error that eight bits allow, what stays in float, calibration images, and the cost in mAP."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import DarknetError, DataError
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.exporter import Job
from darknet_py.export.onnx import to_onnx
from darknet_py.export.quantize import calibration_inputs, quantize_onnx, quantize_openvino
from darknet_py.export.runtimes import run_onnx
from darknet_py.export.verify import verify
from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
from tests.export.export_cases import Files, write_case

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("nncf", reason="the extra int8 is not installed")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of smooth noise, in which each pixel value occurs, with labels."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (8, 16, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(noise, (64, 32)))
        (folder / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.3 0.4 0.2 0.5\n")
    return folder


def two_products(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bytes:
    """An ONNX file of two 1 x 1 convolutions without bias."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    arrays = [
        onnx.numpy_helper.from_array(w[:, :, None, None].astype("f4"), n) for n, w in (("a", first), ("b", second))
    ]
    nodes = [
        helper.make_node("Conv", ["images", "a"], ["middle"], name="first"),
        helper.make_node("Conv", ["middle", "b"], ["output"], name="second"),
    ]
    tensors = [helper.make_tensor_value_info("images", kind, [1, first.shape[1], 2, 2])]
    outputs = [helper.make_tensor_value_info("output", kind, [1, second.shape[0], 2, 2])]
    graph = helper.make_graph(nodes, "g", tensors, outputs, arrays)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    )


def test_the_error_is_that_of_eight_bits() -> None:
    """The first product is rounded as computed here; the second one, whose output a head would read, is not."""
    generator = np.random.default_rng(0)
    first, second = generator.uniform(-1, 1, (4, 3)), np.eye(4)
    x = torch.from_numpy(generator.uniform(0, 1, (1, 3, 2, 2)).astype("f4"))
    content = two_products(first, second)
    exact = np.einsum("oc,bchw->bohw", first, x.numpy())
    quantized = quantize_onnx(content, [x])
    (got,) = run_onnx(quantized)(x)
    x_step = x.max().item() / 255  # images are not negative
    w_step = 2 * np.abs(first).max(1) / 255  # of each filter, around 0
    middle_step = (max(exact.max(), 0) - min(exact.min(), 0)) / 255
    # Half a step of each factor, and of the result; a tenth more, as zero has an integer too.
    bound = np.abs(first).sum(1) * x_step / 2 + 3 * w_step / 2 * x.max().item() + middle_step / 2
    error = np.abs(got.numpy() - exact).max((0, 2, 3))
    assert (error <= 1.1 * bound).all() and (error > 1e-4).all()
    kinds = {array.name: array.data_type for array in onnx.load_model_from_string(quantized).graph.initializer}
    assert kinds["b"] == onnx.TensorProto.FLOAT and "a" not in kinds


def test_depthwise_convolutions_stay_in_float() -> None:
    """The first of two grouped ones."""
    sections = (
        "[convolutional]\nfilters={}\nsize=1\ngroups={}\nactivation=leaky\n".format(*pair)
        for pair in ((8, 1), (8, 8), (8, 4), (6, 1))
    )
    net = Network(parse_text("[net]\nwidth=16\nheight=16\nchannels=4\nbatch=1\n" + "".join(sections)))
    content = to_onnx(Job.of(net.model_file(), ExportOptions()))
    x = torch.rand(1, 4, 16, 16)
    kinds = {tuple(array.dims): array.data_type for array in onnx.load_model_from_string(content).graph.initializer}
    assert kinds[8, 1, 1, 1] == onnx.TensorProto.FLOAT
    graph = onnx.load_model_from_string(quantize_onnx(content, [x])).graph
    kinds = {tuple(array.dims): array.data_type for array in graph.initializer if len(array.dims) == 4}
    integer = onnx.TensorProto.INT8
    assert kinds == {
        (8, 4, 1, 1): integer,
        (8, 1, 1, 1): onnx.TensorProto.FLOAT,
        (8, 2, 1, 1): integer,
        (6, 8, 1, 1): onnx.TensorProto.FLOAT,  # the last, as a head would read it
    }
    openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
    model: Any = quantize_openvino(openvino.Core().read_model(content), [x])
    grouped = [each for each in model.get_ordered_ops() if each.get_type_name() == "GroupConvolution"]
    assert [each.input_value(1).get_node().get_type_name() for each in grouped] == ["Reshape", "FakeQuantize"]


def test_calibration_images_are_read_as_for_detection(images: Path, tmp_path: Path) -> None:
    graph = parse_text("[net]\nwidth=64\nheight=32\nchannels=3\n[convolutional]\nfilters=1\n")
    batches = calibration_inputs(graph, images, 4)
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 32, 64)] * 2
    assert torch.equal(batches[1][2], batches[0][0])  # filled up
    first = cv2.cvtColor(cv2.imread(str(images / "0.png")), cv2.COLOR_BGR2RGB)
    assert torch.equal(batches[0][0], torch.from_numpy(first).permute(2, 0, 1).float() / 255)
    (tmp_path / "list.txt").write_text(f"{images / '2.png'}\n")
    assert torch.equal(calibration_inputs(graph, tmp_path / "list.txt", 1)[0], batches[0][2:3])
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'none.png'}\n")
    with pytest.raises(DataError, match=r"none\.png"):
        calibration_inputs(graph, tmp_path / "list.txt", 1)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_an_int8_detector(suffix: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
    files = write_case("yolov4", tmp_path)
    (tmp_path / "valid.txt").write_text("".join(f"{path}\n" for path in sorted(images.glob("*.png"))))
    (tmp_path / "a.data").write_text(f"classes=2\nvalid={tmp_path / 'valid.txt'}\n")
    out = tmp_path / f"out{suffix}"
    command = ["convert", str(files.cfg), str(files.weights), str(out), "--precision", "int8"]
    assert main([*command, "--calibrate", str(images), "--data", str(tmp_path / "a.data")]) == 0
    text = capsys.readouterr().out
    line = re.search(r"mAP@0.50 on 6 images: (\S+)%, of the network itself (\S+)%: ([+-]\S+) points", text)
    assert line is not None, text
    assert float(line[3]) == pytest.approx(float(line[1]) - float(line[2]), abs=0.011)
    size = out.stat().st_size if suffix == ".onnx" else out.with_suffix(".bin").stat().st_size
    assert size > 0
    if suffix == ".onnx":
        kinds = [array.data_type for array in onnx.load(out).graph.initializer if len(array.dims) == 4]
        assert kinds.count(onnx.TensorProto.INT8) == 2 and kinds.count(onnx.TensorProto.FLOAT) == 1  # the head's


def test_a_network_that_computes_something_else_is_refused() -> None:
    """By root mean squares: one candidate may move far, not all of them."""
    ours = torch.linspace(0, 1, 1000)
    moved = ours.clone()
    moved[3] += 1
    x = torch.zeros(1)
    (found,) = verify("a", ["boxes"], lambda x: [ours], lambda x: [moved], [x], "int8")
    assert found.relative == pytest.approx(math.sqrt((1 / 1000) / float(ours.square().mean())), rel=1e-4)
    with pytest.raises(DarknetError, match=r"output boxes differs from ours by 1 of its root mean square"):
        verify("a", ["boxes"], lambda x: [ours], lambda x: [1 - ours], [x], "int8")
    with pytest.raises(DarknetError, match="differs from ours by inf"):
        verify("a", ["boxes"], lambda x: [ours], lambda x: [ours * float("nan")], [x], "int8")


def test_int8_needs_images(tmp_path: Path) -> None:
    files = write_case("classifier", tmp_path)
    for options in (ExportOptions(precision="int8"), ExportOptions(calibrate="folder")):
        with pytest.raises(DarknetError, match="calibrate: expected"):
            darknet_py.convert(files.cfg, files.weights, tmp_path / "out.onnx", options=options)
    with pytest.raises(DarknetError, match=r"\.pt2: expected a precision of fp32, fp16, bf16, got int8"):
        options = ExportOptions(precision="int8", calibrate=tmp_path)
        darknet_py.convert(files.cfg, files.weights, tmp_path / "out.pt2", options=options)


@pytest.mark.slow
def test_int8_by_back_ends(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files: Files = write_case("yolov3", tmp_path)
    exact = files.net.predict(torch.cat(calibration_inputs(files.net.graph, images, 1)[:2]))
    for backend in ("onnxruntime", "openvino"):
        pytest.importorskip(backend, reason="the extra is not installed")
        fast = darknet_py.load(files.cfg, files.weights, backend=backend, precision="int8", calibrate=images, batch=2)
        assert fast.precision == "int8"
        got = fast.predict(torch.cat(calibration_inputs(files.net.graph, images, 1)[:2]))
        error = (got.scores - exact.scores).abs().max()
        assert 1e-5 < error < 0.25 * exact.scores.max()  # rounded, and still the same network
    with pytest.raises(DarknetError, match="calibrate: expected images"):
        darknet_py.load(files.cfg, files.weights, backend="openvino", precision="int8")
