"""Training of detectors: boxes, and Darknet's mAP as `evaluate` gives it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from darknet_py.data.augment.augmentation import Augmentation
from darknet_py.data.datafile import DataFile, read_list
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.labels import check_labels
from darknet_py.data.loader import Batch, TrainLoader, training_sample
from darknet_py.data.open_dataset import open_dataset
from darknet_py.evaluation.detector import evaluate_detector
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import HeadSpec
from darknet_py.training.tasks.task import (
    BatchSource,
    EvalScore,
    check_classes,
    notes_on_data,
    recorded,
    with_confusion,
)
from darknet_py.training.train_options import TrainOptions

if TYPE_CHECKING:
    from darknet_py.model.network import Network
    from darknet_py.training.distributed import DistContext, LocalBatch


_RECALLS = np.arange(101) / 100  # at which NAME_map.json keeps the precision


@dataclass(frozen=True)
class DetectionTask:
    """head: spec of the last detection layer, which steers augmentation as in Darknet. valid: None where mAP is not
    measured. difficult: paths, one per validation image. builtin: whether it is the built-in set."""

    graph: Graph
    head: Any
    options: TrainOptions
    file: DataFile
    names: list[str]
    train: DetectionDataset
    valid: DetectionDataset | None
    difficult: list[str] | None
    builtin: bool
    metric: str = "map"

    @classmethod
    def read(cls, path: str | Path | None, graph: Graph, options: TrainOptions) -> DetectionTask:
        """Raises DataError (a wrong label, for one: better now than unnoticed for days), and TrainError where the data
        has more classes than the network."""
        head = graph.detection_specs[-1]
        file = open_dataset(path)
        names = file.class_names() if file.names else []
        count = file.classes or len(names) or head.classes
        check_classes(graph, file, head.classes, count, options)
        channels = graph.net.channels
        train = DetectionDataset(file.train_images()[: options.limit], count, channels)
        if not options.skip_bad_labels:
            check_labels(train.paths, count)
        names = names or [str(k) for k in range(count)]
        valid, difficult = None, None
        if file.separate if options.map is None else options.map is not False:
            valid = DetectionDataset(file.valid_images()[: options.limit], count, channels)
            difficult = read_list(file.difficult)[: options.limit] if file.difficult else None
        return cls(graph, head, options, file, names, train, valid, difficult, path is None)

    @property
    def label(self) -> str:
        return f"mAP@{self.options.iou_thresh:.2f}"

    @property
    def measures(self) -> bool:
        return self.valid is not None

    @property
    def images(self) -> int:
        return len(self.train)

    def notes(self) -> list[str]:
        lines = []
        if self.builtin:
            lines.append(
                f"no data file given: training on the built-in shapes, {self.images} images ({self.file.path}); "
                f"on COCO: python -m darknet_py train {self.graph.path} --data data/coco.data"
            )
        return lines + notes_on_data(self.train, self.options, self.head.classes, len(self.names))

    def loader(self, share: LocalBatch, team: DistContext, seed: int, device: torch.device) -> TrainLoader:
        """Mini-batches of this process; their numbers are iteration · share.mini_batches + k."""
        augmentation = Augmentation.of(self.graph.net, self.head)
        if self.head.vector:  # [detection] follows a fully connected layer, which fits one input size only
            augmentation = replace(augmentation, random=0.0)
        return TrainLoader(
            self.train,
            replace(self.graph.net, subdivisions=share.mini_batches),
            augmentation,
            mini_batch=share.images * self.graph.net.time_steps,
            seed=seed,
            workers=self.options.workers,
            cache=self.options.cache,
            rank=team.rank,
            world=team.size,
            device=device,
        )

    def truth(self, batch: Batch, network: Network) -> Tensor:
        """Rows; a seventh column is the identity of the object, where embeddings of objects are learned."""
        if not any(isinstance(node.spec, HeadSpec) and node.spec.yolo_layer for node in self.graph.layers):
            return batch.truth
        return torch.cat([batch.truth, batch.tracks[:, None].to(batch.truth)], 1)

    def measure(self, network: Network, team: DistContext) -> EvalScore:
        options = self.options
        assert self.valid is not None
        found = evaluate_detector(
            network,
            self.valid,
            self.names,
            protocols=("darknet",),
            iou_thresh=options.iou_thresh,
            points=options.points,
            thresh=options.thresh,
            difficult=self.difficult,
            batch=self.graph.net.mini_batch,
            workers=options.workers,
            loss=True,
            rank=team.rank,
            world=team.size,
        )
        assert found.darknet is not None
        curves = {"curves": [[round(value, 4) for value in c.at(_RECALLS).tolist()] for c in found.curves()]}
        figures = found.darknet.to_json() | {"loss": found.boxes.loss} | curves
        matrix = found.confusion(options.thresh, options.iou_thresh)
        return with_confusion(found.darknet.map, figures, matrix, found.pictures, found.skipped)

    def files(self, loader: BatchSource, mini_batches: range) -> list[str]:
        assert isinstance(loader, TrainLoader)
        recorder, asked = recorded(loader.dataset)
        world = loader.mini_batch * loader.world
        for mini_batch in mini_batches:
            for number, size in loader.numbers(mini_batch):
                training_sample(recorder, loader.options, loader.seed, number, size, None, world)
        return list(dict.fromkeys(asked))
