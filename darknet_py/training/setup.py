"""What training needs before its first iteration: checks, data, and lines that say what will happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from darknet_py.cfg.graph import Graph, parse
from darknet_py.data.augment import Augmentation
from darknet_py.data.datafile import DataFile, read_list
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.formats import open_any
from darknet_py.data.images import Image
from darknet_py.data.labels import check_labels
from darknet_py.data.loader import TrainLoader, training_sample
from darknet_py.errors import TrainError
from darknet_py.model import checkpoint
from darknet_py.training.distributed import Share, Team
from darknet_py.training.options import TrainOptions

# Keys of [net] that steer training in C Darknet and do nothing here yet.
_NOT_YET = (
    "adversarial_lr",
    "attention",
    "contrastive",
    "dynamic_minibatch",
    "track",
    "try_fix_nan",
    "unsupervised",
    "weights_reject_freq",
)


@dataclass(frozen=True)
class Data:
    """What is trained on. valid: None where mAP is not measured. difficult: paths, one per validation image."""

    file: DataFile
    names: list[str]
    train: DetectionDataset
    valid: DetectionDataset | None
    difficult: list[str] | None


def read_graph(cfg: str | Path) -> Graph:
    """From a cfg file, or from a checkpoint that holds its cfg."""
    if Path(cfg).is_file() and checkpoint.is_checkpoint(cfg):
        return checkpoint.read(cfg).graph
    return parse(cfg)


def check(graph: Graph, changes: Mapping[str, Any]) -> Any:
    """The spec of the last detection layer, which steers augmentation as in Darknet. Raises TrainError."""
    heads = [node for node in graph.layers if hasattr(node.spec, "jitter") and hasattr(node.spec, "classes")]
    if not heads:
        raise TrainError(f"{graph.path}: wanted a detection layer such as [yolo] or [region], found none")
    if not graph.net.max_batches:
        raise TrainError(f"{graph.path}: wanted max_batches in [net] (or max_batches=N, --max-batches N), found none")
    if graph.net.batch == 1 and "batch" not in changes:
        raise TrainError(
            f"{graph.path}: batch=1 is for testing, wanted more in [net] "
            "(or batch=64 subdivisions=16, --batch 64 --subdivisions 16)"
        )
    return heads[-1].spec


def read_data(path: str | Path | None, graph: Graph, classes: int, options: TrainOptions) -> Data:
    """classes: of the network. Raises DataError (a wrong label, for one: better now than unnoticed for days), and
    TrainError where the data has more classes than the network."""
    file = open_any(path)
    names = file.class_names() if file.names else []
    count = file.classes or len(names) or classes
    if count > classes:
        raise TrainError(
            f"{file.path}: wanted at most {classes} classes, as {graph.path} has, found {count}; "
            "set classes= in each detection layer and filters= of the layer before it"
        )
    channels = graph.net.channels
    train = DetectionDataset(file.train_images()[: options.limit], count, channels)
    if not options.skip_bad_labels:
        check_labels(train.paths, count)
    names = names or [str(k) for k in range(count)]
    separate = file.valid is not None and file.valid != file.train
    wanted = separate if options.map is None else options.map is not False
    if not wanted:
        return Data(file, names, train, None, None)
    valid = DetectionDataset(file.valid_images()[: options.limit], count, channels)
    difficult = read_list(file.difficult)[: options.limit] if file.difficult else None
    return Data(file, names, train, valid, difficult)


def make_loader(
    graph: Graph, head: Any, data: Data, share: Share, team: Team, seed: int, workers: int | None, device: torch.device
) -> TrainLoader:
    """Mini-batches of this process; their numbers are iteration · share.mini_batches + k."""
    net = replace(graph.net, subdivisions=share.mini_batches)
    options = Augmentation.of(graph.net, head)
    return TrainLoader(
        data.train,
        net,
        options,
        mini_batch=share.images,
        seed=seed,
        workers=workers,
        rank=team.rank,
        world=team.size,
        device=device,
    )


def pick_device(name: str | None, team: Team) -> torch.device:
    """The one asked for, else a GPU of its own for each process, else the CPU. Raises TrainError."""
    if name is None:
        name = f"cuda:{team.local_rank}" if torch.cuda.is_available() else "cpu"
    elif name == "cuda":
        name = f"cuda:{team.local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainError(f"wanted a device like cpu or cuda:0, found {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainError(f"wanted the device {name}, found {torch.cuda.device_count()} CUDA devices")
    return device


def notes(graph: Graph, cfg: str | Path, path: str | Path | None, data: Data, classes: int) -> list[str]:
    """Lines to print before training starts."""
    net, lines = graph.net, []
    if path is None:
        lines.append(
            f"no data file given: training on the built-in shapes, {len(data.train)} images ({data.file.path}); "
            f"on COCO: python -m darknet_py train {cfg} --data data/coco.data"
        )
    if len(data.names) < classes:
        lines.append(f"note: the network has {classes} classes, the data {len(data.names)}; the others stay unused")
    if net.burn_in >= net.max_batches:
        lines.append(f"warning: burn_in={net.burn_in} is not over when training ends at max_batches={net.max_batches}")
    unused = [key for key in _NOT_YET if getattr(net, key)]
    if unused:
        lines.append(f"warning: [net] {', '.join(unused)}: not supported yet, without effect")
    return lines


class _Recorder(DetectionDataset):
    """A data set that remembers which images were asked for."""

    def __init__(self, dataset: DetectionDataset):
        super().__init__(dataset.paths, dataset.classes, dataset.channels)
        self.asked: list[str] = []

    def image(self, index: int) -> Image:
        self.asked.append(self.paths[index])
        return super().image(index)


def images_of(loader: TrainLoader, mini_batches: range) -> list[str]:
    """The files behind mini-batches, found by making their samples once more."""
    recorder = _Recorder(loader.dataset)
    for mini_batch in mini_batches:
        for number, size in loader._numbers(mini_batch):
            training_sample(recorder, loader.options, loader.seed, number, size)
    return list(dict.fromkeys(recorder.asked))
