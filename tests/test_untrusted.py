"""Files and texts that others have written: what is no regular file, too large, or acts on a terminal."""

from __future__ import annotations

import io
import os
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from darknet_py import load
from darknet_py.cli import main
from darknet_py.data.audit import AuditRules, audit
from darknet_py.data.datafile import DataFile, read_list, read_names
from darknet_py.data.image_header import image_file_header
from darknet_py.data.images import load_image
from darknet_py.data.labels import load_labels
from darknet_py.data.readers.coco import coco_to_darknet
from darknet_py.data.readers.tf_csv import csv_to_darknet
from darknet_py.data.readers.voc import voc_to_darknet
from darknet_py.data.text_streams import read_bytes
from darknet_py.data.yamlfile import read_yaml
from darknet_py.errors import CfgError, CfgWarning, DarknetError, DataError, WeightsError
from darknet_py.graph.graph import parse, parse_text
from darknet_py.layers.class_hierarchy import ClassHierarchy
from darknet_py.layers.head_options import read_map
from darknet_py.model.companions import names_beside
from darknet_py.model.header import Header, read_header
from darknet_py.model.model_file import ModelFile
from darknet_py.training.checkpoint_dir import CheckpointDir
from darknet_py.untrusted import MAX_BYTES, clean_names, escaped_output, first_line, printable

NET = "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\nactivation=linear\n"


def read_voc(path: Path) -> object:
    folder = path.parent / "voc"
    (folder / "Annotations").mkdir(parents=True)
    (folder / "JPEGImages").mkdir()
    cv2.imwrite(str(folder / "JPEGImages" / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (folder / "Annotations" / "a.xml").symlink_to(path)
    return voc_to_darknet(folder, path.parent / "out")


READERS: dict[str, Callable[[Path], object]] = {
    "cfg": parse,
    "cfg or checkpoint": lambda path: ModelFile.read(path),
    "weights": lambda path: load(_written(path.with_name("net.cfg"), NET), path),
    "weights header": read_header,
    "image": load_image,
    "list": read_list,
    "names": read_names,
    ".data": DataFile.read,
    "YAML": read_yaml,
    "COCO": lambda path: coco_to_darknet({"train": (path, path.parent)}, path.parent / "out"),
    "CSV": lambda path: csv_to_darknet({"train": path}, path.parent / "out", name="csv"),
    "VOC": read_voc,
    "text": lambda path: read_bytes(path, 256),
    "class tree": lambda path: ClassHierarchy.read(str(path), 2),
    "class map": lambda path: read_map(str(path)),
}


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="no such files here")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "holes"])
def test_only_regular_files_are_read(tmp_path: Path, reader: str, kind: str) -> None:
    path = tmp_path / "file.txt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, MAX_BYTES + 1)
        if reader in ("weights", "weights header"):
            pytest.skip("it is mapped, or read in part")
    with pytest.raises(DarknetError) as error:
        READERS[reader](path)
    expected = {"holes": "expected ", "folder": "expected images|cannot read"}.get(kind, "cannot read")
    assert re.search(expected, str(error.value)) and "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no such files here")
def test_pipes_beside_images(tmp_path: Path) -> None:
    """A pipe for labels, for an image among others, and for what may be a checkpoint."""
    image, pipe = tmp_path / "a.png", tmp_path / "a.txt"
    cv2.imwrite(str(image), np.zeros((4, 4, 3), np.uint8))
    os.mkfifo(pipe)
    labels = load_labels(pipe)
    assert labels.missing and "cannot read the labels: not a file" in labels.problems[0]
    os.mkfifo(tmp_path / "b.png")
    assert image_file_header(tmp_path / "b.png") is None
    report = audit({"train": [str(image), str(tmp_path / "b.png")]}, AuditRules(1))
    found = [(finding.kind, finding.text) for finding in report.findings if finding.image.endswith("b.png")]
    assert ("unreadable", "not a file (it is a device or a pipe)") in found


def test_damaged_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    net = load(_written(tmp_path / "a.cfg", NET))
    ModelFile(net.graph, ["a\x1b[31m\nb"], tensors=net.state_dict()).write(path)
    assert load(path).names == ["a [31m b"]
    content = torch.load(path, weights_only=True)
    for change in (
        {"cfg": 1},
        {"cfg_name": None},
        {"names": "ab"},
        {"names": [1]},
        {"header": (0, 2, 5)},
        {"state_dict": []},
        {"state_dict": {"layers.0.bias": torch.zeros(2, dtype=torch.int32)}},
        {"state_dict": {"layers.0.bias": torch.zeros(2).to_sparse()}},
    ):
        torch.save(content | change, path)
        with pytest.raises(WeightsError, match=r"damaged checkpoint|expected an array of floats"):
            load(path)
    torch.save(content | {"more": SimpleNamespace()}, path)
    with pytest.raises(WeightsError, match="it holds other objects than tensors") as error:
        load(path)
    assert "weights_only" not in str(error.value)
    torch.save({}, path)
    with pytest.raises(WeightsError, match="another PyTorch file"):
        load(path)


def test_changed_bits_of_checkpoints_and_weights(tmp_path: Path) -> None:
    """torch compares no checksum of an archive, and `.weights` have none: a training writes it beside them."""
    net = load(_written(tmp_path / "a.cfg", NET), random_weights=True)
    path = tmp_path / "a.pt"
    ModelFile(net.graph, tensors=net.state_dict()).write(path)
    whole = path.read_bytes()
    bias = net.layers[0].weight.detach().numpy().tobytes()[4:12]
    directory = whole.rindex(b"archive/data/0") - 46
    for place, bit in ((whole.index(bias), 1), (directory + 38, 0x10)):  # a weight; "it is a folder"
        damaged = bytearray(whole)
        damaged[place] ^= bit
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="is not what was written"):
            load(path)
    files = CheckpointDir(tmp_path, "a")
    files.save_weights(net, "best")
    weights = files.path("best.weights")
    assert load(tmp_path / "a.cfg", weights)
    damaged = bytearray(weights.read_bytes())
    damaged[40] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"not the file that a_best.weights.sha256 is of: damaged"):
        load(tmp_path / "a.cfg", weights)
    net.save_weights(weights)  # whatever it replaces, it is not the file of that checksum
    assert load(tmp_path / "a.cfg", weights)


def test_values_that_the_files_cannot_hold(tmp_path: Path) -> None:
    net = load(_written(tmp_path / "a.cfg", NET), random_weights=True)
    path = tmp_path / "a.pt"
    ModelFile(net.graph, tensors=net.state_dict()).write(path)
    content = torch.load(path, weights_only=True)
    for change, message in (
        ({"header": (0, 2, 1 << 31, 0)}, "cfg, names or header"),
        ({"header": (0, 2, 5, -1)}, "cfg, names or header"),
        ({"thresh": 1.5}, "expected a number from 0 to 1, got 1.5"),
        ({"thresh": float("nan")}, "expected a number from 0 to 1, got nan"),
    ):
        torch.save(content | change, path)
        with pytest.raises(WeightsError, match=message):
            load(path)
    assert len(Header(0, 1, 5, (1 << 32) + 3).bytes()) == 16


def test_labels_that_are_too_large_for_float32(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0 0.5 0.5 1e300 0.2\n0 0.5 0.5 0.2 0.2\n")
    labels = load_labels(path, 1)
    assert np.isfinite(labels.boxes).all() and len(labels.boxes) == 1
    assert labels.problems == [f"{path}:1: expected finite numbers, got '0 0.5 0.5 1e300 0.2'"]


def test_messages_of_one_line(tmp_path: Path) -> None:
    """What is wrong is shown escaped; and another library may say nothing."""
    path = _written(tmp_path / "a.json", '{"images": [], "annotations": [], "categories": ["a\\nb"]}')
    with pytest.raises(DataError, match=r"categories\[0\]: expected id, name, got 'a\\nb'"):
        coco_to_darknet({"train": (path, tmp_path)}, tmp_path / "out")
    assert first_line(ValueError()) == "ValueError" and first_line(ValueError("\n a\nb")) == " a"


def test_names_beside_weights_are_cleaned(tmp_path: Path) -> None:
    (tmp_path / "a.names").write_text("\x1b[31mcat\ndog\n\n")
    assert names_beside(tmp_path / "a_best.weights", parse_text(NET)) == ("[31mcat", "dog")


def test_compressed_checkpoints(tmp_path: Path) -> None:
    """10 MB of zeros in 10 kB: refused before they are unpacked."""
    stored, compressed = tmp_path / "stored.pt", tmp_path / "compressed.pt"
    torch.save({"a": torch.zeros(2_500_000)}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    assert compressed.stat().st_size < 20_000
    with pytest.raises(WeightsError, match=r"bytes that unpack to 10,00"):
        load(compressed)


def test_printable_text() -> None:
    assert printable("a\tb\nc é 字 👨‍👩‍👧") == "a\tb\nc é 字 👨‍👩‍👧"
    assert printable("\x1b[31m\a\r\x00\x7f\x9b\u2028\u202e\udcff") == (r"\x1b[31m\x07\r\x00\x7f\x9b\u2028\u202e\udcff")
    assert clean_names(["a\nb", "\x1b[2J c\u2028d ", "\u202ex", "é 字"]) == ["a b", "[2J c d", "x", "é 字"]


def test_names_do_not_act_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "a.names"
    names.write_text("r\x1b[31med\nbl\aue\n")
    with pytest.warns(CfgWarning, match="control characters in names are left out"):
        assert read_names(names) == ["r [31med", "bl ue"]
    cfg = tmp_path / "a\x1b[31m.cfg"
    cfg.write_text(NET + "[b\x1b]0;x\a]\n")
    assert main(["info", str(cfg)]) == 1
    assert main(["info", str(_written(cfg, NET + "st\x1b[31mride=1\n"))]) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err and r"a\x1b[31m.cfg" in printed.err


def test_escaped_output(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    with escaped_output():
        print("\ra\x1b[31m\r\udcff", end="é")
    print("\x1b")  # after it, output is as before
    sys.stdout.flush()
    assert written.getvalue() == b"\ra\\x1b[31m\\r\\udcff\\xe9\x1b\n"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with escaped_output():
        print("\x1b")


def problems_of(text: str) -> str:
    with pytest.raises(CfgError) as error:
        parse_text(text)
    return str(error.value)


def test_endless_cfgs() -> None:
    """Linear time, the first hundred problems printed and the others counted, a limit on layers."""
    many = 20_000
    unknown = problems_of(NET + "".join(f"[layer{number}]\n" for number in range(many)))
    assert unknown.endswith("and 9901 more errors") and len(unknown.splitlines()) == 101
    assert "did you mean 'local'" in problems_of(NET + "[locall]\n") and len(unknown) < 100_000
    assert ":10008: expected at most 10,000 layers, got more" in problems_of(NET + "[softmax]\n" * many)
    junk = problems_of(NET + "width: 8\n" * many)
    assert junk.endswith("and 901 more errors") and len(junk.splitlines()) == 101
    assert len(problems_of(NET + f"[{'a' * 1_000_000}]\n")) < 5_000
    assert len(problems_of(f"[net]\nwidth={' 1' * 100_000}\n")) < 5_000
    with pytest.warns(CfgWarning) as warnings:
        graph = parse_text(NET + "".join(f"key{number}=1\n" for number in range(many)))
    assert len(graph.warnings) == many and len(warnings) == 101
    assert str(warnings[-1].message) == "<text>: and 19900 more warnings"


def test_chain_of_classes(tmp_path: Path) -> None:
    tree = tmp_path / "a.tree"
    tree.write_text("".join(f"n{number} {number - 1}\n" for number in range(20_000)))
    with pytest.raises(DataError, match="expected at most 838 levels of 20000 classes, got 20000"):
        ClassHierarchy.read(str(tree), 20_000)
    tree.write_text("".join(f"n{number} {number - 1}\n" for number in range(800)))
    assert ClassHierarchy.read(str(tree), 800).path.shape == (800, 800)
