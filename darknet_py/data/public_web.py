"""Downloads from public addresses alone, for servers whose clients name what is downloaded."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import urllib.request

from darknet_py.errors import DataError

_EMBEDDED_IPV4 = ipaddress.ip_network("64:ff9b::/96")  # NAT64


def public_opener() -> urllib.request.OpenerDirector:
    """Opens http:// and https:// addresses of public hosts, each of them after a redirect too; without proxies.

    The address that is checked is the one that is connected to, so a name that is resolved differently the next time
    gains nothing. Opening others raises DataError.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        _PublicHttpHandler(),
        _PublicHttpsHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: not loopback, private, link-local, multicast or reserved."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _EMBEDDED_IPV4:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class _PublicConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not all(map(is_public, addresses)):
            raise DataError(f"{self.host}: expected a public address, got an internal one")
        self.sock = socket.create_connection((addresses[0], self.port), self.timeout)


class _PublicTlsConnection(http.client.HTTPSConnection, _PublicConnection):
    """`HTTPSConnection.connect` connects by the class after it, then checks the certificate for the host's name."""


class _PublicHttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicConnection, req)


class _PublicHttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicTlsConnection, req, context=ssl.create_default_context())
