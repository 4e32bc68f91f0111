"""Reading, resize and letterbox, against figures from C Darknet's functions (tests/golden/images.npz)."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pil

import darknet_py
from darknet_py.cli import main
from darknet_py.data.images import (
    IMAGE_SUFFIXES,
    decode_image,
    from_letterbox,
    letterbox,
    load_image,
    resize,
    to_letterbox,
)
from darknet_py.errors import DataError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "images.npz")


def of(kind: str) -> list[str]:
    return [name for name in GOLDEN.files if name.startswith(kind)]


@pytest.mark.parametrize("name", of("resize") + of("letterbox"))
def test_equals_darknets_own(name: str) -> None:
    kind, _, size = name.partition("_")
    width, height = map(int, size.split("x"))
    result = {"resize": resize, "letterbox": letterbox}[kind](GOLDEN["image"], width, height)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, GOLDEN[name], atol=3e-7)


def test_resize_keeps_the_last_row_and_handles_one_pixel() -> None:
    # 4 % of the heights make C's r * h_scale fall just short of the last row, which then comes out black.
    image = np.full((462, 5, 3), 200, np.uint8)
    for height in (320, 416, 461, 1):
        np.testing.assert_allclose(resize(image, 4, height), 200 / 255, rtol=1e-6)
    assert resize(np.full((1, 1, 1), 7, np.uint8), 3, 2).shape == (2, 3, 1)


def test_float_images_are_taken_as_they_are() -> None:
    image = GOLDEN["image"].astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(resize(image, 32, 20), GOLDEN["resize_32x20"], atol=3e-7)


@pytest.mark.parametrize("image_size", [(640, 480), (300, 500), (416, 416)])
def test_boxes_go_into_the_letterbox_and_back(image_size: tuple[int, int]) -> None:
    boxes = torch.rand(5, 4)
    inside = to_letterbox(boxes, image_size, (416, 352))
    torch.testing.assert_close(from_letterbox(inside, image_size, (416, 352)), boxes)


def test_a_letterboxed_pixel_is_where_the_box_says() -> None:
    image = np.zeros((100, 200, 1), np.uint8)
    image[40:60, 50:90] = 255
    box = torch.tensor([0.35, 0.5, 0.2, 0.2])
    x, y, w, h = (to_letterbox(box, (200, 100), (200, 200)) * 200).tolist()
    boxed = letterbox(image, 200, 200)[:, :, 0]
    assert (boxed[round(y - h / 2) : round(y + h / 2), round(x - w / 2) : round(x + w / 2)] == 1).all()
    assert (boxed[:50] == 0.5).all() and boxed[50 : 50 + 39].max() == 0


@pytest.mark.parametrize("place", [resize, letterbox])
def test_the_result_goes_into_given_memory(place: Callable[..., NDArray[np.float32]]) -> None:
    """Of a batch; sizes that need no resizing, that of one side only, and that of both."""
    for width, height in ((17, 13), (17, 20), (32, 13), (32, 20)):
        batch = np.full((2, height, width, 3), 7, np.float32)
        place(GOLDEN["image"], width, height, batch[1])
        np.testing.assert_array_equal(batch[1], place(GOLDEN["image"], width, height))
        assert (batch[0] == 7).all()


def test_channels(tmp_path: Path) -> None:
    path = str(tmp_path / "ein Bild ü.png")
    bgra = np.zeros((4, 5, 4), np.uint8) + np.array([10, 20, 30, 255], np.uint8)
    cv2.imencode(".png", bgra)[1].tofile(path)
    assert load_image(path)[0, 0].tolist() == [30, 20, 10]
    assert load_image(path, 4)[0, 0].tolist() == [30, 20, 10, 255]
    assert load_image(path, 1).shape == (4, 5, 1)
    with pytest.raises(DataError, match="expected 5 channels of 8 bits, got 4"):
        load_image(path, 5)


def test_arrays_of_any_number_of_channels(tmp_path: Path) -> None:
    path = tmp_path / "many.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 6), dtype=np.uint8)
    np.save(path, pixels)
    np.testing.assert_array_equal(load_image(path, 6), pixels)
    np.save(path, np.asfortranarray(pixels[:, :, 0]))
    assert load_image(path, 1).shape == (7, 9, 1) and load_image(path, 1).flags.c_contiguous
    with pytest.raises(DataError, match=r"many.npy: expected uint8 \(height, width, 3\), got uint8 \(7, 9, 1\)"):
        load_image(path)
    np.save(path, pixels.astype(np.float32))
    with pytest.raises(DataError, match="got float32"):
        load_image(path, 6)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"many.npy: cannot read the array: .+"):
        load_image(path, 6)


def test_bad_files_are_named(tmp_path: Path) -> None:
    good = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))[1].tobytes()
    assert decode_image(good).shape == (90, 90, 3)
    assert decode_image(good + b"\0\0more").shape == (90, 90, 3)
    for data, message in (
        (b"", "got an empty file"),
        (b"no image", "unsupported or corrupt image file"),
        (good[: len(good) // 2], "cut off"),
        (good[:20], "unsupported or corrupt image file"),
    ):
        path = tmp_path / "bad.jpg"
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"bad.jpg: .*{message}") as error:
            load_image(path)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"none.jpg: cannot read the image: No such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="expected an image"):
        resize(np.zeros((0, 4, 3), np.uint8), 3, 3)
    with pytest.raises(DataError, match="uint8 or float32"):
        resize(np.zeros((4, 4, 3)), 3, 3)


def encoded(image: Pil.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGB", "WEBP"),
        ("RGB", "JPEG2000"),
        ("RGB", "AVIF"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("P", "TIFF"),
        ("1", "PNG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("I;16", "PNG"),
        ("I;16", "TIFF"),
    ],
)
def test_every_kind_of_file_has_pillows_pixels(mode: str, kind: str, channels: int) -> None:
    """Within 1: a gray value, and the way through CMYK or YUV, is rounded differently."""
    Pil.init()
    suffix = {"GIF": ".gif", "JPEG2000": ".jp2", "AVIF": ".avif"}.get(kind, ".png")
    if suffix not in IMAGE_SUFFIXES or kind not in Pil.SAVE:
        pytest.skip(f"{kind} is not in this build")
    ramp = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
    image = Pil.fromarray(ramp)
    if mode == "I;16":
        image = Pil.fromarray(ramp[:, :, 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)
    options: dict[str, object] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}, "AVIF": {"quality": 100}}.get(
        kind, {}
    )
    data = encoded(image, kind, **options)
    with Pil.open(BytesIO(data)) as stored:
        rgb = ramp[:, :, :1].repeat(3, 2) if mode == "I;16" else np.asarray(stored.convert("RGB"))
    expected = rgb if channels == 3 else np.asarray(Pil.fromarray(rgb).convert("L"))[:, :, None]
    assert np.abs(decode_image(data, channels).astype(int) - expected).max() <= 1


def test_sixteen_bits_of_four_channels() -> None:
    pixels = (np.arange(24, dtype=np.uint16).reshape(2, 3, 4) * 2560)[:, :, [2, 1, 0, 3]]
    data = cv2.imencode(".png", pixels)[1].tobytes()
    assert decode_image(data, 4).tolist() == (np.arange(24).reshape(2, 3, 4) * 10).tolist()


def test_the_limit_of_pixels_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.cfg").write_text(
        "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\nsize=1\n[softmax]\n"
    )
    darknet_py.load(tmp_path / "a.cfg").save_weights(tmp_path / "a.weights")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 20, 3), np.uint8))
    command = [
        "classify",
        *(str(tmp_path / name) for name in ("a.cfg", "a.png")),
        "--weights",
        str(tmp_path / "a.weights"),
    ]
    for more, code in (("599", 1), ("600", 0), ("599", 1)):
        assert main([*command, "--max-pixels", more]) == code
        error = capsys.readouterr().err
        assert ("expected at most 599 pixels, got 20 x 30 (resize or tile it, or raise --max-pixels)" in error) == code
    assert main(command) == 0 and "DARKNET_PY_MAX_PIXELS" not in os.environ


@pytest.mark.parametrize("size", [(7, 3), (5, 3), (7, 40), (64, 3), (7, 21), (31, 2), (1, 1)])
def test_resize_is_the_formula_to_the_last_bit(size: tuple[int, int]) -> None:
    """Whatever is computed together or left out: `resize_image`'s weights in float32, rows first."""
    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)

    def between(low: NDArray[Any], high: NDArray[Any], weight: np.float32, unit: np.float32) -> NDArray[Any]:
        below = low.astype(np.float32) * ((np.float32(1) - weight) * unit)
        return below + high.astype(np.float32) * (weight * unit)

    def along(image: NDArray[Any], size: int, unit: np.float32) -> NDArray[Any]:
        scale = np.float32(len(image) - 1) / np.float32(max(size - 1, 1))
        lines = []
        for k in range(size):
            position = np.float32(k) * scale if k < size - 1 else np.float32(len(image) - 1)
            low = int(position)
            weight = np.float32(position - np.float32(low))
            lines.append(between(image[low], image[min(low + 1, len(image) - 1)], weight, unit))
        return np.stack(lines)

    expected, unit = image, np.float32(1 / 255)
    if height != 40:
        expected, unit = along(expected, height, unit), np.float32(1)
    if width != 64:
        expected = along(expected.swapaxes(0, 1), width, unit).swapaxes(0, 1)
    np.testing.assert_array_equal(resize(image, width, height), expected)
