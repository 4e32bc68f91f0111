"""Refusals of uploads while the queue is full: which requests, and what the connection does afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

from uvicorn.server import ServerState  # noqa: E402

from darknet_py.serving import server  # noqa: E402
from darknet_py.serving.batching import Batcher  # noqa: E402
from darknet_py.serving.early_refusal import EarlyRefusal  # noqa: E402
from darknet_py.serving.serve_options import ServeOptions  # noqa: E402

BODY = b"x" * 100
HEAD = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    """With a full queue of one place."""
    found = Batcher(SimpleNamespace(), queue_size=1)  # type: ignore[arg-type]  # runs no network
    found.reserve()
    yield found
    found.release()
    found.close()


def early(batcher: Batcher, **options: Any) -> EarlyRefusal:
    return EarlyRefusal(batcher, ServeOptions(max_bytes=1000, **options), lambda *_: None)


def test_a_refusal(batcher: Batcher) -> None:
    refusal = early(batcher).of(HEAD + b"\r\n" + BODY[:7], [(b"date", b"today")])
    assert refusal and (refusal.head, refusal.body, refusal.closes) == (len(HEAD) + 2, 100, False)
    head, _, content = refusal.answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 429 Too Many Requests",
        b"date: today",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(content),
        b"Retry-After: 1",
    ]
    assert json.loads(content) == {"detail": "all 1 places of the queue are taken"}
    batcher.release()
    assert early(batcher).of(HEAD + b"\r\n", []) is None  # there is a place
    batcher.reserve()


@pytest.mark.parametrize(
    ("request_head", "closes", "body"),
    [
        (HEAD, False, 100),
        (HEAD.replace(b"/detect", b"/detect?thresh=0.5&nms=1"), False, 100),
        (HEAD + b"Connection: close\r\n", True, 100),
        (HEAD + b"connection:Keep-Alive\r\n", False, 100),
        (HEAD + b"Expect: 100-continue\r\n", True, 0),  # the body does not come
        (HEAD.replace(b"100", b"1000"), False, 1000),
    ],
)
def test_what_the_connection_does(batcher: Batcher, request_head: bytes, closes: bool, body: int) -> None:
    refusal = early(batcher).of(request_head + b"\r\n", [])
    assert refusal and (refusal.closes, refusal.body) == (closes, body)
    assert (b"Connection: close" in refusal.answer) == closes


@pytest.mark.parametrize(
    "request_head",
    [
        HEAD[:-10],  # not complete
        HEAD.replace(b"POST", b"GET"),
        HEAD.replace(b"/detect", b"/detection"),
        HEAD.replace(b"1.1", b"1.0"),
        HEAD.replace(b"100", b"1001"),  # 413
        HEAD.replace(b"100", b"+10"),
        HEAD.replace(b"100", b"9" * 5000),
        HEAD.replace(b"Content-Length: 100\r\n", b""),
        HEAD + b"Content-Length: 10\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n",
        HEAD + b"Upgrade: websocket\r\n",
        HEAD + b" folded\r\n",
        HEAD + b"no field\r\n",
        HEAD + b"X: y\nZ: a\r\n\x00: b\r\n",
    ],
)
def test_what_the_application_answers(batcher: Batcher, request_head: bytes) -> None:
    end = b"" if request_head == HEAD[:-10] else b"\r\n"
    assert early(batcher).of(request_head + end, []) is None


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        (b"", False),
        (b"Authorization: Bearer wrong\r\n", False),
        (b"Authorization: Basic secret\r\n", False),
        (b"Authorization: secret\r\n", False),
        (b"authorization: bearer  secret\r\n", True),
        (b"Authorization: Bearer secret\r\n", True),
    ],
)
def test_the_token_comes_first(batcher: Batcher, line: bytes, refused: bool) -> None:
    """Without it the application answers, with 401."""
    found = early(batcher, token="secret").of(HEAD + line + b"\r\n", [])
    assert (found is not None) == refused


def test_pages_of_other_origins_get_the_headers_of_the_application(batcher: Batcher) -> None:
    head = HEAD + b"Origin: https://page.example\r\n\r\n"
    assert early(batcher).of(head, []) is not None
    assert early(batcher, origins=["https://page.example"]).of(head, []) is None


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the size of the body."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    content = b"%d bytes" % size
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def connection(
    refusal: EarlyRefusal,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """To a server of `application`."""
    config = uvicorn.Config(application, lifespan="off", log_config=None)
    config.load()
    kind = type("Protocol", (server._Protocol,), {"refusal": refusal})
    state = ServerState()
    serving = await asyncio.get_running_loop().create_server(
        lambda: kind(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*serving.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        serving.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return int(head.split()[1]), await reader.readexactly(int(fields[b"content-length"]))


def test_a_connection_goes_on_after_a_refusal(batcher: Batcher) -> None:
    """In the middle of a stream of requests, whatever parts the bytes come in."""
    counted: list[tuple[str, int]] = []
    refusal = EarlyRefusal(batcher, ServeOptions(), lambda path, code, seconds: counted.append((path, code)))

    async def run() -> None:
        async with connection(refusal) as (reader, writer):
            writer.write(HEAD + b"\r\n")
            assert (await answer(reader))[0] == 429  # before the body
            writer.write(BODY + HEAD + b"\r\n" + BODY[:10])
            assert (await answer(reader))[0] == 429
            batcher.release()
            writer.write(BODY[10:] + HEAD + b"\r\n" + BODY)
            assert await answer(reader) == (200, b"100 bytes")
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await answer(reader) == (200, b"0 bytes")
            batcher.reserve()
            for piece in (HEAD[:20], HEAD[20:] + b"\r\n", BODY):  # a head in parts: the application's
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
            assert await answer(reader) == (200, b"100 bytes")
            writer.write(HEAD + b"Connection: close\r\n\r\n" + BODY[:50])
            assert (await answer(reader))[0] == 429
            writer.write(BODY[50:])
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())
    assert counted == [("/detect", 429)] * 3


def test_a_refused_body_that_does_not_come(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.1)

    async def run() -> None:
        async with connection(early(batcher)) as (reader, writer):
            writer.write(HEAD + b"\r\n" + BODY[:50])
            assert (await answer(reader))[0] == 429
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())
