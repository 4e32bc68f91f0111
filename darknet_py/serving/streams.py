"""Streams for many readers over HTTP: Darknet's `-json_port` and `-mjpeg_port` (`JSON_sender`, `MJPG_sender`)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from typing import NamedTuple

MAX_READERS = 64
_BUFFER = 8 << 20  # bytes that a reader may be behind
_SEND_BUFFER = 1 << 18  # of the system, whose own is larger and grows
_REQUEST_SECONDS = 5.0  # for the head of a request
_STALL_SECONDS = 5.0  # without progress of a reader that has something to read
_C_TIMEOUT = 0.4  # seconds that `demo` waits for a reader
_HEAD = """HTTP/1.0 200 OK
Server: darknet_py
Accept-Range: bytes
Connection: close
Max-Age: 0
Expires: 0
Cache-Control: no-cache, private
Pragma: no-cache
Content-Type: {}

"""
_TOO_MANY = b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class StreamFormat(NamedTuple):
    """What readers get: the head, `opening`, the items with `between` them, and `closing`."""

    content_type: str
    opening: bytes = b""
    between: bytes = b""
    closing: bytes = b""

    @property
    def head(self) -> bytes:
        """The head of the answer."""
        return _HEAD.format(self.content_type).replace("\n", "\r\n").encode()


JSON_STREAM = StreamFormat("application/json", b"[\n", b", \n", b"\n]")
MJPEG_STREAM = StreamFormat("multipart/x-mixed-replace; boundary=mjpegstream")


def mjpeg_part(jpeg: bytes) -> bytes:
    """An item of `MJPEG_STREAM`."""
    head = f"--mjpegstream\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg


class _Reader:
    """A client: what it has not been sent yet."""

    def __init__(self, writer: asyncio.StreamWriter):
        self.writer = writer
        self.items: deque[bytes] = deque()
        self.size = 0
        self.news = asyncio.Event()
        self.started = False

    def put(self, item: bytes) -> None:
        self.items.append(item)
        self.size += len(item)
        self.news.set()

    def drop(self) -> None:
        """Closes the connection at once, whatever was not sent."""
        self.writer.transport.abort()


class StreamServer:
    """Sends items to all readers of a port, from a thread of its own. A reader gets those after its request.

    A reader that is too far behind, or that stalls, is dropped; others lose nothing. `send` waits for readers that are
    behind, as C does, unless the source is live: then other readers would miss frames.

    Args:
        listening: The socket; it is closed.
        kind: What readers get.
        live: Whether `send` never waits.
    """

    def __init__(self, listening: socket.socket, kind: StreamFormat, live: bool = False):
        self._listening, self._kind = listening, kind
        self._patience = 0.0 if live else _C_TIMEOUT
        self._readers: set[_Reader] = set()
        self._clients: set[asyncio.Task[None]] = set()
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._accepts = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()
        self._accepts.wait()

    @property
    def readers(self) -> int:
        """Number of readers at the moment."""
        return len(self._readers)

    def send(self, item: bytes) -> None:
        """Hands an item to all readers."""
        if self._readers:
            asyncio.run_coroutine_threadsafe(self._send(item), self._loop).result()

    def close(self) -> None:
        """Ends the stream: readers get what is left and the closing text, as long as they make progress."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._accept, sock=self._listening))
        self._accepts.set()
        self._loop.run_forever()

    async def _send(self, item: bytes) -> None:
        end = time.monotonic() + self._patience
        while any(reader.size > _BUFFER for reader in self._readers) and time.monotonic() < end:
            await asyncio.sleep(0.005)
        for reader in list(self._readers):
            if reader.size > _BUFFER:
                self._readers.discard(reader)
                reader.drop()
            else:
                reader.put(self._kind.between + item if reader.started else item)
                reader.started = True

    async def _close(self) -> None:
        self._server.close()
        self._closing = True
        for reader in self._readers:
            reader.news.set()
        if self._clients:
            await asyncio.wait(self._clients, timeout=2 * _STALL_SECONDS)
        for reader in list(self._readers):
            reader.drop()

    async def _accept(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._clients.add(task)
        try:
            await self._serve(stream, _Reader(writer))
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, stream: asyncio.StreamReader, reader: _Reader) -> None:
        await asyncio.wait_for(stream.readuntil(b"\r\n\r\n"), _REQUEST_SECONDS)
        if len(self._readers) >= MAX_READERS:
            reader.writer.write(_TOO_MANY)
            return
        reader.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        reader.writer.write(self._kind.head + self._kind.opening)
        self._readers.add(reader)
        try:
            while not self._closing or reader.items:
                await reader.news.wait()
                reader.news.clear()
                while reader.items:
                    item = reader.items.popleft()
                    reader.writer.write(item)
                    await asyncio.wait_for(reader.writer.drain(), _STALL_SECONDS)
                    reader.size -= len(item)
            reader.writer.write(self._kind.closing)
            await asyncio.wait_for(reader.writer.drain(), _STALL_SECONDS)
        finally:
            self._readers.discard(reader)
