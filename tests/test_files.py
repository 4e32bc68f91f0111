"""Atomic writing of files."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from darknet_py.errors import DataError, WeightsError
from darknet_py.files import check_checksum, remove_checksum, write_atomically, write_checksum
from darknet_py.model.header import read_header
from darknet_py.untrusted import read_text


def test_file_is_replaced_or_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def broken() -> Iterator[bytes]:
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="a: cannot write: No space left"):
        write_atomically(path, broken())
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomically(pipe, b"anchors")
    reader.join(10)
    assert got == [b"anchors"] and pipe.is_fifo()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'\n\n<!DOCTYPE html>\n<html lang="en">', "it is a web page; download the file itself"),
        (b"<HTML><head>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "it is a Git LFS pointer"),
    ],
)
def test_files_that_were_not_downloaded_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a: cannot read the cfg: {message}"):
        read_text(path, "cfg", keep_bytes=True)
    with pytest.raises(WeightsError, match=f"a: cannot read the weights: {message}"):
        read_header(path)


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_the_folder_is_synced_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    write_atomically(tmp_path / "a", b"1")
    assert synced == [False, True]


def test_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    path.write_bytes(b"abc")
    digest = write_checksum(path)
    beside = tmp_path / "a.weights.sha256"
    assert beside.read_text() == f"{digest}  a.weights\n" and digest == hashlib.sha256(b"abc").hexdigest()
    with path.open("rb") as file:
        check_checksum(file, path, WeightsError)
        assert file.read() == b"abc"
    path.write_bytes(b"abcd")
    with path.open("rb") as file, pytest.raises(WeightsError, match=r"not the file that a.weights.sha256 is of"):
        check_checksum(file, path, WeightsError)
    beside.write_text("what another program writes")
    with path.open("rb") as file:
        check_checksum(file, path, WeightsError)
    remove_checksum(path)
    remove_checksum(path)
    assert not beside.exists()
