"""The inputs behind public bug reports, folder by folder, as a user comes upon them (../shared/reference/bugs)."""

from __future__ import annotations

import math
import os
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.data.audit import AuditRules, audit
from darknet_py.data.images import load_image
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.open_dataset import WRONG_SIZES, conversion_notes, open_dataset
from darknet_py.errors import CfgError, CfgWarning, DarknetError, WeightsError
from darknet_py.evaluation.darknet_map import darknet_map
from darknet_py.evaluation.types import GroundTruth
from darknet_py.inference.detect import prepare
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network
from tests import conftest

pytestmark = pytest.mark.reference

BUGS = conftest.REFERENCE / "bugs"
# The number that C reads, and the part of the value that it drops.
READ_IN_PART = {
    "22b-decimal-comma.cfg": ("learning_rate", 0.0, ",001"),
    "22c-thousands.cfg": ("max_batches", 6, ",000"),
    "29-two-per-line.cfg": ("batch", 4, "subdivisions=2"),
}
REFUSED = {
    "16-upper-key.cfg": r"no width\n.*:4: .*did you mean 'width'",
    "70-filters-on-section-line.cfg": r":16: expected nothing after \[convolutional\], got 'filters=8'",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_each_file_has_a_test() -> None:
    names = {path.name for path in (BUGS / "cfg").iterdir()}
    assert names == READ_IN_PART.keys() | REFUSED.keys() | {"05-inline-activation.cfg"}
    assert {path.name for path in (BUGS / "heads").iterdir()} == {"forgot.cfg"}
    assert {path.name for path in (BUGS / "lists").iterdir()} == {"glued.data", "glued.txt"}
    assert {path.name for path in (BUGS / "formats").iterdir()} == {"rf", "task_12", "voc", "voc1"}
    hostile = {re.sub(r"_\d", "", path.name) for path in (BUGS / "hostile").iterdir()}
    assert hostile == {
        "claim32k.jpg", "coco_overwrite", "data_coco.bin", "img.bin", "pt.bin", "state.bin", "yaml_alias_names",
    }  # fmt: skip


@pytest.mark.parametrize("name", READ_IN_PART)
def test_cfgs_that_c_reads_in_part(name: str) -> None:
    key, value, dropped = READ_IN_PART[name]
    with pytest.warns(CfgWarning, match=rf"{key}: '.*' is read as {value:g} and '{dropped}' is dropped"):
        graph = darknet_py.parse(BUGS / "cfg" / name)
    assert getattr(graph.net, key) == value


@pytest.mark.parametrize("name", REFUSED)
def test_cfgs_that_are_refused(name: str) -> None:
    with pytest.raises(CfgError, match=REFUSED[name]):
        darknet_py.parse(BUGS / "cfg" / name)


def test_comment_after_a_word() -> None:
    graph = darknet_py.parse(BUGS / "cfg" / "05-inline-activation.cfg")
    assert [vars(node.spec)["activation"] for node in graph.layers[:4]] == ["leaky"] * 3 + ["linear"]
    assert not graph.warnings


def test_heads_that_disagree() -> None:
    with pytest.raises(CfgError, match=r":71: \[yolo\] #7: classes: .* got 2 and 80 in \[yolo\] #4 \(line 51\)"):
        darknet_py.parse(BUGS / "heads" / "forgot.cfg")


def test_glued_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BUGS / "base")  # where its names are
    for command in (["check", "--data"], ["train", str(BUGS / "base" / "t.cfg"), "--data"]):
        assert main([*command, str(BUGS / "lists" / "glued.data")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(r"glued.txt:1: expected one image path a line, got 1080 in one line", line)


@pytest.mark.parametrize(("name", "train", "valid", "boxes"), [("task_12", 6, 6, 6), ("rf", 6, 6, 6)])
def test_formats(name: str, train: int, valid: int, boxes: int) -> None:
    data = open_dataset(BUGS / "formats" / name)
    images = data.train_images()
    assert (data.class_names(), len(images), len(data.valid_images())) == (["red", "blue"], train, valid)
    labels = [load_labels(find_labels(image), 2) for image in images]
    assert sum(len(found.boxes) for found in labels) == boxes and not any(found.problems for found in labels)


def test_turned_and_wrong_sizes() -> None:
    data = open_dataset(BUGS / "formats" / "voc", names=["red", "blue"])
    labels = load_labels(find_labels(data.train_images()[0])).boxes[0, :5]
    assert labels.tolist() == pytest.approx([0, 0.666667, 0.45, 0.333333, 0.5], abs=1e-6)
    with pytest.warns(CfgWarning, match="expected the size of .*a.jpg, 100 x 60, got 200 x 120"):
        data = open_dataset(BUGS / "formats" / "voc1")
    assert len(conversion_notes(data, WRONG_SIZES)) == 1


def base_network() -> Network:
    return darknet_py.load(BUGS / "base" / "t.cfg", BUGS / "base" / "t_final.weights")


def base_candidates(dtype: torch.dtype) -> list[Predictions]:
    """Boxes of the ten images that `validate_detector_map` looks at: objectness above .005, smaller scores are 0."""
    net = base_network().to(dtype).eval()
    found = []
    for image in sorted((BUGS / "base" / "img").glob("*.png")):
        with torch.no_grad():
            predictions = net.predict(prepare(net.graph, load_image(image), letter_box=False)[None].to(dtype))
        boxes, objectness, scores = (  # cell by cell, as in C
            values.unflatten(1, (3, 64)).transpose(1, 2).flatten(1, 2) for values in predictions
        )
        rows = objectness[0] > 0.005
        scores = torch.where(scores > 0.005, scores, 0)
        found.append(Predictions(boxes[:, rows], objectness[:, rows], scores[:, rows]))
    return found


def test_base_scores_as_in_c() -> None:
    """tests/golden/base_boxes.npz: the boxes in C's `validate_detector_map` before and after NMS, printed with %.9g.

    C finds 93 boxes; AP 43.25 and 74.00 %. Our candidates are C's, and C's candidates give C's result here. In image 6
    four cells see the same pixels: exactly, their four boxes have one score, and two of them suppress the other two.
    Rounding decides which, in C too (three equal scores, one lower by 2e-7 of it), and with it a fifth box.
    """
    golden = np.load(conftest.ROOT / "tests" / "golden" / "base_boxes.npz")
    found, kept = (torch.from_numpy(golden[name]) for name in ("found", "kept"))
    ours = base_candidates(torch.float32)
    detections, truths = [], []
    for image, predictions in enumerate(ours):
        rows = found[found[:, 0] == image, 1:]
        columns = torch.cat((predictions.boxes[0], predictions.objectness[0, :, None], predictions.scores[0]), 1)
        torch.testing.assert_close(columns, rows, rtol=2e-6, atol=2e-7)  # of float32 sums over 144 products, three deep
        (result,) = postprocess(Predictions(rows[None, :, :4], rows[None, :, 4], rows[None, :, 5:]), 0.005, 0.45)
        left = {(*row[1:5].tolist(), k, float(row[6 + k])) for row in kept[kept[:, 0] == image] for k in (0, 1)}
        got = zip(result.boxes.tolist(), result.class_ids.tolist(), result.confidences.tolist(), strict=True)
        assert {(*box, k, score) for box, k, score in got} == {row for row in left if row[-1] > 0}
        detections.append(result)
        labels = load_labels(find_labels(str(BUGS / "base" / "img" / f"{image:03}.png")), 2).boxes
        truths.append(GroundTruth(labels[:, 1:5], labels[:, 0].astype(int)))
    assert sum(map(len, detections)) == 93
    result_of_c = darknet_map(detections, truths, ["red box", "blue"])
    assert [round(100 * row.ap, 2) for row in result_of_c.classes] == [43.25, 74.00]

    scores = base_candidates(torch.float64)[6].scores[0, :, 0]
    tied = [index for index, score in enumerate(ours[6].scores[0, :, 0].tolist()) if abs(score - 0.1770485) < 1e-6]
    assert len(tied) == 4 and float(scores[tied].max() - scores[tied].min()) < 1e-15


WHOLE = (BUGS / "base" / "t_final.weights").read_bytes() if BUGS.is_dir() else b""
ARRAYS = WHOLE[20:]
FIRST_LAYER = 4 * (4 * 16 + 16 * 3 * 9)
# Each file's content, and what `darknet detector map` said: layers loaded, boxes found, mAP in percent. It ends with
# exit code 0 each time. Ours: the error, or "" where the weights are those of the whole file.
WEIGHTS_FILES = {
    "whole": (WHOLE, 5, 93, 58.62, ""),
    "half": (WHOLE[: 20 + 4 * (len(ARRAYS) // 8)], 1, 1438, 0.0, "ends in layer"),
    "cut at a layer's end": (
        WHOLE[: 20 + FIRST_LAYER],
        1,
        1445,
        0.0,
        "weights of 5 layers .* got those of the first 1 ",
    ),
    "a header": (WHOLE[:20], 0, 1767, 0.07, "weights of 5 layers .* got none"),
    "part of a header": (WHOLE[:10], 0, 1767, 0.07, "header of 20 bytes, got 10"),
    "nothing": (b"", 0, 1767, 0.07, "of 20 bytes, got 0|got none"),
    "12 bytes more": (WHOLE + bytes(12), 5, 93, 58.62, "got 3 floats more .* --ignore-rest"),
    "nan": (
        WHOLE[:820] + struct.pack("<f", math.nan) + WHOLE[824:],
        5,
        0,
        0.0,
        r"layer 0 \[convolutional\], weight: .* got 1 NaN of 432",
    ),
    "inf": (
        WHOLE[:820] + struct.pack("<f", math.inf) + WHOLE[824:],
        5,
        0,
        0.0,
        r"layer 0 \[convolutional\], weight: .* got 1 infinite of 432",
    ),
    "version 0.0, 8 bytes of seen": (struct.pack("<3iq", 0, 0, 0, 64) + ARRAYS, 5, 0, 0.0, ""),
    "version 0.1": (struct.pack("<4i", 0, 1, 0, 64) + ARRAYS, 5, 93, 58.62, ""),
    "version 0.2, 4 bytes of seen": (struct.pack("<4i", 0, 2, 0, 64) + ARRAYS, 3, 0, 0.0, ""),
    "version 1.0": (struct.pack("<3iq", 1, 0, 0, 64) + ARRAYS, 5, 93, 58.62, ""),
}


@pytest.mark.parametrize("name", WEIGHTS_FILES)
def test_weights_files_beside_c(name: str, tmp_path: Path) -> None:
    """Where C finds its 93 boxes we have the same weights; where it finds others, an error or the right weights."""
    content, _, boxes, _, message = WEIGHTS_FILES[name]
    (tmp_path / "a.weights").write_bytes(content)
    if message:
        with pytest.raises(WeightsError, match=message):
            darknet_py.load(BUGS / "base" / "t.cfg", tmp_path / "a.weights")
        assert boxes != 93 or name == "12 bytes more"
    else:
        net = darknet_py.load(BUGS / "base" / "t.cfg", tmp_path / "a.weights")
        for key, values in base_network().state_dict().items():
            assert torch.equal(net.state_dict()[key], values), key


def test_weights_of_another_number_of_classes(tmp_path: Path) -> None:
    """C: "Unexpected end of wights-file", 3 of 5 layers, 115,816 boxes, 0.00 %."""
    text = (BUGS / "base" / "t.cfg").read_text()
    (tmp_path / "t.cfg").write_text(text.replace("classes=2", "classes=80").replace("filters=21", "filters=255"))
    with pytest.raises(WeightsError, match="with 2 classes instead of 80: use the cfg of 2 classes"):
        darknet_py.load(tmp_path / "t.cfg", BUGS / "base" / "t_final.weights")


def test_hostile_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, nothing written outside the folder of the conversion, and none takes long."""
    root = tmp_path / "set"
    shutil.copytree(BUGS / "hostile" / "coco_overwrite" / "set", root)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    main(["data", str(root), str(tmp_path / "out"), "--to", "darknet"])
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: written[path] for path in before} == before
    folders = {path.relative_to(tmp_path).parts[0] for path in written.keys() - before.keys()}
    assert folders <= {"out", "cache"} and "leads out of the image folder" in "".join(capsys.readouterr())
    for file in (*sorted((BUGS / "hostile").glob("data_coco_*.bin")), BUGS / "hostile/yaml_alias_names/data.yaml"):
        path = tmp_path / "damaged" / file.with_suffix(".json" if file.suffix == ".bin" else ".yaml").name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(file, path)
        assert main(["check", "--data", str(path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert path.name in line


@pytest.mark.parametrize("name", ["img_0.bin", "img_1.bin", "claim32k.jpg"])
def test_hostile_images(name: str, tmp_path: Path) -> None:
    image = tmp_path / f"{name}{'' if name.endswith('.jpg') else '.npy'}"
    shutil.copy(BUGS / "hostile" / name, image)
    net = darknet_py.load(BUGS / "base" / "t.cfg", BUGS / "base" / "t_final.weights")
    with pytest.raises(DarknetError) as error:
        net.detect(str(image))
    assert str(image) in str(error.value) and "\n" not in str(error.value)
    report = audit({"train": [str(image)]}, AuditRules(2))
    assert "unreadable" in {finding.kind for finding in report.findings}


@pytest.mark.slow
def test_hostile_images_are_skipped_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(BUGS / "base", tmp_path / "base")
    shutil.copy(BUGS / "hostile" / "img_0.bin", tmp_path / "base" / "img" / "bad.npy")
    (tmp_path / "base" / "img" / "bad.txt").write_text("0 .5 .5 .2 .2\n")
    for name in ("train", "valid"):
        (tmp_path / "base" / f"{name}.txt").write_text("img/000.png\nimg/bad.npy\nimg/001.png\n")
    options = ["--max-batches", "11", "--map", "off", "--out", str(tmp_path / "out"), "--workers", "0"]
    assert (
        main(["train", str(tmp_path / "base" / "t.cfg"), "--data", str(tmp_path / "base" / "obj.data"), *options]) == 0
    )
    assert "bad.npy" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pt_0.bin", "state_0.bin"])
def test_hostile_checkpoints(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "net.pt"
    shutil.copy(BUGS / "hostile" / name, checkpoint)
    for command in (["info", str(checkpoint)], ["convert", str(checkpoint), str(tmp_path / "out.weights")]):
        assert main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "net.pt" in line
    assert os.listdir(tmp_path) == ["net.pt"]
