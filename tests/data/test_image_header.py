"""Headers of images, beside what OpenCV decodes."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.data.image_header import image_file_header, image_header
from darknet_py.data.images import IMAGE_SUFFIXES, MAX_PIXELS, decode_image, load_image
from darknet_py.errors import CfgWarning, DataError

IMAGE = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)


def encoded(suffix: str, image: np.ndarray = IMAGE) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize(
    "suffix", [suffix for suffix in IMAGE_SUFFIXES if suffix not in (".npy", ".jfif", ".pgm", ".avif")]
)
def test_sizes(suffix: str) -> None:
    header = image_header(encoded(suffix))
    assert header == (80, 70, 8, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    data = with_orientation(encoded(".jpg"), orientation)
    header = image_header(data)
    assert header is not None and header.orientation == orientation
    assert header.upright == decode_image(data).shape[1::-1]
    (tmp_path / "a.jpg").write_bytes(data)
    assert image_file_header(tmp_path / "a.jpg") == header


def test_damaged_headers() -> None:
    for suffix in (".jpg", ".png", ".tif", ".bmp", ".ppm"):
        data = encoded(suffix)
        for end in range(40):
            image_header(data[:end])
            image_header(data[:end] + b"\xff" * 40)


def claiming(width: int, height: int) -> dict[str, bytes]:
    """Small files that claim a size."""
    jpeg = bytearray(encoded(".jpg"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", height, width)
    png = bytearray(encoded(".png"))
    png[16:24] = struct.pack(">II", width, height)
    bmp = bytearray(encoded(".bmp"))
    bmp[18:26] = struct.pack("<ii", width, height)
    return {"jpg": bytes(jpeg), "png": bytes(png), "bmp": bytes(bmp), "pgm": f"P5 {width} {height} 255 ".encode()}


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "pgm"])
def test_claimed_pixels_are_not_allocated(kind: str) -> None:
    with pytest.raises(DataError, match=r"expected at most 178,956,970 pixels, got 32000 x 32000"):
        decode_image(claiming(32000, 32000)[kind])
    assert MAX_PIXELS < 32000 * 32000


def test_claimed_bytes_of_a_png_are_not_allocated() -> None:
    """OpenCV 5 allocates and fills what a part of the file claims to have."""
    png = bytearray(encoded(".png"))
    place = png.index(b"IDAT") - 4
    for claim in (len(png), 1 << 31, (1 << 32) - 1):
        png[place : place + 4] = struct.pack(">I", claim)
        with pytest.raises(DataError, match="the PNG is cut off, or damaged"):
            decode_image(bytes(png))
    for damaged in (encoded(".png")[:-20], encoded(".png")[:-12] + b"\x86\0\0\0IEND\xaeB`\x82"):
        with pytest.raises(DataError, match="the PNG is cut off, or damaged"):
            decode_image(damaged)


def test_odd_directories_of_tiff() -> None:
    """The first of two equal tags counts, as in libtiff; and a place may be anywhere up to 2^64."""
    tiff = bytearray(cv2.imencode(".tif", IMAGE, (cv2.IMWRITE_TIFF_COMPRESSION, 1))[1])
    start = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, start)[0]
    last = start + 2 + 12 * (count - 1)
    tiff[last : last + 12] = struct.pack("<HHIHH", 256, 3, 1, 5, 0)
    header = image_header(bytes(tiff))
    assert header is not None and header.width == 80
    assert image_header(b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(40)) is None


def test_claimed_arrays_are_not_allocated() -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (900000, 900000, 3), }".ljust(117) + b"\n"
    with pytest.raises(DataError, match="cannot read the array: cut off"):
        decode_image(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + b"\0" * 100)


def test_damaged_arrays(reference: Path) -> None:
    for name in ("img_0.bin", "img_1.bin"):
        with pytest.raises(DataError, match=rf"{name}: cannot read the array: .+") as error:
            load_image(reference / "bugs/hostile" / name)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="pixels, got 32000 x 32000"):
        load_image(reference / "bugs/hostile/claim32k.jpg")


@pytest.mark.parametrize("header", [b"{'descr': '|u1'", b"{'des\0': 1}", b"{", b"[(((", b"{'descr': [], 'shape': 1}"])
def test_damaged_array_headers(header: bytes) -> None:
    with pytest.raises(DataError, match="cannot read the array"):
        decode_image(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) + 1) + header + b"\n")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_twelve_bits_in_sixteen(tmp_path: Path, suffix: str) -> None:
    dark, full = tmp_path / f"dark{suffix}", tmp_path / f"full{suffix}"
    twelve = np.linspace(0, 4095, 64 * 64, dtype=np.uint16).reshape(64, 64)
    dark.write_bytes(encoded(suffix, twelve))
    full.write_bytes(encoded(suffix, twelve * 16))
    with pytest.warns(CfgWarning, match="nearly black in 8 bits; multiply its values by 16"):
        assert load_image(dark).max() == 15
    assert load_image(full).max() == 255


def test_headers_of_rarer_formats() -> None:
    """What OpenCV decodes has a header; else its size would not be known before."""
    decimals = IMAGE.astype(np.float32) / 255
    for suffix, image in ((".ras", IMAGE), (".sr", IMAGE), (".pam", IMAGE), (".pfm", decimals), (".hdr", decimals)):
        header = image_header(encoded(suffix, image))
        assert header is not None and header[:2] == (80, 70), suffix
    if ".avif" in IMAGE_SUFFIXES:
        assert image_header(encoded(".avif")) == (80, 70, 8, 1)
    os2 = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 80, 70, 1, 24)
    assert image_header(os2) == (80, 70, 8, 1)
    entries = struct.pack("<HHQQ", 256, 3, 1, 80) + struct.pack("<HHQQ", 257, 4, 1, 70)
    assert image_header(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2) + entries) == (80, 70, 8, 1)


def test_bytes_between_segments_of_a_jpeg_are_skipped() -> None:
    """libjpeg skips them, too: a claim cannot hide behind them."""
    data = claiming(32000, 32000)["jpg"]
    hidden = data[:2] + b"\0junk\xff\0" + data[2:]
    assert image_header(hidden) == (32000, 32000, 8, 1)
    with pytest.raises(DataError, match="got 32000 x 32000"):
        decode_image(hidden)


def test_images_without_a_header_are_not_decoded() -> None:
    for data in (b"\xff\xd8\xff\xd9", b"unknown", encoded(".png")[:10]):
        with pytest.raises(DataError, match="unsupported or corrupt image file"):
            decode_image(data)


def test_largest_number_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKNET_PY_MAX_PIXELS", "5599")
    with pytest.raises(DataError, match="expected at most 5,599 pixels, got 80 x 70"):
        decode_image(encoded(".png"))
    monkeypatch.setenv("DARKNET_PY_MAX_PIXELS", "5600")
    assert decode_image(encoded(".png")).shape == (70, 80, 3)
