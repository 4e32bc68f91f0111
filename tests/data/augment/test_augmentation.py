"""Augmentation: crops and boxes against C Darknet's code, labels against pixels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from darknet_py.cfg.net import NetSpec
from darknet_py.data.augment.augmentation import (
    MOSAIC,
    Augmentation,
    AugmentationParams,
    Placement,
    blur,
    color,
    draw_params,
    margins,
    noise,
    paint,
    place_boxes,
    place_image,
)
from darknet_py.data.augment.mosaic import compose, cut_point, images_per_sample, tile
from darknet_py.errors import DataError
from darknet_py.layers.base import DetectionHeadSpec

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "augment.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_crop_and_boxes_are_darknets(case: dict[str, Any]) -> None:
    """`load_data_detection`, `correct_boxes` and `blend_truth_mosaic`, compiled and fed with these numbers."""
    image, net = tuple(case["image"]), tuple(case["net"])
    options = Augmentation(jitter=case["jitter"], resize=case["resize"], letter_box=bool(case["letter_box"]))
    drawn = AugmentationParams(tuple(case["sides"]), tuple(case["zoom"]), bool(case["flip"]))
    cut = margins(options, drawn, image, net)
    np.testing.assert_allclose(cut, case["margins"], atol=1)  # C computes them in float32
    cut = tuple(case["margins"])
    if case["mosaic"]:
        placement = tile(
            case["tile"], tuple(case["cut"]), cut, drawn.flip, bool(case["corner"]), image, net, bool(case["bound"])
        )
    else:
        placement = place_image(cut, drawn.flip, image, net)
    boxes = np.zeros((len(case["boxes"]), 6), np.float32)
    boxes[:, 0], boxes[:, 1:5] = np.arange(len(boxes)), case["boxes"]
    ours = {int(row[0]): row[1:5] * (*net, *net) for row in place_boxes(boxes, placement, image, net)}
    theirs = {int(row[0]): np.array(row[1:]) * (*net, *net) for row in case["truth"]}
    # In a mosaic C truncates box sides to place_image pixels, and our tiles start at place_image pixels of the photo.
    scale = max(net[0] / (image[0] - cut[0] - cut[1]), net[1] / (image[1] - cut[2] - cut[3]), 1)
    tolerance = 1.5 * scale if case["mosaic"] else 0.01
    for number in ours.keys() | theirs.keys():
        if number in ours and number in theirs:
            np.testing.assert_allclose(ours[number], theirs[number], atol=tolerance)
        else:
            left_over = ours[number] if number in ours else theirs[number]
            assert left_over[2:].min() <= 1 + 2 * tolerance


COLORS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20]], np.uint8)


def photo(rng: np.random.Generator, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """A gray image with one rectangle of COLORS[kind], and its box."""
    height, width = rng.integers(120, 400, 2)
    image = np.full((height, width, 3), 128, np.uint8)
    w, h = rng.integers(20, width // 2), rng.integers(20, height // 2)
    x, y = rng.integers(0, width - w), rng.integers(0, height - h)
    image[y : y + h, x : x + w] = COLORS[kind]
    return image, np.array([[kind, (x + w / 2) / width, (y + h / 2) / height, w / width, h / height, 0]], np.float32)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("seed", range(12))
def test_boxes_stay_on_their_objects(count: int, seed: int) -> None:
    """What is painted in an object's color is what its box says, after crop, resize, flip, letterbox and mosaic."""
    rng = np.random.default_rng(seed)
    options = Augmentation(
        jitter=0.3,
        resize=(1.0, 1.5, 0.7)[seed % 3],
        flip=True,
        mixup=MOSAIC if count == 4 else 0,
        mosaic_bound=True,
        letter_box=count == 1 and seed % 2 == 0,
    )
    net = (224, 160)
    images = [photo(rng, kind) for kind in range(count)]
    canvas, boxes = compose(options, images, [draw_params(options, rng) for _ in images], net, rng)
    assert canvas.shape == (160, 224, 3)
    for kind in range(count):
        painted = (abs(canvas.astype(int) - COLORS[kind]) < 60).all(2)
        found = boxes[boxes[:, 0] == kind]
        if not len(found):
            assert painted.sum() < 2 * 224
            continue
        x, y, w, h = found[0, 1:5] * (*net, *net)
        rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
        if len(rows):
            seen = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            np.testing.assert_allclose((x - w / 2, y - h / 2, x + w / 2, y + h / 2), seen, atol=2.1)
        else:
            assert min(w, h) < 4


def test_a_mosaic_paints_every_pixel() -> None:
    rng = np.random.default_rng(0)
    options = Augmentation(jitter=0.3, flip=True, mixup=MOSAIC)
    for _ in range(20):
        images = [(np.full((90, 70, 3), 10 + kind, np.uint8), np.zeros((0, 6), np.float32)) for kind in range(4)]
        canvas, boxes = compose(options, images, [draw_params(options, rng) for _ in images], (96, 64), rng)
        assert len(boxes) == 0 and set(np.unique(canvas)) == {10, 11, 12, 13}
        assert (canvas[0, 0, 0], canvas[0, -1, 0], canvas[-1, 0, 0], canvas[-1, -1, 0]) == (10, 11, 12, 13)


def test_the_cut_leaves_a_fifth() -> None:
    cuts = np.array([cut_point((100, 200), np.random.default_rng(seed)) for seed in range(300)])
    assert cuts.min(0).tolist() == [20, 40] and cuts.max(0).tolist() == [80, 160]


def test_mixup_is_the_mean_of_two() -> None:
    options = Augmentation(mixup=1, max_boxes=3)
    box = np.array([[0, 0.5, 0.5, 0.5, 0.5, 0]], np.float32)
    images = [(np.full((8, 8, 1), 100, np.uint8), np.repeat(box, 2, 0)), (np.full((8, 8, 1), 51, np.uint8), box + 1e-3)]
    canvas, boxes = compose(
        options, images, [AugmentationParams(), AugmentationParams()], (16, 16), np.random.default_rng(0)
    )
    assert np.unique(canvas).tolist() in ([75], [76]) and canvas.shape == (16, 16, 1)
    assert len(boxes) == 3
    assert (
        len(
            compose(
                Augmentation(mixup=1, max_boxes=2),
                images,
                [AugmentationParams()] * 2,
                (16, 16),
                np.random.default_rng(0),
            )[1]
        )
        == 2
    )


def test_half_of_the_samples_are_mixed() -> None:
    assert [images_per_sample(Augmentation(mixup=kind), 0.4) for kind in (0, 1, 3)] == [1, 2, 4]
    assert [images_per_sample(Augmentation(mixup=kind), 0.6) for kind in (0, 1, 3)] == [1, 1, 1]


def test_without_augmentation_it_is_opencvs_resize() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    box = np.array([[2, 0.3, 0.4, 0.2, 0.1, 7]], np.float32)
    canvas, boxes = compose(Augmentation(), [(image, box)], [AugmentationParams()], (64, 48), np.random.default_rng(0))
    np.testing.assert_array_equal(canvas, cv2.resize(image, (64, 48), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_allclose(boxes, box, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_beyond_the_image_is_its_mean(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    canvas = np.empty((40, 60, channels), np.uint8)
    paint(image, Placement((-30, -20, 60, 40), (0, 0, 60, 40), (0, 0, 60, 40), True), canvas)
    np.testing.assert_array_equal(canvas[20:, :30], image[:, ::-1])
    assert (abs(canvas[:20] - image.mean((0, 1))) <= 0.51).all()
    paint(image, Placement((50, 50, 10, 10), (0, 0, 60, 40), (0, 0, 60, 40), False), canvas)
    assert (abs(canvas - image.mean((0, 1))) <= 0.51).all()


def test_color_is_close_to_darknets_distort_image() -> None:
    golden = np.load(Path(__file__).parents[2] / "golden" / "images.npz")
    for name in (name for name in golden.files if name.startswith("distort")):
        image = color(golden["image"], *(float(part) for part in name.split("_")[1:]))
        # Beyond full saturation or value the float version goes on and clips later; OpenCV's stops there, as ours.
        inside = ((golden[name] > 0) & (golden[name] < 1)).all(2)
        difference = abs(image - golden[name] * 255)[inside]
        assert inside.mean() > 0.4 and difference.mean() < 1 and difference.max() < 8  # 8 bits and 180 hues


def test_hue_wraps_around_and_gray_gets_brighter() -> None:
    image = np.array([[[200, 20, 10]]], np.uint8)  # a red, whose hue is near 0
    np.testing.assert_allclose(color(image, -0.1, 1, 1)[0, 0], [200, 10, 114], atol=6)
    assert color(image, 0.3, 1, 1, out=image) is image
    np.testing.assert_allclose(image[0, 0], [38, 200, 10], atol=6)
    gray = np.array([[[100], [200]]], np.uint8)
    gray = color(gray, 0.1, 2, 1.5)
    assert gray.ravel().tolist() == [150, 255]


def test_blur_spares_objects_and_small_ones_stop_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    everything = Placement((0, 0, 64, 64), (0, 0, 64, 64), (0, 0, 64, 64), False)
    box = np.array([[0, 0.5, 0.5, 0.5, 0.5, 0]], np.float32)
    background = image.copy()
    blur(background, 1, box, everything, (64, 64))
    np.testing.assert_array_equal(background[16:48, 16:48], image[16:48, 16:48])
    assert background[:10].std() < image[:10].std() / 4
    both = image.copy()
    blur(both, 9, box, everything, (64, 64))  # 32 pixels wide: a kernel of 4 at most
    np.testing.assert_array_equal(both, cv2.GaussianBlur(image, (5, 5), 0))
    for boxes in (box * (1, 1, 1, 0.1, 0.1, 1), box[:0]):
        same = image.copy()
        blur(same, 9, boxes.astype(np.float32), everything, (64, 64))
        np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_blur_and_noise_leave_objects_where_they_are(count: int) -> None:
    """In mosaics too, the background's blur spares what the boxes hold, and no box moves."""
    rng = np.random.default_rng(5)
    options = Augmentation(jitter=0.2, flip=True, mixup={1: 0, 2: 1, 4: MOSAIC}[count], mosaic_bound=True)
    images = []
    for kind in range(count):
        image = rng.integers(0, 256, (160, 200, 3), dtype=np.uint8)
        images.append((image, np.array([[kind, 0.5, 0.5, 0.5, 0.5, 0]], np.float32)))
    draws = [draw_params(options, rng) for _ in images]
    changes: tuple[dict[str, int], ...] = ({}, {"blur": 1}, {"noise": 20})
    (plain, boxes), (blurred, again), (noisy, third) = (
        compose(options, images, [each._replace(**change) for each in draws], (128, 96), np.random.default_rng(1))
        for change in changes
    )
    np.testing.assert_array_equal(boxes, again)
    np.testing.assert_array_equal(boxes, third)
    assert len(boxes) and abs(noisy.astype(int) - plain).mean() > 5
    inside = np.zeros((96, 128), bool)
    for x, y, w, h in boxes[:, 1:5] * (128, 96, 128, 96):
        # C rounds down; a pixel of the border may go either way.
        inside[math.ceil(y - h / 2) + 1 : int(y + h / 2) - 1, math.ceil(x - w / 2) + 1 : int(x + w / 2) - 1] = True
    same = (blurred == plain).all(2)
    if count != 2:  # of two pictures on each other, each is blurred around its own boxes only
        assert same[inside].all()
    assert inside.any() and same[~inside].mean() < 0.3


def test_noise() -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    noise(image, 20, np.random.default_rng(0))
    assert abs(image.mean() - 128) < 1 and abs(image.std() - 20) < 1


def test_draws_follow_the_options() -> None:
    options = Augmentation(flip=True, hue=0.1, saturation=1.5, exposure=2, blur=7, gaussian_noise=9)
    draws = [draw_params(options, np.random.default_rng(seed)) for seed in range(500)]
    assert 0.4 < np.mean([each.flip for each in draws]) < 0.6
    hues, saturations, exposures = (np.array([getattr(d, k) for d in draws]) for k in ("hue", "saturation", "exposure"))
    assert abs(hues).max() <= 0.1 and hues.std() > 0.05
    assert 1 / 1.5 <= saturations.min() < 0.7 and 1.45 < saturations.max() <= 1.5
    assert 0.5 <= exposures.min() < 0.55 and 0.4 < (exposures < 1).mean() < 0.6
    assert {each.blur for each in draws} == {0, 1, 7} and {each.noise for each in draws} == {0, 9}
    plain = draw_params(Augmentation(), np.random.default_rng(0))
    assert plain[2:8] == (False, 0, 1, 1, 0, 0)


def test_nothing_left_of_the_image_means_no_crop() -> None:
    assert place_image((50, 60, 0, 0), False, (100, 100), (32, 32)).source == (0, 0, 100, 100)
    assert place_image((120, -60, 0, 0), False, (100, 100), (32, 32)).source == (0, 0, 100, 100)
    assert place_image((-20, 60, 5, 5), False, (100, 100), (32, 32)).source == (-20, 5, 60, 90)


def test_options_from_the_cfg() -> None:
    head = DetectionHeadSpec(jitter=0.3, resize=1.5, random=1.0, max_boxes=90)
    net = NetSpec(width=32, height=32, mixup=4, hue=0.1, saturation=0, exposure=1.5, mosaic_bound=True)
    options = Augmentation.of(net, head)
    assert (options.jitter, options.resize, options.random, options.max_boxes) == (0.3, 1.5, 1.0, 90)
    assert options.mixup == MOSAIC and options.mosaic_bound and options.saturation == 1 and options.flip
    assert Augmentation.of(NetSpec(mixup=2)).mixup == 0
    with pytest.raises(DataError, match="mosaic=1 and letter_box=1"):
        Augmentation.of(NetSpec(mixup=3, letter_box=True))
