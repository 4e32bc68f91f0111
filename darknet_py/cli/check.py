"""`check [CFG]`: what is wrong with a data set, with pictures; and what the network sees of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from darknet_py.cli.common import positive

if TYPE_CHECKING:
    from darknet_py.data.audit import AuditReport, AuditRules, Finding
    from darknet_py.data.classification import ClassifierDataset
    from darknet_py.data.datafile import DataFile
    from darknet_py.graph.graph import Graph
    from darknet_py.view.contact_sheet import Tile

HELP = "look at every image and label of a data set; exit code 1 when something is wrong"

_EXAMPLES = 3  # printed of each kind
_TILES = 24  # drawn of each kind
_NAMED = 30  # boxes of an image; more are drawn without names


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "cfg", metavar="CFG", nargs="?", help="the network it is for: its size, classes and augmentation"
    )
    parser.add_argument("--data", metavar="FILE", help="a .data file or another format (default: the built-in shapes)")
    parser.add_argument("--tiny", type=float, default=4.0, metavar="PX", help="boxes with a side below it are tiny, in "
                        "pixels of the network input, without CFG of the image (default: 4)")  # fmt: skip
    parser.add_argument(
        "--augment", type=positive, metavar="N", help="draw N training samples as the network sees them"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument("--out", metavar="DIR", default="check", help="folder of pictures and report (default: check)")
    parser.add_argument("--no-pictures", action="store_true", help="write the report only")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from darknet_py.data.audit import audit
    from darknet_py.errors import DarknetError
    from darknet_py.files import make_folder, write_atomically
    from darknet_py.model.load import read_graph

    if args.augment and not args.cfg:
        raise DarknetError("--augment expected a CFG, whose augmentation to show, got none")
    graph = read_graph(args.cfg) if args.cfg else None
    data, splits, names, rules = _open(args.data, graph, args.tiny)
    out = make_folder(args.out)
    images = sum(map(len, splits.values()))
    with tqdm(total=images, unit="image", disable=images < 200 or not sys.stderr.isatty()) as bar:
        report = audit(splits, rules, bar.update)
    report.findings += _misfits(data, graph, rules)

    files = [] if args.no_pictures else _pictures(out, report, names, rules)
    if args.augment and graph is not None:
        files += _samples(args, out, splits["train"], names, rules, graph)
    plain = _plain(data, report, names, [*map(str, files), str(out / "check.json")])
    write_atomically(out / "check.json", json.dumps(plain, indent=1).encode() + b"\n")
    if args.json:
        print(json.dumps(plain, indent=1))
    else:
        print("\n".join(_summary(data, report, names)))
        print("\n".join(["", "wrote", *(f"  {file}" for file in plain["files"])]))
        found = len(report.findings)
        print(f"\n{report.errors} errors, {found - report.errors} warnings" if found else "\nnothing found")
    return 1 if report.errors else 0


class _Set(NamedTuple):
    data: DataFile
    splits: dict[str, list[str]]  # the first is the one that is trained on
    names: list[str]
    rules: AuditRules


def _open(path: str | None, graph: Graph | None, tiny: float) -> _Set:
    """The data of a detector or, where the cfg or a .data file says so, of a classifier."""
    from dataclasses import replace

    from darknet_py.data.audit import AuditRules
    from darknet_py.data.open_classification import open_classifier_data
    from darknet_py.data.open_dataset import open_dataset
    from darknet_py.errors import DataError

    rules = AuditRules(0, channels=graph.net.channels if graph else 3, tiny=tiny)
    heads = graph.detection_specs if graph else []
    data = None if graph and not heads else open_dataset(path)
    if data is None or (graph is None and data.labels and not data.names):
        found = open_classifier_data(path, rules.channels)
        splits = {"train": found.train.paths} | ({"valid": found.valid.paths} if found.separate else {})
        return _Set(found.file, splits, found.names, replace(rules, classes=len(found.names), classifier=found.train))
    splits = {"train": data.train_images()} | ({"valid": data.valid_images()} if data.separate else {})
    names = data.class_names() if data.names or data.labels else []
    classes = data.classes or len(names) or max((spec.classes for spec in heads), default=0)
    if not classes:
        raise DataError(f"{data.path}: expected a line names=, labels= or classes=, got none")
    rules = replace(rules, classes=classes)
    if graph:
        net = graph.net
        max_boxes = min((spec.max_boxes for spec in heads), default=None)
        rules = replace(rules, size=(net.width, net.height), letter_box=net.letter_box, max_boxes=max_boxes)
    return _Set(data, splits, names or [str(number) for number in range(classes)], rules)


def _misfits(data: DataFile, graph: Graph | None, rules: AuditRules) -> list[Finding]:
    from darknet_py.data.audit import Finding

    if graph is None:
        return []
    heads = graph.detection_specs
    classes = min(spec.classes for spec in heads) if heads else graph.layers[-1].output.size
    if rules.classes <= classes:
        return []
    text = f"{data.path} has {rules.classes} classes, {graph.path} only {classes}"
    return [Finding("dataset", "", text)]


# --- what it prints


def _summary(data: DataFile, report: AuditReport, names: Sequence[str]) -> list[str]:
    from darknet_py.data.audit import KINDS

    lines = [str(data.path)]
    for name, split in report.splits.items():
        boxes = (
            f", {split.boxes} boxes (at most {split.max_boxes} in one), {split.negatives} negatives"
            if split.boxes
            else ""
        )
        missing = f", {split.unlabeled} without labels" if split.unlabeled else ""
        lines.append(f"  {name + ':':<8}{split.images} images{boxes}{missing}")
    wide = min(max(map(len, names)), 40) + 2
    lines += ["", f"  {'class':<{wide + 4}}" + "".join(f"{name:>10}" for name in report.splits)]
    for number, name in enumerate(names):
        row = "".join(f"{split.counts[number]:>10}" for split in report.splits.values())
        lines.append(f"  {number:>3} {name:<{wide}}{row}")
    for kind, (title, error) in KINDS.items():
        found = report.of_kind(kind)
        if found:
            lines += ["", f"{'error' if error else 'warning'}: {title} ({len(found)})"]
            lines += [
                f"  {finding.image + ': ' if finding.image else ''}{finding.text}" for finding in found[:_EXAMPLES]
            ]
            lines += [f"  and {len(found) - _EXAMPLES} more"] if len(found) > _EXAMPLES else []
    return lines


def _plain(data: DataFile, report: AuditReport, names: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
    from darknet_py.data.audit import KINDS

    findings: dict[str, Any] = {}
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


# --- what it draws


def _pictures(out: Path, report: AuditReport, names: Sequence[str], rules: AuditRules) -> list[Path]:
    """A contact sheet per kind of finding, and the class balance. Those of an earlier run are removed."""
    from darknet_py.data.audit import KINDS
    from darknet_py.view.class_histogram import class_histogram
    from darknet_py.view.contact_sheet import contact_sheet
    from darknet_py.view.draw import save_picture
    from darknet_py.view.figure import save_figure

    files = [out / "classes.png"]
    counts = {name: split.counts.tolist() for name, split in report.splits.items()}
    save_figure(files[0], class_histogram(names, counts))
    for kind, (title, _) in KINDS.items():
        path = out / f"{kind}.jpg"
        path.unlink(missing_ok=True)
        found = [finding for finding in report.of_kind(kind) if finding.image]
        tiles = [tile for finding in found[:_TILES] for tile in _tiles(finding, names, rules)]
        if tiles:
            more = f", the first {_TILES} of {len(found)}" if len(found) > _TILES else ""
            save_picture(path, contact_sheet(title + more, tiles))
            files.append(path)
    return files


def _tiles(finding: Finding, names: Sequence[str], rules: AuditRules) -> list[Tile]:
    """The image with the boxes that are meant; beside it the one that it is like."""
    from contextlib import suppress

    from darknet_py.data.images import load_image
    from darknet_py.errors import DataError
    from darknet_py.view.contact_sheet import MARKED, Box, Tile

    tiles = []
    paths = [finding.image, *([finding.other] if finding.other not in ("", finding.image) else [])]
    for number, path in enumerate(paths):
        image = None
        with suppress(DataError):
            image = load_image(path, rules.channels)
        named = len(finding.rows) <= _NAMED
        boxes = [Box((x, y, w, h), _name(k, names) if named else "", MARKED) for k, x, y, w, h in finding.rows]
        tiles.append(Tile(image, boxes, (path, "the other" if number else finding.text)))
    return tiles


def _name(number: float, names: Sequence[str]) -> str:
    return names[int(number)] if number in range(len(names)) else f"{number:g}"


def _samples(
    args: argparse.Namespace, out: Path, images: Sequence[str], names: Sequence[str], rules: AuditRules, graph: Graph
) -> list[Path]:
    """augment.jpg: the first N samples of a training with the cfg. mosaic.jpg: the same with mosaic each time."""
    from dataclasses import replace

    from darknet_py.data.augment.augmentation import MOSAIC, Augmentation
    from darknet_py.data.dataset import DetectionDataset
    from darknet_py.data.loader import TrainLoader
    from darknet_py.view.contact_sheet import contact_sheet
    from darknet_py.view.draw import save_picture

    if rules.classifier:
        return [_classifier_samples(args, out, rules.classifier, names, graph)]
    dataset = DetectionDataset(images, rules.classes, rules.channels)
    options = Augmentation.of(graph.net, graph.detection_specs[-1])
    ways = {"augment": ("with the augmentation of the cfg", options)}
    if not graph.net.letter_box:  # Darknet refuses both together
        ways["mosaic"] = ("each a mosaic", replace(options, mixup=MOSAIC, mixing_share=1.0))
    files = []
    for name, (title, way) in ways.items():
        loader = TrainLoader(dataset, graph.net, way, mini_batch=args.augment, seed=args.seed, workers=0, cache=False)
        batch = next(loader.batches())
        tiles = [_sample_tile(batch, number, names) for number in range(len(batch.images))]
        files.append(out / f"{name}.jpg")
        save_picture(files[-1], contact_sheet(f"{Path(graph.path).name}: samples {title}", tiles, side=320))
    return files


def _sample_tile(batch: Any, number: int, names: Sequence[str]) -> Tile:
    from darknet_py.view.contact_sheet import Tile, class_box

    image = (batch.images[number].permute(1, 2, 0) * 255).round().byte().numpy()
    rows = batch.truth[batch.truth[:, 0] == number, 1:].tolist()
    boxes = [box for box in (class_box(row, names) for row in rows) if box]
    return Tile(image, boxes, (f"{image.shape[1]} x {image.shape[0]}, {len(rows)} objects",))


def _classifier_samples(
    args: argparse.Namespace, out: Path, dataset: ClassifierDataset, names: Sequence[str], graph: Graph
) -> Path:
    from darknet_py.data.classification import ClassifierLoader
    from darknet_py.view.contact_sheet import Tile, contact_sheet
    from darknet_py.view.draw import save_picture

    loader = ClassifierLoader(dataset, graph.net, mini_batch=args.augment, seed=args.seed, workers=0, cache=False)
    batch = next(loader.batches())
    tiles = []
    for image, target in zip(batch.images, batch.truth, strict=True):
        best = target.topk(min(2, len(names)))
        said = ", ".join(f"{names[k]} {value:.2f}" for value, k in zip(*map(list, best), strict=True) if value > 0.01)
        tiles.append(Tile((image.permute(1, 2, 0) * 255).round().byte().numpy(), (), (said,)))
    path = out / "augment.jpg"
    save_picture(path, contact_sheet(f"{Path(graph.path).name}: samples with the augmentation of the cfg", tiles))
    return path
