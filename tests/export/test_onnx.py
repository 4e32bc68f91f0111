"""ExportResult ONNX files, run by onnxruntime and OpenCV: every head, open sizes, suppression, precision, metadata."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.errors import DarknetError, MissingExtra
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.onnx import OPSET, OPSET_BF16
from darknet_py.export.runtimes import run_onnx, run_openvino
from darknet_py.export.tensorrt_ops import TENSORRT_OPS
from darknet_py.export.verify import check_images
from darknet_py.inference.detect import prepare
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from tests.export.export_cases import CASES, RECURRENT, Files, write_case, write_cfg

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("openvino", reason="the extra openvino is not installed")

from onnx.reference import ReferenceEvaluator  # noqa: E402

IMAGES = check_images(1, 3, 32, 64, seed=5)


def convert(files: Files, options: ExportOptions | None = None) -> Path:
    return darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(".onnx"), ("cat", "dog"), options=options)


def run(path: Path, x: torch.Tensor = IMAGES) -> dict[str, np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": x.numpy()}), strict=True))


def ours(files: Files, x: torch.Tensor = IMAGES) -> dict[str, np.ndarray[Any, Any]]:
    """The unfused network's output, which the tests of the layers compare with C Darknet's."""
    with torch.inference_mode():
        output = files.net(x)
    if isinstance(output, Predictions):
        return {name: value.numpy() for name, value in output._asdict().items()}
    return {"output": output.numpy()}


def assert_close(got: dict[str, Any], expected: dict[str, Any], relative: float = 1e-4) -> None:
    """Of each output's largest value: folded batch norm and another order of summation."""
    assert list(got) == list(expected)
    for name, values in expected.items():
        assert got[name].shape == values.shape
        assert np.abs(got[name] - values).max() <= relative * np.abs(values).max(), name


QUICK = ("yolov3", "region", "detection", "classifier")
# Shapes of what each network of RECURRENT remembers of a stream.
STATES: dict[str, list[tuple[int, ...]]] = {
    "crnn": [(4, 8, 16)],
    "conv_lstm": [(4, 8, 16), (4, 8, 16), (8, 8, 16)],
    "text": [(6, 1, 1)],
    "lstm": [(6, 1, 1), (6, 1, 1), (5, 1, 1)],
}
STATE_OUTPUTS = ("next_state_0_0", "next_state_0_1", "next_state_1")
NOT_IN_OPENCV = {"tree"}  # version 5.0 cannot read ConstantOfShape, with which the sums over sibling classes begin


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_each_head_gives_our_output(name: str, tmp_path: Path) -> None:
    files = write_case(name, tmp_path)
    path = convert(files)
    assert_close(run(path), ours(files))
    model = onnx.load(path)
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPS
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    if name in NOT_IN_OPENCV:
        return
    reader = cv2.dnn.readNetFromONNX(str(path))  # OpenCV 5, which reads no cfg any more
    reader.setInput(IMAGES.numpy())
    expected = ours(files)
    assert_close(dict(zip(expected, reader.forward(list(expected)), strict=True)), expected)


@pytest.mark.slow
def test_any_batch_and_size(tmp_path: Path) -> None:
    files = write_case("yolov3", tmp_path)
    path = convert(files, ExportOptions(dynamic="both"))
    for batch, height, width in ((1, 32, 64), (7, 64, 48), (2, 80, 80)):
        x = check_images(batch, 3, height, width, seed=batch)
        assert_close(run(path, x), ours(files, x))
    shape = [dim.dim_param or dim.dim_value for dim in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 3, "height", "width"]


def test_weights_for_each_position_fix_the_size(tmp_path: Path) -> None:
    with pytest.raises(DarknetError, match="weights for one input size only"):
        convert(write_case("detection", tmp_path), ExportOptions(dynamic="size"))
    assert list(tmp_path.glob("*.onnx")) == []


def test_suppression_gives_our_detections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "darknet_py")
    files = write_case("yolov4", tmp_path)
    path = convert(files, ExportOptions(outputs="nms", thresh=0.4, nms=0.3, batch=2))
    x = check_images(2, 3, 32, 64, seed=9)
    (rows,) = run(path, x).values()
    with torch.inference_mode():
        found = postprocess(files.net.predict(x), 0.4, 0.3)
    expected = [
        (image, detection.class_id, detection.confidence, *detection.box)
        for image, detections in enumerate(found)
        for detection in detections
    ]
    assert len(rows) == len(expected) > 10
    assert np.array(sorted(rows.tolist())) == pytest.approx(np.array(sorted(expected)), abs=1e-5)
    assert any(record.message.startswith("nms_kind=greedynms: ONNX compares") for record in caplog.records)


def test_raw_outputs_are_what_the_heads_read(tmp_path: Path) -> None:
    files = write_case("yolov3", tmp_path)
    got = run(convert(files, ExportOptions(outputs="raw")))
    layers = files.net.outputs(IMAGES)
    expected = {f"head_{index}": layers[index - 1].detach().numpy() for index in (3, 8)}  # type: ignore[union-attr]
    assert_close(got, expected)


@pytest.mark.slow
def test_half_precision_is_close(tmp_path: Path) -> None:
    files = write_case("yolov4", tmp_path)
    path = convert(files, ExportOptions(precision="fp16"))
    assert weight_types(path) == {onnx.TensorProto.FLOAT16}
    assert_close(run(path), ours(files), 2e-2)  # eleven bits, through three layers


@pytest.mark.slow
def test_bfloat16_is_close(tmp_path: Path) -> None:
    files = write_case("yolov4", tmp_path)
    path = convert(files, ExportOptions("nms", "bf16"))
    model = onnx.load(path)
    assert weight_types(path) == {onnx.TensorProto.BFLOAT16}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET_BF16)]
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPS
    path = convert(files, ExportOptions(precision="bf16"))
    expected = ours(files)
    for got in (run_openvino(path)(IMAGES), ReferenceEvaluator(onnx.load(path)).run(None, {"images": IMAGES.numpy()})):
        assert_close({name: np.asarray(value) for name, value in zip(expected, got, strict=True)}, expected, 5e-2)


def weight_types(path: Path) -> set[int]:
    return {array.data_type for array in onnx.load(path).graph.initializer if len(array.dims) == 4}


def test_metadata_says_how_to_use_the_file(tmp_path: Path) -> None:
    files = write_case("yolov4", tmp_path)
    model = onnx.load(convert(files, ExportOptions(thresh=0.3)))
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts["cfg"] == CASES["yolov4"]
    assert json.loads(texts["names"]) == ["cat", "dog"]
    content = json.loads(texts["input"])
    assert (content["width"], content["height"], content["colors"], content["resize"]) == (64, 32, "RGB", "stretch")
    (head,) = json.loads(texts["heads"])
    assert head["anchors"] == [[10, 14], [20, 30], [40, 20]] and head["mask"] == [0, 1]
    assert json.loads(texts["thresholds"]) == {"thresh": 0.3, "nms": 0.45, "nms_kind": "greedynms"}


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("name", list(RECURRENT))
def test_recurrent_networks_take_and_give_their_states(name: str, suffix: str, tmp_path: Path) -> None:
    """Two streams for three steps, beside the network that keeps its memory from call to call."""
    files = write_cfg(RECURRENT[name], tmp_path / f"{name}.cfg")
    options = ExportOptions(dynamic="batch" if name == "text" else "none", batch=1 if name == "text" else 2)
    path = darknet_py.convert(files.cfg, files.weights, files.cfg.with_suffix(suffix), options=options)
    run = {
        ".onnx": lambda: run_onnx(path.read_bytes()),
        ".xml": lambda: run_openvino(path),
        ".pt2": lambda: torch.export.load(path).module(),
    }[suffix]()
    states = [torch.zeros(2, *shape) for shape in STATES[name]]
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        x = torch.rand(2, *((8,) if name in ("text", "lstm") else (3, 32, 64)), generator=generator)
        with torch.no_grad():
            expected = files.net(x)
            output, *states = run(x, *states)
        assert isinstance(expected, torch.Tensor)
        assert torch.as_tensor(output).numpy() == pytest.approx(expected.numpy(), abs=1e-5)
        assert len(states) == len(STATES[name])


@pytest.mark.parametrize(
    "options, message",
    [
        (ExportOptions(dynamic="size"), "dynamic: .* has recurrent layers; expected none or batch, got size"),
        (ExportOptions(precision="int8", calibrate="a.jpg"), "precision: .* expected fp32 or fp16 or bf16, got int8"),
    ],
)
def test_what_recurrent_networks_lack(options: ExportOptions, message: str, tmp_path: Path) -> None:
    with pytest.raises(DarknetError, match=message):
        convert(write_cfg(RECURRENT["crnn"], tmp_path / "crnn.cfg"), options)


def test_recurrent_networks_name_their_states(tmp_path: Path) -> None:
    model = onnx.load(convert(write_cfg(RECURRENT["lstm"], tmp_path / "lstm.cfg")))
    assert [value.name for value in model.graph.input] == ["images", "state_0_0", "state_0_1", "state_1"]
    assert [value.name for value in model.graph.output] == ["output", *STATE_OUTPUTS]
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(texts["states"]) == dict(zip(("state_0_0", "state_0_1", "state_1"), STATE_OUTPUTS, strict=True))


def test_threads_are_those_that_the_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left alone, onnxruntime pins threads to processors that a container withholds, and prints errors."""
    given: list[int] = []
    start = onnxruntime.InferenceSession

    def session(content: bytes, options: Any, **others: Any) -> Any:
        given.append(options.intra_op_num_threads)
        return start(content, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    convert(write_case("yolov3", tmp_path))
    assert given == [torch.get_num_threads()]


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"needs the package 'onnxruntime': pip install 'darknet-torch\[onnx\]'"):
        convert(write_case("classifier", tmp_path))
    assert list(tmp_path.glob("*onnx*")) == []


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl", "mbv2-nano-voc"])
def test_real_weights_give_cs_boxes(name: str, reference: Path, tmp_path: Path) -> None:
    """Exact inputs, through onnxruntime, OpenVINO and OpenCV 5, against the boxes of C Darknet."""
    cfg, weights = (reference / "real" / f"{name}.{ending}" for ending in ("cfg", "weights"))
    path = darknet_py.convert(cfg, weights, tmp_path / "a.onnx", options=ExportOptions(width=320, height=320))
    suppression = darknet_py.load(cfg).nms_kind
    network = cv2.dnn.readNetFromONNX(str(path))
    by_openvino = run_openvino(path)
    for photo, rows in json.loads((reference / "real" / "boxes.json").read_text())[name]["boxes"].items():
        image = cv2.cvtColor(cv2.imread(str(reference / "real" / f"{photo}_320x320.png")), cv2.COLOR_BGR2RGB)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous().float() / 255
        by_runtime = run(path, x)
        network.setInput(x.numpy())
        by_opencv = dict(zip(by_runtime, network.forward(list(by_runtime)), strict=True))
        outputs = [[torch.from_numpy(values) for values in found.values()] for found in (by_runtime, by_opencv)]
        for predictions in (Predictions(*values) for values in [*outputs, by_openvino(x)]):
            (found,) = postprocess(predictions, 0.2, 0.45, *suppression)
            got = sorted([item.class_id, round(item.confidence, 3), item.confidence, *item.box] for item in found)
            expected = sorted([row[0], round(row[1], 3), *row[1:6]] for row in rows)
            assert len(got) == len(expected) > 0
            # Sums in another order, and the six digits of the file.
            assert np.abs(np.array(got)[:, 2:] - np.array(expected)[:, 2:]).max() < 1e-4


@pytest.mark.reference
@pytest.mark.slow
def test_real_weights_at_any_batch_and_size(reference: Path, tmp_path: Path) -> None:
    """One file at 320 x 320 and 608 x 352, with one and seven photos, through onnxruntime and OpenVINO.

    The boxes are those of the network itself, whose layers are compared with C's.
    """
    cfg, weights = (reference / "real" / f"yolo-fastest-1.1.{ending}" for ending in ("cfg", "weights"))
    path = darknet_py.convert(cfg, weights, tmp_path / "a.onnx", options=ExportOptions(dynamic="both"))
    runners = {"onnxruntime": run_onnx(path.read_bytes()), "OpenVINO": run_openvino(path)}
    photos = [cv2.imread(str(reference / "real" / f"{name}.jpg"))[:, :, ::-1] for name in ("dog", "person", "horses")]
    for width, height in ((320, 320), (608, 352)):
        net = darknet_py.load(cfg, weights, width=width, height=height)
        inputs = [prepare(net.graph, np.ascontiguousarray(photo)) for photo in photos]
        for batch in (1, 7):
            x = torch.stack([inputs[number % 3] for number in range(batch)])
            expected = net.boxes(x, 0.2, 0.45)
            for name, runner in runners.items():
                got = postprocess(Predictions(*runner(x)), 0.2, 0.45, *net.nms_kind)
                for ours, theirs in zip(expected, got, strict=True):
                    assert theirs.class_ids.tolist() == ours.class_ids.tolist() and len(ours.class_ids) > 0, name
                    # Sums in another order, as in the tests of C's boxes above.
                    assert np.abs(theirs.boxes - ours.boxes).max() < 1e-4, name
                    assert np.abs(theirs.confidences - ours.confidences).max() < 1e-4, name


@pytest.mark.slow
def test_any_size_of_a_network_that_pools(tmp_path: Path) -> None:
    """A pool's size went through a float, which torch's exporter takes for the size it has seen."""
    cfg = tmp_path / "pools.cfg"
    cfg.write_text(
        "[net]\nwidth=64\nheight=96\nchannels=3\n[convolutional]\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
        "[maxpool]\nsize=3\nstride=1\n[maxpool]\nsize=2\nstride=2\n[maxpool]\nsize=5\nstride=1\n"
        "[convolutional]\nfilters=7\nsize=1\n[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
        "[route]\nlayers=-3\n[upsample]\nstride=2\n[route]\nlayers=-1,0\n"
        "[convolutional]\nfilters=7\nsize=1\n[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
    )
    net = darknet_py.load(cfg, random_weights=True)
    net.save_weights(tmp_path / "pools.weights")
    files = Files(cfg, tmp_path / "pools.weights", net)
    path = convert(files, ExportOptions(dynamic="both"))
    for batch, height, width in ((1, 32, 64), (7, 64, 48), (2, 80, 80)):
        x = check_images(batch, 3, height, width, seed=batch)
        assert_close(run(path, x), ours(files, x))
