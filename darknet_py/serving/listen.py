"""Sockets that listen."""

from __future__ import annotations

import socket

from darknet_py.errors import DarknetError

_BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address. Raises DarknetError where that is not possible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DarknetError(f"cannot listen at {host} port {port}: {reason}") from None
