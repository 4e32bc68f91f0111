"""The REST API and the web page: an ASGI application by FastAPI (extra `serve`)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, Security
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from darknet_py import __version__
from darknet_py.counted import counted
from darknet_py.data.image_header import image_header
from darknet_py.data.image_sources import download, is_url
from darknet_py.data.images import decode_image, max_pixels
from darknet_py.errors import DataError
from darknet_py.inference.detect import DetectionNetwork, DetectOptions
from darknet_py.inference.detections import Detections
from darknet_py.serving.batching import Batcher, QueueFull, ShuttingDown
from darknet_py.serving.early_refusal import DETECT
from darknet_py.serving.metrics import Metrics
from darknet_py.serving.serve_options import ServeOptions

PATHS = "/", DETECT, "/model", "/metrics", "/health", "/ready"
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_THRESH = Query(ge=0, le=1, description="minimum confidence")
_NMS = Query(ge=0, le=1, description="IoU threshold for non-maximum suppression")
_BEARER = HTTPBearer(auto_error=False)
_BUFFERED = 16  # uploads of the largest size that are in memory at the same time
_FORM_FIELDS = 8


class DetectedObject(BaseModel):
    """A class of a box."""

    class_id: int
    name: str
    confidence: float
    box: list[float] = Field(description="center x, center y, width, height, relative to the image")
    xyxy: list[float] = Field(description="left, top, right, bottom, in pixels")


class DetectAnswer(BaseModel):
    """The detections of an image, by falling confidence."""

    path: str = Field(description="the file name or address that was sent, or nothing")
    width: int
    height: int
    detections: list[DetectedObject]


class ModelInfo(BaseModel):
    """What the page needs to know."""

    name: str
    classes: list[str]
    thresh: float
    nms: float
    max_bytes: int
    max_pixels: int


class UrlRequest(BaseModel):
    """An image by its web address."""

    url: str


class Status(BaseModel):
    """How the server is."""

    status: str


class Refusal(BaseModel):
    """Why there is no answer."""

    detail: str


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}}
            },
        },
    }
}
_REFUSALS = {
    400: "The body has no image that can be read.",
    401: "The token is missing or wrong.",
    403: "Images by web address are not allowed here.",
    408: "The upload took too long.",
    413: "The body or the image is too large.",
    429: "The queue is full; try again after Retry-After seconds.",
    503: "The server is shutting down, or there was no answer in time.",
}


def create_app(
    net: DetectionNetwork, batcher: Batcher, name: str, defaults: DetectOptions, options: ServeOptions, metrics: Metrics
) -> ASGIApp:
    """The application.

    Args:
        net: The network of the batcher.
        batcher: Runs it.
        name: Of the model, for the page.
        defaults: How images are read, and the thresholds of requests that name none.
        options: Limits and rights.
        metrics: Counts the requests.
    """
    app = FastAPI(
        title="darknet_py",
        version=__version__,
        description=f"Object detection by {name}.",
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
    )
    protected = [Depends(_token_check(options.token))] if options.token else []
    uploads = Uploads(options)
    decoders = ThreadPoolExecutor(options.decoders, "decode")

    @app.post(
        DETECT,
        response_model=DetectAnswer,
        responses={code: {"model": Refusal, "description": text} for code, text in _REFUSALS.items()},
        openapi_extra=_BODY,
        dependencies=protected,
    )
    async def detect(
        request: Request,
        thresh: Annotated[float, _THRESH] = defaults.thresh,
        nms: Annotated[float, _NMS] = defaults.nms,
    ) -> JSONResponse:
        """Detects objects in one image: a multipart form, the bytes of an image file, or its web address in JSON."""
        own = replace(defaults, thresh=thresh, nms=nms)
        try:
            if batcher.is_full:
                await uploads.drop(request)
                raise batcher.full()
            async with uploads.image(request) as (source, data):
                batcher.reserve()
                submit = partial(_submit, batcher, source, data, net.graph.net.channels, own)
                answer = await asyncio.get_running_loop().run_in_executor(decoders, submit)
            found = await asyncio.wait_for(asyncio.wrap_future(answer), options.seconds)
        except DataError as error:
            raise HTTPException(400, str(error)) from None
        except QueueFull as error:
            raise HTTPException(429, str(error), {"Retry-After": str(batcher.retry_after)}) from None
        except ShuttingDown as error:
            raise HTTPException(503, str(error), {"Retry-After": str(batcher.retry_after)}) from None
        except asyncio.TimeoutError:
            text = f"no answer within {counted(options.seconds, 'second', 'g')}"
            raise HTTPException(503, text, {"Retry-After": str(batcher.retry_after)}) from None
        return JSONResponse(replace(found.visible(), path=source).to_dict())

    @app.get("/model", dependencies=protected)
    async def model() -> ModelInfo:
        """The network's classes and the limits of this server."""
        return ModelInfo(
            name=name,
            classes=list(net.names),
            thresh=defaults.thresh,
            nms=defaults.nms,
            max_bytes=options.max_bytes,
            max_pixels=max_pixels(),
        )

    @app.get("/metrics", dependencies=protected, response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Requests, batches, queue and memory, in Prometheus's text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/health")
    async def health() -> Status:
        """Whether the process answers."""
        return Status(status="ok")

    @app.get("/ready", responses={503: {"model": Status}})
    async def ready(response: Response) -> Status:
        """Whether images are taken: not while the server shuts down."""
        response.status_code = 503 if batcher.is_closing else 200
        return Status(status="shutting down" if batcher.is_closing else "ok")

    for path, (file, media_type) in _PAGE.items():
        content = Path(__file__).with_name("page").joinpath(file).read_bytes()
        page = Response(content, media_type=media_type, headers=_PAGE_HEADERS)
        app.add_api_route(path, partial(_as_it_is, page), include_in_schema=False, response_class=Response)
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return metrics.measured(app)


class Uploads:
    """Reads the images that clients send, within limits of size, time and memory."""

    def __init__(self, options: ServeOptions):
        self._options = options
        self._buffered = 0

    async def drop(self, request: Request) -> None:
        """Reads a body within the limits and forgets it.

        Closing a connection before its end would take the answer away from many clients.
        """
        size = 0

        async def read() -> None:
            nonlocal size
            async for chunk in request.stream():
                size += len(chunk)
                if size > self._options.max_bytes:
                    return

        with suppress(asyncio.TimeoutError, ClientDisconnect):
            await asyncio.wait_for(read(), self._options.seconds)

    @asynccontextmanager
    async def image(self, request: Request) -> AsyncIterator[tuple[str, bytes]]:
        """The name and the content of a request's image, which count as buffered within the context.

        Raises HTTPException, DataError.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json" and not self._options.allow_urls:
            raise HTTPException(403, "images by web address are not allowed here (--allow-urls); send the image itself")
        try:
            with self._buffer() as add:
                try:
                    body = await asyncio.wait_for(self._body(request, add), self._options.seconds)
                except asyncio.TimeoutError:
                    text = f"the upload was not complete after {counted(self._options.seconds, 'second', 'g')}"
                    raise HTTPException(408, text, {"Connection": "close"}) from None
                if kind == "multipart/form-data":
                    source, data = await _image_of_form(request, body)
                elif kind == "application/json":
                    add(self._options.max_bytes)
                    source, data = await self._download(body)
                else:
                    source, data = "", body
                yield source, data
        except ClientDisconnect:  # nobody reads this answer
            raise HTTPException(400, "the upload was cut off") from None

    @contextmanager
    def _buffer(self) -> Iterator[Callable[[int], None]]:
        """Within it, the bytes that are added count; raises HTTPException where all uploads together are too large."""
        own = 0

        def add(size: int) -> None:
            nonlocal own
            own += size
            self._buffered += size
            if self._buffered > _BUFFERED * self._options.max_bytes:
                raise HTTPException(503, "too many uploads at the same time", {"Retry-After": "1"})

        try:
            yield add
        finally:
            self._buffered -= own

    async def _body(self, request: Request, add: Callable[[int], None]) -> bytes:
        limit = self._options.max_bytes
        too_large = HTTPException(413, f"expected a body of at most {counted(limit, 'byte', ',')}")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            add(len(chunk))
            if len(body) > limit:
                raise too_large
        return bytes(body)

    async def _download(self, body: bytes) -> tuple[str, bytes]:
        try:
            url = UrlRequest.model_validate_json(body).url
        except ValidationError:
            url = ""
        if not is_url(url):
            raise HTTPException(400, 'expected {"url": "https://…"}')
        return url, await asyncio.to_thread(
            download, url, self._options.max_bytes, self._options.seconds, public_only=not self._options.internal_urls
        )


async def _image_of_form(request: Request, body: bytes) -> tuple[str, bytes]:
    """The name and the content of the first file of a multipart form."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, chunks(), max_files=1, max_fields=_FORM_FIELDS).parse()
    except (MultiPartException, ValueError, KeyError) as error:  # ValueError: what python-multipart raises
        raise HTTPException(400, f"damaged multipart form: {str(error).strip('.') or type(error).__name__}") from None
    try:
        for value in form.values():
            if isinstance(value, UploadFile):
                return value.filename or "", await value.read()
    finally:
        await form.close()
    raise HTTPException(400, "expected a file in the multipart form, as in curl -F image=@photo.jpg")


def _submit(batcher: Batcher, source: str, data: bytes, channels: int, options: DetectOptions) -> Future[Detections]:
    """Decodes an image that has a place, and hands it over."""
    try:
        header = image_header(data)
        if header and header.width * header.height > max_pixels():
            limit = counted(max_pixels(), "pixel", ",")
            raise HTTPException(413, f"expected an image of at most {limit}, got {header.width} x {header.height}")
        return batcher.submit(decode_image(data, channels, source or "image", options.stb), options)
    except BaseException:
        batcher.release()
        raise


def _token_check(token: str) -> Callable[[HTTPAuthorizationCredentials | None], Awaitable[None]]:
    """A dependency that refuses requests without the token."""

    async def check(sent: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]) -> None:
        if sent is None or not secrets.compare_digest(sent.credentials.encode(), token.encode()):
            raise HTTPException(401, "expected the token of this server", {"WWW-Authenticate": "Bearer"})

    return check


async def _as_it_is(page: Response) -> Response:
    return page
