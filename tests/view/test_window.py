"""Without a display, --show ends in one line before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.cli import main
from darknet_py.errors import DarknetError
from darknet_py.view import window

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="DISPLAY counts on Linux")


@linux
@pytest.mark.parametrize("command", ["detect none.cfg a.jpg", "video none.cfg a.mp4"])
def test_no_display(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is read: the cfg is not there either."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main([*command.split(), "--show"]) == 1
    assert capsys.readouterr().err.startswith("darknet-py: --show: there is no display here (DISPLAY is not set)")


@linux
def test_a_display_that_cannot_be_reached(tmp_path: Path) -> None:
    """In a process of its own: Qt would end this one (SIGABRT)."""
    command = [sys.executable, "-m", "darknet_py", "video", "none.cfg", "a.mp4", "--show"]
    environment = {"DISPLAY": ":987", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    headless = "darknet-py: --show: this OpenCV cannot open windows (opencv-python-headless)\n"
    unreachable = "darknet-py: --show: cannot open a window on the display :987; leave it out, or use -dont_show\n"
    assert run.returncode == 1 and run.stderr in (headless, unreachable)


def test_headless_opencv_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    failure = (
        "import sys; sys.exit('error: (-2:Unspecified error) The function is not implemented. Rebuild the library')"
    )
    for attempt, what in (
        (failure, "opencv-python-headless"),
        ("import os; os.abort()", "cannot open a window on the display :0"),
        ("import time; time.sleep(9)", "cannot open a window on the display :0"),
    ):
        monkeypatch.setattr(window, "_TRY", attempt)
        monkeypatch.setattr(window, "_SECONDS", 1)
        with pytest.raises(DarknetError, match=what):
            window.check_window()
    monkeypatch.setattr(window, "_TRY", "pass")
    window.check_window()


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(image))
    for key, goes_on in ((27, False), (-1, True), (ord("a"), True)):
        monkeypatch.setattr(cv2, "waitKey", lambda wait, key=key: key)
        assert window.show(np.array([[[1, 2, 3]]], np.uint8)) is goes_on
    assert shown[0].tolist() == [[[3, 2, 1]]]
