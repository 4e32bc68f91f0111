"""Loaders: samples are functions of (seed, number), bad files are skipped, evaluation keeps the order."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from darknet_py.cfg.net import NetSpec
from darknet_py.data import workers as loader_workers
from darknet_py.data.augment.augmentation import Augmentation
from darknet_py.data.dataset import DetectionDataset, free_memory
from darknet_py.data.images import letterbox, load_image, resize
from darknet_py.data.labels import save_labels
from darknet_py.data.loader import Batch, EvalLoader, TrainLoader, input_size, training_sample
from darknet_py.errors import DataError

NET = NetSpec(width=64, height=32, channels=3, batch=8, subdivisions=2, max_batches=1000, hue=0.1, exposure=1.5)
OPTIONS = replace(Augmentation.of(NET), mixup=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six noisy images 0.png … 5.png; image k has k boxes."""
    rng = np.random.default_rng(0)
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        save_labels(tmp_path / f"{number}.txt", [(k % 3, 0.5, 0.5, 0.3 + k / 20, 0.4) for k in range(number)])
    return tmp_path


def dataset(folder: Path, count: int = 6) -> DetectionDataset:
    return DetectionDataset([str(folder / f"{number}.png") for number in range(count)], classes=3)


def take(loader: TrainLoader, count: int, start: int = 0) -> list[Batch]:
    batches = loader.batches(start)
    result = list(itertools.islice(batches, count))
    batches.close()  # type: ignore[attr-defined]
    return result


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.truth, b.truth) and torch.equal(a.tracks, b.tracks)


def test_a_batch(folder: Path) -> None:
    batch = take(TrainLoader(dataset(folder), NET, OPTIONS, workers=0), 1)[0]
    assert batch.images.shape == (4, 3, 32, 64) and batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.min() >= 0 and batch.images.max() <= 1 and batch.images.std() > 0.1
    assert batch.truth.shape[1] == 6 and len(batch.tracks) == len(batch.truth) and batch.skipped == []
    assert set(batch.truth[:, 0].tolist()) <= {0, 1, 2, 3} and (batch.truth[:, 0].diff() >= 0).all()
    assert (batch.truth[:, 2:] > 0).all() and (batch.truth[:, 2:] <= 1).all()


def test_resuming_and_workers_change_nothing(folder: Path) -> None:
    state = torch.get_rng_state()
    every = take(TrainLoader(dataset(folder), NET, OPTIONS, seed=3, workers=0), 5)
    late = take(TrainLoader(dataset(folder), NET, OPTIONS, seed=3, workers=2), 2, start=3)
    assert all(same(a, b) for a, b in zip(every[3:], late, strict=True))
    assert not same(every[3], take(TrainLoader(dataset(folder), NET, OPTIONS, seed=4, workers=0), 1, 3)[0])
    assert not same(every[0], every[1])
    assert torch.equal(torch.get_rng_state(), state)  # training's own random numbers are left alone


def test_batches_stay_what_they_were(folder: Path) -> None:
    """Workers paint in buffers that they use again; what was handed over is a copy."""
    net = replace(NET, width=32, resize_step=16)
    options = replace(OPTIONS, random=1.0)
    one, many = (take(TrainLoader(dataset(folder), net, options, workers=count), 80, start=15) for count in (0, 2))
    assert all(same(a, b) for a, b in zip(one, many, strict=True))
    assert len({batch.images.shape for batch in one}) > 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="wants Linux's account of shared memory")
def test_memory_shared_with_workers_does_not_grow(folder: Path) -> None:
    """Neither for batches to train on, which are painted in a few buffers, nor for those to measure on."""

    def shared() -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssShmem"))
        return int(line.split()[1])

    net = replace(NET, width=256, height=256)
    for loader in (
        TrainLoader(dataset(folder), net, OPTIONS, workers=1).batches(),
        iter(EvalLoader(repeated(200, folder), (256, 256), batch=4, workers=1)),
    ):
        before = shared()
        for batch in itertools.islice(loader, 40):
            batch.images.sum()  # memory that is not looked at does not count
        grown = shared() - before
        loader.close()  # type: ignore[attr-defined]
        assert grown < 6 * 4 * 256 * 256 * 3 * 4 / 1024  # KiB of six batches of float32


def repeated(count: int, folder: Path) -> DetectionDataset:
    return DetectionDataset([str(folder / f"{number % 6}.png") for number in range(count)], classes=3)


def test_two_processes_see_what_one_sees(folder: Path) -> None:
    one = take(TrainLoader(dataset(folder), NET, OPTIONS, mini_batch=4, workers=0), 2)
    parts = [
        take(TrainLoader(dataset(folder), NET, OPTIONS, mini_batch=2, workers=0, rank=rank, world=2), 2)
        for rank in (0, 1)
    ]
    for number, batch in enumerate(one):
        for rank in (0, 1):
            assert torch.equal(batch.images[rank::2], parts[rank][number].images)
            ours = batch.truth[batch.truth[:, 0] % 2 == rank][:, 1:]
            assert torch.equal(ours, parts[rank][number].truth[:, 1:])


@pytest.mark.parametrize("cache", [True, None])
def test_images_in_memory_give_the_same(folder: Path, cache: bool | None) -> None:
    plain = take(TrainLoader(dataset(folder), NET, OPTIONS, workers=0, cache=False), 2)
    loader = TrainLoader(dataset(folder), NET, OPTIONS, workers=1, cache=cache)
    batches = loader.batches()
    first = next(batches)
    for number in range(6):
        (folder / f"{number}.png").unlink()
    assert same(plain[0], first) and same(plain[1], next(batches))


def test_the_cache_stops_at_its_limit(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    data, size = dataset(folder), 40 * 50 * 3
    seen: list[tuple[int, int]] = []
    assert data.cache(limit=size * 2) == 2 and data.fits(size * 6) and not data.fits(size * 5)
    assert data.cache(progress=lambda done, total: seen.append((done, total))) == 5 and seen == [(4, 4)]
    assert 1 << 20 < free_memory() < 1 << 50


def test_a_cache_says_what_it_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "5.png").write_bytes(b"")
    size = 40 * 50 * 3
    data = dataset(folder)
    line = data.fill_cache(True)
    assert line.startswith("cache: 5 of 6 images in memory, 0.0 MiB; the others are read on demand (limit ")
    assert data.fill_cache(True) == "" and data.image(0) is data.image(0)
    assert len(pickle.dumps(data)) < size  # a loader process that is not forked gets no copy
    monkeypatch.setattr("darknet_py.data.dataset.free_memory", lambda: 2 * size * 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # half of the free memory, for two processes
    assert dataset(folder, 5).fill_cache(True).startswith("cache: 2 of 5 images in memory")
    assert dataset(folder, 5).fill_cache(None) == dataset(folder, 5).fill_cache(False) == ""
    assert dataset(folder, 1).fill_cache(None) == "cache: 1 of 1 image in memory, 0.0 MiB"


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_files_are_skipped_and_reported_once(folder: Path, workers: int) -> None:
    (folder / "1.png").write_bytes(b"broken")
    (folder / "2.txt").write_text("7 .5 .5 .1 .1\n0 .5 .5 nan .2\n")
    (folder / "3.txt").unlink()
    loader = TrainLoader(dataset(folder), NET, OPTIONS, workers=workers)
    batches = take(loader, 12)
    assert all(len(batch.images) == 4 and batch.truth.isfinite().all() for batch in batches)
    lines = [line for batch in batches for line in batch.skipped]
    assert sorted(lines) == sorted(loader.reports.images + loader.reports.labels) and len(set(lines)) == len(lines)
    assert [line.split(": ")[0] for line in loader.reports.images] == [str(folder / "1.png")]
    assert sorted(line.split(": ")[0].removeprefix(f"{folder}/") for line in loader.reports.labels) == [
        "2.txt:1",
        "2.txt:2",
        "3.txt",
    ]
    again = take(TrainLoader(dataset(folder), NET, OPTIONS, workers=workers), 12)
    assert all(same(a, b) for a, b in zip(batches, again, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_image_is_one_clear_line(folder: Path, workers: int) -> None:
    for number in range(6):
        (folder / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"20 consecutive images are unreadable; the last one: .*png: ") as error:
        take(TrainLoader(dataset(folder), NET, OPTIONS, workers=workers), 1)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="got an empty list"):
        DetectionDataset([], 1)


class Dying(DetectionDataset):
    def image(self, index: int) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_worker_is_one_clear_line(folder: Path) -> None:
    loader = TrainLoader(Dying([str(folder / "0.png")], 3), NET, OPTIONS, workers=1, cache=False)
    with pytest.raises(DataError, match="a loader process terminated unexpectedly"):
        take(loader, 1)


class Stopping(DetectionDataset):
    def image(self, index: int) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGSTOP)
        return super().image(index)


def test_a_stopped_worker_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_workers, "_STALLED", 1)
    loader = TrainLoader(Stopping([str(folder / "0.png")], 3), NET, OPTIONS, workers=1, cache=False)
    with pytest.raises(DataError, match=r"no batch for 1 s: the loader processes \(\d+\) have stopped"):
        take(loader, 1)
    assert not children()  # Python would wait for a stopped one when it exits


class Interrupted(DetectionDataset):
    """Sends Ctrl-C to its own process before each image, as a terminal sends it to all."""

    def image(self, index: int) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGINT)
        return super().image(index)


def test_workers_leave_ctrl_c_to_the_main_process(folder: Path) -> None:
    loader = TrainLoader(Interrupted([str(folder / "1.png")], 3), NET, OPTIONS, workers=1, cache=False)
    assert len(take(loader, 2)) == 2


def test_closing_the_iterator_ends_the_workers(folder: Path) -> None:
    before = set(children())
    batches = TrainLoader(dataset(folder), NET, OPTIONS, workers=2).batches()
    next(batches)
    assert len(set(children()) - before) == 2
    batches.close()  # type: ignore[attr-defined]
    assert not set(children()) - before


def test_a_program_may_end_without_closing_it(folder: Path) -> None:
    code = """
from darknet_py.data.loader import *
net = NetSpec(width=32, height=32, channels=3, batch=4)
loader = TrainLoader(DetectionDataset(["1.png"], 3), net, Augmentation.of(net), workers=2)
batches = loader.batches()
next(batches)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")


SHARING = """
import itertools, logging, sys
import torch
from darknet_py.data.loader import *
logging.basicConfig(format="%(message)s", stream=sys.stdout)
net = NetSpec(width=256, height=256, channels=3, batch=4, max_batches=1000)
def take(workers):
    images = DetectionDataset(["1.png", "2.png"], 3)
    batches = TrainLoader(images, net, Augmentation.of(net), workers=workers, cache=False).batches()
    result = [(batch.images, batch.truth) for batch in itertools.islice(batches, 8)]
    batches.close()
    evaluation = EvalLoader(images, (512, 512), batch=2, workers=workers)
    return result + [(batch.images, batch.truth) for batch in evaluation]
for one, two in zip(take(0), take(2), strict=True):
    assert all(map(torch.equal, one, two))
print("same")
"""
FULL = (
    "/dev/shm is full (1 MiB): batches reach the main process through pipes, which is slower; enlarge it (docker run "
    "--shm-size=2g), or take fewer loader processes (--workers)"
)
NONE = "without it there are no loader processes, and the main process loads the images (as with --workers 0)"


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("mount -t tmpfs -o size=1m tmpfs /dev/shm", FULL),
        ("mount -t tmpfs -o ro tmpfs /dev/shm", f"/dev/shm: Read-only file system: {NONE}"),
        (
            "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9",
            f"/dev/shm: No such file or directory: {NONE}",
        ),
    ],
    ids=["small", "read-only", "missing"],
)
def test_little_or_no_shared_memory(mount: str, said: str, folder: Path) -> None:
    """In a mount namespace of its own, with a real /dev/shm of that kind: the batches stay the same."""
    try:
        subprocess.run(["unshare", "-m", "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs mount namespaces, which only root has: {error}")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, SHARING],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{said}\nsame\n", "")


def children() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid]


def test_input_sizes_are_darknets() -> None:
    net = NetSpec(width=416, height=416, resize_step=32, max_batches=1000)
    assert input_size(net, 0, 0, 5) == (416, 416)
    assert input_size(net, 1, 0, 5) == (608, 608) == input_size(net, 1, 0, 910)
    sizes = [input_size(net, 1, 0, iteration) for iteration in range(10, 900)]
    assert all(len(set(sizes[k : k + 10])) == 1 for k in range(0, 890, 10))
    assert {size[0] for size in sizes} == set(range(320, 609, 32))
    assert input_size(net, 1.1, 0, 0) == (480, 480)
    tall = [input_size(replace(net, height=208), 1, seed, 50) for seed in range(40)]
    assert all(abs(width / height - 2) < 0.5 for width, height in tall)
    assert input_size(NetSpec(width=20, height=20, resize_step=32), 1, 0, 50) != (0, 0)
    assert input_size(replace(net, max_batches=50), 1, 1, 20) != (608, 608)  # too short to have an end


def test_the_size_changes_between_iterations_not_mini_batches(folder: Path) -> None:
    net = replace(NET, width=32, resize_step=16)
    loader = TrainLoader(dataset(folder), net, replace(OPTIONS, random=1.0), workers=0)
    sizes = [tuple(batch.images.shape[:1:-1]) for batch in take(loader, 64, start=16)]
    assert sizes == [loader.size((16 + number) // 2) for number in range(64)] and len(set(sizes)) > 1


def test_dynamic_minibatch(folder: Path) -> None:
    net = NetSpec(width=416, height=416, channels=3, batch=64, subdivisions=8, max_batches=2000, dynamic_minibatch=True)
    loader = TrainLoader(dataset(folder), net, replace(OPTIONS, random=1.0), workers=0)
    found = {loader.size(10 * block)[0]: loader.images(10 * block) for block in range(180)}
    # int(8 · 608² / side²), of which 80 % where that is more than 8 (`train_detector`)
    assert found == {320: 22, 352: 18, 384: 16, 416: 13, 448: 11, 480: 9, 512: 11, 544: 9, 576: 8, 608: 8}
    assert len({number for batch in range(30) for number, *_ in loader.numbers(batch)}) == sum(
        loader.images(batch // 8) for batch in range(30)
    )


def test_drawing_is_uniform_and_with_replacement(folder: Path) -> None:
    drawn: list[int] = []

    class Counting(DetectionDataset):
        def image(self, index: int) -> np.ndarray:
            drawn.append(index)
            return np.zeros((4, 4, 3), np.uint8)

    data = Counting(dataset(folder).paths, 3)
    for number in range(300):
        training_sample(data, replace(OPTIONS, mixup=0), 0, number, (8, 8))
    assert len(drawn) == 300 and np.bincount(drawn).min() > 30


@pytest.mark.parametrize("channels", [1, 3])
def test_grayscale(folder: Path, channels: int) -> None:
    data = DetectionDataset(dataset(folder).paths, 3, channels)
    batch = take(TrainLoader(data, NET, replace(OPTIONS, blur=5, gaussian_noise=4), workers=0), 1)[0]
    assert batch.images.shape == (4, channels, 32, 64)


@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("mixup", [0, 1, 3])
def test_many_channels(folder: Path, channels: int, mixup: int) -> None:
    """Channel k shows 20 k everywhere: still so after crop, resize, flip and mixing; exposure brightens all alike."""
    image = np.full((30, 40, channels), np.arange(channels) * 20, np.uint8)
    np.save(folder / "a.npy", image)
    (folder / "a.txt").write_text("0 .5 .5 .9 .9\n")
    data = DetectionDataset([str(folder / "a.npy")], 3, channels)
    options = replace(OPTIONS, mixup=mixup, mixing_share=1.0, flip=True, exposure=1.0, hue=0.3)
    batch = take(TrainLoader(data, NET, options, workers=0), 1)[0]
    assert batch.images.shape == (4, channels, 32, 64) and len(batch.truth) >= 4
    shown = (batch.images * 255).round()
    assert torch.equal(shown, (torch.arange(channels) * 20.0).view(1, -1, 1, 1).expand_as(shown))
    brighter = take(TrainLoader(data, NET, replace(options, exposure=2.0), workers=0), 1)[0].images * 255
    assert not torch.equal(brighter.round(), shown) and (brighter[:, 0] == 0).all()


@pytest.mark.parametrize(("place", "letter_box"), [(resize, False), (letterbox, True)])
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_keeps_order_and_skips_the_unreadable(
    folder: Path, place: Callable[..., np.ndarray], letter_box: bool, workers: int
) -> None:
    (folder / "2.png").write_bytes(b"broken")
    (folder / "3.txt").write_text("9 .5 .5 .1 .1\n1 .5 .5 .1 .1\n")
    loader = EvalLoader(dataset(folder, 5), (64, 32), batch=2, letter_box=letter_box, workers=workers)
    batches = list(loader)
    assert len(batches) == 3
    assert [batch.indices for batch in batches] == [[0, 1], [3], [4]]
    assert [len(batch.truth) for batch in batches] == [1, 1, 4]
    assert batches[1].truth.tolist() == [[0, 1, 0.5, 0.5, pytest.approx(0.1), pytest.approx(0.1)]]
    assert "2.png" in batches[1].skipped[0] and "3.txt:1" in batches[1].skipped[1]
    assert batches[0].sizes == [(50, 40)] * 2
    expected = place(load_image(folder / "4.png"), 64, 32)
    np.testing.assert_array_equal(batches[2].images[0].permute(1, 2, 0), expected)


def test_evaluation_in_two_processes(folder: Path) -> None:
    ranks = [EvalLoader(dataset(folder, 5), (32, 32), batch=2, workers=0, rank=rank, world=2) for rank in (0, 1)]
    assert [[batch.indices for batch in loader] for loader in ranks] == [[[0, 2], [4]], [[1, 3]]]
    broken = DetectionDataset([str(folder / "none.png")], 3)
    only = list(EvalLoader(broken, (32, 32), workers=0))
    assert only[0].images.shape == (0, 3, 32, 32) and only[0].indices == []
    assert [line.split(": ")[1] for line in only[0].skipped] == ["cannot read the image"]  # nothing about labels
