"""Training of detectors: labeled boxes, and Darknet's mAP as `evaluate` computes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from darknet_py.counted import counted
from darknet_py.data.augment.augmentation import Augmentation
from darknet_py.data.class_count import count_classes
from darknet_py.data.datafile import DataFile, read_list, write_list
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.image_header import image_file_header
from darknet_py.data.labels import check_labels
from darknet_py.data.loader import Batch, TrainLoader
from darknet_py.data.open_dataset import open_dataset
from darknet_py.data.split import hold_out
from darknet_py.evaluation.detector import EvalOptions, evaluate_detector
from darknet_py.evaluation.worst_images import worst_images
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import DetectionHeadSpec, HeadSpec
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, LocalBatch
from darknet_py.training.recipe import Photos
from darknet_py.training.tasks.task import EvalScore, ImageTask, check_classes
from darknet_py.training.train_options import TrainOptions
from darknet_py.view.contact_sheet import TileBox, class_box

if TYPE_CHECKING:
    from typing_extensions import Self

_HEADERS = 200  # images whose size is read
_WORST = 12  # images that the report shows
_RECALLS = np.arange(101) / 100  # at which NAME_map.json keeps the precision


class Split(NamedTuple):
    """A training list of which a part was held out; `words` say how."""

    train: list[str]
    valid: list[str]
    words: str


@dataclass(frozen=True)
class DetectionTask(ImageTask):
    """Training of a detector.

    Attributes:
        train: Images to train on.
        valid: Images to evaluate on; None where mAP is not computed.
        difficult: Paths, one per validation image, whose label files hold the difficult objects.
        split: Both parts of the training list, where a part was held out.
    """

    train: DetectionDataset
    valid: DetectionDataset | None
    difficult: list[str] | None
    split: Split | None = None

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
        return cls(graph, options, file, names, data is None, train, valid, difficult)

    @property
    def photos(self) -> Photos:
        boxes = [self.train.labels(index).boxes[:, 3:5] for index in range(len(self.train))]
        sizes = np.concatenate([np.zeros((0, 2)), *boxes]).astype(np.float64)
        step = max(len(self.train) // _HEADERS, 1)
        headers = [header for path in self.train.paths[::step] if (header := image_file_header(path))]
        sides = [max(header.upright) for header in headers]
        return Photos(len(self.train), int(np.median(sides)) if sides else 0, sizes[(sizes > 0).all(1)])

    def hold_out(self, share: float, data: Path | None = None) -> Self:
        if self.file.separate:
            return self
        if data and data.is_file():
            earlier = DataFile.read(data)
            return self._with_split(Split(earlier.train_images(), earlier.valid_images(), f"as in {data}"))
        paths = self.train.paths
        classes = [self.train.labels(index).boxes[:, 0].astype(int).tolist() for index in range(len(paths))]
        hidden = True if self.options.quiet else None  # None: without a terminal
        with tqdm(total=len(paths), desc="split", unit="image", leave=False, disable=hidden) as bar:
            parts = hold_out(paths, classes, share, self.options.seed, bar.update)
        same = f"; {counted(parts.duplicates, 'duplicate')} stay on one side" if parts.duplicates else ""
        words = (
            f"{share:g} of {counted(len(paths), 'image', ',')}, by content and class, seed {self.options.seed}{same}"
        )
        return self._with_split(Split(parts.train, parts.valid, words))

    def _with_split(self, split: Split) -> Self:
        train, valid = (
            DetectionDataset(paths, self.train.classes, self.train.channels) for paths in (split.train, split.valid)
        )
        evaluates = self.options.map is not False
        return replace(self, train=train, valid=valid if evaluates else None, difficult=None, split=split)

    def write_lists(self, data: Path) -> None:
        if self.split:
            train, valid, _ = self.list_files(data)
            write_list(train, self.split.train)
            write_list(valid, self.split.valid)
            lines = {"classes": len(self.names), "train": train.absolute(), "valid": valid.absolute()}
            lines["names"] = (self.file.names or data.with_suffix(".names")).absolute()
            write_list(data, [f"{key} = {value}" for key, value in lines.items()])

    def list_files(self, data: Path) -> list[Path]:
        names = (f"{data.stem}_train.txt", f"{data.stem}_valid.txt", data.name)
        return [data.with_name(name) for name in names] if self.split else []

    @property
    def measured_on(self) -> str:
        return "validation" if self.file.separate or self.split else "training"

    @property
    def metric_label(self) -> str:
        where = "" if self.measured_on == "validation" else " (training images)"
        return f"mAP@{self.options.iou_thresh:.2f}{where}"

    @property
    def train_size(self) -> int:
        return len(self.train)

    @property
    def valid_size(self) -> int:
        return len(self.valid) if self.valid else 0

    @property
    def class_limit(self) -> int:
        return self._head.classes

    @property
    def _head(self) -> DetectionHeadSpec:
        """Spec of the last detection layer, which controls augmentation as in Darknet."""
        return self.graph.detection_specs[-1]

    def notes(self) -> list[str]:
        lines = super().notes()
        if self.split:
            train, valid, words = self.split
            lines.append(f"split: {counted(len(train), 'image', ',')} to train on, {len(valid):,} held out ({words})")
        elif self.valid and not self.file.separate:
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
