"""Internal addresses that a server must not be led to."""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from darknet_py.data import public_web
from darknet_py.data.image_sources import download
from darknet_py.errors import DataError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # where clouds tell a machine its secrets
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::a00:1",
    ],
)
def test_internal_addresses(address: str) -> None:
    assert not public_web.is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert public_web.is_public(address)


class _Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"http://internal.example:{self.server.server_address[1]}/secret")
        else:
            self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(self.path[:4].encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server here whose name public.example has a public address; a connection to that one comes here."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    addresses = {"public.example": "93.184.216.34", "internal.example": "127.0.0.1", "both.example": "10.0.0.1"}
    real_getaddrinfo, real_connect = socket.getaddrinfo, socket.create_connection

    def resolve(host: str, *rest: Any, **given: Any) -> Any:
        found = real_getaddrinfo(addresses.get(host, host), *rest, **given)
        return found + real_getaddrinfo("8.8.8.8", *rest, **given) if host == "both.example" else found

    def connect(address: tuple[str, int], *rest: Any) -> socket.socket:
        assert address[0] == addresses["public.example"]
        return real_connect(("127.0.0.1", address[1]), *rest)

    monkeypatch.setattr(public_web.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(public_web.socket, "create_connection", connect)
    yield web.server_port
    web.shutdown()
    web.server_close()


def test_only_public_addresses_are_connected_to(port: int) -> None:
    get = functools.partial(download, public_only=True)
    assert get(f"http://public.example:{port}/file") == b"/fil"
    for host, path in (
        ("internal.example", "file"),
        ("both.example", "file"),
        ("127.0.0.1", "file"),
        ("[::1]", "file"),
        ("localhost", "file"),
        ("2130706433", "file"),  # 127.0.0.1 as one number
        ("public.example", "moved"),
    ):
        with pytest.raises(DataError, match="expected a public address, got an internal one"):
            get(f"http://{host}:{port}/{path}")
    with pytest.raises(DataError, match="internal"):
        get(f"https://internal.example:{port}/file")
