"""`darknet_py.evaluate`: the kind of network decides what is measured."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

import darknet_py
from darknet_py.cli import main
from darknet_py.data.labels import find_labels
from darknet_py.errors import DarknetError
from darknet_py.evaluation.detector import EvalOptions, Evaluation, evaluate_detector
from tests.evaluation import make


def test_a_detector_by_files_and_by_network(tmp_path: Path) -> None:
    cfg, weights = make.small_network(tmp_path, 0, "default")
    paths = make.labeled(tmp_path)
    by_files = darknet_py.evaluate(cfg, weights=weights, images=paths, protocols=["darknet"], workers=0)
    network = darknet_py.load(cfg, weights)
    by_network = darknet_py.evaluate(network, images=paths, protocols=["darknet"], workers=0)
    expected = evaluate_detector(network, paths, options=EvalOptions(["darknet"], workers=0)).darknet
    assert isinstance(by_files, Evaluation) and isinstance(by_network, Evaluation)
    assert by_files.darknet == by_network.darknet == expected and expected is not None


def test_random_weights_are_refused(tmp_path: Path) -> None:
    cfg, _ = make.small_network(tmp_path, 0, "default")
    with pytest.raises(DarknetError, match="expected trained weights"):
        darknet_py.evaluate(cfg)


def test_a_head_of_more_classes_is_averaged_over_those_of_the_data(tmp_path: Path) -> None:
    """The number is that of training: a head for 80 classes that was trained on 6 is not divided by 80."""
    cfg, weights = make.small_network(tmp_path, 0, "default")  # 4 classes
    paths = make.labeled(tmp_path)
    for path in paths:
        Path(find_labels(path)).write_text("1 .5 .5 .4 .4\n")
    (tmp_path / "x.names").write_text("a\nb\n")
    (tmp_path / "x.data").write_text(f"classes=2\nnames={tmp_path / 'x.names'}\n")  # images come by themselves
    result = darknet_py.evaluate(cfg, tmp_path / "x.data", weights, images=paths, protocols=["darknet"], workers=0)
    assert isinstance(result, Evaluation) and result.darknet is not None
    assert result.names == ("a", "b") and len(result.darknet.classes) == 2


def test_training_images_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no validation list, or it holds nothing but images of the training list."""
    cfg, weights = make.small_network(tmp_path, 0, "default")  # 4 classes
    paths = make.labeled(tmp_path)
    lists = {"train": paths, "copy": paths[::-1], "part": paths[:2], "other": paths[2:]}
    for name, images in lists.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{path}\n" for path in images))
    (tmp_path / "x.names").write_text("a\nb\nc\nd\n")
    for train, valid, said in (
        ("train", "", True),
        ("train", "train", True),
        ("train", "copy", True),
        ("train", "part", True),
        ("part", "other", False),
        ("none", "other", False),
    ):
        more = f"valid={tmp_path}/{valid}.txt\n" if valid else ""
        (tmp_path / "x.data").write_text(f"classes=4\nnames=x.names\ntrain={tmp_path}/{train}.txt\n{more}")
        caplog.clear()
        out = tmp_path / "result.json"
        command = ["evaluate", str(cfg), "--weights", str(weights), "--data", str(tmp_path / "x.data")]
        assert main([*command, "--protocol", "darknet", "--workers", "0", f"--json={out}"]) == 0
        assert ("no validation list of its own; evaluating on the training images" in caplog.text) == said
        assert json.loads(out.read_text())["on_training_images"] == said


def test_a_network_of_more_classes_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "darknet_py")
    cfg, weights = make.small_network(tmp_path, 0, "default")  # 4 classes
    paths = make.labeled(tmp_path)
    for path in paths:
        Path(find_labels(path)).write_text("0 .5 .5 .4 .4\n")
    (tmp_path / "x.data").write_text("classes=1\n")
    darknet_py.evaluate(cfg, tmp_path / "x.data", weights, images=paths, protocols=["darknet"], workers=0)
    assert f"note: {cfg} has classes=4, {tmp_path}/x.data 1; only those are used" in caplog.messages
    (tmp_path / "x.names").write_text("a\n")
    (tmp_path / "x.data").write_text("classes=1\nnames=x.names\n")
    options = ["--weights", str(weights), "--data", str(tmp_path / "x.data"), "--no-images"]
    assert main(["detect", str(cfg), paths[0], *options]) == 0
    assert f"{tmp_path}/x.data: classes=1, but {cfg} has 4; using 4" in caplog.messages


@pytest.mark.reference
def test_the_classes_of_the_network_count(reference: Path, tmp_path: Path) -> None:
    """All classes of the head are evaluated, as in C, whatever number the .data file says."""
    base = reference / "bugs/base"
    images = sorted(str(path) for path in (base / "img").glob("*.png"))
    (tmp_path / "valid.txt").write_text("\n".join(images))
    maps = []
    for classes in (1, 2):
        lines = [f"classes={classes}", f"valid={tmp_path / 'valid.txt'}", f"names={base / 'obj.names'}"]
        (tmp_path / "x.data").write_text("\n".join(lines))
        with pytest.warns(match=r"classes=1, but .*t.cfg has 2; using 2") if classes == 1 else nullcontext():
            result = darknet_py.evaluate(
                base / "t.cfg", tmp_path / "x.data", base / "t_final.weights", protocols=["darknet"], workers=0
            )
        assert isinstance(result, Evaluation) and result.darknet is not None
        assert result.names == ("red box", "blue")
        maps.append(result.darknet.map)
    assert maps[0] == maps[1] and round(maps[0], 4) == 0.6029
