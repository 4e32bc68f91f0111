"""`video`: frames in, boxes out."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.cli import video as video_command
from darknet_py.data.images import from_letterbox, letterbox
from darknet_py.data.video_reader import FrameReader, next_frames
from darknet_py.errors import DataError
from darknet_py.inference.detect import DetectOptions, detect
from darknet_py.inference.detections import Detections
from darknet_py.view.video_writer import VideoFile
from tests.ranks import finish_ranks, start_ranks
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
        assert [frame.image.shape for frame in written] == [(48, 64, 3)] * FRAMES

    entries = json.loads(found.read_text())
    assert [entry["frame_id"] for entry in entries] == list(range(1, FRAMES + 1)) and "filename" not in entries[0]
    net = darknet_py.load(folder / "a.cfg", folder / "a.weights")
    with FrameReader(str(folder / "in.avi")) as frames:
        inputs = [cv2.resize(frame.image, (32, 32)) for frame in frames]
    expected = detect(net, inputs, DetectOptions(0.2))
    assert any(expected)
    for entry, boxes in zip(entries, expected, strict=True):
        assert [each["confidence"] for each in entry["objects"]] == pytest.approx([d.confidence for d in boxes])


def test_letterboxed_frames_map_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--letter-box", "--no-video", "--limit", "1", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    net = darknet_py.load(folder / "a.cfg", folder / "a.weights")
    with FrameReader(str(folder / "in.avi")) as frames:
        image = next(iter(frames)).image
    boxes = net.boxes(torch.from_numpy(letterbox(image, 32, 32)).permute(2, 0, 1)[None], 0.2)[0]
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
        numbers = [frame.number for frame in frames]
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
        assert next(iter(frames)).image.shape == (48, 64, 1)


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


def gray_values(path: Path) -> list[float]:
    """The mean of each frame."""
    with FrameReader(str(path)) as frames:
        return [float(frame.image.mean()) for frame in frames]


def test_several_videos_share_the_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has the results that it has alone, in files of its own; a forward pass takes a frame of each."""
    short = tmp_path / "short.avi"
    writer = cv2.VideoWriter(str(short), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 64))  # type: ignore[attr-defined]
    for number in range(3):
        writer.write(np.full((64, 48, 3), 200 - 30 * number, np.uint8))
    writer.release()
    videos = [str(folder / "in.avi"), str(short)]
    weights = ["--weights", str(folder / "a.weights"), "--thresh", "0.2"]
    alone = []
    for video in videos:
        assert main(["video", str(folder / "a.cfg"), video, *weights, "--no-video", "--json"]) == 0
        alone.append([json.loads(line)["objects"] for line in capsys.readouterr().out.splitlines()])
    sizes = []

    def counted_detect(net: Any, images: Sequence[Any], options: DetectOptions) -> list[Detections]:
        sizes.append(len(images))
        return detect(net, images, options)

    monkeypatch.setattr(video_command, "detect", counted_detect)
    found, out, heat = tmp_path / "found.json", tmp_path / "out.avi", tmp_path / "heat.png"
    words = ["video", str(folder / "a.cfg"), *videos, *weights, "--json", str(found), "--out", str(out)]
    assert main([*words, "--heat-map", str(heat)]) == 0
    printed = capsys.readouterr().out
    assert sizes == [2] * 3 + [1] * (FRAMES - 3)
    entries = json.loads(found.read_text())
    for video, objects in zip(videos, alone, strict=True):
        own = [entry for entry in entries if entry["filename"] == video]
        assert [entry["frame_id"] for entry in own] == list(range(1, len(objects) + 1))
        for entry, expected in zip(own, objects, strict=True):
            assert [item["class_id"] for item in entry["objects"]] == [item["class_id"] for item in expected]
            confidences = [item["confidence"] for item in expected]
            assert [item["confidence"] for item in entry["objects"]] == pytest.approx(confidences, abs=1e-5)
    assert (len(gray_values(tmp_path / "out_1.avi")), len(gray_values(tmp_path / "out_2.avi"))) == (FRAMES, 3)
    for number, shape in ((1, (48, 64, 3)), (2, (64, 48, 3))):
        image = cv2.imread(str(tmp_path / f"heat_{number}.png"))
        assert image is not None and image.shape == shape
        assert f"heat map in {tmp_path / f'heat_{number}.png'}" in printed
    assert main([*words, "--darknet"]) == 2 and "--darknet: expected one video" in capsys.readouterr().err


def test_frames_keep_their_times(tmp_path: Path) -> None:
    """At the file's rate: repeated until the next one's time, left out where two come at once."""
    with VideoFile(tmp_path / "a.avi", 10) as video:
        for gray, seconds in ((20, 5.0), (60, 5.1), (100, 5.42), (140, 5.43), (180, 5.5), (220, 1000.0), (250, 1000.2)):
            video.write(np.full((48, 64, 3), gray, np.uint8), seconds)
    assert gray_values(tmp_path / "a.avi") == pytest.approx([20, 60, 60, 60, 140, 180, 220, 220, 250], abs=3)


def test_a_variable_frame_rate_is_kept(folder: Path, tmp_path: Path) -> None:
    """The times that another library has written, within half a frame of the file's mean rate."""
    av = pytest.importorskip("av")
    times = [0, 40, 80, 400, 440, 1000, 1040]  # milliseconds
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, moment in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 30 * number + 20, np.uint8))
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with FrameReader(str(tmp_path / "in.mkv")) as frames:
        rate = frames.rate
        assert [frame.seconds * 1000 for frame in frames] == pytest.approx(times, abs=1)
    words = ["video", str(folder / "a.cfg"), str(tmp_path / "in.mkv"), "--weights", str(folder / "a.weights")]
    assert main([*words, "--thresh", "1", "--out", str(tmp_path / "out.avi")]) == 0
    grays = gray_values(tmp_path / "out.avi")
    for number in (0, 3, 5):
        first = next(k for k, gray in enumerate(grays) if abs(gray - 30 * number - 20) < 12)
        assert abs(first / rate - times[number] / 1000) <= 0.5 / rate + 0.002


class _Stream:
    """A capture that breaks off after three frames, cannot be opened twice, comes back, and ends for good."""

    opened = 0

    def __init__(self) -> None:
        _Stream.opened += 1
        self.number = _Stream.opened
        self.left = 3 if self.isOpened() else 0

    def isOpened(self) -> bool:
        return self.number in (1, 4)

    def get(self, what: int) -> float:
        return 10.0 if what == cv2.CAP_PROP_FPS else 0.0

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, Any]:
        return True, np.full((4, 4, 3), self.number, np.uint8)

    def release(self) -> None:
        pass


def test_a_lost_stream_is_opened_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With growing waits, until it has been lost for too long."""
    waits: list[float] = []
    clock = 100.0

    def wait(self: threading.Event, timeout: float) -> bool:
        nonlocal clock
        waits.append(timeout)
        clock += timeout
        return False

    monkeypatch.setattr(_Stream, "opened", 0)
    monkeypatch.setattr("darknet_py.data.video_reader._open", lambda source: _Stream())
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    caplog.set_level("INFO")
    frames = FrameReader("rtsp://camera", patience=20)
    taken: list[Any] = []
    monkeypatch.setattr(frames, "_put", taken.append)
    monkeypatch.setattr(threading.Event, "wait", wait)
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    frames._read()
    monkeypatch.undo()
    assert [entry and entry[0] for entry in taken] == [0, 1, 2, 3, 4, 5, None]
    assert [entry[2] for entry in taken[:-1]] == [0, 0, 0, 3.5, 3.5, 3.5]
    assert waits == [0.5, 1, 2, 0.5, 1, 2, 4, 8, 4.5]
    assert [record.message for record in caplog.records] == [
        "rtsp://camera: the stream was lost; opening it again for 20 seconds",
        "rtsp://camera: the stream is back after 3.5 seconds",
        "rtsp://camera: the stream was lost; opening it again for 20 seconds",
        "rtsp://camera: the stream was lost for 20 seconds; given up",
    ]


def test_a_stream_that_hangs_does_not_stop_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()

    class Hanging(_Stream):
        def grab(self) -> bool:
            goes_on.wait(60)
            return False

    monkeypatch.setattr(_Stream, "opened", 0)
    with FrameReader(str(folder / "in.avi")) as file:
        monkeypatch.setattr("darknet_py.data.video_reader._open", lambda source: Hanging())
        with FrameReader("rtsp://camera", patience=0) as hanging:
            rounds = next_frames([hanging, file])
            assert [[(index, frame.number) for index, frame in next(rounds)] for _ in range(FRAMES)] == [
                [(1, number)] for number in range(FRAMES)
            ]
            goes_on.set()
            assert list(rounds) == []


def test_lines_and_zones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trackers")
    words = ("--no-video", "--json", "--zone", "0,0,1,0,1,1,0,1", "--track", "--line", "0,0.5,1,0.5")
    assert run(folder, *words) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(entry["lines"]) for entry in entries] == [1] * FRAMES
    assert any(entry["zones"][0] for entry in entries)
    for options, what in (
        (("--line", "0,0,1,1"), "--line: expected --track with it"),
        (("--line", "0,0,1"), "expected coordinates from 0 to 1 in pairs, got '0,0,1'"),
        (("--line", "0,0,0,0"), "expected two points"),
        (("--zone", "0,0,1,1"), "expected three or more corners"),
        (("--zone", "0,0,1,1,2,2"), "expected coordinates from 0 to 1 in pairs"),
    ):
        with contextlib.suppress(SystemExit):
            assert run(folder, *options) == 2
        assert what in capsys.readouterr().err


@pytest.fixture
def listed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of `video` on a list of five videos of 1 to 5 frames, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for number in range(1, 6):
        writer = cv2.VideoWriter(f"{number}.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))  # type: ignore[attr-defined]
        for frame in range(number):
            writer.write(np.full((48, 64, 3), 40 * frame + number, np.uint8))
        writer.release()
    Path("list.txt").write_text("".join(f"{number}.avi\n" for number in range(1, 6)))
    words = ["video", str(folder / "a.cfg"), "list.txt", "--weights", str(folder / "a.weights"), "--thresh", "0.2"]
    return [*words, "--out", "out.avi", "--device", "cpu", "--json", "found.json"]


def found_in_list(videos: Sequence[int] = (1, 2, 3, 4, 5)) -> list[dict[str, Any]]:
    """What is in found.json; every frame of every video is there once, in order, and no record is left."""
    entries: list[dict[str, Any]] = json.loads(Path("found.json").read_text())
    frames = [(f"{number}.avi", frame) for number in videos for frame in range(1, number + 1)]
    assert [(Path(entry["filename"]).name, entry["frame_id"]) for entry in entries] == frames
    assert not list(Path().glob("found.json?*"))
    return entries


def test_a_list_of_videos(listed: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(listed) == 0
    entries = found_in_list()
    said = capsys.readouterr().out
    assert "5.avi: 5 frames" in said and "5 videos done; detections in found.json" in said
    assert [len(gray_values(Path(f"out_{number}.avi"))) for number in range(1, 6)] == [1, 2, 3, 4, 5]
    words = ["video", str(folder / "a.cfg"), "5.avi", "--weights", str(folder / "a.weights"), "--thresh", "0.2"]
    assert main([*words, "--no-video", "--json"]) == 0
    alone = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["objects"] for entry in entries[-5:]] == [entry["objects"] for entry in alone]


def test_shares_of_a_list_of_videos(listed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One share is interrupted in a video, and while it joins the records; no other video is searched twice."""
    assert main(listed) == 0
    whole = found_in_list()
    Path("found.json").unlink()
    handle = video_command._Source.handle
    searched: list[str] = []
    interrupting = True

    def note(self: Any, *arguments: Any) -> Any:
        name = Path(self._name).name
        if self.count == 0:
            searched.append(name)
        if interrupting and name == "3.avi" and self.count == 2:
            raise KeyboardInterrupt
        return handle(self, *arguments)

    monkeypatch.setattr(video_command._Source, "handle", note)
    assert main([*listed, "--shard", "1/2"]) == 130
    assert sorted(path.name for path in Path().glob("found.json?*")) == ["found.json.video-1-of-5"]
    interrupting = False
    assert main([*listed, "--shard", "2/2", "--resume"]) == 0
    assert not Path("found.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr("darknet_py.cli.video_list.json_list", lambda frames: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([*listed, "--shard", "1/2", "--resume"])
    assert main([*listed, "--shard", "2/2", "--resume"]) == 0 and not Path("found.json").exists()
    assert main([*listed, "--shard", "1/2", "--resume"]) == 0
    assert found_in_list() == whole
    assert sorted(searched) == ["1.avi", "2.avi", "3.avi", "3.avi", "4.avi", "5.avi"]


def test_processes_of_torchrun_share_a_list(listed: list[str]) -> None:
    Path("3.avi").write_bytes(b"no video")
    said = Path("said.txt").resolve()
    assert finish_ranks(start_ranks([listed] * 2, said)) == [0, 0], said.read_text()
    assert "3.avi: " in said.read_text() and "some files could not be read; the others are done" in said.read_text()
    found_in_list((1, 2, 4, 5))
    assert main(listed) == 1  # a single process says so by its exit code


def test_what_does_not_go_with_a_list(listed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--json=-"], "--json: expected a file"),
        (["--mjpeg-port", "0"], "--mjpeg-port: expected one video or stream, got a list"),
        (["1.avi"], "list.txt: expected a list of videos alone, got 2 sources"),
    ):
        assert main([*listed[:3], *words, *listed[3:-2]]) == 2
        assert expected in capsys.readouterr().err
    assert main([*listed[:2], "1.avi", *listed[3:], "--shard", "1/2"]) == 2
    assert "expected a list of videos (.txt)" in capsys.readouterr().err
    assert main([*listed, "--shard", "1/2"]) == 0
    assert main([*listed, "--shard", "2/2", "--skip", "1"]) == 1
    assert "expected the record of a run with the same options, got another" in capsys.readouterr().err
