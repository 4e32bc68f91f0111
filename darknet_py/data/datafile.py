"""`.data` files, name lists and image lists (Darknet's `read_data_cfg`, `get_labels`, `get_paths`)."""

from __future__ import annotations

import codecs
import os
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from darknet_py.cfg.options import atoi, did_you_mean
from darknet_py.counted import counted
from darknet_py.data.images import IMAGE_SUFFIXES
from darknet_py.data.labels import MAX_CLASSES
from darknet_py.data.text_encoding import decode_any
from darknet_py.errors import CfgWarning, DataError
from darknet_py.files import write_atomically
from darknet_py.shipped import find as find_file
from darknet_py.untrusted import checked_text, clean_names, printable, read_file

_KEYS = ["classes", "train", "valid", "test", "names", "labels", "backup", "results", "eval", "map", "difficult"]
_KEYS += ["tree", "leaves", "top", "saveweights", "savelast"]
_LINE_END = re.compile(r"\r\n|\r|\n")
_COMMENT = re.compile(r"#\s|#$|//")
# A name in a file that is no names file: a list in YAML, a dictionary in YAML, a label map of TensorFlow.
_LISTED_NAMES = [re.compile(pattern) for pattern in (r"-\s+(.+)", r"\d+\s*:\s*(.+)", r"(?:display_)?name:\s*(.+)")]
_MAX_DEPTH = 64  # folders at the start of a path that are left out to find the file
_SAMPLE = 64  # images looked for to find the folder that a list counts from
_ENDING = re.compile(
    rf"\.(?:{'|'.join(sorted((suffix[1:] for suffix in IMAGE_SUFFIXES), reverse=True))})", re.IGNORECASE
)


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
    results: Path = Path("results")  # where `detector valid` writes
    eval: str = "voc"
    difficult: Path | None = None
    saveweights: int = 0  # 0: Darknet's rule
    savelast: int = 100
    top: int = 1  # classes that a classifier's evaluation and prediction show

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
        if classes > MAX_CLASSES:
            raise DataError(f"{path}:{values['classes'][1]}: classes: expected at most {MAX_CLASSES}, got {classes}")
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
            results=Path(values["results"][0]) if "results" in values else Path("results"),
            eval=values["eval"][0] if "eval" in values else "voc",
            difficult=find("difficult"),
            saveweights=number("saveweights", 0),
            savelast=number("savelast", 100),
            top=number("top", 1),
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
        """Names by class, exactly `classes` of them; a CfgWarning names both counts where the file has others."""
        source = self.names or self.labels
        if source is None:
            raise DataError(f"{self.path}: expected a line names=, got none")
        return read_names(source, self.classes or None)

    def for_network(self, classes: int, network: str) -> DataFile:
        """The data as a network of `classes` classes sees it.

        Its number counts where the file says another, as in Darknet, and a CfgWarning names both.

        Args:
            classes: Number of classes of the network's head.
            network: The cfg, for the message.
        """
        if self.classes and self.classes != classes:
            text = f"{self.path}: classes={self.classes}, but {network} has {classes}; using {classes}"
            warnings.warn(text, CfgWarning, stacklevel=2)
        return replace(self, classes=classes)

    def _wanted(self, key: str) -> Path:
        source: Path | None = getattr(self, key)
        if source is None:
            raise DataError(f"{self.path}: expected a line {key}=, got none")
        return source


def resolve(text: str, anchor: Path) -> Path:
    """The path that `text` means in the file `anchor`, or a shipped file; as written where nothing is found.

    On systems whose separator is `/`, backslashes separate folders where no such file exists. Last, the path's end is
    looked for beside `anchor`: tools pack `data/train.txt` as `train.txt`.
    """
    for path in (text, _with_slashes(text)):
        for base in _bases(anchor):
            if os.path.exists(base / path):
                return base / path
    for path in _shortened(_with_slashes(text)):
        if os.path.exists(anchor.absolute().parent / path):
            return anchor.absolute().parent / path
    with suppress(DataError):
        return find_file(text, "file")
    return Path(text)


def read_names(path: str | os.PathLike[str], classes: int | None = None) -> list[str]:
    """Class names, one a line; blank lines at the end do not count.

    Args:
        path: The file. One that is not UTF-8 is decoded by the likely encoding.
        classes: The number of names to return, if it is known. Blank lines, comments and names on one line are then
            told from names by the number; missing names are the class numbers, and surplus names are left out.

    Raises:
        DataError: The file cannot be read or has no names.

    A CfgWarning says what was not taken as written.
    """
    path = find_file(path, "names file")
    text, encoding = decode_any(read_file(path, "names file"))
    checked_text(text, path, "the names file")
    if encoding:
        warnings.warn(f"{path}: not UTF-8; decoded as {encoding}", CfgWarning, stacklevel=2)
    lines = [line.strip() for line in _LINE_END.split(text)]
    while lines and not lines[-1]:
        lines.pop()
    names, note = _names_of_lines(lines, classes)
    if not names:
        raise DataError(f"{path}: expected class names, one a line, got none")
    written, names = names, clean_names(names)
    if printable("".join(written)) != "".join(written):
        warnings.warn(f"{path}: control characters in names are left out", CfgWarning, stacklevel=2)
    if note:
        warnings.warn(f"{path}: {note}", CfgWarning, stacklevel=2)
    return names


def _names_of_lines(lines: list[str], classes: int | None) -> tuple[list[str], str]:
    """The names and a note about lines that were not taken as names."""
    if len(lines) == classes:
        return lines, ""
    first = next((number for number, line in enumerate(lines) if line and not _COMMENT.match(line)), len(lines))
    names = lines[first:]  # a blank line between names is a class without a name
    if classes not in (None, len(names)):
        without_comments = [line for line in lines[first:] if not _COMMENT.match(line)]
        for candidate in (without_comments, [line for line in without_comments if line]):
            if len(candidate) == classes:
                names = candidate
        for pattern in _LISTED_NAMES:
            listed = [match[1].strip("\"' ") for line in lines if (match := pattern.fullmatch(line))]
            if len(listed) == classes != len(names):
                return (
                    listed,
                    f"expected one name a line, got {counted(len(lines), 'line')} with {classes} listed names",
                )
    if len(names) == 1 and classes != 1:
        for separator in (",", ";", "\t", " "):
            parts = [part.strip().strip("\"'") for part in names[0].strip("[]").split(separator) if part.strip()]
            if len(parts) == classes or (classes is None and separator != " " and len(parts) > 1):
                return parts, f"expected one name a line, got one line with {counted(len(parts), 'name')}"
    if classes is not None and len(names) != classes:
        note = f"expected {counted(classes, 'name')}, got {len(names)}; "
        if len(names) > classes:
            return names[:classes], note + f"using the first {classes}"
        if names:
            numbers = [str(number) for number in range(len(names), classes)]
            return names + numbers, note + "the other classes are named by their numbers"
    left_out = len(lines) - len(names)
    return (
        names,
        f"{counted(len(lines), 'line')}, {counted(len(names), 'name')}: blank lines and comments are ignored"
        if left_out
        else "",
    )


def list_folder(folder: str | os.PathLike[str], *, subfolders: bool = True) -> list[str]:
    """Every image in a folder (and its subfolders), sorted; files that only accompany others are left out.

    These are hidden files of macOS (`._a.jpg`), and arrays beside an image of the same name, which Ultralytics caches.
    """
    start = os.path.realpath(folder)
    if subfolders and os.path.dirname(start) == start:
        raise DataError(f"{folder}: expected a folder of images, got the root of the file system")

    def fail(error: OSError) -> None:
        if not isinstance(error, PermissionError) or error.filename == os.fspath(folder):
            raise error

    files = []
    try:
        for parent, _, names in os.walk(folder, onerror=fail):
            files += [str(Path(parent, name)) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
            if not subfolders:
                break
    except OSError as error:  # a folder that has just been removed, or may not be read
        raise DataError(f"{folder}: cannot list the images: {error.strerror or error}") from None
    return sorted(_without_companions(files))


def _without_companions(files: list[str]) -> Iterable[str]:
    images = {os.path.splitext(file)[0] for file in files if not file.lower().endswith(".npy")}
    for file in files:
        path, ending = os.path.splitext(file)
        name = os.path.basename(path)
        if not name.startswith("._") and ending and (ending.lower() != ".npy" or path not in images):
            yield file


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """Image paths, one a line (or every image below a folder). Raises DataError when there is none.

    Relative paths count from the current folder as in Darknet, or from one of the folders above the list: the one
    where most of the images are. The lists of annotation tools are read, too: backslashes separate folders, and folders
    at the start of the paths that are not there are left out.
    """
    if os.path.isdir(path):
        images = list_folder(path)
        if not images:
            raise DataError(f"{path}: expected images, got none in this folder")
        return images
    path = Path(path)
    text = _text(path, "list of images")
    lines = [line.strip() for line in _LINE_END.split(text)]
    images = [line for line in lines if line]
    if not images:
        raise DataError(f"{path}: expected a list of images, one a line, got none")
    for number, line in enumerate(lines, 1):
        count = _paths_in_line(line)
        if count > 1 and not any(os.path.exists(base / line) for base in _bases(path)):
            raise DataError(f"{path}:{number}: expected one image path a line, got {count} in one line")
    return _located(images, path)


def _paths_in_line(line: str) -> int:
    """How many image paths a line holds; `a.jpg.jpg` and `a.jpg_large.jpg` are one."""
    *paths, rest = _ENDING.split(line)
    separate = all(re.search(r"[/\\]|^[\s,]", part) for part in paths[1:])
    return len(paths) if not rest and all(paths) and (separate or len(paths) > 2) else 1


def _located(images: list[str], anchor: Path) -> list[str]:
    """The paths of a list, from where most of a sample exist."""
    sample = images[:: max(1, len(images) // _SAMPLE)]
    for chosen in (sample, images) if len(sample) < len(images) else (images,):
        for convert in (str, _with_slashes):
            hits = [sum(os.path.exists(base / convert(image)) for image in chosen) for base in _bases(anchor)]
            if any(hits):
                base = _bases(anchor)[hits.index(max(hits))]
                return [convert(image) if base == Path() else os.path.join(base, convert(image)) for image in images]
    folder = anchor.absolute().parent
    for depth in range(1, min(max(map(_depth, sample)), _MAX_DEPTH) + 1):
        if any(os.path.exists(folder / _without_folders(image, depth)) for image in sample):
            shortened = [str(folder / _without_folders(image, depth)) for image in images]
            if len(set(shortened)) == len(set(images)):  # else images of different folders became one
                return shortened
    return images


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/") if os.sep == "/" else path


def _depth(path: str) -> int:
    return _with_slashes(path).count("/")


def _without_folders(path: str, depth: int) -> str:
    """The path without its first `depth` folders; its file name always stays."""
    return _with_slashes(path).split("/", depth)[-1]


def _shortened(path: str) -> list[str]:
    return [_without_folders(path, depth) for depth in range(1, min(_depth(path), _MAX_DEPTH) + 1)]


def write_list(path: str | os.PathLike[str], lines: Iterable[str]) -> None:
    """Writes a list or a names file in one step: one a line, UTF-8, bytes of odd file names kept."""
    text = "".join(f"{line}\n" for line in lines)
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: cannot write: {text[error.start]!r} is not a character") from None
    write_atomically(Path(path), content)


def _bases(anchor: Path) -> tuple[Path, ...]:
    folder = anchor.absolute().parent
    return Path(), folder, folder.parent, folder.parent.parent


def _text(path: str | os.PathLike[str], what: str) -> str:
    content = read_file(path, what)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as editors of Windows save "Unicode"
        return checked_text(content.decode("utf-16", "replace"), path, f"the {what}")
    return checked_text(content.decode("utf-8-sig", "surrogateescape"), path, f"the {what}")


def _options(path: Path) -> Iterable[tuple[str, str, int]]:
    seen = set()
    for number, raw in enumerate(_LINE_END.split(_text(path, ".data file")), 1):
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
