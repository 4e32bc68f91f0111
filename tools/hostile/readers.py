"""The readers of files, each with the files to start from, their mutations, and what has to hold of what is accepted.

A reader's `read` takes the content of a file and returns an outcome. It raises DarknetError for what is refused; any
other exception is a fault.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from hostile.cfgs import CfgMutator, check, folder_cfgs, golden_cfgs
from hostile.mutate import mutate_bytes, mutate_json, mutate_text, mutate_values

import darknet_py
from darknet_py.cli import detect_results
from darknet_py.cli import main as command_line
from darknet_py.data.audit import AuditRules, audit
from darknet_py.data.datafile import DataFile, read_list, read_names
from darknet_py.data.image_header import image_file_header
from darknet_py.data.images import load_image
from darknet_py.data.labels import load_labels
from darknet_py.data.open_dataset import DataSource, convert_to_darknet, detect_format
from darknet_py.data.readers.darknet_layout import ConversionResult
from darknet_py.errors import DarknetError
from darknet_py.export.safe_unpickle import read_tensors
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.layers.class_hierarchy import ClassHierarchy
from darknet_py.layers.head_options import read_map
from darknet_py.model.companions import names_beside, threshold_beside
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network
from darknet_py.training.checkpoint_dir import CheckpointDir
from darknet_py.training.state import DamagedState, OtherNetwork, pack_state, unpack_state
from darknet_py.training.train_log import TrainLogger
from darknet_py.training.train_step import TrainStep

NET = """[net]
width=32
height=32
channels=3
batch=2
subdivisions=1
learning_rate=0.001
max_batches=8
[convolutional]
batch_normalize=1
filters=4
size=3
stride=4
pad=1
activation=leaky
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=8,8,16,16
classes=2
num=2
"""
_LABELS = b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.05 0.05\n", b"1 .5 .5 1 1", b"\xef\xbb\xbf0 0.9 0.9 0.2 0.2\r\n", b""
_RUN_EVERY = 40  # of the cfgs, a network is built and run
_PRIME = 1_000_003  # steps through all bits of a file


class Reader(NamedTuple):
    """draw: a file from a random state and its number. read: see the module. count: files of a whole run."""

    draw: Callable[[random.Random, int], bytes]
    read: Callable[[bytes, int], str]
    count: int


def _from(corpus: Sequence[bytes], mutate: Callable[[random.Random, bytes, bytes], bytes]) -> Any:
    return lambda rng, number: mutate(rng, rng.choice(corpus), rng.choice(corpus))


def _words(*words: str) -> Callable[[random.Random, bytes, bytes], bytes]:
    return lambda rng, content, other: mutate_text(rng, content, other, words)


def _in_file(path: Path, read: Callable[[Path], str]) -> Callable[[bytes, int], str]:
    def read_content(content: bytes, number: int) -> str:
        path.write_bytes(content)
        return read(path)

    return read_content


def cfgs(folder: Path) -> Reader:
    mutator = CfgMutator(golden_cfgs() + folder_cfgs([Path(__file__).parents[2] / "cfg"]))

    def read(content: bytes, number: int) -> str:
        try:
            text = content.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # any bytes, which atheris draws, are read as those of a file
            text = content.decode("utf-8", "surrogateescape")
        return check(text, number % _RUN_EVERY == 0)

    return Reader(lambda rng, number: mutator.draw(rng).encode("utf-8", "surrogatepass"), read, 1_000_000)


def model_files(folder: Path) -> list[Path]:
    """One network in each format of files; random weights."""
    torch.manual_seed(0)
    (folder / "net.cfg").write_text(NET)
    net = darknet_py.load(folder / "net.cfg", random_weights=True)
    paths = [folder / f"net_best{suffix}" for suffix in (".weights", ".pt", ".safetensors")]
    for path in paths:
        ModelFile(net.graph, ["a", "b"], tensors=net.state_dict(), thresh=0.25).write(path)
    torch.save(net.state_dict(), folder / "plain.pt")
    torch.save({"model": net.state_dict(), "epoch": 3}, folder / "old.pt", _use_new_zipfile_serialization=False)
    return paths


def _check_model(model: ModelFile, graph: Graph, out: Path, build: bool) -> str:
    """What was accepted is whole and finite, and can be written and built."""
    model = model.fit(graph)
    assert all(bool(values.isfinite().all()) for values in model.tensors.values())
    assert model.thresh is None or 0 <= model.thresh <= 1
    assert all(isinstance(name, str) and "\n" not in name for name in model.names)
    model.write_weights(out)
    if build:
        Network.of(model)
    return "read"


def weights(folder: Path) -> Reader:
    path = model_files(folder)[0]
    graph = parse_text(NET, "net.cfg")
    old = bytearray(path.read_bytes())
    old[4:8] = struct.pack("<i", 1)
    corpus = [path.read_bytes(), bytes(old[:16] + old[20:]), path.read_bytes()[:-8]]

    def read(content: bytes, number: int) -> str:
        path.write_bytes(content)
        return _check_model(ModelFile.read_weights(path, graph), graph, folder / "out.weights", number % 20 == 0)

    with contextlib.suppress(DarknetError):
        read(corpus[2], 1)  # which computes lengths of the shipped cfgs, once for all parts
    return Reader(_from(corpus, mutate_values), read, 65_000)


def checkpoints(folder: Path) -> Reader:
    corpus = [path.read_bytes() for path in model_files(folder)[1:]]

    def read(content: bytes, number: int) -> str:
        path = folder / ("in.safetensors" if content[8:9] == b"{" else "in.pt")
        path.write_bytes(content)
        model = ModelFile.read(path)
        return _check_model(model, model.graph, folder / "out.weights", number % 20 == 0)

    return Reader(_from(corpus, mutate_bytes), read, 30_000)


def foreign_checkpoints(folder: Path) -> Reader:
    model_files(folder)
    corpus = [(folder / name).read_bytes() for name in ("plain.pt", "old.pt")]

    def read(path: Path) -> str:
        assert read_tensors(path).tensors
        return "read"

    return Reader(_from(corpus, mutate_bytes), _in_file(folder / "in.pt", read), 20_000)


def training_state(old: bool) -> tuple[bytes, Graph]:
    """A state after an iteration, as this version or the one before checksums writes it."""
    torch.manual_seed(0)
    graph = parse_text(NET, "net.cfg")
    step = TrainStep(Network(graph))
    step.step([(torch.rand(2, 3, 32, 32), torch.tensor([[0.0, 0, 0.5, 0.5, 0.4, 0.4]]))])
    state: Any = {
        "learner": step.state_dict(),
        "journal": {"rows": torch.ones(1, 6, dtype=torch.float64), "maps": [{"iteration": 1, "map": 0.5, "loss": 1.0}]},
        "best": 0.5,
        "measured": 1,
        "problems": [["a"], []],
    }
    if not old:
        return pack_state(state, graph), graph
    buffer = io.BytesIO()
    torch.save({**state, "version": 2, "cfg": graph.layers_hash}, buffer)
    return buffer.getvalue(), graph


def states(folder: Path) -> Reader:
    (new, graph), (old, _) = training_state(False), training_state(True)
    step = TrainStep(Network(graph))
    log = TrainLogger(CheckpointDir(folder, "net"), graph.net, "mAP", quiet=True)

    def read(content: bytes, number: int) -> str:
        try:
            state = unpack_state(content, graph)
        except (DamagedState, OtherNetwork):
            return "refused"
        step.load_state_dict(state["learner"])
        log.load_state_dict(state["journal"])
        return "read"

    return Reader(_from([new, old, old, old], mutate_bytes), read, 10_000)


def companions(folder: Path) -> Reader:
    path, *_ = model_files(folder)
    graph = parse_text(NET, "net.cfg")
    corpus = [b'{"map": 0.5, "iteration": 3, "best_thresh": 0.3, "auto_thresh": 0.4}\n', b"cat\ndog\n"]

    def read(content: bytes, number: int) -> str:
        path.with_suffix(".json").write_bytes(content)
        (folder / "net.names").write_bytes(content)
        thresh, names = threshold_beside(path), names_beside(path, graph)
        assert thresh is None or 0 <= thresh <= 1
        assert len(names) <= 2 and not any(set(name) & set("\0\x1b\n\r") for name in names), names
        CheckpointDir(folder, "net").best_score()
        return "read" if names or thresh is not None else "refused"

    return Reader(_from(corpus, mutate_text), read, 20_000)


def images(folder: Path) -> Reader:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    corpus = []
    endings = ".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".jp2", ".gif", ".avif", ".hdr", ".pfm", ".ras"
    for ending in endings:
        with contextlib.suppress(cv2.error):
            image = pixels.astype(np.float32) if ending in (".hdr", ".pfm") else pixels
            written, data = cv2.imencode(ending, image[..., 0] if ending == ".pgm" else image)
            corpus += [data.tobytes()] if written else []
    parts = cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1
    corpus += [cv2.imencode(".jpg", pixels, parts)[1].tobytes(), cv2.imencode(".png", pixels[..., 0])[1].tobytes()]
    corpus.append(cv2.imencode(".png", pixels.astype(np.uint16) * 16)[1].tobytes())
    array = io.BytesIO()
    np.save(array, pixels)
    corpus += [array.getvalue()] * 2

    def read(path: Path) -> str:
        header = image_file_header(path)
        image = load_image(path)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
        assert header is None or image.shape[1] * image.shape[0] == header.width * header.height, (header, image.shape)
        return "read"

    return Reader(_from(corpus, mutate_bytes), _in_file(folder / "in.jpg", read), 100_000)


def labels(folder: Path) -> Reader:
    def read(path: Path) -> str:
        found = load_labels(path, 2)
        assert np.isfinite(found.boxes).all() and set(found.boxes[:, 0].tolist()) <= {0.0, 1.0}
        return "reported" if found.problems else "read"

    return Reader(_from(_LABELS, mutate_text), _in_file(folder / "in.txt", read), 250_000)


def names(folder: Path) -> Reader:
    corpus = [b"cat\ndog\n", b"# names\n0: cat\n1: dog\n", b"cat, dog, bird", b"katze\r\nhund\r\nv\xf6gel"]

    def read(path: Path) -> str:
        for classes in (None, 2):
            found = read_names(path, classes)
            assert found and not any(set(name) & set("\0\x1b\n\r\u2028\u202e") for name in found), found
        return "read"

    return Reader(_from(corpus, mutate_text), _in_file(folder / "in.names", read), 60_000)


def _image_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(folder / name), np.zeros((20, 30, 3), np.uint8))


def lists(folder: Path) -> Reader:
    _image_files(folder / "images")
    corpus = [b"images/a.jpg\nimages/b.jpg\n", b"a.jpg\r\nb.jpg\r\n", b"data\\obj\\a.jpg\n./images/b.jpg"]

    def read(path: Path) -> str:
        found = read_list(path)
        assert found and not any("\n" in line for line in found)
        return "read"

    draw = _from(corpus, _words("images/a.jpg", "a.jpg", ".png", "images/"))
    return Reader(draw, _in_file(folder / "in.txt", read), 60_000)


def data_files(folder: Path) -> Reader:
    _image_files(folder / "images")
    (folder / "train.txt").write_text("images/a.jpg\nimages/b.jpg\n")
    (folder / "x.names").write_text("cat\ndog\n")
    corpus = [b"classes = 2\ntrain = train.txt\nvalid = train.txt\nnames=x.names\nbackup = backup\neval=coco\ntop=2\n"]

    def read(path: Path) -> str:
        data = DataFile.read(path)
        assert data.classes >= 0 and data.top >= 0
        data.train_images(), data.valid_images()
        data.class_names()
        return "read"

    draw = _from(corpus, _words("train", "valid", "names", "classes", "labels", "difficult", "savelast", "x.names"))
    return Reader(draw, _in_file(folder / "in.data", read), 40_000)


def class_files(folder: Path) -> Reader:
    """Trees and maps of classes."""
    corpus = [b"a -1\nb -1\nc 0\nd 0\n", b"0\n3\n1\n2\n"]

    def read(path: Path) -> str:
        outcome = "refused"
        with contextlib.suppress(DarknetError):
            tree = ClassHierarchy.read(str(path), 4)
            assert len(tree.path) == 4
            outcome = "read"
        with contextlib.suppress(DarknetError):
            assert all(number >= 0 for number in read_map(str(path)))
            outcome = "read"
        return outcome

    return Reader(_from(corpus, mutate_text), _in_file(folder / "in.tree", read), 20_000)


class _DataSet:
    """A data set in a folder beside a file of the user, which no conversion may change."""

    def __init__(self, folder: Path, file: str, made: str):
        """file: the one that is mutated. made: the folder of the images."""
        self.root, self.out, self.victim = folder / "set", folder / "out", folder / "victim.txt"
        _image_files(self.root / made)
        self.file = self.root / file
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.victim.write_text("victim")
        self.beside = sorted([*os.listdir(folder), "out"])
        self.in_set = sorted([*os.listdir(self.root), *os.listdir(self.file.parent), self.file.name])

    def convert(self, content: bytes, number: int) -> str:
        self.file.write_bytes(content)
        try:
            return self._check(convert_to_darknet(DataSource(self.root), detect_format(self.root), self.out))
        finally:
            shutil.rmtree(self.out, ignore_errors=True)
            self.out.mkdir()
            assert sorted(os.listdir(self.out.parent)) == self.beside and self.victim.read_text() == "victim"
            in_set = sorted([*os.listdir(self.root), *os.listdir(self.file.parent), self.file.name])
            assert set(in_set) <= {*self.in_set, self.file.name}, in_set

    def _check(self, result: ConversionResult) -> str:
        boxes = 0
        listed = {image for image in (result.data.train, result.data.valid) if image is not None}
        for image in {image for file in listed if file.stat().st_size for image in read_list(file)}:
            assert image.startswith(str(self.out)) and os.path.isfile(image), image
        for label in self.out.rglob("labels/*.txt"):
            found = load_labels(label, result.data.classes)
            assert not found.problems and np.isfinite(found.boxes).all(), found.problems
            boxes += len(found.boxes)
        assert boxes <= result.boxes
        return "read" if boxes else "read, no boxes"


def coco(folder: Path) -> Reader:
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 30, "height": 20},
            {"id": 2, "file_name": "b.jpg", "width": 30, "height": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 7, "bbox": [0.5, 0, 20, 15.5], "area": 310, "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    data = _DataSet(folder, "annotations/instances_train.json", "images")
    return Reader(_from([json.dumps(content).encode()], mutate_json), data.convert, 30_000)


_XML = b"""<annotation><folder>JPEGImages</folder><filename>a.jpg</filename><size><width>30</width><height>20</height>
<depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>13</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>1.5</xmin><ymin>1</ymin><xmax>29</xmax><ymax>19</ymax></bndbox></object>
</annotation>
"""


def voc(folder: Path) -> Reader:
    data = _DataSet(folder, "Annotations/a.xml", "JPEGImages")
    (data.root / "Annotations" / "b.xml").write_bytes(_XML)
    data.in_set.append("b.xml")
    return Reader(_from([_XML], _words("<object>", "</object>", "<name>", "9", "30", "&cat;")), data.convert, 20_000)


def yaml_files(folder: Path) -> Reader:
    corpus = [
        b"path: .\ntrain: images\nval: images\nnc: 2\nnames: [cat, dog]\n",
        b"train: ./images\nnames:\n  0: cat\n  1: dog\n",
        b"# x\ntrain: [images, images]\nval: images/a.jpg\nnames: &n\n- cat\n- 'dog'\nother: *n\n",
    ]
    data = _DataSet(folder, "data.yaml", "images")
    (data.root / "images" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n")
    return Reader(_from(corpus, _words("images", "nc:", "names:", "0:", "*n")), data.convert, 30_000)


def csv_files(folder: Path) -> Reader:
    corpus = [
        b"filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,30,20,cat,1,2,10,12\nb.jpg,30,20,dog,0,0,30,20\n",
    ]
    data = _DataSet(folder, "train_labels.csv", "images")
    return Reader(_from(corpus, _words("a.jpg", "filename", "class", '"a.jpg"')), data.convert, 10_000)


def folders(folder: Path) -> Reader:
    """Images with label files, without a names file."""
    data = _DataSet(folder, "images/a.txt", "images")
    return Reader(_from(_LABELS, mutate_text), data.convert, 20_000)


def audits(folder: Path) -> Reader:
    """`check` of a data set whose labels are mutated."""
    _image_files(folder)
    corpus = [b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.05 0.05\n"]

    def read(path: Path) -> str:
        report = audit({"train": [str(folder / "a.jpg"), str(folder / "b.jpg")]}, AuditRules(2))
        return "reported" if report.findings else "read"

    return Reader(_from(corpus, mutate_text), _in_file(folder / "a.txt", read), 5_000)


def records(folder: Path) -> Reader:
    """What an interrupted `detect --resume` left."""
    model_files(folder)
    _image_files(folder / "images")
    found = folder / "found.json"
    command = ["detect", str(folder / "net.cfg"), str(folder / "images"), "--weights", str(folder / "net_best.weights")]
    command += ["--no-images", "--json", str(found), "--resume"]
    kept: list[bytes] = []

    def keep(*_: object) -> None:
        kept.extend(path.read_bytes() for path in folder.glob("found.json.*"))
        raise KeyboardInterrupt

    def run() -> int:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return command_line(command)

    original = detect_results.DetectResults._write_tables
    detect_results.DetectResults._write_tables = keep  # type: ignore[method-assign]
    with contextlib.suppress(KeyboardInterrupt):
        run()
    detect_results.DetectResults._write_tables = original  # type: ignore[method-assign]
    (name,) = (path for path in folder.glob("found.json.*"))

    def read(content: bytes, number: int) -> str:
        name.write_bytes(content)
        found.unlink(missing_ok=True)
        if run():
            return "refused"
        rows = json.loads(found.read_text())
        assert sorted(Path(row["filename"]).name for row in rows) == ["a.jpg", "b.jpg"], rows
        return "read"

    return Reader(_from(kept, mutate_text), read, 1_000)


def _flips(content: bytes, refused: Callable[[bytes], bool], same: Callable[[bytes], bool], count: int) -> Reader:
    """Single bits, each once. A file with a changed bit is refused, or means the same (as in a date of an archive)."""

    def draw(rng: random.Random, number: int) -> bytes:
        bit = number * _PRIME % (8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        return bytes(flipped)

    def read(flipped: bytes, number: int) -> str:
        if refused(flipped):
            return "refused"
        assert same(flipped), "a changed bit was accepted"
        return "accepted with equal content"

    return Reader(draw, read, count)


def state_flips(folder: Path) -> Reader:
    content, graph = training_state(False)

    def refused(flipped: bytes) -> bool:
        try:
            unpack_state(flipped, graph)
        except (DamagedState, OtherNetwork):
            return True
        return False

    return _flips(content, refused, lambda flipped: False, 4_000)


def _model_flips(folder: Path, path: Path, count: int) -> Reader:
    graph = parse_text(NET, "net.cfg")
    original = ModelFile.read_weights(path, graph)
    content = path.read_bytes()

    def refused(flipped: bytes) -> bool:
        path.write_bytes(flipped)
        try:
            ModelFile.read_weights(path, graph).fit(graph)
        except DarknetError:
            return True
        return False

    def same(flipped: bytes) -> bool:
        model = ModelFile.read_weights(path, graph)
        arrays = all(torch.equal(values, original.tensors[name]) for name, values in model.tensors.items())
        return arrays and model.header == original.header and list(model.names) == list(original.names)

    return _flips(content, refused, same, count)


def weights_flips(folder: Path) -> Reader:
    """`.weights` as a training leaves them."""
    net = darknet_py.load(model_files(folder)[0].with_name("net.cfg"), random_weights=True)
    files = CheckpointDir(folder, "net")
    files.save_weights(net, "best")
    return _model_flips(folder, files.path("best.weights"), 4_000)


def checkpoint_flips(folder: Path) -> Reader:
    return _model_flips(folder, model_files(folder)[1], 4_000)


READERS: dict[str, Callable[[Path], Reader]] = {
    "cfgs": cfgs,
    "weights": weights,
    "checkpoints": checkpoints,
    "checkpoints of others": foreign_checkpoints,
    "states": states,
    "images": images,
    "labels": labels,
    "names": names,
    "lists": lists,
    ".data": data_files,
    "class trees and maps": class_files,
    "COCO": coco,
    "VOC": voc,
    "YAML": yaml_files,
    "CSV": csv_files,
    "folders": folders,
    "files beside weights": companions,
    "check": audits,
    "records of detect": records,
    "bits of states": state_flips,
    "bits of weights": weights_flips,
    "bits of checkpoints": checkpoint_flips,
}
