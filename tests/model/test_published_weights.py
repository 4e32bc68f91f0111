"""`download`: against a local server that breaks off, knows ranges or not, or has another file."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.errors import DataError
from darknet_py.model import published_weights
from darknet_py.model.layout import arrays
from darknet_py.model.load import read_graph
from darknet_py.model.published_weights import PUBLISHED, PublishedWeights, download_weights

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Web(BaseHTTPRequestHandler):
    """Serves `content` at every path but /none; at most `limit` bytes a request, ranges if it `knows_ranges`."""

    content, limit, knows_ranges, status = CONTENT, 1 << 30, True, 200
    requests: list[tuple[str, str]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.requests.append((self.path, wanted))
        if self.path.startswith("/none") or self.status != 200:
            return self.send_error(self.status if self.status != 200 else 404)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.knows_ranges else 0
        if start > len(self.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : start + self.limit])

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Web, "requests", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def weights(web: str, size: int = len(CONTENT), sha256: str = SHA256, file: str = "a.weights") -> PublishedWeights:
    return PublishedWeights(f"{web}/{file}", size, sha256)


def test_once(web: str, tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(2):
        path = download_weights(weights(web), tmp_path / "new", seen.append)
        assert path == tmp_path / "new" / "a.weights" and path.read_bytes() == CONTENT
    assert Web.requests == [("/a.weights", "")] and seen == sorted(seen) and seen[-1] == len(CONTENT)
    assert [file.name for file in path.parent.iterdir()] == ["a.weights"]


def test_interruptions_go_on_where_they_ended(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Web, "limit", 300_000)
    assert download_weights(weights(web), tmp_path).read_bytes() == CONTENT
    assert Web.requests == [("/a.weights", text) for text in ("", "bytes=300000-", "bytes=600000-", "bytes=900000-")]


def test_a_later_call_goes_on(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.weights.part").write_bytes(CONTENT[:1000])
    monkeypatch.setattr(Web, "limit", 0)
    with pytest.raises(DataError, match="1,000 bytes are kept and not asked for again; without this address: put the"):
        download_weights(weights(web), tmp_path)
    monkeypatch.setattr(Web, "limit", 1 << 30)
    Web.requests.clear()
    assert download_weights(weights(web), tmp_path).read_bytes() == CONTENT
    assert Web.requests == [("/a.weights", "bytes=1000-")]


def test_a_server_without_ranges(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.weights.part").write_bytes(b"x" * 1000)
    monkeypatch.setattr(Web, "knows_ranges", False)
    assert download_weights(weights(web), tmp_path).read_bytes() == CONTENT


def test_another_file(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.weights.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match=f"expected SHA-256 {SHA256}, got [0-9a-f]{{64}}; the file was removed"):
        download_weights(weights(web), tmp_path)
    with pytest.raises(DataError, match="expected 1,000 bytes, got"):
        download_weights(weights(web, 1000), tmp_path)
    (tmp_path / "a.weights.part").write_bytes(CONTENT + b"more")  # begun as a longer file; the server answers 416
    with pytest.raises(DataError, match=r"expected 9,000,000 bytes|the connection ended early"):
        download_weights(weights(web, 9_000_000), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".weights"] == []


def test_no_such_file_and_no_server(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cannot download: 404 Not Found; without this address: put the file at"):
        download_weights(weights(web, file="none.weights"), tmp_path)
    assert len(Web.requests) == 1
    monkeypatch.setattr(Web, "status", 503)
    with pytest.raises(DataError, match="503 Service Unavailable"):
        download_weights(weights(web), tmp_path)
    with pytest.raises(DataError, match=r"cannot download: Connection refused; .* set DARKNET_PY_MIRROR"):
        download_weights(weights("http://127.0.0.1:9"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_from_command_to_load(
    web: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`download`, then `load` and commands by the bare name, from any folder; by a mirror."""
    cfg = tmp_path / "a.cfg"
    cfg.write_text("[net]\nwidth=8\nheight=8\n[convolutional]\nfilters=3\n[softmax]\n")
    torch.manual_seed(0)
    net = darknet_py.load(cfg)
    net.save_weights(tmp_path / "saved.weights")
    content = (tmp_path / "saved.weights").read_bytes()
    monkeypatch.setattr(Web, "content", content)
    entry = PublishedWeights("http://none.invalid/tiny.weights", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(published_weights, "PUBLISHED", {"tiny": entry})
    monkeypatch.setattr("darknet_py.cli.download.PUBLISHED", {"tiny": entry})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DARKNET_PY_MIRROR", f"{web}/mirror/")
    with pytest.raises(darknet_py.WeightsError, match="weights file not found; `darknet-py download tiny`"):
        darknet_py.load(cfg, "tiny.weights")
    assert main(["download", "tiny"]) == 0
    path = tmp_path / "cache" / "darknet_py" / "weights" / "tiny.weights"
    assert capsys.readouterr().out == f"{path}\n" and path.read_bytes() == content
    assert Web.requests == [("/mirror/tiny.weights", "")]
    for name in ("tiny", "tiny.weights"):
        loaded = darknet_py.load(cfg, name)
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), loaded.parameters(), strict=True))
    assert main(["convert", str(cfg), "tiny", str(tmp_path / "a.pt")]) == 0
    assert main(["download"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("downloaded")
    assert main(["download", "tinny"]) == 2
    assert "did you mean 'tiny'?" in capsys.readouterr().err
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("tiny.weights").write_bytes(content[:20] + bytes(len(content) - 20))  # a file of that name comes first
    assert not any(parameter.any() for parameter in darknet_py.load(cfg, "tiny.weights").parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_follow_from_the_cfgs(name: str) -> None:
    """Four bytes a value after a header of 20, as C writes it; of a partial file the layers before the cutoff."""
    cfg, _, cutoff = name.partition(".conv.")
    graph = read_graph(f"{cfg.replace('darknet53', 'yolov3')}.cfg")
    values = sum(prod(array.shape) for _, array in arrays(graph, int(cutoff) if cutoff else None))
    assert PUBLISHED[name].size == 20 + 4 * values
    assert PUBLISHED[name].url.startswith("https://") and len(PUBLISHED[name].sha256) in (0, 64)
