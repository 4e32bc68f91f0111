"""Where images come from: paths, folders, globs, lists, web addresses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.data.image_sources import download, find_images, is_url
from darknet_py.errors import DataError

PNG = cv2.imencode(".png", np.arange(60, dtype=np.uint8).reshape(4, 5, 3))[1].tobytes()


class Handler(BaseHTTPRequestHandler):
    """Files, and servers that misbehave."""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/a.png":
                self.answer(PNG)
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "/a.png")
                self.end_headers()
            case "/large":
                self.answer(bytes(1 << 18))
            case "/cut":
                self.answer(PNG, length=len(PNG) + 9)
            case "/silent":
                time.sleep(1)
            case "/trickle":
                self.send_response(200)
                self.end_headers()
                for _ in range(20):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
            case "/file":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            case "/garbage":
                self.wfile.write(b"no HTTP at all\r\n\r\n")
            case _:
                self.send_error(404)

    def answer(self, content: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_download(address: str) -> None:
    assert download(f"{address}/a.png?size=9") == download(f"{address}/moved") == PNG


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/none.png", r"/none.png: cannot download: 404 Not Found"),
        ("/large", "expected at most 1,000 bytes"),
        ("/cut", r"it ended after \d+ of \d+ bytes"),
        ("/silent", "not complete after 0.3 seconds"),
        ("/trickle", "not complete after 0.3 seconds"),
        ("/file", "cannot download: 302"),
        ("/garbage", "cannot download: "),
    ],
)
def test_what_cannot_be_downloaded(address: str, path: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        download(address + path, max_bytes=1000, seconds=0.3)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "http://[::1/a", "http://127.0.0.1:x/", "http:///a", "http://a b/"]
)
def test_addresses_that_lead_nowhere(url: str) -> None:
    assert is_url(url)
    with pytest.raises(DataError, match="cannot download: "):
        download(url, seconds=5)


def test_files_folders_globs_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    names = ["b.png", "a [1].png", "._a.jpg", "c.npy", "c.png", "note.md", "deep/d.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "list.txt").write_text("deep/d.jpg\nb.png\n")
    monkeypatch.chdir(tmp_path)
    assert find_images(["."]) == ["a [1].png", "b.png", "c.png"]
    assert find_images(["a [1].png"]) == ["a [1].png"]  # a file before a glob
    assert find_images(["**/*.jpg", "*.png", "b.png"]) == ["deep/d.jpg", "a [1].png", "b.png", "c.png"]
    assert find_images([tmp_path / "list.txt"]) == ["deep/d.jpg", "b.png"]
    assert find_images(["none.jpg", "https://host/x/*.jpg"]) == ["none.jpg", "https://host/x/*.jpg"]
    for source in ("*.gif", "deep/../deep/none[1].jpg", "none*\0"):
        if "\0" in source:
            assert find_images([source]) == [source]
        else:
            with pytest.raises(DataError, match="expected images, got none"):
                find_images([source])
    with pytest.raises(DataError, match="cannot read the list of images"):
        find_images(["none.txt"])
