"""Training of detectors: labeled boxes, and Darknet's mAP as `evaluate` computes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.data.augment.augmentation import Augmentation
from darknet_py.data.class_count import count_classes
from darknet_py.data.datafile import read_list
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.image_header import image_file_header
from darknet_py.data.labels import check_labels
from darknet_py.data.loader import Batch, TrainLoader
from darknet_py.data.open_dataset import open_dataset
from darknet_py.evaluation.detector import EvalOptions, evaluate_detector
from darknet_py.evaluation.worst_images import worst_images
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import DetectionHeadSpec, HeadSpec
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, LocalBatch
from darknet_py.training.recipe import Photos
from darknet_py.training.tasks.task import EvalScore, ImageTask, Split, check_classes
from darknet_py.training.train_options import TrainOptions
from darknet_py.view.contact_sheet import TileBox, class_box

if TYPE_CHECKING:
    from typing_extensions import Self

_HEADERS = 200  # images whose size is read
_WORST = 12  # images that the report shows
_RECALLS = np.arange(101) / 100  # at which NAME_map.json keeps the precision


@dataclass(frozen=True)
class DetectionTask(ImageTask[DetectionDataset]):
    """Training of a detector.

    Attributes:
        difficult: Paths, one per validation image, whose label files hold the difficult objects.
    """

    difficult: list[str] | None = None

    kind: ClassVar[str] = "detector"
    metric: ClassVar[str] = "map"
    splits: ClassVar[bool] = True

    @classmethod
    def open(cls, data: str | Path | None, graph: Graph, options: TrainOptions) -> DetectionTask:
        """Opens the data.

        Args:
            data: As `data.open_dataset.open_dataset` takes it; None is the built-in set.
            graph: The network to train.
            options: Options of the run.

        Raises:
            DataError: Data or labels cannot be used. All labels are checked here, before training.
            TrainError: The data has more classes than the network.
        """
        classes = graph.detection_specs[-1].classes
        file = open_dataset(data)
        paths = file.train_images()[: options.limit]
        file = count_classes(file, classes, graph.path, paths)
        count, channels = file.classes, graph.net.channels
        check_classes(graph, file.path, classes, count, options)
        if not options.skip_bad_labels:
            check_labels(paths, count)
        train = DetectionDataset(paths, count, channels)
        names = file.class_names() if file.names else [str(k) for k in range(count)]
        valid, difficult = None, None
        if file.separate if options.map is None else options.map is not False:
            valid = DetectionDataset(file.valid_images()[: options.limit], count, channels)
            difficult = read_list(file.difficult)[: options.limit] if file.difficult else None
        return cls(graph, options, file, names, data is None, train, valid, difficult=difficult)

    @property
    def photos(self) -> Photos:
        boxes = [self.train.labels(index).boxes[:, 3:5] for index in range(len(self.train))]
        sizes = np.concatenate([np.zeros((0, 2)), *boxes]).astype(np.float64)
        step = max(len(self.train) // _HEADERS, 1)
        headers = [header for path in self.train.paths[::step] if (header := image_file_header(path))]
        sides = [max(header.upright) for header in headers]
        return Photos(len(self.train), int(np.median(sides)) if sides else 0, sizes[(sizes > 0).all(1)])

    @property
    def separate(self) -> bool:
        return self.file.separate

    def _with_split(self, split: Split) -> Self:
        return replace(super()._with_split(split), difficult=None)  # its list is of other images

    @property
    def metric_label(self) -> str:
        where = "" if self.measured_on == "validation" else " (training images)"
        return f"mAP@{self.options.iou_thresh:.2f}{where}"

    @property
    def class_limit(self) -> int:
        return self._head.classes

    @property
    def _head(self) -> DetectionHeadSpec:
        """Spec of the last detection layer, which controls augmentation as in Darknet."""
        return self.graph.detection_specs[-1]

    def notes(self) -> list[str]:
        lines = super().notes()
        if self.valid and self.measured_on == "training":
            lines.append("note: no validation list: mAP and loss are measured on the training images")
        if self.builtin:
            lines.insert(
                0,
                f"no data file given: training on the built-in shapes, {counted(self.train_size, 'image')} "
                f"({self.file.path}); "
                f"on COCO: darknet-py train {self.graph.path} --data data/coco.data",
            )
        return lines

    def prepare(self) -> list[str]:
        return self.fill_cache(self.train)

    def loader(self, local: LocalBatch, context: DistContext, seed: int, device: torch.device) -> TrainLoader:
        augmentation = Augmentation.of(self.graph.net, self._head)
        if self._head.vector:  # [detection] follows a fully connected layer, which fits one input size only
            augmentation = replace(augmentation, random=0.0)
        return TrainLoader(
            self.train,
            replace(self.graph.net, subdivisions=local.mini_batches),
            augmentation,
            **self.loader_options(local, context, seed, device),
        )

    def truth(self, batch: Batch, network: Network) -> Tensor:
        """Rows of boxes; a seventh column identifies the object where embeddings of objects are trained."""
        if not any(isinstance(node.spec, HeadSpec) and node.spec.yolo_layer for node in self.graph.layers):
            return batch.truth
        return torch.cat([batch.truth, batch.tracks[:, None].to(batch.truth)], 1)

    def tile_boxes(self, batch: Batch, number: int) -> list[TileBox]:
        rows = batch.truth[batch.truth[:, 0] == number, 1:6].tolist()
        return [box for row in rows if (box := class_box(row, self.names))]

    def evaluate(self, network: Network, context: DistContext) -> EvalScore:
        options = self.options
        assert self.valid is not None
        result = evaluate_detector(
            network,
            self.valid,
            self.names,
            EvalOptions(
                protocols=("darknet",),
                iou_thresh=options.iou_thresh,
                points=options.points,
                thresh=options.thresh,
                batch=self.graph.net.mini_batch,
                workers=options.workers,
                loss=True,
            ),
            difficult=self.difficult,
            rank=context.rank,
            world=context.size,
        )
        assert result.darknet is not None and result.boxes.loss is not None
        curves = result.curves()
        darknet = result.darknet
        thresh = options.thresh if darknet.auto_thresh is None else darknet.auto_thresh
        worst = worst_images(result.boxes, result.boxes.found["darknet"], thresh, options.iou_thresh, _WORST)
        sampled = [[round(value, 4) for value in curve.at(_RECALLS).tolist()] for curve in curves]
        return EvalScore(
            result.darknet.map,
            result.boxes.loss,
            {**result.darknet.to_json(), "loss": result.boxes.loss, "curves": sampled},
            self.names,
            result.confusion(options.thresh, options.iou_thresh),
            curves,
            result.skipped,
            worst,
        )
