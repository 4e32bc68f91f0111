"""`.onnx`: the fused network by torch's exporter, with non-maximum suppression on request."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from darknet_py.errors import DarknetError
from darknet_py.export.exporter import ExportResult, Job
from darknet_py.export.quantize import quantize_onnx
from darknet_py.export.runtimes import run_onnx, run_openvino
from darknet_py.export.tensorrt_ops import TENSORRT_OPS
from darknet_py.export.traceable import BOX_OUTPUTS
from darknet_py.export.tracing import quiet
from darknet_py.export.verify import Runner
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from darknet_py.optional import require

# The lowest that torch's exporter writes; older ones lack Mish and Split by number, among others.
OPSET = 18
OPSET_BF16 = 22  # in which convolutions and pooling take bfloat16
_MOST_BYTES = (1 << 31) - 1  # of a protobuf message
_CHECKED_CANDIDATES = 50  # per image, above the threshold with which suppression is checked
_ROUNDED = 0.05  # of the detections may differ: an IoU that is the threshold but for rounding


class OnnxExporter:
    """ONNX for onnxruntime, OpenVINO, OpenCV 5, TensorRT and others."""

    outputs = ("raw", "boxes", "nms")
    precisions = ("fp32", "fp16", "bf16", "int8")

    def export(self, job: Job, out: Path) -> ExportResult:
        """Raises DarknetError where ONNX cannot express the network or the runtime computes something else.

        That is onnxruntime, or OpenVINO in bf16, which onnxruntime does not have on a CPU.
        """
        content = to_onnx(job)
        differences = job.compare(str(out), _run(job, content))
        notes = [_tensorrt_note(content)]
        if job.outputs == "nms":
            notes.append(_check_suppression(job, content, str(out)))
            content = with_suppression(content, job.options.thresh, job.options.nms)
        return ExportResult({out: content}, differences, [note for note in notes if note])


def to_onnx(job: Job, quantized: bool = True) -> bytes:
    """The network as the content of an ONNX file, with the outputs of `job.network`.

    Args:
        job: The network.
        quantized: Whether a network that is asked for in int8 is quantized.

    Raises:
        MissingExtra: The packages onnx and onnxscript, or NNCF for int8, are not installed.
        DarknetError: The network cannot be traced.
    """
    content = _to_onnx(job)
    return quantize_onnx(content, job.calibration) if quantized and job.calibration else content


def _to_onnx(job: Job) -> bytes:
    onnx = require("onnx", "onnx", "ONNX")
    require("onnxscript", "onnx", "ONNX")
    traced = job.program
    with quiet():
        program = torch.onnx.export(
            traced,
            (),
            dynamo=True,
            opset_version=OPSET_BF16 if job.options.precision == "bf16" else OPSET,
            input_names=list(job.network.input_names),
            output_names=list(job.network.output_names),
            verbose=False,
        )
    if program is None:
        raise DarknetError("torch's ONNX exporter gave nothing")
    model = program.model_proto
    if model.ByteSize() > _MOST_BYTES:
        raise DarknetError(f"ONNX: expected at most 2 GiB in one file, got {model.ByteSize() / 2**30:.1f}")
    del model.graph.value_info[:]
    for node in model.graph.node:  # our lines of source code, as torch saw them
        del node.metadata_props[:]
        node.doc_string = ""
    _name_dimensions(model, job)
    model.producer_name = "darknet_py"
    for key, text in job.metadata.items():
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _run(job: Job, content: bytes) -> Runner:
    return run_openvino(content) if job.options.precision == "bf16" else run_onnx(content)


def with_suppression(content: bytes, thresh: float, nms: float) -> bytes:
    """The same file with the only output `detections`, (M, 7) rows: image, class, score, cx, cy, w, h.

    Scores count where the objectness exceeds `thresh` too, and suppression is per class, as in Darknet; rows are in
    the order image, class, falling score. ONNX's NonMaxSuppression compares the plain IoU.

    Args:
        content: An ONNX file with the outputs boxes, objectness and scores.
        thresh: Confidence threshold.
        nms: IoU threshold; 0 suppresses nothing.
    """
    onnx = require("onnx", "onnx", "ONNX")
    model = onnx.load_model_from_string(content)
    _suppression_nodes(onnx, model.graph, thresh, nms or 1.0)
    del model.graph.output[:]
    kind = onnx.TensorProto.FLOAT
    model.graph.output.append(onnx.helper.make_tensor_value_info("detections", kind, ["detections", 7]))
    onnx.checker.check_model(model)
    result: bytes = model.SerializeToString()
    return result


def _suppression_nodes(onnx: ModuleType, graph: Any, thresh: float, iou: float) -> None:
    def constant(name: str, values: list[int] | list[float]) -> str:
        kind = onnx.TensorProto.FLOAT if isinstance(values[0], float) else onnx.TensorProto.INT64
        graph.initializer.append(onnx.helper.make_tensor(f"nms_{name}", kind, [len(values)], values))
        return f"nms_{name}"

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        graph.node.append(onnx.helper.make_node(kind, inputs, [output], name=f"nms_{output}", **attributes))
        return output

    boxes, objectness, scores = BOX_OUTPUTS
    # Of an open number of candidates all may stay.
    candidates = graph.output[0].type.tensor_type.shape.dim[1].dim_value or 1 << 20
    limit = constant("thresh", [float(thresh)])
    confident = node("Greater", [objectness, limit], "is_confident")
    confident = node("Unsqueeze", [confident, constant("last", [2])], "is_confident_column")
    counted = node("Where", [confident, scores, constant("zero", [0.0])], "counted_scores")
    by_class = node("Transpose", [counted], "scores_by_class", perm=[0, 2, 1])
    limits = [constant("most", [candidates]), constant("iou", [float(iou)]), limit]
    chosen = node("NonMaxSuppression", [boxes, by_class, *limits], "chosen", center_point_box=1)
    image_and_class = node("Gather", [chosen, constant("image_and_class", [0, 1])], "image_and_class", axis=1)
    image_and_box = node("Gather", [chosen, constant("image_and_box", [0, 2])], "image_and_box", axis=1)
    score = node("GatherND", [by_class, chosen], "chosen_scores")
    columns = [
        node("Cast", [image_and_class], "image_and_class_float", to=onnx.TensorProto.FLOAT),
        node("Unsqueeze", [score, constant("column", [1])], "score_column"),
        node("GatherND", [boxes, image_and_box], "chosen_boxes"),
    ]
    node("Concat", columns, "detections", axis=1)


def _check_suppression(job: Job, content: bytes, what: str) -> str:
    """Compares the suppression with ours, on the exported network's own boxes.

    The threshold is one that some candidates of the check image exceed. Returns a note where the cfg asks for a
    suppression that ONNX has not. Raises DarknetError where the detections differ.
    """
    (x,), nms = job.inputs[-1], job.options.nms
    predictions = Predictions(*_run(job, content)(x))
    best = predictions.scores.flatten()
    thresh = float(best.topk(min(_CHECKED_CANDIDATES * len(x), len(best))).values[-1])
    (got,) = _run(job, with_suppression(content, thresh, nms))(x)
    expected = [
        [image, detection.class_id, detection.confidence, *detection.box]
        for image, found in enumerate(postprocess(predictions, thresh, nms))
        for detection in found
    ]
    ours = torch.tensor(expected).reshape(-1, 7)
    distance = (ours[:, None] - got).abs().amax(2)
    missing = int((distance.amin(1) > 0).sum()) if len(got) else len(ours)
    surplus = int((distance.amin(0) > 0).sum()) if len(ours) else len(got)
    if missing + surplus > _ROUNDED * len(ours):
        raise DarknetError(
            f"{what}: non-maximum suppression differs from ours on the check image: of {len(ours)} detections "
            f"{missing} are missing and {surplus} are too many; nothing was written"
        )
    kind = job.reference.net.nms_kind[0]
    if kind in ("greedynms", "diounms"):
        return f"nms_kind={kind}: ONNX compares the plain IoU, which suppresses more boxes than Darknet's {kind}"
    return ""


def _name_dimensions(model: Any, job: Job) -> None:
    """Names for the open dimensions, in place of torch's symbols."""
    images, *states = model.graph.input
    for value, names in [(images, ("batch", "", "height", "width")), *((state, ("batch",)) for state in states)] + [
        (output, ("batch", "candidates") if job.network.outputs == "boxes" else ("batch", "", "rows", "columns"))
        for output in model.graph.output
    ]:
        for dimension, name in zip(value.type.tensor_type.shape.dim, (*names, "", ""), strict=False):
            if dimension.dim_param:
                dimension.dim_param = name if name in ("batch", "height", "width") else f"{value.name}_{name}"


def _tensorrt_note(content: bytes) -> str:
    model = require("onnx", "onnx", "ONNX").load_model_from_string(content)
    unknown = sorted({node.op_type for node in model.graph.node} - TENSORRT_OPS)
    return f"operators that TensorRT's parser does not list: {', '.join(unknown)}" if unknown else ""
