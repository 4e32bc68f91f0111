"""Shipped cfgs and data files are found by bare name; files of the user take precedence."""

from __future__ import annotations

from pathlib import Path

import pytest

import darknet_py
from darknet_py import shipped
from darknet_py.cli import main
from darknet_py.data.datafile import DataFile, read_names
from darknet_py.errors import DataError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_shipped_file_is_found_by_its_name() -> None:
    names = [*(ROOT / "cfg").glob("*.cfg"), *(ROOT / "data").glob("*.data"), *(ROOT / "data").glob("*.names")]
    assert len(names) > 70
    for path in names:
        assert shipped.find(path.name, "file") == path and shipped.is_shipped(path)


def test_user_files_take_precedence(tmp_path: Path) -> None:
    (tmp_path / "yolov4.cfg").write_text("")
    assert shipped.find("yolov4.cfg", "cfg") == Path("yolov4.cfg")
    assert not shipped.is_shipped("yolov4.cfg")
    (tmp_path / "broken.cfg").symlink_to("nowhere")  # the reader says what is wrong with it
    assert shipped.find("broken.cfg", "cfg") == Path("broken.cfg")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("yolov44.cfg", r"^cfg not found: yolov44.cfg; did you mean yolov4\.cfg.* \(shipped with darknet_py\)\?$"),
        ("folder/yolov4.cfg", r"^cfg not found: folder/yolov4.cfg; did you mean yolov4\.cfg"),
        ("yolov4", "did you mean .*yolov4.cfg"),
        ("xyz.cfg", r"^cfg not found: xyz.cfg$"),
        ("yolov4.cfg\0", "cfg not found"),
    ],
)
def test_the_error_names_similar_files(path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        shipped.find(path, "cfg")


def test_python_api_accepts_bare_names() -> None:
    assert darknet_py.parse("csresnext50-panet-spp.cfg").parameters > 50e6
    assert len(darknet_py.load("cifar-small.cfg").graph.layers) > 3
    assert len(read_names("coco.names")) == 80
    assert DataFile.read("coco.data").class_names() == read_names(ROOT / "data" / "coco.names")


def test_user_data_file_can_refer_to_shipped_names(tmp_path: Path) -> None:
    (tmp_path / "my.data").write_text("classes=20\ntrain=train.txt\nnames=voc.names\n")
    assert DataFile.read("my.data").class_names()[0] == "aeroplane"


def test_commands_accept_bare_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "cifar-small.cfg"]) == 0
    assert main(["info", "cifar-smal.cfg"]) == 1
    assert "did you mean cifar-small.cfg" in capsys.readouterr().err
