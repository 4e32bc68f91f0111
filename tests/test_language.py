"""Retired words and names stay out: the project is written in the plain English of detector engineers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import known
from tests.conftest import tool
from tests.known import Violation

package_source = tool("structure/package_source")

ROOT = Path(__file__).resolve().parents[1]
SEARCHED = ("darknet_py", "tests", "tools", "docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile")
SUFFIXES = {".py", ".md", ".js", ".css", ".html", ".jinja", ".j2", ".yml", ".yaml", ".toml", ""}
NOT_SEARCHED = {"tests/test_language.py", "tests/known.json"}  # they name what they forbid
COMMANDS = (
    "anchors|bench|check|classify|compare|convert|data|design|detect|evaluate|graph|info|rnn|train|video|serve|study"
)
BRITISH = (
    "colour|behaviour|favour|neighbour|grey|centre|labell|cancelled|modell|"
    "(central|character|custom|discret|emphas|general|initial|maxim|minim|normal|optim|organ|quant|random|real|recogn|"
    "regular|serial|special|stabil|summar|synchron|util|vector|visual)is(e|ing|ation)"
)


class Retired(NamedTuple):
    """A pattern that no line may contain, and what is written instead."""

    pattern: str
    instead: str


PROSE = [
    Retired(r"\b(wanted\b.*|expected\b.*, )found\b", "expected X, got Y"),
    Retired(r"\bfound (none|nothing|others)\b", "X not found"),
    Retired(r"\bpictures?\b", "image"),
    Retired(r"\bfigures\b", "values, metrics, numbers"),
    Retired(r"\banew\b", "again; re-initialized"),
    Retired(r"\bleast confidence\b", "minimum confidence"),
    Retired(r"\bimages at once\b", "batch size"),
    Retired(r"\bboxes are joined\b", "IoU threshold for non-maximum suppression"),
    Retired(r"\bno better\b.*\bmeasurements\b", "early stopping: X has not improved for N evaluations"),
    Retired(r"\bloaded but for\b", "weights loaded; layers A–B re-initialized"),
    Retired(r"\bonce more stops\b", "press Ctrl-C again to quit immediately"),
    Retired(r"\blost another one\b", "rank N: a peer process terminated unexpectedly"),
    Retired(r"\bonly count where\b", "X is ignored with Y"),
    Retired(r"\btrained on as well\b", "validation images that are also in the training set"),
    Retired(r"\breduced precision\b", "mixed precision"),
    Retired(r"\bstood twice\b", "deduplicate X"),
    Retired(r"\bis no (detector|classifier|checkpoint|cfg|file|image|network)\b", "is not a X"),
    Retired(r"\btales?\b", "synthetic text"),
    Retired(r"\blikeness(es)?\b", "IoU, similarity"),
    Retired(BRITISH, "American spelling"),
    Retired(rf"(?<!-m )(?<![\w.])darknet_py ({COMMANDS})\b(?! import)", "darknet-py COMMAND"),
    Retired(r"pip install [^ ]*['\"]?darknet[-_]py(?![-\w])", "the name of this project's distribution"),
]

# Old names in the package: of files, of classes, of functions and methods, and of variables and parameters.
NAMES = {
    "file": """
        cfg/account cfg/classes cli/darknet cli/measure data/alike data/check data/formats data/gather
        data/sequence data/tale data/yolo evaluation/coco evaluation/darknet evaluation/records
        evaluation/results evaluation/run evaluation/shares layers/excitation layers/filters
        layers/heads_common layers/parity layers/reject layers/segment layers/tree training/board
        training/interrupt training/journal training/step view/balance view/sheet view/sketch zoo/crossing
        zoo/recipes zoo/small zoo/text""",
    "class": """
        Activating Adding Backup Board Cfg ClassRule Converted Crossed Dice Draw Elman Exported Fit Found Frozen Gallery
        InOrder Journal Kind Learner Lesson Look Mark Matched Memory Multiplying Remembering Reports Rooms Routing Run
        Runs Score Share Shifting Stop Streams Tale Taught Team Tied Times Truth Update""",
    "function": """
        agree alike anew candidates compares cross deal everyones examine held joined judge keeps_numbered kept leads
        likeness load_fitting loud merged met say scan scratch share shown still tired twins widened windows
        with_classes with_net""",
    "variable": "_FEW _HERE _MOST anew each here likeness met places still there twins",
}


def searched() -> Iterator[Path]:
    for name in SEARCHED:
        path = ROOT / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            relative = file.relative_to(ROOT)
            hidden = any(part == "__pycache__" or part.startswith(".") for part in relative.parts)
            if file.is_file() and file.suffix in SUFFIXES and not hidden and str(relative) not in NOT_SEARCHED:
                yield file


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """What is searched, by path. Strings over several lines of Python follow once more, in one line."""
    content = {}
    for path in searched():
        text = path.read_text(encoding="utf-8", errors="replace")
        strings: list[str] = []
        for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
            if isinstance(node, (ast.JoinedStr, ast.Constant)) and node.end_lineno != node.lineno:
                lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
                if not any('"""' in line for line in lines):
                    strings.append(" ".join(line.strip() for line in lines))
        content[path.relative_to(ROOT).as_posix()] = "\n".join([text, *strings])
    return content


@pytest.mark.parametrize("retired", PROSE, ids=lambda retired: retired.instead)
def test_retired_words(retired: Retired, texts: dict[str, str]) -> None:
    """Limits by folder for what the pattern matches; write what `instead` says."""
    pattern = re.compile(retired.pattern, re.IGNORECASE)
    known.check(
        f"retired words; write: {retired.instead}",
        [
            Violation(path.split("/")[0], f"{path}: {match.group()}")
            for path, text in texts.items()
            for match in pattern.finditer(text)
        ],
    )


@pytest.mark.parametrize("kind", NAMES)
def test_retired_names(kind: str) -> None:
    """The dictionary of the project gives each of them a name that says what it is."""
    retired = set(NAMES[kind].split())
    known.check(f"retired names: {kind}", [Violation(name) for name in defined(kind) if name in retired])


def defined(kind: str) -> Iterator[str]:
    """Every name of one kind that the package defines, as often as it does. Fields count as functions, too."""
    for module in package_source.read_package(ROOT / "darknet_py"):
        if kind == "file":
            yield module.path.removesuffix(".py")
        for node in ast.walk(module.tree):
            match kind, node:
                case ("class", ast.ClassDef(name=name)) | ("function", ast.FunctionDef(name=name)):
                    yield name
                case "function", ast.AnnAssign(target=ast.Name(id=name)):
                    yield name
                case ("variable", ast.arg(arg=name)) | ("variable", ast.Name(id=name, ctx=ast.Store())):
                    yield name
