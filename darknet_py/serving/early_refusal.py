"""Uploads that find the queue full are refused from their heads, before a parser and a task are paid for.

Under overload most requests are refused, so what a refusal costs is missing to the images that are served. Only plain
requests are answered here; the application answers all others, in the same way.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

from darknet_py.serving.batching import Batcher
from darknet_py.serving.serve_options import ServeOptions

DETECT = "/detect"
_REQUEST_LINE = re.compile(rb"POST %b(\?[^ \r\n]*)? HTTP/1\.1\r\n" % DETECT.encode())
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*\r\n")


class EarlyAnswer(NamedTuple):
    """answer: what to send. head, body: bytes of the request. closes: whether the connection ends with it."""

    answer: bytes
    head: int
    body: int
    closes: bool


class EarlyRefusal:
    """Decides from the head of a request whether its upload is refused at once.

    Args:
        batcher: Whose queue may be full.
        options: The token, which comes first, the other origins, and the largest body.
        count: Called after each refusal with path, status and seconds.
    """

    def __init__(self, batcher: Batcher, options: ServeOptions, count: Callable[[str, int, float], None]):
        self._batcher, self._options, self.count = batcher, options, count

    def of(self, data: bytes, headers: Sequence[tuple[bytes, bytes]]) -> EarlyAnswer | None:
        """The refusal of a request, or None where the application is to answer it.

        Args:
            data: The first bytes of the request.
            headers: More headers of the answer.
        """
        if not self._batcher.is_full:
            return None
        line, end = _REQUEST_LINE.match(data), data.find(b"\r\n\r\n")
        if line is None or end < 0:
            return None
        fields = _fields(data[line.end() : end + 2])
        if fields is None or not self._is_plain(fields):
            return None
        # A client that waits for "100 Continue" does not send its body any more.
        waits = b"expect" in fields
        closes = waits or b"close" in fields.get(b"connection", b"").lower()
        body = 0 if waits else int(fields[b"content-length"])
        return EarlyAnswer(self._answer(headers, closes), end + 4, body, closes)

    def _is_plain(self, fields: dict[bytes, bytes]) -> bool:
        """Whether a request has a body of a stated size within the limit, the token, and no CORS."""
        length = fields.get(b"content-length", b"")
        if not length.isdigit() or len(length) > 15 or int(length) > self._options.max_bytes:
            return False
        if b"transfer-encoding" in fields or b"upgrade" in fields or (self._options.origins and b"origin" in fields):
            return False
        scheme, _, token = fields.get(b"authorization", b"").partition(b" ")
        expected = self._options.token.encode()
        return not expected or (scheme.lower() == b"bearer" and secrets.compare_digest(token.strip(), expected))

    def _answer(self, headers: Sequence[tuple[bytes, bytes]], closes: bool) -> bytes:
        content = json.dumps({"detail": str(self._batcher.full())}).encode()
        lines = [
            b"HTTP/1.1 429 Too Many Requests",
            *(b"%b: %b" % header for header in headers),
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(content),
            b"Retry-After: %d" % self._batcher.retry_after,
            *([b"Connection: close"] if closes else []),
        ]
        return b"\r\n".join([*lines, b"", content])


def _fields(head: bytes) -> dict[bytes, bytes] | None:
    """The header fields by their names in lower case; None where one stands twice or is none."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(head):
        field = _FIELD.match(head, at)
        if field is None or (name := field[1].lower()) in fields:
            return None
        fields[name] = field[2]
        at = field.end()
    return fields
