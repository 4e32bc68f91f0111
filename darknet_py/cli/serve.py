"""`serve CFG`: a web page and a REST API that detect objects."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch

from darknet_py.cli.common import max_pixels_argument, port, positive, seconds
from darknet_py.cli.detect import detect_options, detection_arguments, load_detector
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.inference.detect_files import MAX_THREADS
from darknet_py.optional import require
from darknet_py.serving.serve_options import ServeOptions

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "DARKNET_PY_TOKEN"
_BATCH = 8
_MAX_PIXELS = 50_000_000
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def configure(parser: argparse.ArgumentParser) -> None:
    detection_arguments(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--port", type=port, default=8080, help="port to listen at; 0: a free one (default: 8080)")
    parser.add_argument(
        "--token",
        help=f"what clients must send as `Authorization: Bearer TOKEN` (default: {TOKEN_VARIABLE} of the environment)",
    )
    parser.add_argument(
        "--cors", metavar="ORIGIN", action="append", default=[], help="web page that may use the API; * stands for all"
    )
    parser.add_argument("--allow-urls", action="store_true", help="download images that clients name by web address")
    parser.add_argument(
        "--internal-urls",
        action="store_true",
        help="with --allow-urls: also from loopback, private and link-local addresses",
    )
    parser.add_argument("--queue", type=positive, default=64, metavar="N", help="images that may wait (default: 64)")
    parser.add_argument(
        "--wait",
        type=seconds,
        default=5,
        metavar="MS",
        help="milliseconds to wait for other requests that are on their way (default: 5)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=30,
        metavar="S",
        help="seconds for an upload, and for its answer (default: 30)",
    )
    parser.add_argument(
        "--max-bytes", type=positive, default=20 << 20, metavar="N", help="refuse larger requests (default: 20971520)"
    )
    max_pixels_argument(parser, _MAX_PIXELS)


def run(args: argparse.Namespace) -> int:
    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(package, "serve", "darknet-py serve")
    from darknet_py.serving.server import serve  # needs these packages

    if args.tiles:
        raise UsageError("serve: --tiles is an option of detect and video")
    if args.internal_urls and not args.allow_urls:
        raise UsageError("--internal-urls: expected --allow-urls with it")
    net = load_detector(args, lambda graph: _BATCH)
    options = ServeOptions(
        host=args.host,
        port=args.port,
        token=args.token or os.environ.get(TOKEN_VARIABLE, ""),
        origins=args.cors,
        allow_urls=args.allow_urls,
        internal_urls=args.internal_urls,
        batch=args.batch,
        wait=args.wait / 1000,
        queue=args.queue,
        seconds=args.timeout,
        max_bytes=args.max_bytes,
        threads=1 if net.is_exclusive else min(torch.get_num_threads(), MAX_THREADS),
    )
    if args.host not in _LOOPBACK and not options.token:
        logger.warning("%s: everybody who reaches this address may detect; --token asks for a password", args.host)
    images = serve(net, Path(args.cfg).name, detect_options(args, net.names), options)
    print(f"stopped; {counted(images, 'image')} served")
    return 0
