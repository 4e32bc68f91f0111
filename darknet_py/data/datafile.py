"""`.data` files, name lists and image lists (Darknet's `read_data_cfg`, `get_labels`, `get_paths`)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from darknet_py.cfg.options import atoi, did_you_mean
from darknet_py.data.images import IMAGE_SUFFIXES
from darknet_py.errors import CfgWarning, DataError
from darknet_py.files import checked_text, write_atomically
from darknet_py.shipped import find as find_file

_KEYS = ["classes", "train", "valid", "test", "names", "labels", "backup", "results", "eval", "map", "difficult"]
_KEYS += ["tree", "leaves", "top", "saveweights", "savelast"]


@dataclass(frozen=True)
class DataFile:
    """What a `.data` file says. Paths are resolved; None where the file has no such line.

    A relative path is looked up from the current folder (as Darknet does), then from the `.data` file's folder, then
    from the folder above that (the usual `data/x.data` of a checkout).
    """

    path: Path
    classes: int = 0  # 0: the file does not say and has no names
    train: Path | None = None
    valid: Path | None = None  # the `train` list where the file has no `valid`
    names: Path | None = None
    labels: Path | None = None  # class names of a classifier
    backup: Path = Path("backup")
    eval: str = "voc"
    difficult: Path | None = None
    saveweights: int = 0  # 0: Darknet's rule
    savelast: int = 100

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> DataFile:
        """Reads a `.data` file: `key = value` lines, `#` and `;` comments. White space inside a value is kept.

        Raises DataError with file and line. A key that Darknet does not have is a CfgWarning.
        """
        path = find_file(path, ".data file")
        values = {key: (value, line) for key, value, line in _options(path)}

        def find(key: str) -> Path | None:
            return resolve(values[key][0], path) if key in values else None

        def number(key: str, default: int) -> int:
            text, line = values.get(key, (str(default), 0))
            value = atoi(text)
            if value is None or value < 0:
                raise DataError(f"{path}:{line}: {key}: expected a number of at least 0, got {text!r}")
            return value

        names = find("names")
        classes = number("classes", 0)
        if "classes" not in values and names is not None:
            classes = len(read_names(names))
        return cls(
            path=path,
            classes=classes,
            train=find("train"),
            valid=find("valid") or find("train"),
            names=names,
            labels=find("labels"),
            backup=Path(values["backup"][0]) if "backup" in values else Path("backup"),
            eval=values["eval"][0] if "eval" in values else "voc",
            difficult=find("difficult"),
            saveweights=number("saveweights", 0),
            savelast=number("savelast", 100),
        )

    @property
    def separate(self) -> bool:
        """Whether it validates on another list than it trains on."""
        return self.valid not in (None, self.train)

    def train_images(self) -> list[str]:
        return read_list(self._wanted("train"))

    def valid_images(self) -> list[str]:
        return read_list(self._wanted("valid"))

    def class_names(self) -> list[str]:
        """Names by class. Raises DataError when there are fewer than `classes`."""
        source = self.names or self.labels
        if source is None:
            raise DataError(f"{self.path}: expected a line names=, got none")
        names = read_names(source)
        if len(names) < self.classes:
            raise DataError(f"{source}: expected {self.classes} names (classes in {self.path}), got {len(names)}")
        return names[: self.classes] if self.classes else names

    def _wanted(self, key: str) -> Path:
        source: Path | None = getattr(self, key)
        if source is None:
            raise DataError(f"{self.path}: expected a line {key}=, got none")
        return source


def resolve(text: str, anchor: Path) -> Path:
    """The path that `text` means in the file `anchor`, or a shipped file; as written where nothing is found."""
    for base in _bases(anchor):
        if (base / text).exists():
            return base / text
    with suppress(DataError):
        return find_file(text, "file")
    return Path(text)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Class names, one a line; blank lines at the end do not count. Raises DataError."""
    path = find_file(path, "names file")
    names = [line.strip() for line in _text(path, "names", errors="replace").splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"{path}: expected class names, one a line, got none")
    return names


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """Image paths, one a line (or every image below a folder). Raises DataError when there is none.

    Relative paths count from the current folder as in Darknet; when the first image is not there, from the folders
    above the list.
    """
    path = Path(path)
    if path.is_dir():
        images = sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"{path}: expected images, got none in this folder")
        return images
    images = [line.strip() for line in _text(path, "a list of images", errors="surrogateescape").split("\n")]
    images = [image for image in images if image]
    if not images:
        raise DataError(f"{path}: expected a list of images, one a line, got none")
    base = next((base for base in _bases(path) if (base / images[0]).exists()), Path())
    return images if base == Path() else [os.path.join(base, image) for image in images]


def write_list(path: str | os.PathLike[str], lines: Iterable[str]) -> None:
    """Writes a list or a names file in one step: one a line, UTF-8, bytes of odd file names kept."""
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(Path(path), text.encode("utf-8", "surrogateescape"))


def _bases(anchor: Path) -> tuple[Path, ...]:
    folder = anchor.absolute().parent
    return Path(), folder, folder.parent, folder.parent.parent


def _text(path: str | os.PathLike[str], what: str, errors: str) -> str:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", errors)
    except OSError as error:
        raise DataError(f"{path}: cannot read {what}: {error.strerror or error}") from None
    return checked_text(text, Path(path), what)


def _options(path: Path) -> Iterable[tuple[str, str, int]]:
    seen = set()
    for number, raw in enumerate(_text(path, "the .data file", errors="surrogateescape").split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key or not value:
            raise DataError(f"{path}:{number}: expected key = value, got {line!r}")
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS)
            warnings.warn(f"{path}:{number}: unknown key {key!r} is ignored{hint}", CfgWarning, stacklevel=4)
        if key not in seen:  # the first of two equal keys counts, as in Darknet
            seen.add(key)
            yield key, value, number
