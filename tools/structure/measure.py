"""How the code is built: lines, imports, names, and the way that commands take through the files.

    python tools/structure/measure.py [CHECKOUT] [--json FILE] [--against EARLIER.json]

It measures any checkout of the project, an older one too, as it only reads the source and runs commands:

    git worktree add /tmp/before f4aec11
    python tools/structure/measure.py /tmp/before --json docs/bench/structure-before.json
    python tools/structure/measure.py . --against docs/bench/structure-before.json

Commands run one after the other in processes of their own, on a small network, four images and labels that this
program makes. Of each it counts, inside the package and without what runs while modules are imported:

    files          files with at least one function called
    changes        function calls in another file than the call before (each thread by itself)
    cfg parses     calls of `parse_sections`
    reads          times that an input file is opened for reading (by Python; not by a library in C or Rust)

"train, 2 more iterations" is the difference between four iterations and two: the loop without set-up and end.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import package_source as source

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "darknet_py"
NETWORK = "yolov4-tiny-shapes.cfg"  # of the checkout's cfg folder
CLASSES = 6  # that it has
_SIDE = 96  # of the network's input
_LONGEST = 10  # files named in the report
_TIMEOUT = 300

Json = dict[str, object]


class Command(NamedTuple):
    name: str
    arguments: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT, help="folder (default: this checkout)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE too")
    parser.add_argument("--against", type=Path, metavar="FILE", help="print the values of an earlier result beside")
    parser.add_argument("--source-only", action="store_true", help="run no commands")
    arguments = parser.parse_args()
    checkout = arguments.checkout.resolve()
    if not (checkout / PACKAGE / "__init__.py").is_file():
        parser.error(f"{checkout}: no package {PACKAGE} in this folder")
    earlier = json.loads(arguments.against.read_text(encoding="utf-8")) if arguments.against else None
    report: Json = {
        "commit": _commit(checkout),
        "python": platform.python_version(),
        "source": source_facts(checkout / PACKAGE),
    }
    if not arguments.source_only:
        report["commands"] = command_facts(checkout)
    print("\n".join(table(report, earlier)))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _commit(checkout: Path) -> str:
    git = ["git", "-C", str(checkout)]
    head = subprocess.run([*git, "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "--", PACKAGE, "cfg"], capture_output=True, text=True)
    return head.stdout.strip() + (" with changes" if changed.stdout else "")


# --- the source


def source_facts(package: Path) -> Json:
    """What `package_source` finds, as numbers and lists."""
    modules = source.read_package(package)
    imports = source.imports(modules)
    places = Counter(found.when for found in imports)
    others = [path for path in package.rglob("*") if path.suffix in (".js", ".css", ".html", ".jinja", ".j2")]
    longest = sorted(modules, key=lambda module: -module.lines)[:_LONGEST]
    signatures = source.parameters(modules)
    return {
        "Python files": len(modules),
        "lines of Python": sum(module.lines for module in modules),
        "of which code": sum(source.code_lines(module) for module in modules),
        "lines of JavaScript, CSS and HTML": sum(len(path.read_text("utf-8").splitlines()) for path in others),
        "longest files": {module.path: module.lines for module in longest},
        "imports at module level": places["module"],
        "imports inside functions": places["function"],
        "imports for types only": places["typing"],
        "import circles": source.circles(imports, "module"),
        "import circles with those inside functions": source.circles(imports, "module", "function"),
        "import circles with those for types": source.circles(imports, "module", "function", "typing"),
        "probes by attribute name": [_place(finding) for finding in source.probes(modules)],
        "Any in public signatures": [_place(finding) for finding in source.any_in_signatures(modules)],
        "functions with more than 8 parameters": [f"{name} {count}" for count, name in signatures if count > 8],
        "module stems used twice": source.repeated(source.module_stems(modules)),
        "public classes defined twice": source.repeated(source.public_names(modules, ast.ClassDef)),
        "public functions defined twice": source.repeated(source.public_names(modules, ast.FunctionDef)),
    }


def _place(finding: source.Finding) -> str:
    return f"{finding.path}:{finding.line}: {finding.what}"


# --- commands


def command_facts(checkout: Path) -> dict[str, Json]:
    """The way of every command through the package."""
    with tempfile.TemporaryDirectory(prefix="structure-") as name:
        folder = Path(name).resolve()
        data, other_data, image = make_data(folder)
        cfg = checkout / "cfg" / NETWORK
        weights, checkpoint = folder / "net.weights", folder / "net.pt"
        _run(checkout, folder, [sys.executable, "-c", _SAVE, str(cfg), str(weights)])
        _run(checkout, folder, [sys.executable, "-m", PACKAGE, "convert", str(cfg), str(weights), str(checkpoint)])
        inputs = [cfg, weights, checkpoint, data, other_data, image, folder / "names.txt", folder / "images.txt"]
        facts: dict[str, Json] = {}
        for command in commands(cfg, weights, checkpoint, data, other_data, image):
            facts[command.name] = _trace(checkout, folder, inputs, command)
    two, four = facts["train, 2 iterations"], facts["train, 4 iterations"]
    more: Json = {key: _number(four[key]) - _number(two[key]) for key in ("changes", "calls", "cfg parses")}
    facts["train, 2 more iterations"] = more
    return facts


def commands(
    cfg: Path, weights: Path, checkpoint: Path, data: Path, other_data: Path, image: Path
) -> Iterator[Command]:
    """What is measured. other_data: has another number of classes than the network."""
    side = [f"--width={_SIDE}", f"--height={_SIDE}"]
    train = ["train", str(cfg), *side, "--batch=4", "--subdivisions=2", "--workers=0", "--device=cpu", "--map=off"]
    other = [*train, f"--data={other_data}", f"--classes={CLASSES - 1}", "--max-batches=2"]
    trained = [str(cfg), "--weights", str(weights)]
    yield Command("info", ["info", str(cfg)])
    yield Command("detect", ["detect", *trained, str(image), *side, "--out=detections"])
    yield Command("evaluate", ["evaluate", *trained, f"--data={data}", *side, "--workers=0"])
    yield Command("evaluate net.pt", ["evaluate", str(checkpoint), f"--data={data}", *side, "--workers=0"])
    yield Command("convert", ["convert", str(cfg), str(weights), "converted.pt"])
    yield Command("convert net.pt", ["convert", str(checkpoint), "converted.weights"])
    for count in (2, 4):
        given = [f"--data={data}", f"--max-batches={count}", f"--out=trained-{count}"]
        yield Command(f"train, {count} iterations", [*train, *given])
    yield Command("train --classes, 2 iterations", [*other, "--out=fine-tuned"])
    yield Command("train --classes --weights", [*other, f"--weights={weights}", "--out=fine-tuned-2"])


# The public API, which stays whatever moves inside.
_SAVE = """
import sys, darknet_py, torch
torch.manual_seed(0)
darknet_py.load(sys.argv[1]).save_weights(sys.argv[2])
"""


def _trace(checkout: Path, folder: Path, inputs: list[Path], command: Command) -> Json:
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    tracer = str(Path(__file__).with_name("trace_command.py"))
    start = [sys.executable, tracer, str(report), str(checkout / PACKAGE), *map(str, inputs), "--"]
    _run(checkout, folder, [*start, *command.arguments])
    facts: Json = json.loads(report.read_text())
    return facts


def _run(checkout: Path, folder: Path, command: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder)}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT
    )
    if result.returncode:
        sys.exit(f"exit code {result.returncode} from {' '.join(command)}\n{result.stdout}{result.stderr}")


def make_data(folder: Path) -> tuple[Path, Path, Path]:
    """Four images with one labeled rectangle each; a .data file, one with a class less, and the first image."""
    paths = []
    generator = np.random.default_rng(0)
    for index in range(4):
        image = generator.integers(0, 80, (64, 96, 3), np.uint8)
        image[16:48, 24:72] = (250, 200, 40 * index)
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), image)
        path.with_suffix(".txt").write_text(f"{index} 0.5 0.5 0.5 0.5\n")
        paths.append(path)
    (folder / "images.txt").write_text("".join(f"{path}\n" for path in paths))
    made = []
    for stem, classes in (("all", CLASSES), ("fewer", CLASSES - 1)):
        names = folder / ("names.txt" if classes == CLASSES else "fewer.txt")
        names.write_text("".join(f"class{index}\n" for index in range(classes)))
        data = folder / f"{stem}.data"
        lists = f"train = {folder}/images.txt\nvalid = {folder}/images.txt\n"
        data.write_text(f"classes = {classes}\n{lists}names = {names}\nbackup = {folder}/backup\n")
        made.append(data)
    return made[0], made[1], paths[0]


# --- the report


def table(report: Json, earlier: Json | None) -> Iterator[str]:
    """Lines to print: every value, and beside it that of an earlier report."""
    now, before = _section(report, "source"), _section(earlier, "source")
    yield f"{PACKAGE} at {report['commit']}" + (f", beside {earlier['commit']}" if earlier else "")
    yield ""
    for key, value in now.items():
        if key == "longest files":
            continue
        yield f"{key:44} {_beside(_size(value), _size(before.get(key)))}"
    longest = now["longest files"]
    assert isinstance(longest, dict)
    yield f"{'longest files':44} " + ", ".join(f"{name} {lines}" for name, lines in list(longest.items())[:4])
    commands, past = _section(report, "commands"), _section(earlier, "commands")
    if not commands:
        return
    yield ""
    columns = ("files", "changes", "calls", "modules imported", "cfg parses")
    yield f"{'command':30}" + "".join(f"{column:>18}" for column in columns) + "  reads"
    for name, facts in commands.items():
        assert isinstance(facts, dict)
        old = past.get(name)
        old = old if isinstance(old, dict) else {}
        row = "".join(f"{_beside(facts.get(column), old.get(column)):>18}" for column in columns)
        yield f"{name:30}{row}  {_reads(facts)}" + (f"  (before: {_reads(old)})" if old else "")


def _section(report: Json | None, name: str) -> Mapping[str, object]:
    section = (report or {}).get(name, {})
    assert isinstance(section, dict)
    return section


def _size(value: object) -> object:
    return len(value) if isinstance(value, (list, dict)) else value


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _beside(value: object, before: object) -> str:
    return f"{'-' if value is None else value}" + ("" if before is None else f" (was {before})")


def _reads(facts: Json) -> str:
    reads = facts.get("reads")
    return ", ".join(f"{name} {count}" for name, count in reads.items()) if isinstance(reads, dict) else "-"


if __name__ == "__main__":
    main()
