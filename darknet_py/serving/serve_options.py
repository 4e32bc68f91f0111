"""Limits and rights of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Where a server listens, what it takes, and from whom.

    Attributes:
        host: The address to listen at; by default this machine alone reaches it.
        port: The port; 0 takes a free one.
        token: What clients send as `Authorization: Bearer …`; empty: everybody may detect.
        origins: Web pages of other origins that may use the API (CORS); "*" stands for all.
        allow_urls: Whether clients may name an image by its web address, which this machine then downloads.
        internal_urls: Whether that address may be one of this machine or of its own network.
        batch: The most images in a forward pass.
        wait: Seconds that an image waits for others that are on their way.
        queue: The most images that are decoded, wait or are computed.
        seconds: Time limit for the upload of an image, and once more for its answer.
        max_bytes: The largest body of a request.
        decoders: Threads that decode images.
        threads: Threads that use the network at once, see `Batcher`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""
    origins: Sequence[str] = ()
    allow_urls: bool = False
    internal_urls: bool = False
    batch: int = 8
    wait: float = 0.005
    queue: int = 64
    seconds: float = 30.0
    max_bytes: int = 20 << 20
    decoders: int = 2
    threads: int = 1
