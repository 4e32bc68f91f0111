"""`check [CFG]`: finds errors in a data set and draws them; shows augmented samples as the network sees them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from darknet_py.cli.common import json_argument, max_pixels_argument, output_folder, positive, write_json
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.data.audit import KINDS, AuditReport, AuditRules, Finding, audit
from darknet_py.data.augment.augmentation import MOSAIC, Augmentation
from darknet_py.data.class_count import count_classes
from darknet_py.data.classification import ClassifierDataset, ClassifierLoader
from darknet_py.data.datafile import DataFile
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.images import load_image
from darknet_py.data.loader import Batch, TrainLoader
from darknet_py.data.open_classification import open_classifier_data
from darknet_py.data.open_dataset import PROBLEMS, WRONG_SIZES, conversion_notes, open_dataset
from darknet_py.errors import DataError
from darknet_py.files import make_folder, write_atomically
from darknet_py.graph.graph import Graph
from darknet_py.model.load import read_graph
from darknet_py.view.class_histogram import class_histogram
from darknet_py.view.contact_sheet import MARKED, Tile, TileBox, class_box, contact_sheet
from darknet_py.view.draw import save_image
from darknet_py.view.figure import save_figure

_MAX_PRINTED = 3  # printed per kind
_MAX_TILES = 24  # drawn per kind
_MAX_NAMED_BOXES = 30  # per image; more boxes are drawn without names


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "cfg", metavar="CFG", nargs="?", help="network whose input size, classes and augmentation are used"
    )
    parser.add_argument("--data", metavar="FILE", help="a .data file or another format (default: the built-in shapes)")
    parser.add_argument("--tiny", type=float, default=4.0, metavar="PX", help="boxes with a shorter side are tiny, in "
                        "pixels of the network input (without CFG: of the image; default: 4)")  # fmt: skip
    parser.add_argument(
        "--augment", type=positive, metavar="N", help="draw N training samples as the network sees them"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the samples (default: 0)")
    parser.add_argument(
        "--out",
        type=output_folder,
        metavar="FOLDER",
        default=Path("check"),
        help="folder of images and report (default: check)",
    )
    parser.add_argument("--no-images", action="store_true", help="write only the report")
    json_argument(parser)
    max_pixels_argument(parser)


def run(args: argparse.Namespace) -> int:
    if args.augment and not args.cfg:
        raise UsageError("--augment requires CFG")
    graph = read_graph(args.cfg) if args.cfg else None
    data, splits, names, rules = _open(args.data, graph, args.tiny)
    out = make_folder(args.out)
    images = sum(map(len, splits.values()))
    with tqdm(total=images, unit="image", disable=images < 200 or not sys.stderr.isatty()) as bar:
        report = audit(splits, rules, bar.update)
    report.findings += [*_class_mismatch(data, graph, rules), *_conversion_findings(data)]

    files = [] if args.no_images else _contact_sheets(out, report, names, rules)
    if args.augment and graph is not None:
        files += _samples(args, out, splits["train"], names, rules, graph)
    result = _as_json(data, report, names, [*map(str, files), str(out / "check.json")])
    write_atomically(out / "check.json", json.dumps(result, indent=1).encode() + b"\n")
    if args.json:
        write_json(args.json, result)
    if args.json != "-":
        print("\n".join(_summary(data, report, names)))
        print("\n".join(["", "wrote", *(f"  {file}" for file in [*files, out / "check.json"])]))
        findings = len(report.findings)
        print(
            f"\n{counted(report.errors, 'error')}, {counted(findings - report.errors, 'warning')}"
            if findings
            else "\nno problems found"
        )
    return 1 if report.errors else 0


class _CheckedData(NamedTuple):
    data: DataFile
    splits: dict[str, list[str]]  # the first is the training list
    names: list[str]
    rules: AuditRules


def _open(path: str | None, graph: Graph | None, tiny: float) -> _CheckedData:
    """The data of a detector, or of a classifier if the cfg or the .data file is that of one."""
    rules = AuditRules(0, channels=graph.net.channels if graph else 3, tiny=tiny)
    heads = graph.detection_specs if graph else []
    data = None if graph and not heads else open_dataset(path)
    if data is None or (graph is None and data.labels and not data.names):
        matching = open_classifier_data(path, rules.channels)
        splits = {"train": matching.train.paths} | ({"valid": matching.valid.paths} if matching.separate else {})
        return _CheckedData(
            matching.file,
            splits,
            matching.names,
            replace(rules, classes=len(matching.names), classifier=matching.train),
        )
    splits = {"train": data.train_images()} | ({"valid": data.valid_images()} if data.separate else {})
    if graph:
        data = count_classes(
            data, heads[-1].classes, graph.path, [image for split in splits.values() for image in split]
        )
    names = data.class_names() if data.names or data.labels else []
    classes = data.classes or len(names)
    if not classes:
        raise DataError(f"{data.path}: expected a line names=, labels= or classes=, got none")
    rules = replace(rules, classes=classes)
    if graph:
        net = graph.net
        max_boxes = min((spec.max_boxes for spec in heads), default=None)
        rules = replace(rules, size=(net.width, net.height), letter_box=net.letter_box, max_boxes=max_boxes)
    return _CheckedData(data, splits, names or [str(number) for number in range(classes)], rules)


def _class_mismatch(data: DataFile, graph: Graph | None, rules: AuditRules) -> list[Finding]:
    if graph is None:
        return []
    heads = graph.detection_specs
    classes = min(spec.classes for spec in heads) if heads else graph.layers[-1].output.size
    if rules.classes <= classes:
        return []
    text = f"{data.path} has {counted(rules.classes, 'class')}, {graph.path} only {classes}"
    return [Finding("dataset", "", text)]


def _conversion_findings(data: DataFile) -> list[Finding]:
    """What stands in annotations of another format but could not be used as it is."""
    return [
        Finding(kind, "", line)
        for kind, file in (("wrong_size", WRONG_SIZES), ("left_out", PROBLEMS))
        for line in conversion_notes(data, file)
    ]


# --- output


def _summary(data: DataFile, report: AuditReport, names: Sequence[str]) -> list[str]:
    lines = [str(data.path)]
    for name, split in report.splits.items():
        boxes = (
            f", {counted(split.boxes, 'box')} (at most {split.max_boxes} in one), {split.negatives} negatives"
            if split.boxes
            else ""
        )
        missing = f", {split.unlabeled} without labels" if split.unlabeled else ""
        lines.append(f"  {name + ':':<8}{counted(split.images, 'image')}{boxes}{missing}")
    width = min(max(map(len, names)), 40) + 2
    lines += ["", f"  {'class':<{width + 4}}" + "".join(f"{name:>10}" for name in report.splits)]
    for number, name in enumerate(names):
        row = "".join(f"{split.counts[number]:>10}" for split in report.splits.values())
        lines.append(f"  {number:>3} {name:<{width}}{row}")
    for kind, (title, error) in KINDS.items():
        matching = report.of_kind(kind)
        if matching:
            lines += ["", f"{'error' if error else 'warning'}: {title} ({len(matching)})"]
            lines += [
                f"  {finding.image + ': ' if finding.image else ''}{finding.text}"
                for finding in matching[:_MAX_PRINTED]
            ]
            lines += [f"  and {len(matching) - _MAX_PRINTED} more"] if len(matching) > _MAX_PRINTED else []
    return lines


def _as_json(data: DataFile, report: AuditReport, names: Sequence[str], files: Sequence[str]) -> dict[str, object]:
    findings: dict[str, object] = {}
    for kind, (title, error) in KINDS.items():
        items = [
            {"image": finding.image, "text": finding.text, **({"other": finding.other} if finding.other else {})}
            for finding in report.of_kind(kind)
        ]
        if items:
            findings[kind] = {"title": title, "error": error, "count": len(items), "items": items}
    splits = {
        name: {
            "images": split.images,
            "negatives": split.negatives,
            "unlabeled": split.unlabeled,
            "boxes": split.boxes,
            "most_in_an_image": split.max_boxes,
            "classes": split.counts.tolist(),
        }
        for name, split in report.splits.items()
    }
    counts = {"errors": report.errors, "warnings": len(report.findings) - report.errors}
    return {
        "data": str(data.path),
        "names": list(names),
        **counts,
        "splits": splits,
        "findings": findings,
        "files": list(files),
    }


# --- images


def _contact_sheets(out: Path, report: AuditReport, names: Sequence[str], rules: AuditRules) -> list[Path]:
    """A contact sheet per kind of finding, and the class histogram. Sheets of an earlier run are removed."""
    files = [out / "classes.png"]
    counts = {name: split.counts.tolist() for name, split in report.splits.items()}
    save_figure(files[0], class_histogram(names, counts))
    for kind, (title, _) in KINDS.items():
        path = out / f"{kind}.jpg"
        path.unlink(missing_ok=True)
        matching = [finding for finding in report.of_kind(kind) if finding.image]
        tiles = [tile for finding in matching[:_MAX_TILES] for tile in _tiles(finding, names, rules)]
        if tiles:
            more = f", the first {_MAX_TILES} of {len(matching)}" if len(matching) > _MAX_TILES else ""
            save_image(path, contact_sheet(title + more, tiles))
            files.append(path)
    return files


def _tiles(finding: Finding, names: Sequence[str], rules: AuditRules) -> list[Tile]:
    """The image with the boxes concerned, and the image that it duplicates."""
    tiles = []
    paths = [finding.image, *([finding.other] if finding.other not in ("", finding.image) else [])]
    for number, path in enumerate(paths):
        image = None
        with suppress(DataError):
            image = load_image(path, rules.channels)
        named = len(finding.rows) <= _MAX_NAMED_BOXES
        boxes = [TileBox((x, y, w, h), _name(k, names) if named else "", MARKED) for k, x, y, w, h in finding.rows]
        tiles.append(Tile(image, boxes, (path, "the other" if number else finding.text)))
    return tiles


def _name(number: float, names: Sequence[str]) -> str:
    return names[int(number)] if number in range(len(names)) else f"{number:g}"


def _samples(
    args: argparse.Namespace, out: Path, images: Sequence[str], names: Sequence[str], rules: AuditRules, graph: Graph
) -> list[Path]:
    """augment.jpg: the first N training samples with the augmentation of the cfg. mosaic.jpg: N mosaics."""
    if rules.classifier:
        return [_classifier_samples(args, out, rules.classifier, names, graph)]
    dataset = DetectionDataset(images, rules.classes, rules.channels)
    options = Augmentation.of(graph.net, graph.detection_specs[-1])
    variants = {"augment": ("with the augmentation of the cfg", options)}
    if not graph.net.letter_box:  # Darknet refuses both together
        variants["mosaic"] = ("each a mosaic", replace(options, mixup=MOSAIC, mixing_share=1.0))
    files = []
    for name, (title, options_of_variant) in variants.items():
        loader = TrainLoader(
            dataset, graph.net, options_of_variant, mini_batch=args.augment, seed=args.seed, workers=0, cache=False
        )
        batch = next(loader.batches())
        tiles = [_sample_tile(batch, number, names) for number in range(len(batch.images))]
        files.append(out / f"{name}.jpg")
        save_image(files[-1], contact_sheet(f"{Path(graph.path).name}: samples {title}", tiles, side=320))
    return files


def _sample_tile(batch: Batch, number: int, names: Sequence[str]) -> Tile:
    image = (batch.images[number].permute(1, 2, 0) * 255).round().byte().numpy()
    rows = batch.truth[batch.truth[:, 0] == number, 1:].tolist()
    boxes = [box for box in (class_box(row, names) for row in rows) if box]
    return Tile(image, boxes, (f"{image.shape[1]} x {image.shape[0]}, {counted(len(rows), 'object')}",))


def _classifier_samples(
    args: argparse.Namespace, out: Path, dataset: ClassifierDataset, names: Sequence[str], graph: Graph
) -> Path:
    loader = ClassifierLoader(dataset, graph.net, mini_batch=args.augment, seed=args.seed, workers=0, cache=False)
    batch = next(loader.batches())
    tiles = []
    for image, target in zip(batch.images, batch.truth, strict=True):
        best = target.topk(min(2, len(names)))
        text = ", ".join(f"{names[k]} {value:.2f}" for value, k in zip(*map(list, best), strict=True) if value > 0.01)
        tiles.append(Tile((image.permute(1, 2, 0) * 255).round().byte().numpy(), (), (text,)))
    path = out / "augment.jpg"
    save_image(path, contact_sheet(f"{Path(graph.path).name}: samples with the augmentation of the cfg", tiles))
    return path
