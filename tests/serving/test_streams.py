"""Streams of a video: Darknet's bytes, many readers, and readers that stall; messages to a web server."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.cli.video_streams import VideoStreams
from darknet_py.inference.detections import Detections
from darknet_py.serving import streams
from darknet_py.serving.http_post import HttpPoster, post_message
from darknet_py.serving.listen import listen
from darknet_py.serving.streams import JSON_STREAM, MJPEG_STREAM, StreamFormat, StreamServer, mjpeg_part
from tests.small_detector import CFG

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
# What C's `send_json_custom` sent to a reader for the frames {"frame":0} to {"frame":2} (libdarknet.so, by ctypes).
C_HEAD = (
    b"HTTP/1.0 200 OK\r\nServer: Mozarella/2.2\r\nAccept-Range: bytes\r\nConnection: close\r\nMax-Age: 0\r\n"
    b"Expires: 0\r\nCache-Control: no-cache, private\r\nPragma: no-cache\r\nContent-Type: application/json\r\n\r\n"
)
C_BODY = b'[\n{"frame":0}, \n{"frame":1}, \n{"frame":2}'


class Stream:
    """A server and its readers."""

    def __init__(self, kind: StreamFormat, live: bool = False):
        listening = listen("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        self.server = StreamServer(listening, kind, live)
        self.stack = ExitStack()
        self.expected = 0

    def connect(self, buffer: int | None = None) -> socket.socket:
        reader = self.stack.enter_context(socket.socket())
        if buffer:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        reader.settimeout(30)
        reader.connect(("127.0.0.1", self.port))
        reader.sendall(REQUEST)
        self.expected += 1
        self.wait_for(self.expected)
        return reader

    def wait_for(self, readers: int) -> None:
        end = time.monotonic() + 30
        while self.server.readers != readers:
            assert time.monotonic() < end, f"expected {readers} readers, got {self.server.readers}"
            time.sleep(0.005)


def start(kind: StreamFormat, live: bool = False) -> Iterator[Stream]:
    stream = Stream(kind, live)
    yield stream
    stream.server.close()
    stream.stack.close()


@pytest.fixture
def json_stream() -> Iterator[Stream]:
    yield from start(JSON_STREAM)


@pytest.fixture
def live_stream() -> Iterator[Stream]:
    yield from start(StreamFormat("text/plain"), live=True)


def read_all(reader: socket.socket) -> bytes:
    with reader.makefile("rb") as file:
        return file.read()


def test_the_bytes_of_c(json_stream: Stream) -> None:
    json_stream.server.send(b"{}")  # nobody listens yet
    first = json_stream.connect()
    for number in range(2):
        json_stream.server.send(b'{"frame":%d}' % number)
    second = json_stream.connect()
    json_stream.server.send(b'{"frame":2}')
    json_stream.server.close()
    json_stream.server.close = lambda: None  # type: ignore[method-assign]
    head, _, body = read_all(first).partition(b"\r\n\r\n")
    assert re.sub(rb"Server: .+?\r", b"", head + b"\r\n\r\n") == re.sub(rb"Server: .+?\r", b"", C_HEAD)
    assert body == C_BODY + b"\n]" and [entry["frame"] for entry in json.loads(body)] == [0, 1, 2]
    assert read_all(second).endswith(b'\r\n\r\n[\n{"frame":2}\n]')


def test_mjpeg_parts() -> None:
    assert mjpeg_part(b"12345") == b"--mjpegstream\r\nContent-Type: image/jpeg\r\nContent-Length: 5\r\n\r\n12345"
    assert b"multipart/x-mixed-replace; boundary=mjpegstream\r\n\r\n" in MJPEG_STREAM.head


@pytest.mark.parametrize("live", [False, True])
def test_a_stalled_reader_is_dropped_and_others_lose_nothing(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_BUFFER", 100_000)
    monkeypatch.setattr(streams, "_STALL_SECONDS", 0.5)
    items = [b"%07d " % number * 4000 for number in range(100)]  # 3.2 MB
    for stream in start(StreamFormat("text/plain"), live):
        healthy = [stream.connect() for _ in range(3)]
        stalled = stream.connect(buffer=4096)
        received: list[bytes] = []

        def read(reader: socket.socket, received: list[bytes] = received) -> None:
            received.append(read_all(reader))

        threads = [threading.Thread(target=read, args=(reader,)) for reader in healthy]
        for thread in threads:
            thread.start()
        for item in items:
            stream.server.send(item)
            time.sleep(0.005 if live else 0)
        stream.wait_for(3)
        with pytest.raises(ConnectionError):
            while stalled.recv(1 << 16):
                pass
            raise ConnectionError  # closed in order
        stream.server.close()
        stream.server.close = lambda: None  # type: ignore[method-assign]
        for thread in threads:
            thread.join(30)
        assert [data.partition(b"\r\n\r\n")[2] for data in received] == [b"".join(items)] * 3


def test_a_reader_that_stalls_between_few_items_is_closed(live_stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_STALL_SECONDS", 0.3)
    live_stream.connect(buffer=4096)
    live_stream.server.send(bytes(4 << 20))  # below the limit of what may wait
    live_stream.wait_for(0)


def test_clients_without_a_request_and_too_many(live_stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(streams, "MAX_READERS", 1)
    silent = live_stream.stack.enter_context(socket.create_connection(("127.0.0.1", live_stream.port), timeout=30))
    endless = live_stream.stack.enter_context(socket.create_connection(("127.0.0.1", live_stream.port), timeout=30))
    with pytest.raises(ConnectionError):
        while True:
            endless.sendall(b"x" * 10_000)
    with suppress(ConnectionError):
        assert silent.recv(1) == b""
    live_stream.connect()
    further = live_stream.stack.enter_context(socket.create_connection(("127.0.0.1", live_stream.port), timeout=30))
    further.sendall(REQUEST)
    assert read_all(further).startswith(b"HTTP/1.0 503")


def found(rows: list[tuple[int, int]]) -> Detections:
    """Detections of these (candidate, class)."""
    count = len(rows)
    return Detections(
        np.full((count, 4), 0.5, np.float32),
        np.array([class_id for _, class_id in rows], np.int64),
        np.full(count, 0.9, np.float32),
        ["person", "dog", "cat"],
        candidate_ids=np.array([candidate for candidate, _ in rows], np.int64),
    )


def test_the_message_of_c() -> None:
    """`send_http_post_request`: NAME, id: ID of the first class of each box; strftime's "%A %F %T"."""
    moment = time.strptime("2021-03-04 05:06:07", "%Y-%m-%d %H:%M:%S")
    expected = "dog, id: 1\nperson, id: 0\n\ntime:\nThursday 2021-03-04 05:06:07\nvideosource:\nfilm.mp4"
    assert post_message(found([(7, 2), (7, 1), (3, 0)]), "film.mp4", moment) == expected
    assert post_message(found([]), "film.mp4", moment) == ""


class Recorder(BaseHTTPRequestHandler):
    posts: list[tuple[str, str, bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posts.append((self.path, self.headers["Content-Type"], body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def web() -> Iterator[HTTPServer]:
    Recorder.posts = []
    server = HTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_messages_are_posted(web: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    for once, expected in ((False, 3), (True, 1)):
        Recorder.posts.clear()
        poster = HttpPoster(f"127.0.0.1:{web.server_port}/hook", once)
        for number in range(3):
            poster.send("")
            poster.send(f"message {number}")
        poster.close()
        assert Recorder.posts == [("/hook", "text/plain", b"message %d" % number) for number in range(expected)]
    assert not caplog.records
    poster = HttpPoster("127.0.0.1:9/none")
    poster.send("message")
    poster.close()
    assert "cannot post" in caplog.text and "1 message failed" in caplog.text


def test_darknets_flags(web: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`detector demo` with -json_port, -mjpeg_port and -http_post_host, while readers are there."""
    (tmp_path / "a.cfg").write_text(CFG)
    (tmp_path / "a.names").write_text("apple\npear\n")
    (tmp_path / "a.data").write_text(f"classes=2\nnames={tmp_path}/a.names\n")
    torch.manual_seed(0)
    net = darknet_py.load(tmp_path / "a.cfg")
    net.save_weights(tmp_path / "a.weights")
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))  # type: ignore[attr-defined]
    for number in range(4):
        writer.write(np.full((48, 64, 3), 60 * number, np.uint8))
    writer.release()
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    received: dict[int, bytes] = {}

    def read(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as reader:
            reader.sendall(REQUEST)
            received[port] = read_all(reader)

    def enter(self: VideoStreams) -> VideoStreams:
        threads.extend(threading.Thread(target=read, args=(port,)) for port in ports)
        for thread in threads:
            thread.start()
        while not (self.needs_image and self._json and self._json.readers):
            time.sleep(0.005)
        return self

    threads: list[threading.Thread] = []
    monkeypatch.setattr(VideoStreams, "__enter__", enter)
    files = [str(tmp_path / name) for name in ("a.data", "a.cfg", "a.weights", "in.avi")]
    flags = ["-json_port", str(ports[0]), "-mjpeg_port", str(ports[1])]
    post = ["-http_post_host", f"127.0.0.1:{web.server_port}/hook"]
    assert main(["detector", "demo", *files, "-dont_show", "-thresh", "0.2", *flags, *post]) == 0
    for thread in threads:
        thread.join(30)
    entries = json.loads(received[ports[0]].partition(b"\r\n\r\n")[2])
    assert [entry["frame_id"] for entry in entries] == [1, 2, 3, 4]
    assert any(entry["objects"] for entry in entries)
    body = received[ports[1]].partition(b"\r\n\r\n")[2]
    frames = body.split(b"--mjpegstream\r\nContent-Type: image/jpeg\r\nContent-Length: ")[1:]
    assert len(frames) == 4
    for frame in frames:
        length, _, jpeg = frame.partition(b"\r\n\r\n")
        assert int(length) == len(jpeg)
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
    assert len(Recorder.posts) == sum(bool(entry["objects"]) for entry in entries)
    assert Recorder.posts[0][2].endswith(b"videosource:\n" + files[3].encode())
