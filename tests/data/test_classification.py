"""Classifier data: classes from paths, the random crop, mixing, evaluation crops."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from darknet_py.cfg.net import NetSpec
from darknet_py.data.classification import (
    CUTMIX,
    CUTMIX_OR_MOSAIC,
    MIXUP,
    MOSAIC,
    ClassifierDataset,
    ClassifierEvalLoader,
    ClassifierLoader,
    augment,
    mix,
    rotate_crop,
)
from darknet_py.data.images import center_crop, load_image, resize
from darknet_py.data.loader import Batch
from darknet_py.errors import DataError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "images.npz")
NET = NetSpec(width=32, height=32, channels=3, batch=8, subdivisions=2, min_crop=30, max_crop=60, angle=7, aspect=0.75)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """cat/ and dog/ with three images each; dogs are white."""
    for name, level in (("cat", 40), ("dog", 220)):
        (tmp_path / name).mkdir()
        for number in range(3):
            image = np.full((40 + 4 * number, 50, 3), level, np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), image)
    return tmp_path


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name.startswith("rotate")])
def test_the_turned_crop_is_darknets(name: str) -> None:
    turn, scale, width, _, dx, dy, aspect = (float(part) for part in name.split("_")[1:])
    crop = rotate_crop(GOLDEN["image"], turn, scale, int(width), (dx, dy), aspect)
    # OpenCV interpolates at 1/32 of a pixel; these pixels are pure noise, so that it shows.
    difference = abs(crop - GOLDEN[name] * 255)
    assert difference.mean() < 2 and difference.max() < 16


def test_classes_from_paths() -> None:
    data = ClassifierDataset(["/x/cat/1.jpg", "/x/dog_cat.png", "/x/3.jpg"], ["dog", "cat"])
    assert [data.classes_in_path(data.paths[index]) for index in range(3)] == [[1], [0, 1], []]
    assert data.problem(0) is None and data.classes == 2
    assert data.problem(1) == "/x/dog_cat.png: expected exactly one class name in the path, got dog, cat"
    assert (data.problem(2) or "").endswith("got none")
    np.testing.assert_allclose(data.target(0, 0.1), [0.1, 0.9])
    np.testing.assert_allclose(ClassifierDataset(["a"], ["a", "b", "c"]).target(0, 0.3), [0.7, 0.15, 0.15])
    with pytest.raises(DataError, match="at least one class label"):
        ClassifierDataset(["a"], [])


def test_a_folder_per_class(folder: Path) -> None:
    (folder / "caterpillar").mkdir()
    cv2.imwrite(str(folder / "caterpillar" / "0.png"), np.zeros((9, 9, 3), np.uint8))
    data = ClassifierDataset.from_folder(folder)
    assert data.names == ["cat", "caterpillar", "dog"] and len(data) == 7
    assert [data.classes_in_path(data.paths[index]) for index in (0, 3, 4)] == [[0], [1], [2]]
    with pytest.raises(DataError, match="one folder per class, got none"):
        ClassifierDataset.from_folder(folder / "cat")


def take(folder: Path, net: NetSpec, count: int = 2, **options: int) -> list[Batch]:
    loader = ClassifierLoader(ClassifierDataset.from_folder(folder), net, **{"workers": 0, **options})  # type: ignore[arg-type]
    return list(itertools.islice(loader.batches(options.pop("start", 0)), count))


def test_batches(folder: Path) -> None:
    batches = take(folder, NET, 6)
    for batch in batches:
        assert batch.images.shape == (4, 3, 32, 32) and batch.truth.shape == (4, 2)
        assert torch.equal(batch.truth.sum(1), torch.ones(4))
        # the class shows in the color, wherever the crop holds no black border
        assert ((batch.images.amax((1, 2, 3)) > 0.5) == (batch.truth[:, 1] == 1)).all()
    again = take(folder, NET, 6, workers=2)
    assert all(
        torch.equal(a.images, b.images) and torch.equal(a.truth, b.truth) for a, b in zip(batches, again, strict=True)
    )
    parts = [take(folder, NET, 6, mini_batch=2, rank=rank, world=2) for rank in (0, 1)]
    assert torch.equal(batches[1].images[1::2], parts[1][1].images)


@pytest.mark.parametrize("kind", [MIXUP, CUTMIX, MOSAIC, CUTMIX_OR_MOSAIC])
def test_mixing(folder: Path, kind: int) -> None:
    net = replace(NET, mixup=kind, label_smooth_eps=0.1, blur=4)
    truth = torch.cat([batch.truth for batch in take(folder, net, 8)])
    torch.testing.assert_close(truth.sum(1), torch.ones(len(truth)))
    pure = ((truth - 0.9).abs() < 1e-6).any(1)
    assert 0.3 < pure.float().mean() < 1


@pytest.mark.parametrize("kind", [MIXUP, CUTMIX, MOSAIC])
def test_targets_mix_as_the_pixels_do(kind: int) -> None:
    images = [np.full((50, 40, 3), 50 * number, np.uint8) for number in range(1, 5)]
    targets = list(np.eye(4, dtype=np.float32))
    count = 4 if kind == MOSAIC else 2
    for seed in range(10):
        mixed, target = mix(kind, images[:count], targets[:count], np.random.default_rng(seed))
        if kind == MIXUP:
            assert np.unique(mixed).tolist() == [75] and target.tolist() == [0.5, 0.5, 0, 0]
        else:
            shares = [(mixed[:, :, 0] == 50 * number).mean() for number in range(1, 5)]
            np.testing.assert_allclose(target, shares, atol=1e-6)
            assert (target[:count] > 0.03).all()


def test_contrastive_views_come_in_pairs(folder: Path) -> None:
    net = replace(NET, contrastive=True, batch=16)
    batch = take(folder, net, 1)[0]
    assert torch.equal(batch.truth[::2], batch.truth[1::2])
    assert not torch.equal(batch.images[::2], batch.images[1::2])
    unsupervised = take(folder, replace(net, unsupervised=True), 1)[0]
    assert torch.equal(unsupervised.truth.sum(1), torch.ones(8))


def test_the_random_crop(folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    plain = replace(NET, flip=False, angle=0, aspect=1, min_crop=60, max_crop=60, height=24)
    crop = augment(image, plain, np.random.default_rng(0))
    assert crop.shape == (24, 32, 3)  # cut out square, then resized
    for channels in (1, 3):
        for seed in range(20):
            view = augment(
                image[:, :, :channels].copy(), replace(NET, hue=0.1, exposure=2), np.random.default_rng(seed)
            )
            assert view.shape == (32, 32, channels) and view.dtype == np.uint8


@pytest.mark.parametrize(("shape", "size"), [((60, 80), (32, 32)), ((80, 60), (32, 24)), ((50, 50), (20, 30))])
def test_evaluation_takes_the_middle(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    crop = center_crop(image, *size)
    assert crop.shape == (size[1], size[0], 3)
    if shape == (60, 80):
        np.testing.assert_array_equal(crop, resize(image, 42, 32)[:, 5:37])
    if shape == (50, 50):  # higher than the resized image
        np.testing.assert_array_equal(crop[5:25], resize(image, 20, 20))
        np.testing.assert_array_equal(crop[0], crop[5])


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_and_classes(folder: Path, workers: int) -> None:
    (folder / "cat" / "0.png").write_bytes(b"broken")
    paths = [str(path) for path in sorted(folder.glob("*/*.png"))]
    data = ClassifierDataset(paths, ["cat", "do"])
    batches = list(ClassifierEvalLoader(data, (16, 16), batch=4, workers=workers))
    assert [batch.indices for batch in batches] == [[1, 2, 3], [4, 5]]
    assert torch.cat([batch.class_ids for batch in batches]).tolist() == [0, 0, 1, 1, 1]
    assert "0.png: unsupported or corrupt" in batches[0].skipped[0]
    np.testing.assert_array_equal(batches[0].images[0].permute(1, 2, 0), center_crop(load_image(paths[1]), 16, 16))
    loader = ClassifierLoader(ClassifierDataset(paths, ["cat", "x"]), NET, workers=workers)
    skipped = [line for batch in itertools.islice(loader.batches(), 8) for line in batch.skipped]
    assert sum("unsupported or corrupt" in line for line in skipped) == 1
    assert sum("expected exactly one class name" in line for line in skipped) == 3
    with pytest.raises(DataError, match="cannot read the image"):
        next(ClassifierLoader(ClassifierDataset([str(folder / "no.png")], ["n"]), NET, workers=workers).batches())


def test_gray_images(folder: Path) -> None:
    data = ClassifierDataset([str(path) for path in folder.glob("*/*.png")], ["cat", "dog"], channels=1)
    net = replace(NET, channels=1, mixup=CUTMIX, blur=1, hue=0.1, exposure=1.5)
    assert next(ClassifierLoader(data, net, workers=0).batches()).images.shape == (4, 1, 32, 32)
