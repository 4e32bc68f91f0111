"""Darknet's own command lines."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
from PIL import Image as Pil

import darknet_py
from darknet_py.cli import main, make_parser
from darknet_py.cli.darknet_compat import translate

CFG = "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\nsize=3\n[convolutional]\nfilters=3\nsize=1\n"


CHANGES = ("rgbgr", "rescale", "reset", "denormalize", "normalize", "oneoff")
HEAD = (
    "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=6\nsize=1\n"
    "[yolo]\nnum=1\nmask=0\nclasses=1\nanchors=9,9\n"
)

CASES = [
    ("detector train d.data y.cfg y.conv.29", "train y.cfg --data d.data --weights y.conv.29 --map off --darknet"),
    (
        "detector train -map -dont_show d.data y.cfg -mAP_epochs 2 -clear -iou_thresh .6 -thresh .3 -i 1",
        "train y.cfg --data d.data --map on --darknet --map-epochs 2 --clear --thresh .3 --iou-thresh .6 "
        "--device cuda:1",
    ),
    (
        "detector test d.data y.cfg y.weights a.jpg -thresh .1 -ext_output -save_labels -letter_box -out r.json -nogpu",
        "detect y.cfg a.jpg --weights y.weights --data d.data --darknet --thresh .1 --letter-box --save-labels "
        "--json=r.json --ext-output --device cpu",
    ),
    (
        "detector demo d.data y.cfg y.weights v.mp4 -out_filename o.avi -dont_show -hier .4 -json_file_output f.json",
        "video y.cfg v.mp4 --weights y.weights --data d.data --darknet --hier .4 --out o.avi --json=f.json",
    ),
    (
        "detector demo d.data y.cfg y.weights -c 2 -prefix p/x -time_limit_sec 9",
        "video y.cfg 2 --weights y.weights --data d.data --darknet --pictures p/x --seconds 9 --no-video",
    ),
    (
        "detector demo d.data y.cfg y.weights",
        "video y.cfg 0 --weights y.weights --data d.data --darknet --no-video --show",
    ),
    (
        "detector valid d.data y.cfg y.weights",
        "evaluate y.cfg --data d.data --weights y.weights --protocol coco --darknet",
    ),
    (
        "detector valid d.data y.cfg y.weights -out name_",
        "evaluate y.cfg --data d.data --weights y.weights --protocol coco --darknet --results-name name_",
    ),
    (
        "detector map d.data y.cfg y.weights -points 101 -iou_thresh 0.75 -letter_box",
        "evaluate y.cfg --data d.data --weights y.weights --protocol darknet --darknet --iou-thresh 0.75 --points 101 "
        "--letter-box",
    ),
    (
        "detector calc_anchors d.data -num_of_clusters 9 -width 416 -height 320",
        "anchors --data d.data --clusters 9 --darknet --width 416 --height 320",
    ),
    (
        "detector calc_anchors d.data -width 64 -height 64 -show",
        "anchors --data d.data --clusters 5 --darknet --width 64 --height 64 --plot cloud.png",
    ),
    (
        "detector test --stb d.data y.cfg y.weights a.jpg --backend=openvino -ext_output",
        "detect y.cfg a.jpg --weights y.weights --data d.data --darknet --ext-output --stb --backend=openvino",
    ),
    ("classifier train i.data c.cfg -topk", "train c.cfg --data i.data --map on --darknet"),
    (
        "classifier predict i.data c.cfg c.weights a.jpg -t 3",
        "classify c.cfg a.jpg --weights c.weights --data i.data --darknet --top 3",
    ),
    ("classifier valid i.data c.cfg c.weights", "evaluate c.cfg --data i.data --weights c.weights --darknet"),
    ("rnn train r.cfg -file t.txt", "rnn train r.cfg t.txt"),
    ("rnn train r.cfg r.weights -clear", "rnn train r.cfg --weights r.weights --clear"),
    (
        "rnn generate r.cfg r.weights -len 9 -temp .5 -srand 3 -seed ab",
        "rnn generate r.cfg --weights r.weights --seed-text ab --length 9 --temperature .5 --seed 3",
    ),
    ("partial y.cfg y.weights y.conv.29 29", "weights partial y.cfg y.weights y.conv.29 29"),
    (
        "average y.cfg y.weights a.weights b.weights c.weights",
        "weights average y.cfg y.weights a.weights b.weights c.weights",
    ),
    ("statistics y.cfg y.weights", "weights statistics y.cfg y.weights"),
    *((f"{tool} y.cfg a.weights b.weights", f"weights {tool} y.cfg a.weights b.weights") for tool in CHANGES),
    ("detect y.cfg y.weights a.jpg -thresh 0", "detect y.cfg a.jpg --weights y.weights --darknet --thresh 0"),
    ("detect y.cfg y.weights", "detect y.cfg - --weights y.weights --thresh 0.24 --darknet"),
    ("classify c.cfg c.weights a.jpg", "classify c.cfg a.jpg --weights c.weights --darknet"),
    # Flags before the command, and before the sub-command.
    ("-nogpu detector map d y w", "evaluate y --data d --weights w --protocol darknet --darknet --device cpu"),
    ("-i 0 detector train d y", "train y --data d --map off --darknet --device cuda:0"),
    ("detector -map -dont_show train d y w", "train y --data d --weights w --map on --darknet"),
    (
        "-thresh .3 detect -ext_output y.cfg y.weights a.jpg",
        "detect y.cfg a.jpg --weights y.weights --darknet --thresh .3 --ext-output",
    ),
    ("-i 1 partial y w o 3", "weights partial y w o 3"),
]


@pytest.mark.parametrize(("theirs", "ours"), CASES)
def test_translation(
    theirs: str, ours: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    caplog.set_level("INFO", "darknet_py")
    assert translate(theirs.split()) == ours.split()
    assert caplog.messages[-1] == f"= darknet-py {shlex.join(ours.split())}"
    assert translate(ours.split()) == ours.split()  # our own command lines stay unchanged


def test_every_translation_parses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for _, ours in CASES:
        make_parser(ours.split()).parse_args(ours.split())


def test_images_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours read them all; a missing one does not stop Darknet's loop."""
    monkeypatch.chdir(tmp_path)
    Path("a.cfg").write_text(HEAD)
    darknet_py.load("a.cfg").save_weights("a.weights")
    Path("a.data").write_text("classes=1\nnames=a.names\n")
    Path("a.names").write_text("cat\n")
    for name in ("a.png", "b c.png"):
        Pil.new("RGB", (9, 9)).save(name)
    monkeypatch.setattr("sys.stdin", io.StringIO("a.png\n\nnone.png\nb c.png\n"))
    assert main(["detector", "test", "a.data", "a.cfg", "a.weights", "-thresh", "0.9"]) == 1
    out, error = capsys.readouterr()
    lines = [line.partition(": Predicted in")[0] for line in out.splitlines()]
    assert lines == [
        "Enter Image Path:  Detection layer: 1 - type = 28 ",
        "a.png",
        "Enter Image Path: Enter Image Path: Enter Image Path:  Detection layer: 1 - type = 28 ",
        "b c.png",
        "Enter Image Path: ",
    ]
    assert "none.png: cannot read the image" in error and Path("predictions.jpg").exists()
    monkeypatch.setattr("sys.stdin", io.StringIO("b c.png\na.png\n"))
    assert main(["detect", "a.cfg", "-", "--weights", "a.weights", "--no-images", "--thresh", "0.9"]) == 0
    assert capsys.readouterr().out == "b c.png: nothing\na.png: nothing\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["detect", "a.cfg", "-", "--weights", "a.weights"]) == 1
    assert "expected images on standard input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("theirs", "what"),
    [
        (
            "detector draw d y w",
            "detector: expected one of train, test, demo, valid, map, recall, calc_anchors, got draw",
        ),
        ("detector", "detector: expected one of train, test, demo, valid, map, recall, calc_anchors, got nothing"),
        ("-nogpu classifier", "classifier: expected one of train, predict, valid, got nothing"),
        ("detector map d.data y.cfg", "expected detector map DATA CFG WEIGHTS, got d.data y.cfg"),
        ("detector test d y w -tresh .3", "-tresh: unknown flag of Darknet; did you mean '-thresh'?"),
        ("detector train --map d y w", "--map: unknown flag of Darknet; did you mean '-map'?"),
        ("detector calc_anchors d", "calc_anchors: expected -width and -height"),
        (
            "detector train d y -gpus 0,1,3",
            "for several GPUs use CUDA_VISIBLE_DEVICES=0,1,3 torchrun --nproc_per_node=3",
        ),
    ],
)
def test_wrong_usage(theirs: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(theirs.split()) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize("line", ["detector --help", "detector test -h", "-nogpu detector train d --help"])
def test_help(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    out = capsys.readouterr().out
    assert end.value.code == 0 and out.startswith("usage: darknet-py detector ") and "-thresh VALUE" in out
    assert ("darknet-py detector calc_anchors DATA [-flags]" in out) == (line == "detector --help")


def test_what_c_ignores_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """Words after those that C reads; a flag that it does not know is one, when it stands behind them."""
    caplog.set_level("INFO", "darknet_py")
    words = shlex.split("detector train d y w -tresh .3 a.jpg")
    assert translate(words) == shlex.split("train y --data d --weights w --map off --darknet")
    assert caplog.messages[0] == "note: -tresh .3 a.jpg: ignored, as in C; did you mean '-thresh'?"
    assert translate(shlex.split("detector train d y -thresh .3 -thresh .4"))[-1] == ".3"  # the first counts


def test_a_gpu_that_is_not_there(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    caplog.set_level("INFO", "darknet_py")
    assert translate(["detector", "train", "d", "y", "-gpus", "0"])[-2:] == ["--device", "cpu"]
    assert caplog.messages[0] == "note: GPU 0: there is no CUDA here; using the CPU"


def test_ignored_flags_are_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "darknet_py")
    translate(["detector", "train", "d", "y", "-mjpeg_port", "8090", "-dont_show", "-benchmark"])
    assert "note: -benchmark: ignored, no counterpart here" in caplog.messages


def test_partial_writes_the_first_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.cfg").write_text(CFG)
    net = darknet_py.load(tmp_path / "a.cfg")
    net.save_weights(tmp_path / "a.weights", seen=640)
    assert main(["partial", *(str(tmp_path / name) for name in ("a.cfg", "a.weights", "a.conv.1")), "1"]) == 0
    whole, part = (tmp_path / "a.weights").read_bytes(), (tmp_path / "a.conv.1").read_bytes()
    assert part == whole[:12] + bytes(8) + whole[20 : 20 + 4 * (2 + 2 * 27)]
    assert main(["partial", *(str(tmp_path / name) for name in ("a.cfg", "a.weights", "b")), "3"]) == 1
    assert "expected 1 to 2 layers" in capsys.readouterr().err
