"""A list of videos for `video`: one after another, divided over processes, restarted anywhere, each of them once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from darknet_py.cli.detect_results import json_list
from darknet_py.cli.shard import Shard, claim_records, claimed, release_claim
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.data.datafile import read_list
from darknet_py.errors import DataError
from darknet_py.files import make_folder, write_atomically
from darknet_py.inference.detections import JsonFrame
from darknet_py.untrusted import open_regular

_LIST = ".txt"
# A record of other options is of no use; these change no result.
_NO_MATTER = ("argv", "started", "run", "command", "resume", "shard", "rank_timeout", "device", "batch")
_NOT_TOGETHER = ("show", "darknet", "json_port", "mjpeg_port")


class Video(NamedTuple):
    """A video of a list; `number` counts from 0."""

    number: int
    path: str


def is_list(sources: Sequence[str]) -> bool:
    """Whether the sources of `video` are a list of videos. Raises UsageError where it is not the only one."""
    lists = [source for source in sources if source.lower().endswith(_LIST)]
    if lists and len(sources) > 1:
        raise UsageError(f"{lists[0]}: expected a list of videos alone, got {counted(len(sources), 'source')}")
    return bool(lists)


class VideoList:
    """The videos of a list that this process searches, and their records.

    A record is written whole, once its video is done: a line about it, then one for each frame. The process that
    finds all records there joins them.

    Args:
        args: Those of `video`; the list is the only source.

    Attributes:
        pending: The videos that are to be searched; with --resume without those that are done.

    Raises:
        UsageError: Options that do not go with a list.
        DataError: The list cannot be read, or a folder cannot be made.
    """

    def __init__(self, args: argparse.Namespace):
        for option in _NOT_TOGETHER:
            value = vars(args)[option]
            if value is not None and value is not False:  # 0 is a port
                raise UsageError(f"--{option.replace('_', '-')}: expected one video or stream, got a list")
        if args.json == "-":
            raise UsageError("--json: expected a file, which is written when all videos are done, got standard output")
        self._json: str | None = args.json
        self._target = Path(args.json or args.out or "predictions/videos")
        make_folder(self._target.parent)
        paths = read_list(args.sources[0])
        self._shard: Shard = args.shard or Shard.of_process()
        self._options = {name: str(value) for name, value in vars(args).items() if name not in _NO_MATTER}
        self._videos = [Video(number, path) for number, path in enumerate(paths)]
        own = self._shard.items_of(self._videos)
        if args.resume:
            if own and own[0].number == 0:
                release_claim(self._record(own[0]))
            self.pending = [video for video in own if not self._is_done(video)]
        else:
            self.pending = own
            for video in own:
                for path in (self._record(video), claimed(self._record(video))):
                    path.unlink(missing_ok=True)

    def write(self, video: Video, frames: Iterable[JsonFrame], error: str = "") -> None:
        """Writes the record of a video. error: why it cannot be read; it counts as done, but is tried again."""

        def lines() -> Iterator[bytes]:
            yield self._header(video, error)
            for frame in frames:
                if self._json:
                    yield json.dumps(frame, ensure_ascii=False).encode() + b"\n"

        write_atomically(self._record(video), lines())

    def finish(self) -> str:
        """Joins the records where all of them are there; a line about it."""
        records = claim_records([self._record(video) for video in self._videos])
        if records is None:
            return f"share {self._shard.number} of {self._shard.total} is done"
        if self._json:
            write_atomically(self._json, json_list(self._frames(records)))
        for record in reversed(records):  # the claim last, so that a killed process is followed by another
            record.unlink()
        return f"{counted(len(self._videos), 'video')} done" + (f"; detections in {self._json}" if self._json else "")

    def _frames(self, records: Sequence[Path]) -> Iterator[JsonFrame]:
        for video, record in zip(self._videos, records, strict=True):
            with open_regular(record, "record") as file:
                if file.readline() not in (self._header(video), self._header(video, self._error_of(record))):
                    raise DataError(f"{record}: expected the record of a run with the same options, got another")
                for line in file:
                    try:
                        yield cast(JsonFrame, json.loads(line))
                    except ValueError:
                        raise DataError(f"{record}: damaged; delete it and run its share again") from None

    def _is_done(self, video: Video) -> bool:
        record = self._record(video)
        if not record.exists():
            return False
        with open_regular(record, "record") as file:
            return file.readline() == self._header(video)

    def _error_of(self, record: Path) -> str:
        """The error of a record, empty where there is none or it is damaged."""
        with open_regular(record, "record") as file:
            try:
                error = json.loads(file.readline())["error"]
            except (ValueError, TypeError, KeyError, RecursionError):
                return ""
        return str(error)

    def _header(self, video: Video, error: str = "") -> bytes:
        return json.dumps({"video": video.path, "error": error, **self._options}).encode() + b"\n"

    def _record(self, video: Video) -> Path:
        return self._target.with_name(f"{self._target.name}.video-{video.number + 1}-of-{len(self._videos)}")
