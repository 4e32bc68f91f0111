"""The built-in detection data: same pixels on every machine, complete or absent, in Darknet's format."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest

from darknet_py import shipped
from darknet_py.data.builtin import shapes, store
from darknet_py.data.datafile import DataFile
from darknet_py.data.images import load_image
from darknet_py.data.labels import check_labels, find_labels, load_labels
from darknet_py.errors import DataError

SMALL = {"train": 4, "valid": 2}
HASH = "2280a748b8d6840ec6563c08cc50983b58cec77879fefd8c49e3c2217f20a977"


def test_pixels_are_the_same_everywhere() -> None:
    pixels = b"".join(shapes.draw_image("train", number).image.tobytes() for number in range(3))
    assert hashlib.sha256(pixels).hexdigest() == HASH
    assert shapes.draw_image("valid", 0).rows != shapes.draw_image("train", 0).rows


def test_size_and_number_of_objects() -> None:
    images = [shapes.draw_image("train", number) for number in range(60)]
    rows = np.array([row for sample in images for row in sample.rows])
    assert set(rows[:, 0]) == set(range(len(shapes.NAMES)))
    assert any(not sample.rows for sample in images)  # negatives
    side = np.sqrt(rows[:, 3] * rows[:, 4])
    assert side.min() < 0.06 and side.max() > 0.4
    low, high = rows[:, 1:3] - rows[:, 3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2
    assert low.min() >= 0 and high.max() <= 1
    for sample in images[:10]:
        assert sample.image.dtype == np.uint8 and sample.image.std() > 5


def test_darknet_format(tmp_path: Path) -> None:
    data = shapes.ensure_shapes(tmp_path / "shapes", **SMALL)
    assert len(data.train_images()) == 4 and len(data.valid_images()) == 2
    assert data.class_names() == list(shapes.NAMES)
    check_labels(data.train_images(), data.classes)
    for number, path in enumerate(data.train_images()):
        sample = shapes.draw_image("train", number)
        image = load_image(path)
        assert image.shape == sample.image.shape
        assert abs(image.astype(int) - sample.image).mean() < 8  # JPEG
        boxes = load_labels(find_labels(path)).boxes[:, :5]
        np.testing.assert_allclose(boxes, np.reshape(sample.rows, (-1, 5)), atol=1e-6)
    again = DataFile.read(data.path)
    assert (again.train, again.valid, again.names, again.classes) == (data.train, data.valid, data.names, 6)


def test_created_once_and_repaired(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    drawn: list[int] = []
    shapes.ensure_shapes(folder, **SMALL, progress=lambda done, total: drawn.append(done))
    shapes.ensure_shapes(folder, **SMALL, progress=lambda done, total: drawn.append(done))
    assert drawn == [1, 2, 3, 4, 5, 6]
    shutil.rmtree(folder)
    (folder / "train").mkdir(parents=True)  # left by an interrupted process or another version
    data = shapes.ensure_shapes(folder, **SMALL)
    assert all(Path(path).is_file() for path in data.train_images())
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]
    moved = folder.rename(tmp_path / "elsewhere")
    assert Path(shapes.ensure_shapes(moved, **SMALL).train_images()[0]).is_file()


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shapes.ensure_shapes(tmp_path / "shapes", **SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/shapes: cannot write the built-in data: File exists"):
        shapes.ensure_shapes(tmp_path / "file" / "shapes", **SMALL)


def test_several_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    many = {"kwargs": {"train": 2, "valid": 1}, "args": (tmp_path / "shapes",)}
    processes = [context.Process(target=shapes.ensure_shapes, **many) for _ in range(3)]  # type: ignore[arg-type]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]
    assert len(list((tmp_path / "shapes").iterdir())) == 7


def test_open_builtin_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(shapes, "ensure_shapes", lambda folder=None: made.append(folder) or DataFile(Path("made")))
    assert shapes.open_darknet_data().path == Path("made") and made == [None]
    root = Path(__file__).parents[3] / "data"
    shutil.copytree(root, tmp_path / "data", ignore=shutil.ignore_patterns("shapes"))
    data = shapes.open_darknet_data(tmp_path / "data" / "shapes.data")
    assert made[1] == tmp_path / "data" / "shapes" and data.classes == 6
    assert shapes.open_darknet_data(tmp_path / "data" / "coco.data").classes == 80 and len(made) == 2
    other = tmp_path / "shapes.data"
    other.write_text("classes=2\n")
    assert shapes.open_darknet_data(other).classes == 2 and len(made) == 2


def test_folder_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.dataset_folder("shapes") == Path(__file__).parents[3] / "data" / "shapes"
    monkeypatch.setattr(shipped, "INSTALLED", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store.dataset_folder("shapes") == tmp_path / "cache" / "darknet_py" / "shapes"
