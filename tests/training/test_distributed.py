"""Several processes on this machine train what one process trains; what becomes of them when one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.data.datafile import DataFile
from darknet_py.data.dataset import DetectionDataset
from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, LocalBatch, layers_without_loss
from darknet_py.training.tasks.detection_task import DetectionTask
from darknet_py.training.train_options import TrainOptions
from darknet_py.training.train_step import TrainStep
from tests.ranks import finish_ranks, start_ranks
from tests.training.conftest import CFG
from tests.training.tasks.test_classification_task import CFG as CLASSIFIER

NORMED = CFG.replace("[dropout]\nprobability=.3\n", "").replace("random=1", "random=0")
PLAIN = NORMED.replace("batch_normalize=1\n", "")
AVERAGED = PLAIN.replace("decay=", "ema_alpha=.7\ndecay=")


def arguments(cfg: Path, data: Path, out: Path, *options: str) -> list[str]:
    own = ["train", str(cfg), "--data", str(data), "--out", str(out)]
    return [*own, "--workers", "0", "--device", "cpu", "--no-chart", *options]


def together(cfg: Path, data: Path, out: Path, *options: str) -> str:
    """Trains with two processes, as torchrun starts them, and returns what they said."""
    said, team = start(cfg, data, out, *options)
    assert finish_ranks(team) == [0, 0], said.read_text()
    return said.read_text()


def start(
    cfg: Path,
    data: Path,
    out: Path,
    *options: str,
    first: Callable[[], None] | None = None,
    of_second: tuple[str, ...] = (),
) -> tuple[Path, list[Any]]:
    said = out.parent / f"{out.name}.txt"
    argv = arguments(cfg, data, out, *options)
    return said, start_ranks([argv, [*argv, *of_second]], said, first)


def die_once() -> None:
    """Kills the second process before iteration 6, unless torchrun has started it again."""
    step = TrainStep.step

    def dies(self: TrainStep, mini_batches: Any) -> Any:
        if self.iteration == 5 and self.context.rank and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, mini_batches)

    TrainStep.step = dies  # type: ignore[method-assign]


def alone(cfg: Path, data: Path, out: Path, **options: Any) -> None:
    darknet_py.train(cfg, data, out=out, quiet=True, device="cpu", workers=0, chart=False, **options)


def weights(folder: Path, what: str = "final") -> np.ndarray:
    return np.fromfile(folder / f"tiny_{what}.weights", "<f4", offset=20)


def column(folder: Path, number: int) -> list[float]:
    return [float(row.split(",")[number]) for row in (folder / "tiny_log.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("text", "subdivisions"), [(PLAIN, 1), (AVERAGED, 4)], ids=["one mini-batch", "subdivisions and averages"]
)
def test_two_processes_are_one_with_twice_the_mini_batch(
    text: str, subdivisions: int, shapes: Path, tmp_path: Path
) -> None:
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(text.replace("subdivisions=2", f"subdivisions={subdivisions}"))
    alone(cfg, shapes, tmp_path / "one", max_batches=8, save_every=5, map=4)
    said = together(cfg, shapes, tmp_path / "two", "--max-batches", "8", "--save-every", "5", "--map", "4")
    assert said.count("8: mAP@0.50") == said.count("tiny_final.weights") == 1  # one process talks
    for what in ("final", "last", *(["ema"] if text == AVERAGED else [])):
        one, two = (weights(tmp_path / way, what) for way in ("one", "two"))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    assert column(tmp_path / "one", 1) == pytest.approx(column(tmp_path / "two", 1), rel=1e-5)


def test_processes_that_differ_are_refused(shapes: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(PLAIN)
    for options, expected in (
        (("--seed", "1"), "rank 1: seed: expected 0, as rank 0 has, got 1"),
        (("--limit", "8"), "rank 1: data: expected 16 and 4 images ("),
    ):
        said, team = start(cfg, shapes, tmp_path / options[0], "--max-batches", "2", of_second=options)
        assert finish_ranks(team) == [1, 1], said.read_text()
        assert said.read_text().count(expected) == 2


def test_synchronized_batch_norm(shapes: Path, tmp_path: Path) -> None:
    """Two processes with 2 images each normalize as one does with 4; without --sync-bn they do not."""
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(NORMED.replace("subdivisions=2", "subdivisions=1"))
    alone(cfg, shapes, tmp_path / "one", max_batches=6, map=False)
    options = ("--max-batches", "6", "--map", "off")
    together(cfg, shapes, tmp_path / "two", *options, "--sync-bn")
    together(cfg, shapes, tmp_path / "apart", *options)
    one, two, apart = (weights(tmp_path / way) for way in ("one", "two", "apart"))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
    assert abs(one - apart).max() > 1e-3


def test_map_by_all_processes_is_the_one_of_one(shapes: Path, tmp_path: Path) -> None:
    """To the last digit, with an odd number of images of which one cannot be read and one has no boxes."""
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(PLAIN)
    alone(cfg, shapes, tmp_path / "start", max_batches=12, map=False)
    images = DataFile.read(shapes).train_images()[:7]
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "empty.jpg"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "empty.txt").touch()
    images[3:3] = [str(tmp_path / "broken.jpg"), str(tmp_path / "empty.jpg")]
    (tmp_path / "valid.txt").write_text("\n".join(images))
    data = tmp_path / "other.data"
    data.write_text(f"classes = 6\ntrain = {DataFile.read(shapes).train}\nvalid = {tmp_path / 'valid.txt'}\n")
    # A rate of next to nothing, so that both measure the same weights.
    options = {"max_batches": 1, "map": 1, "learning_rate": 1e-30, "momentum": 0, "decay": 0}
    given = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    weights = tmp_path / "start" / "tiny_final.weights"
    alone(cfg, data, tmp_path / "one", weights=weights, clear=True, **options)
    together(cfg, data, tmp_path / "two", "--weights", str(weights), "--clear", *given)
    one, two = (json.loads((tmp_path / way / "tiny_map.json").read_text())[0] for way in ("one", "two"))
    assert one["map"] > 0 and one["images"] == 8
    assert one.pop("loss") == pytest.approx(two.pop("loss"), rel=1e-5)
    assert one == two


def test_a_killed_process_ends_the_other_and_resume_goes_on(shapes: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(PLAIN)
    options = ("--max-batches", "10", "--save-every", "2", "--map", "off")
    together(cfg, shapes, tmp_path / "whole", *options)
    out = tmp_path / "out"
    said, team = start(cfg, shapes, out, *options, first=die_once)
    assert finish_ranks(team) == [1, -signal.SIGKILL]
    assert (
        "rank 0: a peer process terminated unexpectedly; --resume continues from the last checkpoint"
        in said.read_text()
        and "Traceback" not in said.read_text()
    )
    assert (out / "tiny_last.state").exists() and not (out / "tiny_final.weights").exists()
    assert "resuming at iteration 4 of 10" in together(cfg, shapes, out, *options, "--resume")
    np.testing.assert_array_equal(weights(out), weights(tmp_path / "whole"))


@pytest.mark.slow
def test_torchrun_starts_all_again_and_they_go_on(shapes: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(PLAIN)
    options = ("--max-batches", "10", "--save-every", "2", "--map", "off")
    together(cfg, shapes, tmp_path / "whole", *options)
    script = tmp_path / "run.py"
    script.write_text(f"from darknet_py.__main__ import run; from {__name__} import die_once; die_once(); run()")
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    argv += [str(script), *arguments(cfg, shapes, tmp_path / "again", *options, "--resume")]
    path = str(Path(darknet_py.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr.count("resuming at iteration 4 of 10") == 1, done.stderr
    np.testing.assert_array_equal(weights(tmp_path / "again"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("keys", ["", "track=1\nsequential_subdivisions=2", "contrastive=1"])
def test_the_images_of_a_batch_are_those_of_this_process(keys: str, shapes: Path) -> None:
    """`files` names them when a loss is not finite; with track and contrastive, samples depend on all processes."""
    graph = parse_text(NORMED.replace("decay=", f"mosaic=1\n{keys}\ndecay=", 1))
    named: list[list[str]] = []
    for rank in (0, 1):
        task = DetectionTask.open(shapes, graph, TrainOptions(workers=0, map=False, cache=False))
        loader = task.loader(LocalBatch(2, 2), DistContext(rank, 2), 0, torch.device("cpu"))
        seen: list[str] = []

        class Recording(DetectionDataset):
            def image(self, index: int, seen: list[str] = seen) -> np.ndarray:
                seen.append(self.paths[index])
                return super().image(index)

        loader.dataset = Recording(task.train.paths, task.train.classes)
        batches = loader.batches(4)
        next(batches), next(batches)
        loader.dataset = task.train
        named.append(loader.files(range(4, 6)))
        assert named[-1] == list(dict.fromkeys(seen)) and len(named[-1]) > 1
    assert named[0] != named[1]


def test_a_classifier_by_two_processes(tmp_path: Path) -> None:
    """Weights, top-1 and figures of each class are those of one process; images and views stay with their classes."""
    dice = np.random.default_rng(0)
    for split, count in (("train", 4), ("valid", 3)):
        for name, color in (("red", (0, 0, 220)), ("green", (0, 220, 0)), ("blue", (220, 0, 0))):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((20, 20, 3), color) + dice.integers(0, 35, (20, 20, 3))
                cv2.imwrite(str(tmp_path / "set" / split / name / f"{number}.png"), pixels.astype(np.uint8))
    (tmp_path / "set" / "valid" / "red" / "0.png").write_bytes(b"no picture")
    cfg = tmp_path / "tiny.cfg"
    cfg.write_text(
        CLASSIFIER.replace("batch_normalize=1\n", "").replace("max_batches=40", "max_batches=12\ncontrastive=1")
    )
    alone(cfg, tmp_path / "set", tmp_path / "one", map=6)
    together(cfg, tmp_path / "set", tmp_path / "two", "--map", "6")
    np.testing.assert_allclose(weights(tmp_path / "one"), weights(tmp_path / "two"), rtol=1e-4, atol=1e-6)
    one, two = (json.loads((tmp_path / way / "tiny_top1.json").read_text()) for way in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a["images"] == 8
        assert a.pop("loss") == pytest.approx(b.pop("loss"), rel=1e-4)
        assert a == b


CONV = "[convolutional]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
HEAD = "[convolutional]\nfilters=6\nsize=1\n[yolo]\nmask=0\nnum=1\nanchors=3,3\nclasses=1\n"


@pytest.mark.parametrize(
    ("body", "idle"),
    [
        (CONV + CONV + HEAD, []),
        (CONV + CONV + "[route]\nlayers=0\n" + HEAD, [1]),
        (CONV + CONV + "[shortcut]\nfrom=0\nweights_type=per_channel\n" + HEAD + CONV, [5]),
        (CONV + "[implicit]\nfilters=4\n[scale_channels]\nfrom=0\n" + HEAD, []),
        (CONV + HEAD + "[route]\nlayers=0\n" + HEAD.replace("classes=1", "classes=1\nonlyforward=1"), [3, 4, 5]),
        ("[crnn]\npad=1\noutput=4\nhidden=3\n[conv_lstm]\npad=1\noutput=4\npeephole=1\n" + HEAD, []),
        (CONV + "[lstm]\noutput=5\n[gru]\noutput=4\n[rnn]\noutput=3\nhidden=3\n[softmax]\n", []),
    ],
)
def test_the_layers_that_get_no_gradient_are_known(body: str, idle: list[int]) -> None:
    net = Network(parse_text("[net]\nbatch=2\nwidth=8\nheight=8\nchannels=3\n" + body)).train()
    assert [list(net.layers).index(layer) for layer in layers_without_loss(net)] == idle
    net.loss(torch.rand(2, 3, 8, 8), torch.rand(2, 3) if "softmax" in body else torch.zeros(0, 6)).total.backward()
    for index, layer in enumerate(net.layers):
        assert all((parameter.grad is None) == (index in idle) for parameter in layer.parameters())


RANK = """
import time
from darknet_py.training.peers import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(600)
"""


def test_a_rank_ends_with_its_agent() -> None:
    """The agent is killed; what its rank writes to is closed then."""
    agent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {RANK!r}])"
    root = Path(darknet_py.__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", agent], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.kill()
        assert process.stdout.read() == b""
