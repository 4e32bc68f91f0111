"""What `detect` leaves behind: images with boxes, crops and labels image by image, then JSON, CSV and COCO files.

The tables are written at the end, from a record that grows line by line: memory does not grow with the number of
images, and after an interruption `--resume` goes on where the record ends.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple, TypedDict, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from darknet_py.cli.common import (
    check_one_stdout,
    csv_argument,
    json_argument,
    message_stream,
    output_file,
    output_file_or_stdout,
    output_folder,
)
from darknet_py.cli.shard import Shard, claim_records, merge_lines, release_claim, shard_argument
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.data.image_sources import is_url, open_image
from darknet_py.data.images import Image
from darknet_py.data.labels import find_labels, save_labels
from darknet_py.errors import DataError
from darknet_py.evaluation.result_files import image_ids
from darknet_py.files import file_names, make_folder, write_atomically
from darknet_py.inference.detections import CSV_COLUMNS, Detections, JsonFrame, coco_category_ids
from darknet_py.untrusted import open_regular
from darknet_py.view.draw import draw_on, save_image
from darknet_py.view.heat_map import HeatMap

REFUSE, SKIP, REPLACE = "refuse", "skip", "replace"
_LARGEST = 1e9  # number in a record; all are relative to the image, or classes
_PARTIAL = ".partial"  # after the name of the first table; this file is the record
# A record of other options is of no use.
_NETWORK = ("cfg", "weights", "width", "height", "data", "names", "stb")
_DETECTION = ("thresh", "class_thresh", "nms", "agnostic", "letter_box", "hier", "tiles", "overlap")
_FILES = ("out", "no_images", "crops", "save_labels")
Item = TypeVar("Item")


class RecordLine(TypedDict):
    """A line of the record."""

    path: str
    size: list[int]
    rows: list[list[float]]  # class, confidence, cx, cy, w, h


class Tables(NamedTuple):
    """The files to write at the end; empty where they were not asked for, "-" is standard output."""

    json: str
    csv: str
    coco: str
    heat_map: str


def result_arguments(parser: argparse.ArgumentParser) -> None:
    """--out, --no-images, --json, --csv, --coco, --heat-map, --crops, --save-labels, --existing-labels, --resume."""
    parser.add_argument(
        "--out",
        type=output_folder,
        metavar="DIR",
        default=Path("predictions"),
        help="folder of the images with boxes (default: predictions)",
    )
    parser.add_argument("--no-images", "--no-pictures", action="store_true", help="write no images")
    json_argument(parser, "write Darknet's JSON to FILE, or to stdout")
    csv_argument(parser, "write a table of all boxes, in pixels,")
    parser.add_argument(
        "--coco",
        type=output_file_or_stdout,
        metavar="FILE",
        help="write a COCO data set: images, categories, annotations; - is stdout",
    )
    parser.add_argument(
        "--heat-map", type=output_file, metavar="FILE", help="write where objects were in all images, over the last one"
    )
    parser.add_argument(
        "--crops", type=output_folder, metavar="DIR", help="write the part of each box as DIR/CLASS/IMAGE_N.jpg"
    )
    parser.add_argument("--save-labels", action="store_true", help="write a label file for each image beside it")
    parser.add_argument(
        "--existing-labels",
        choices=(REFUSE, SKIP, REPLACE),
        default=REFUSE,
        help="what --save-labels does where there are labels: stop before any work, leave out these images, or replace "
        "the labels (default: refuse)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out images that an interrupted run of the same command has done"
    )
    shard_argument(
        parser, "search the K-th of N shares of the images; the last process to end writes the tables of all"
    )


def _parse_line(line: bytes) -> tuple[RecordLine, NDArray[np.float64]] | None:
    """A line of a record, and its rows (N, 6); None where it is cut off or damaged."""
    try:
        entry: RecordLine = json.loads(line)
        rows, size = np.array(entry["rows"], np.float64).reshape(-1, 6), entry["size"]
        whole = line.endswith(b"\n") and isinstance(entry["path"], str) and bool((np.abs(rows) < _LARGEST).all())
        whole &= isinstance(size, list) and [type(side) for side in size] == [int, int] and min(size) > 0
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return (entry, rows) if whole else None


def _path_of(line: bytes) -> str:
    parsed = _parse_line(line)
    if parsed is None:
        raise DataError(f"damaged line in a record: {line!r:.100}; delete the records, or run its share again")
    return parsed[0]["path"]


class DetectResults:
    """The results of one run. Use it as a context manager: the tables are written when it ends without an error.

    Args:
        args: Those of `result_arguments` and the options of the detection.
        names: Of the network's classes.
        images: All images of the run.

    Attributes:
        pending: The images that are to be searched; with --resume without those that are done.
        on_stdout: Whether standard output is one of the tables.

    Raises:
        DataError: Labels would be replaced, or a file or folder cannot be written.
    """

    def __init__(self, args: argparse.Namespace, names: Sequence[str], images: Sequence[str]):
        self._args, self._names = args, names
        self._out = Path(args.out)
        self._shard: Shard = args.shard or Shard.of_process()
        self._images = list(images)
        self._tables = Tables(args.json or "", args.csv or "", args.coco or "", args.heat_map or "")
        self.on_stdout = "-" in self._tables
        self._messages = message_stream(*self._tables)
        files = [name for name in self._tables if name not in ("", "-")]
        self._target = Path(files[0]) if files else None
        self._partial = self._record_file().with_name(self._record_file().name + _PARTIAL) if self._target else None
        check_one_stdout(*self._tables)
        if self._is_shard and self.on_stdout:
            raise UsageError("-: expected files, which several processes write together, got standard output")
        self._stems = dict(zip(images, output_stems(images), strict=True))
        self._folders = file_names(names)
        self._count = 0
        images = self._shard.items_of(images)
        if args.save_labels:
            check_no_urls(images)
        self.pending = self._not_done(images) if args.resume else images
        if args.save_labels and args.existing_labels == SKIP:
            self.pending = [image for image in self.pending if not os.path.exists(find_labels(image))]
        if args.save_labels and args.existing_labels == REFUSE and not args.resume:
            check_no_labels(images)
        if not args.no_images:
            make_folder(self._out)
        self._record = self._open_record() if any(self._tables) else None

    def __enter__(self) -> DetectResults:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._record is None:
            if kind is None and self._count:
                self._tell()
            return
        try:
            if kind is None and self._is_shard:
                self._finish_shard()
            elif kind is None:
                self._record.flush()
                self._write_tables()
                self._tell()
                if self._partial:
                    self._partial.unlink()
            elif self._partial:
                print(f"the images so far are in {self._partial}; --resume goes on from there", file=sys.stderr)
        finally:
            self._record.close()

    def write_images(self, path: str, image: Image, found: Detections) -> Image | None:
        """Writes the crops and the image with its boxes, which are drawn on it; several threads may do so at once.

        Returns:
            The image with its boxes, where it was drawn.
        """
        if self._args.crops:
            for number, (class_id, crop) in enumerate(
                zip(found.class_ids.tolist(), found.crops(image), strict=True), 1
            ):
                name = self._folders[class_id] if class_id < len(self._folders) else str(class_id)
                folder = make_folder(Path(self._args.crops) / name)
                save_image(folder / f"{self._stems[path]}_{number}.jpg", crop)
        if self._args.no_images:
            return None
        drawn = image
        if image.shape[2] == 3:
            draw_on(image, found)  # a copy of a large photo would be most of the memory
        else:
            drawn = found.plot(image)
        save_image(self._out / f"{self._stems[path]}.jpg", drawn)
        return drawn

    def record(self, path: str, found: Detections) -> None:
        """Writes the labels and the line of an image, whose images are written already."""
        self._count += 1
        if self._args.save_labels:
            save_found_labels(path, found)
        if self._record is not None:
            columns = zip(found.class_ids.tolist(), found.confidences.tolist(), found.boxes.tolist(), strict=True)
            rows = [[class_id, confidence, *box] for class_id, confidence, box in columns]
            entry: RecordLine = {"path": path, "size": list(found.image_size), "rows": rows}
            self._record.write(json.dumps(entry).encode() + b"\n")
            self._record.flush()

    @property
    def _is_shard(self) -> bool:
        return self._shard.total > 1

    def _record_file(self) -> Path:
        """The name of the record once all images of this run, or of this share, are in it."""
        assert self._target is not None
        return self._shard.record(self._target) if self._is_shard else self._target

    def _finish_shard(self) -> None:
        """Leaves a whole record, and joins those of all shards where this is the last one."""
        assert self._record is not None and self._partial is not None and self._target is not None
        self._record.flush()
        os.replace(self._partial, self._record_file())
        records = claim_records(self._shard.records(self._target))
        if records is None:
            print(f"share {self._shard.number} of {self._shard.total} is in {self._record_file()}", file=self._messages)
            return
        with ExitStack() as stack:
            parts = [stack.enter_context(open_regular(record, "record")) for record in records]
            for record, part in zip(records, parts, strict=True):
                if part.readline() != self._header():
                    raise DataError(f"{record}: expected the record of a run with the same options, got another")
            self._record.close()
            self._record = stack.enter_context(tempfile.TemporaryFile())
            self._record.write(self._header())
            self._record.writelines(merge_lines(self._images, parts, _path_of))
            self._record.flush()
            self._write_tables()
        self._tell()
        for record in reversed(records):  # the claim last, so that a killed process is followed by another
            record.unlink()

    def _not_done(self, images: Sequence[str]) -> list[str]:
        """The images without a line in the record; without a record, those without the files that are written."""
        if self._partial is not None:
            if self._is_shard:
                self._take_up_shard()
            done = set(self._done_before()) if self._partial.exists() else set()
            return [image for image in images if image not in done]
        if self._args.no_images and not self._args.save_labels:
            return list(images)
        return [image for image in images if not all(map(os.path.exists, self._files_of(image)))]

    def _take_up_shard(self) -> None:
        """Makes a finished record one to go on with: it may have been finished when the run was killed."""
        assert self._partial is not None and self._target is not None
        if self._shard.number == 1:
            release_claim(self._record_file())
        if self._record_file().exists():
            os.replace(self._record_file(), self._partial)

    def _files_of(self, image: str) -> Iterator[str]:
        if not self._args.no_images:
            yield str(self._out / f"{self._stems[image]}.jpg")
        if self._args.save_labels:
            yield find_labels(image)

    def _done_before(self) -> Iterator[str]:
        """The images of an interrupted run's record. Raises DataError where its options were others."""
        assert self._partial is not None
        with open_regular(self._partial, "record") as file:
            first = file.readline()
            if first != self._header():
                raise DataError(
                    f"{self._partial}: expected the record of a run with the same options, got another; delete it, or "
                    "leave out --resume"
                )
            for path, _ in self._whole_lines(file):
                yield path

    def _whole_lines(self, file: IO[bytes]) -> Iterator[tuple[str, int]]:
        """Image and length of the lines of a record after its header, up to the first that is cut off or damaged.

        What follows such a line is left out too, and done again.
        """
        missing = set(self._images)
        for line in file:
            parsed = _parse_line(line)
            path = parsed[0]["path"] if parsed else None
            if path not in missing:
                return
            missing.remove(path)
            yield path, len(line)

    def _header(self) -> bytes:
        options = vars(self._args)
        header = {name: str(options[name]) for name in (*_NETWORK, *_DETECTION, *_FILES)}
        if self._is_shard:  # whose shares follow from the list
            header["images"] = hashlib.sha256("\n".join(self._images).encode("utf-8", "surrogateescape")).hexdigest()
        return json.dumps(header).encode() + b"\n"

    def _open_record(self) -> IO[bytes]:
        if self._partial is None:
            file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
            file.write(self._header())
            return file
        try:
            if not self._args.resume or not self._partial.exists():
                write_atomically(self._partial, self._header())
            record = open(self._partial, "r+b")  # noqa: SIM115
        except OSError as error:
            raise DataError(f"{self._partial}: cannot write: {error.strerror or error}") from None
        content_end = len(record.readline())
        content_end += sum(length for _, length in self._whole_lines(record))
        record.truncate(content_end)
        record.seek(content_end)
        return record

    def _entries(self) -> Iterator[Detections]:
        """The detections of all images, of an interrupted run before too, read one by one."""
        assert self._record is not None
        self._record.seek(0)
        self._record.readline()
        for line in self._record:
            parsed = _parse_line(line)
            assert parsed is not None  # this process wrote it, or has checked it
            entry, rows = parsed
            yield Detections(
                rows[:, 2:].astype(np.float32),
                rows[:, 0].astype(np.int64),
                rows[:, 1].astype(np.float32),
                self._names,
                (entry["size"][0], entry["size"][1]),
                path=entry["path"],
            )

    def _write_tables(self) -> None:
        frames = (found.to_frame(number, found.path) for number, found in enumerate(self._entries(), 1))
        for name, chunks in (
            (self._tables.json, json_list(frames)),
            (self._tables.csv, self._csv()),
            (self._tables.coco, self._coco()),
        ):
            if name == "-":
                for chunk in chunks:
                    print(chunk.decode(), end="")
            elif name:
                write_atomically(name, chunks)
                print(f"detections in {name}", file=self._messages)
        if self._tables.heat_map:
            self._write_heat_map()

    def _write_heat_map(self) -> None:
        heat_map, path = HeatMap(), ""
        for found in self._entries():
            heat_map.add(found.visible())
            path = found.path
        if path:
            save_image(self._tables.heat_map, heat_map.draw(open_image(path)))
            print(f"heat map in {self._tables.heat_map}", file=self._messages)

    def _csv(self) -> Iterator[bytes]:
        yield f"{','.join(CSV_COLUMNS)}\n".encode()
        for found in self._entries():
            yield found.to_csv(header=False).encode()

    def _coco(self) -> Iterator[bytes]:
        """A COCO data set of what was found; each annotation has its score."""
        paths = [found.path for found in self._entries()]
        ids = image_ids(paths)
        in_one_folder = len({os.path.dirname(path) for path in paths}) == 1
        categories = coco_category_ids(len(self._names)).tolist()
        yield b'{"images": [\n'
        for comma, (image_id, found) in _with_commas(zip(ids, self._entries(), strict=True)):
            width, height = found.image_size
            name = os.path.basename(found.path) if in_one_folder else found.path
            image = {"id": image_id, "file_name": name, "width": width, "height": height}
            yield f"{comma}{json.dumps(image, ensure_ascii=False)}".encode()
        named = [{"id": number, "name": name} for number, name in zip(categories, self._names, strict=True)]
        yield f'\n],\n"categories": {json.dumps(named, ensure_ascii=False)},\n"annotations": [\n'.encode()
        rows = (row for image_id, found in zip(ids, self._entries(), strict=True) for row in found.to_coco(image_id))
        for comma, (number, row) in _with_commas(enumerate(rows, 1)):
            area = row["bbox"][2] * row["bbox"][3]
            yield f"{comma}{json.dumps({'id': number, **row, 'area': area, 'iscrowd': 0})}".encode()
        yield b"\n]}\n"

    def _tell(self) -> None:
        """Where the images are."""
        if not self._args.no_images:
            print(f"images in {self._out}/", file=self._messages)
        if self._args.crops:
            print(f"crops in {self._args.crops}/", file=self._messages)


def _with_commas(items: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    """What stands between the items of a JSON list: a comma before all but the first."""
    for number, item in enumerate(items):
        yield ",\n" if number else "", item


def json_list(entries: Iterator[JsonFrame]) -> Iterator[bytes]:
    """One JSON list, a line for each entry, as it grows."""
    before = "["
    for entry in entries:
        yield f"{before}\n{json.dumps(entry, ensure_ascii=False)}".encode()
        before = ","
    yield b"[]\n" if before == "[" else b"\n]\n"


def output_stems(images: Sequence[str]) -> list[str]:
    """The name without its ending of each image's files; equal file names from several folders are numbered."""
    stems = [Path(unquote(urlsplit(image).path) if is_url(image) else image).stem or "image" for image in images]
    return [name.removesuffix(".jpg") for name in file_names(stems, suffix=".jpg")]


def save_found_labels(image: str, found: Detections) -> None:
    """Writes the label file beside an image."""
    save_labels(find_labels(image), [(detection.class_id, *detection.box) for detection in found])


def check_no_urls(images: Sequence[str]) -> None:
    """Raises DataError where labels could not be written beside the images."""
    if addresses := [image for image in images if is_url(image)]:
        raise DataError(f"{addresses[0]}: --save-labels expects image files: labels are written beside them")


def check_no_labels(images: Sequence[str]) -> None:
    """Raises DataError where labels would replace others."""
    if existing := [label for label in map(find_labels, images) if os.path.exists(label)]:
        raise DataError(
            f"{existing[0]}: there are labels already ({counted(len(existing), 'such file')}); "
            "--save-labels replaces none unless --existing-labels replace is given"
        )
