"""`video`: frames in, boxes out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.data.images import from_letterbox, letterbox, to_tensor
from darknet_py.data.video_reader import FrameReader
from darknet_py.errors import DataError
from darknet_py.inference.detect import DetectOptions, detect
from tests.small_detector import CFG

FRAMES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cfg, its weights and a video whose frames grow brighter."""
    folder = tmp_path_factory.mktemp("video")
    (folder / "a.cfg").write_text(CFG)
    torch.manual_seed(0)
    darknet_py.load(folder / "a.cfg").save_weights(folder / "a.weights")
    writer = cv2.VideoWriter(str(folder / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))  # type: ignore[attr-defined]
    for number in range(FRAMES):
        writer.write(np.full((48, 64, 3), 30 * number, np.uint8))
    writer.release()
    return folder


def run(folder: Path, *options: str) -> int:
    files = [str(folder / name) for name in ("a.cfg", "in.avi", "a.weights")]
    return main(["video", *files[:2], "--weights", files[2], "--thresh", "0.2", *options])


def test_video_pictures_and_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, pictures, found = tmp_path / "new" / "out.mp4", tmp_path / "p" / "x", tmp_path / "found.json"
    assert run(folder, "--out", str(out), "--pictures", str(pictures), "--json", str(found)) == 0
    said = capsys.readouterr().out
    assert f"{FRAMES} frames" in said and str(out) in said and str(pictures) in said and str(found) in said
    assert sorted(path.name for path in pictures.parent.iterdir())[-1] == f"x_{FRAMES:08d}.jpg"
    with FrameReader(str(out)) as written:
        assert written.rate == 10
        assert [image.shape for _, image in written] == [(48, 64, 3)] * FRAMES

    entries = json.loads(found.read_text())
    assert [entry["frame_id"] for entry in entries] == list(range(1, FRAMES + 1)) and "filename" not in entries[0]
    net = darknet_py.load(folder / "a.cfg", folder / "a.weights")
    with FrameReader(str(folder / "in.avi")) as frames:
        inputs = [cv2.resize(image, (32, 32)) for _, image in frames]
    expected = detect(net, inputs, DetectOptions(0.2))
    assert any(expected)
    for entry, boxes in zip(entries, expected, strict=True):
        assert [each["confidence"] for each in entry["objects"]] == pytest.approx([d.confidence for d in boxes])


def test_letterboxed_frames_map_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--letter-box", "--no-video", "--limit", "1", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    net = darknet_py.load(folder / "a.cfg", folder / "a.weights")
    with FrameReader(str(folder / "in.avi")) as frames:
        _, image = next(iter(frames))
    boxes = net.boxes(to_tensor(letterbox(image, 32, 32))[None], 0.2)[0]
    expected = from_letterbox(torch.tensor([each.box for each in boxes]), (64, 48), (32, 32))
    found = [list(each["relative_coordinates"].values()) for each in json.loads(line)["objects"]]
    torch.testing.assert_close(torch.tensor(found), expected)


def test_frames_left_out_and_taken_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--no-video", "--skip", "2", "--batch", "2", "--json") == 0
    lines = capsys.readouterr()
    assert [json.loads(line)["frame_id"] for line in lines.out.splitlines()] == [1, 4, 7]
    assert "3 frames" in lines.err


def test_ctrl_c_keeps_what_was_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(found: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("darknet_py.inference.detections.Detections.summary", interrupt)
    assert run(folder, "--no-video", "--json", str(tmp_path / "f.json")) == 130
    assert json.loads((tmp_path / "f.json").read_text()) == []


def test_a_live_source_gives_its_newest_frame(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(folder / "in.avi")
    monkeypatch.setattr("darknet_py.data.video_reader._open", lambda source: cv2.VideoCapture(path))
    with FrameReader("rtsp://camera") as frames:
        frames._reader.join(10)  # all frames have gone by
        numbers = [number for number, _ in frames]
    assert frames.live and len(numbers) <= 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--out", "a.gif"), r"a.gif: expected a video ending in .mp4, .avi, .mkv, .mov, got .gif"),
        (("--out", "/dev/null/a.mp4"), r"/dev/null/a.mp4: cannot write: Not a directory"),
    ],
)
def test_where_it_cannot_be_written(
    folder: Path, options: tuple[str, ...], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *options) == 1
    assert what in capsys.readouterr().err


def test_sources_that_cannot_be_read(folder: Path) -> None:
    for source, what in (("none.mp4", "video file not found"), (str(folder / "a.cfg"), "cannot be opened as a video")):
        with pytest.raises(DataError, match=what):
            FrameReader(source)
    with pytest.raises(DataError, match="expected a network of 1 or 3 channels for a video, got 6"):
        FrameReader(str(folder / "in.avi"), 6)
    with FrameReader(str(folder / "in.avi"), 1) as frames:
        assert next(iter(frames))[1].shape == (48, 64, 1)


def test_the_lines_of_demo(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the reference; tests/cli/test_darknet_output.py compares the lines with C's."""
    (tmp_path / "a.data").write_text(f"classes=2\nnames={tmp_path}/a.names\n")
    (tmp_path / "a.names").write_text("cat\ndog\n")
    files = [str(folder / name) for name in ("a.cfg", "a.weights", "in.avi")]
    command = ["detector", "demo", str(tmp_path / "a.data"), *files, "-dont_show", "-thresh", "0.2", "-ext_output"]
    assert main([*command, "-out_filename", str(tmp_path / "o.avi")]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[:4] == ["Demo", f"video file: {folder / 'in.avi'}", "Video stream: 64 x 48 ", "Objects:"]
    assert lines[-4:] == ["Stream closed.", "input video stream closed. ", "output_video_writer closed. ", ""]
    assert lines.count("Objects:") == lines.count(" cvWriteFrame ") == FRAMES
    speed = [line for line in lines if re.fullmatch(r"FPS:\d+\.\d \t AVG_FPS:\d+\.\d", line)]
    assert len(speed) == FRAMES and speed[0] == "FPS:0.0 \t AVG_FPS:0.0"
    boxes = [line for line in lines if "left_x" in line]
    box = r"(cat|dog): \d+% (, dog: \d+% )?\t\(left_x: +-?\d+   top_y: +-?\d+   width: +\d+   height: +\d+\)"
    assert boxes and all(re.fullmatch(box, line) for line in boxes)
