"""What `net.detect` takes: every kind of input gives the boxes of the same pixels."""

from __future__ import annotations

import inspect
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pil

import darknet_py
from darknet_py.errors import DarknetError, DataError
from darknet_py.graph.graph import parse_text
from darknet_py.inference.detect import as_array, prepare, prepare_batch
from darknet_py.inference.detections import Detections
from darknet_py.model.network import Network

CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=7\nsize=3\nstride=8\n"
    "[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
)
RGB = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Network:
    file = tmp_path_factory.mktemp("net") / "x.cfg"
    file.write_text(CFG)
    torch.manual_seed(0)
    return darknet_py.load(file, random_weights=True)


def test_inputs_are_channels_last() -> None:
    graph = parse_text(CFG.replace("width=32\nheight=32", "width=30\nheight=20"))
    x = prepare(graph, RGB)
    assert x.shape == (3, 20, 30) and x.stride() == (1, 90, 3)
    assert x[2, 4, 5] == np.float32(RGB[4, 5, 2]) / np.float32(255)
    batch = prepare_batch(graph, [RGB, RGB[::-1]])
    assert torch.equal(batch[0], x) and torch.equal(batch[1], x.flip(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Pil.fromarray(RGB).save(folder / "a.png")
    Pil.fromarray(RGB[:, ::-1]).save(folder / "b.png")
    (folder / "list.txt").write_text("b.png\na.png\n")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    handler = partial(QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def same(found: Detections, expected: Detections) -> bool:
    """Whether the boxes are equal but for rounding: oneDNN may take other kernels for other batch sizes."""
    return len(found) == len(expected) > 0 and bool(np.allclose(found.boxes, expected.boxes, rtol=0, atol=1e-6))


def test_every_kind_of_input(net: Network, folder: Path, address: str) -> None:
    (a,) = net.detect(RGB, 0.1)
    (b,) = net.detect(np.ascontiguousarray(RGB[:, ::-1]), 0.1)
    assert len(a) > 0 and a.boxes.tolist() != b.boxes.tolist() and a.path == ""
    file = folder / "a.png"
    content = file.read_bytes()
    for image in (
        file,
        str(file),
        content,
        bytearray(content),
        memoryview(content),
        Pil.open(file),
        f"{address}/a.png",
    ):
        (found,) = net.detect(image, 0.1)
        assert same(found, a) and found.image_size == (30, 20)
    for images, names in (
        (folder, "ab"),
        (str(folder / "*.png"), "ab"),
        (folder / "list.txt", "ba"),
        ([folder / "list.txt", file], "baa"),
        ((path for path in (file, folder)), "aab"),
        ([f"{address}/b.png", content], "ba"),
    ):
        results = net.detect(images, 0.1, batch=2)
        assert [same(found, a if name == "a" else b) for found, name in zip(results, names, strict=True)]
        for found, name in zip(results, names, strict=True):
            assert found.path.endswith(f"{name}.png") or found.path == ""
    assert net.detect(f"{address}/a.png")[0].path == f"{address}/a.png"


def test_the_channel_order_of_arrays_is_in_the_signature(net: Network, folder: Path) -> None:
    bgr = cv2.imread(str(folder / "a.png"))
    (expected,) = net.detect(folder / "a.png", 0.1)
    assert same(net.detect(bgr, 0.1, bgr=True)[0], expected)
    assert same(net.detect([RGB], 0.1, bgr=False)[0], expected)
    assert not same(net.detect(bgr, 0.1)[0], expected)
    for image in (folder / "a.png", (folder / "a.png").read_bytes(), Pil.open(folder / "a.png")):
        assert same(net.detect(image, 0.1, bgr=True)[0], expected)  # these know their order
    assert inspect.signature(Network.detect).parameters["bgr"].default is False
    documentation = inspect.getdoc(Network.detect) or ""
    first = next(line for line in documentation.splitlines() if line.startswith("    "))
    assert "cv2.imread" in first and "bgr=True" in first


def test_other_numbers_of_channels_are_converted_as_those_of_files() -> None:
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    alpha = np.dstack([RGB, np.full((20, 30), 7, np.uint8)])
    assert as_array(gray, 3).tolist() == np.dstack([gray] * 3).tolist()
    assert as_array(gray, 1).shape == (2, 3, 1)
    assert (as_array(alpha, 3) == RGB).all() and (as_array(alpha[:, :, [2, 1, 0, 3]], 3, bgr=True) == RGB).all()
    assert (as_array(alpha[:, :, [2, 1, 0, 3]], 4, bgr=True) == alpha).all()
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 255
    assert as_array(red, 1).item() == as_array(red[:, :, ::-1], 1, bgr=True).item() == 76  # 0.299 · 255


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_modes_of_pil(mode: str) -> None:
    """Gray pixels are the same in every mode; a palette's indices are not taken for colors."""
    value = 255 if mode == "1" else 204
    image = Pil.new("L", (3, 2), value)
    if mode == "I;16":
        image = Pil.fromarray(np.full((2, 3), value * 256 + 99, np.uint16))
    elif mode != "L":
        image = image.convert("RGB").convert(mode) if mode in ("P", "CMYK") else image.convert(mode)
    assert image.mode == mode
    assert (as_array(image, 3) == value).all() and as_array(image, 3).shape == (2, 3, 3)
    assert (as_array(image, 1) == value).all() and as_array(image, 1).shape == (2, 3, 1)


def test_exif_counts_for_bytes_as_for_files(net: Network) -> None:
    stream, exif = io.BytesIO(), Pil.Exif()
    exif[0x0112] = 6
    Pil.fromarray(RGB).save(stream, "png", exif=exif)
    assert as_array(stream.getvalue(), 3).shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (None, "got NoneType"),
        (7, "got int"),
        (np.zeros((4, 4, 3), np.float32), r"got float32 \(4, 4, 3\)"),
        (np.zeros((4, 4, 2), np.uint8), r"got uint8 \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"got uint8 \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
    ],
)
def test_what_is_not_an_image(net: Network, image: object, what: str) -> None:
    with pytest.raises(DarknetError, match=rf"expected a uint8 image \(height, width, 3\), {what}"):
        net.detect(image)  # type: ignore[arg-type]


def test_tensors_and_endless_iterators(net: Network) -> None:
    """uint8 tensors are resized as arrays are; floats of the network's size are taken as they are."""
    image = torch.from_numpy(RGB).permute(2, 0, 1)
    (expected,) = net.detect(RGB, 0.1)
    assert same(net.detect(image, 0.1)[0], expected) and same(net.detect([image], 0.1)[0], expected)
    batch = torch.stack([image, image.flip(2)])
    assert [same(found, expected) for found in net.detect(batch, 0.1, batch=2)] == [True, False]
    ready = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for found, boxes in zip(net.detect(ready, 0.1), net.boxes(ready, 0.1), strict=True):
        assert same(found, boxes) and found.image_size == (32, 32)
    taken = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(1)
            yield RGB

    results = net.detect_each(endless(), 0.1, batch=2)
    assert same(next(results), expected) and same(next(results), expected) and len(taken) == 2
    for wrong, what in (
        (torch.zeros(2, 32, 32), r"a tensor \(3, height, width\), or a batch of such, got \(2, 32, 32\)"),
        (torch.zeros(3, 32, 32, dtype=torch.int64), "a tensor of uint8, or of floats in 0..1, got torch.int64"),
    ):
        with pytest.raises(DarknetError, match=f"expected {what}"):
            net.detect(wrong)


def test_thresholds_of_classes(net: Network) -> None:
    net.names = ["cat", "dog"]
    (every,) = net.detect(RGB, 0.05, nms=0)
    assert set(every.class_ids) == {0, 1}
    median = float(np.median(every.filter("dog").confidences))
    (found,) = net.detect(RGB, 0.05, nms=0, class_thresh={"dog": median})
    assert len(found.filter("cat")) == len(every.filter("cat"))
    assert found.filter("dog").confidences.tolist() == every.filter("dog", median).confidences.tolist()
    (only,) = net.detect(RGB, 1, nms=0, class_thresh={0: 0.05})  # lower than that of the others
    assert only.confidences.tolist() == every.filter(0).confidences.tolist() and len(only) > 0
    net.names = []
    with pytest.raises(DataError, match="class 'dog': expected one of no classes with names"):
        net.detect(RGB, class_thresh={"dog": 0.5})
    with pytest.raises(DarknetError, match="classes from 0 to 1, got 2"):
        net.detect(RGB, class_thresh={2: 0.5})


def test_suppression_across_classes(net: Network) -> None:
    (per_class,) = net.detect(RGB, 0.05)
    (together,) = net.detect(RGB, 0.05, agnostic=True)
    assert 0 < len(together) < len(per_class)
    assert len(set(together.candidate_ids.tolist())) == len(together)  # one class per box
    best = int(per_class.candidate_ids[0])
    assert together[0] == per_class[0] and best == together.candidate_ids[0]


def test_what_cannot_be_read(net: Network, folder: Path, address: str) -> None:
    for source, what in (
        (b"GIF", "<bytes>: unsupported or corrupt image file"),
        (b"", "<bytes>: expected an image, got an empty file"),
        ("none.jpg", "none.jpg: cannot read the image"),
        ("a\0.jpg", "zero byte"),
        ("x" * 5000, "File name too long"),
        (f"{address}/none.png", "404"),
        (f"{address}/list.txt", "unsupported or corrupt"),
        (f"{address}/", "it is a web page"),
    ):
        with pytest.raises(DataError, match=what):
            net.detect(source)
    assert net.detect([]) == []
