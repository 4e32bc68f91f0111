"""An SVG diagram as a PNG image, by resvg (extra `png`)."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from darknet_py.optional import require

_FONT = "DejaVu Sans"  # comes with matplotlib, so that texts are drawn where the system has no fonts
_MOST_PIXELS = 1 << 28


def png(svg: str, size: tuple[float, float], scale: float = 2.0) -> bytes:
    """The content of a PNG file.

    Args:
        svg: The text of an SVG file whose colors need no media query.
        size: Its width and height.
        scale: Pixels for each of its units; less where the image would have more than 2^28 pixels.

    Raises:
        MissingExtra: resvg is not installed.
    """
    library = require("resvg_py", "png", "PNG images of a network")
    scale = min(scale, (_MOST_PIXELS / (size[0] * size[1])) ** 0.5)
    return bytes(
        library.svg_to_bytes(
            svg_string=svg,
            width=max(round(size[0] * scale), 1),
            font_dirs=[str(Path(matplotlib.get_data_path()) / "fonts" / "ttf")],
            font_family=_FONT,
            sans_serif_family=_FONT,
        )
    )
