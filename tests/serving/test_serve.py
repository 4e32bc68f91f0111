"""`serve`: the REST API, its limits, and the process itself."""

from __future__ import annotations

import functools
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.inference.detect import DetectOptions, detect_prepared
from tests.small_detector import CFG

fastapi = pytest.importorskip("fastapi")
with warnings.catch_warnings():  # newer versions of starlette would rather have httpx2
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

from darknet_py.serving.app import PATHS, DetectAnswer, create_app  # noqa: E402
from darknet_py.serving.batching import Batcher  # noqa: E402
from darknet_py.serving.metrics import Metrics  # noqa: E402
from darknet_py.serving.serve_options import ServeOptions  # noqa: E402

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
PNG = cv2.imencode(".png", IMAGE[:, :, ::-1])[1].tobytes()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 20))), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "a.cfg").write_text(CFG)
    torch.manual_seed(0)
    darknet_py.load(folder / "a.cfg").save_weights(folder / "a.weights")
    return str(folder / "a.cfg"), str(folder / "a.weights")


@pytest.fixture(scope="module")
def net(files: tuple[str, str]) -> darknet_py.Network:
    return darknet_py.load(*files, names=["apple", "dont_show_b"])


class Service:
    """An application with its batcher and a client."""

    def __init__(self, net: Any, defaults: DetectOptions | None = None, queue_size: int = 8, **options: Any):
        self.batcher = Batcher(net, queue_size=queue_size, on_batch=lambda *batch: self.metrics.count_batch(*batch))
        self.metrics = Metrics(PATHS, lambda: self.batcher.taken)
        given = ServeOptions(**options)
        self.app = create_app(net, self.batcher, "a.cfg", defaults or DetectOptions(0.2), given, self.metrics)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def detect(self, **arguments: Any) -> httpx.Response:
        response: httpx.Response = self.client.post("/detect", **arguments)
        return response


@pytest.fixture
def serving(net: darknet_py.Network) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def make(**options: Any) -> Service:
        services.append(Service(net, **options))
        return services[-1]

    yield make
    for service in services:
        service.batcher.close()


def test_a_form_and_raw_bytes_give_what_detect_gives(serving: Callable[..., Service], net: darknet_py.Network) -> None:
    service = serving()
    form = service.detect(files={"image": ("photo.png", PNG, "image/png")}, data={"note": "ignored"})
    raw = service.detect(content=PNG, headers={"Content-Type": "image/png"})
    assert form.status_code == raw.status_code == 200
    assert form.json() == {**raw.json(), "path": "photo.png"}
    (expected,) = net.detect(IMAGE, 0.2)
    visible = expected.visible()
    assert 0 < len(visible) < len(expected)
    answer = DetectAnswer.model_validate(raw.json(), extra="forbid")
    assert (answer.width, answer.height) == (64, 48)
    np.testing.assert_allclose([found.box for found in answer.detections], visible.boxes, atol=1e-6)
    np.testing.assert_allclose([found.xyxy for found in answer.detections], visible.xyxy, atol=1e-4)
    np.testing.assert_allclose([found.confidence for found in answer.detections], visible.confidences, atol=1e-6)
    assert {(found.class_id, found.name) for found in answer.detections} == {(0, "apple")}


def test_thresholds_of_a_request(serving: Callable[..., Service], net: darknet_py.Network) -> None:
    service = serving()
    for thresh, nms in ((0.1, 0.45), (0.5, 0.45), (0.1, 0)):
        answer = service.detect(content=PNG, params={"thresh": thresh, "nms": nms}).json()
        (expected,) = net.detect(IMAGE, thresh, nms)
        assert [found["confidence"] for found in answer["detections"]] == pytest.approx(
            expected.visible().confidences.tolist(), abs=1e-6
        )
    for wrong in ({"thresh": "nan"}, {"thresh": 2}, {"nms": -1}, {"thresh": "high"}):
        assert service.detect(content=PNG, params=wrong).status_code == 422


@pytest.mark.reference
@pytest.mark.parametrize("photo", ["dog", "horses", "person"])
def test_boxes_of_c(reference: Path, serving: Callable[..., Service], photo: str) -> None:
    """Images of the network's size: class, confidence, box of C's command, within 1e-4 (float32 in another order)."""
    real = reference / "real"
    net = darknet_py.load(real / "yolo-fastest-1.1.cfg", real / "yolo-fastest-1.1.weights")
    service = Service(net, DetectOptions(0.2))
    answer = service.detect(content=(real / f"{photo}_320x320.png").read_bytes()).json()
    service.batcher.close()
    expected = sorted(json.loads((real / "boxes.json").read_text())["yolo-fastest-1.1"]["boxes"][photo])
    got = sorted([found["class_id"], found["confidence"], *found["box"]] for found in answer["detections"])
    np.testing.assert_allclose(got, [row[:6] for row in expected], atol=1e-4)


def test_a_full_queue_and_an_end(serving: Callable[..., Service]) -> None:
    service = serving(queue_size=1)
    service.batcher.reserve()
    full = service.detect(content=PNG)
    assert full.status_code == 429 and int(full.headers["Retry-After"]) >= 1
    service.batcher.release()
    assert service.detect(content=b"not an image").status_code == 400  # gives its place back
    assert service.detect(content=PNG).status_code == 200
    assert service.client.get("/ready").status_code == 200
    service.batcher.stop_taking()
    ending = service.detect(content=PNG)
    assert ending.status_code == 503 and "shutting down" in ending.json()["detail"]
    assert service.client.get("/ready").status_code == 503 and service.client.get("/health").status_code == 200


def test_what_is_sent_to_a_full_queue_is_dropped(serving: Callable[..., Service]) -> None:
    """Before anything is done with it; a body beyond the limit is not read to its end."""
    service = serving(queue_size=1, max_bytes=20_000, origins=["https://page.example"])
    service.batcher.reserve()

    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1000)

    full = service.detect(content=body(), headers={"Origin": "https://page.example"})
    assert full.status_code == 429 and "all 1 places" in full.json()["detail"]
    assert full.headers["Access-Control-Allow-Origin"] == "https://page.example"
    assert service.detect(content=b"not an image").status_code == 429
    service.batcher.release()
    assert service.detect(content=PNG).status_code == 200


def test_the_token_comes_before_the_queue(serving: Callable[..., Service]) -> None:
    service = serving(queue_size=1, token="secret")
    service.batcher.reserve()
    assert service.detect(content=PNG).status_code == 401
    assert service.detect(content=PNG, headers={"Authorization": "Bearer secret"}).status_code == 429
    service.batcher.release()


def test_no_answer_in_time(
    serving: Callable[..., Service], net: darknet_py.Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any) -> list[darknet_py.Detections]:
        time.sleep(0.5)
        return detect_prepared(*arguments)

    monkeypatch.setattr("darknet_py.serving.batching.detect_prepared", slow)
    late = serving(seconds=0.05).detect(content=PNG)
    assert late.status_code == 503 and "Retry-After" in late.headers


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        ({"content": b""}, 400, "empty"),
        ({"content": b"<html>"}, 400, "web page"),
        ({"content": PNG[: len(PNG) // 2]}, 400, "corrupt|cut off"),
        ({"content": png_of_size(10_000, 10_000)}, 413, "at most 50,000,000 pixels, got 10000 x 10000"),
        ({"content": bytes(300_001)}, 413, "at most 300,000 bytes"),
        ({"content": iter([bytes(200_000)] * 2)}, 413, "at most 300,000 bytes"),
        ({"json": {"url": "http://localhost/a.png"}}, 403, "--allow-urls"),
        ({"data": {"image": "text"}, "files": {"": ("", b"")}}, 400, "form|file"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "form"),
        ({"content": b"--b\r\nX", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "form|file"),
        ({"files": [("a", ("a", PNG)), ("b", ("b", PNG))]}, 400, "files"),
        ({"data": {f"f{k}": "x" for k in range(50)}, "files": {"a": ("a", PNG)}}, 400, "fields"),
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_used(
    serving: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], code: int, what: str
) -> None:
    monkeypatch.setenv("DARKNET_PY_MAX_PIXELS", "50000000")
    service = serving(max_bytes=300_000)
    response = service.detect(**arguments)
    assert response.status_code == code and re.search(what, response.json()["detail"]), response.text
    assert service.batcher.taken == 0 and service.detect(content=PNG).status_code == 200


def test_wrong_methods_and_paths(serving: Callable[..., Service]) -> None:
    client = serving().client
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        response = client.request(method, "/detect")
        assert response.status_code == 405 and response.headers["Allow"] == "POST"
    assert client.post("/health").status_code == 405
    for path in ("/none", "/page.css/../../app.py", "/docs", "/redoc"):
        assert client.get(path).status_code == 404


def test_uploads_share_a_bounded_memory(serving: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darknet_py.serving.app._BUFFERED", 1)
    service = serving(max_bytes=20_000)
    assert service.detect(content=PNG).status_code == 200

    def body() -> Iterator[bytes]:
        yield PNG[:9000]

    assert service.detect(content=body()).status_code == 400  # cut off; what was buffered no longer counts
    for _ in range(3):
        assert service.detect(content=PNG).status_code == 200


def test_token_and_cors(serving: Callable[..., Service]) -> None:
    service = serving(token="secret", origins=["https://page.example"])
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        refused = service.detect(content=PNG, headers=headers)
        assert refused.status_code == 401 and refused.headers["WWW-Authenticate"] == "Bearer"
    assert service.client.get("/metrics").status_code == service.client.get("/model").status_code == 401
    known = {"Authorization": "Bearer secret", "Origin": "https://page.example"}
    allowed = service.detect(content=PNG, headers=known)
    assert allowed.status_code == 200 and allowed.headers["Access-Control-Allow-Origin"] == "https://page.example"
    other = service.detect(content=PNG, headers={**known, "Origin": "https://other.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    for path in ("/", "/health", "/ready"):
        assert service.client.get(path).status_code == 200


def test_images_by_address(serving: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    web = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        service = serving(allow_urls=True, internal_urls=True)
        url = f"http://127.0.0.1:{web.server_port}/a.png"
        answer = service.detect(json={"url": url})
        assert answer.status_code == 200 and answer.json()["path"] == url
        for wrong in ({"url": f"{url}.none"}, {"url": "file:///etc/passwd"}, {"url": 1}, {}, []):
            assert service.detect(json=wrong).status_code == 400
        refused = serving(allow_urls=True).detect(json={"url": url})
        assert refused.status_code == 400 and "expected a public address" in refused.json()["detail"]
    finally:
        web.shutdown()
        web.server_close()


def test_metrics_and_description(serving: Callable[..., Service]) -> None:
    service = serving()
    service.detect(content=PNG)
    service.client.get("/none")
    text = service.client.get("/metrics").text
    for line in (
        'darknet_requests_total{code="200",path="/detect"} 1.0',
        'darknet_requests_total{code="404",path="other"} 1.0',
        "darknet_batch_images_sum 1.0",
        "darknet_queue_images 0.0",
    ):
        assert line in text.splitlines()
    assert set(service.client.get("/openapi.json").json()["paths"]) == set(PATHS) - {"/"}
    assert service.client.get("/model").json()["classes"] == ["apple", "dont_show_b"]


def test_the_page_needs_nothing_from_elsewhere(serving: Callable[..., Service]) -> None:
    client = serving().client
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        response = client.get(path)
        assert response.headers["Content-Type"].startswith(kind)
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", response.text) == []


@contextmanager
def process(files: tuple[str, str], *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`serve` as a process of its own, with its port."""
    command = [sys.executable, "-m", "darknet_py", "serve", files[0], "--weights", files[1], "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stderr
            line = next(line for line in started.stderr if "serving" in line)
            yield started, int(re.findall(r":(\d+)/", line)[0])
        finally:
            started.kill()


@pytest.mark.slow
def test_a_signal_ends_it_when_all_is_answered(files: tuple[str, str]) -> None:
    with process(files, "--batch", "1") as (started, port), ExitStack() as stack:
        request = f"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: {len(PNG)}\r\n\r\n".encode() + PNG
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(20)]
        for client in clients:
            client.sendall(request)
        time.sleep(0.2)
        started.send_signal(signal.SIGTERM)
        heads = [stack.enter_context(client.makefile("rb")).readline() for client in clients]
        assert set(heads) <= {b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 Service Unavailable\r\n"}
        assert started.wait(30) == 0
        assert started.stdout and started.stdout.read().startswith("stopped; ")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


@pytest.mark.slow
def test_heads_and_bodies_that_trickle_in(files: tuple[str, str]) -> None:
    with process(files, "--timeout", "1") as (_, port), ExitStack() as stack:
        connections = (socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(2))
        head, body = (stack.enter_context(connection) for connection in connections)
        head.sendall(b"GET /health HTTP/1.1\r\n")
        body.sendall(b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        begin = time.monotonic()
        answered = b""
        head.settimeout(0.2)
        while time.monotonic() < begin + 30:
            try:
                head.sendall(b"X: y\r\n")
                if answered := head.recv(1000):
                    break
            except TimeoutError:
                continue
        assert answered.startswith(b"HTTP/1.1 408") and time.monotonic() - begin < 20
        assert body.recv(1000).startswith(b"HTTP/1.1 408 Request Timeout")
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_an_address_that_is_taken(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", files[0], "--weights", files[1], "--port", str(port)]) == 1
    assert f"cannot listen at 127.0.0.1 port {port}: Address already in use" in capsys.readouterr().err
    assert main(["serve", files[0], "--port", "65536"]) == 2
    assert main(["serve", files[0], "--weights", files[1], "--tiles", "64"]) == 2


def test_without_its_packages(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", files[0], "--weights", files[1]]) == 1
    expected = "darknet-py serve needs the package 'fastapi': pip install 'darknet-torch[serve]'"
    assert expected in capsys.readouterr().err
