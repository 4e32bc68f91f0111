"""A window on the screen."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2

from darknet_py.data.images import Image
from darknet_py.errors import DarknetError

_TITLE = "darknet_py"
_ESCAPE = 27
_SECONDS = 30  # within which a window opens
_TRY = f"import cv2; cv2.namedWindow({_TITLE!r}); cv2.destroyAllWindows()"


def check_window() -> None:
    """Raises DarknetError where no window can be opened, to be called before any work.

    Another process tries it: Qt ends a process whose display it cannot reach.
    """
    displays = [os.environ.get(name, "") for name in ("DISPLAY", "WAYLAND_DISPLAY")]
    if sys.platform.startswith("linux") and not any(displays):
        raise DarknetError("--show: there is no display here (DISPLAY is not set); leave it out, or use -dont_show")
    try:
        run = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, text=True, timeout=_SECONDS)
        failed, output = run.returncode != 0, run.stderr
    except subprocess.TimeoutExpired:
        failed, output = True, ""
    if "not implemented" in output:
        raise DarknetError("--show: this OpenCV cannot open windows (opencv-python-headless)")
    if failed:
        display = next(filter(None, displays), "")
        raise DarknetError(f"--show: cannot open a window on the display {display}; leave it out, or use -dont_show")


def show(image: Image, milliseconds: int = 1, title: str = _TITLE) -> bool:
    """Shows an image in the window.

    Args:
        image: uint8 (H, W, 3) RGB.
        milliseconds: How long a key is waited for; 0 until one is pressed.
        title: Of the window; each has its own.

    Returns:
        False once Escape was pressed.
    """
    cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(milliseconds) & 0xFF != _ESCAPE
