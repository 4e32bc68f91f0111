"""Imports between and inside the rooms go one way, names mean one thing, and the public names are there."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import darknet_py
from tests import known
from tests.conftest import tool
from tests.known import Violation

source = tool("structure/package_source")

PACKAGE = Path(darknet_py.__file__).parent

# From the bottom up; a room may import itself and what comes before it.
LEVELS = [
    ["errors"],
    ["boxes", "counted", "files", "optional", "shipped", "timing", "untrusted"],
    ["cfg"],
    ["layers"],
    ["graph"],
    ["data", "view.draw"],
    ["inference"],
    ["model"],
    ["view", "zoo"],
    ["evaluation", "export"],
    ["backends", "serving"],
    ["training"],
    ["cli"],
]


def level(module: str) -> int:
    name = module.removeprefix("darknet_py").removeprefix(".")
    for height, rooms in enumerate(LEVELS):
        if any(name == room or name.startswith(room + ".") for room in rooms):
            return height
    return -1 if not name else len(LEVELS)


@pytest.fixture(scope="module")
def modules() -> list[Any]:
    modules: list[Any] = source.read_package(PACKAGE)
    assert len(modules) > 50
    return modules


def test_arrows_go_one_way(modules: list[Any]) -> None:
    paths = {module.name: module.path for module in modules}
    upward = [
        f"{paths[found.source]}:{found.line}: {found.source} → {found.target}"
        for found in source.imports(modules)
        if found.when != "typing"
        and not paths[found.source].startswith("__")
        and found.target != "darknet_py"  # the version
        and level(found.target) > level(found.source)
    ]
    assert upward == []


def test_no_import_circles(modules: list[Any]) -> None:
    """Nor inside a room, nor through imports inside functions."""
    imports = source.imports(modules)
    assert source.circles(imports, "module") == []
    circles = source.circles(imports, "module", "function")
    known.check("import circles", [Violation("modules in circles", " ↔ ".join(circle)) for circle in circles])


def test_imports_stand_at_the_top(modules: list[Any]) -> None:
    """Limits by room for imports inside functions; a command line may import a command when it is chosen."""
    inside = [found for found in source.imports(modules) if found.when == "function"]
    known.check(
        "imports inside functions",
        [Violation(found.source.split(".")[1], f"{found.source}:{found.line}: {found.target}") for found in inside],
    )


def test_module_stems_are_not_used_twice(modules: list[Any]) -> None:
    """Commands (`cli/NAME.py`) have the names that users type, and a room may have a file of its own name."""
    named_freely = [
        module for module in modules if not module.path.startswith("cli/") and len(set(module.name.split(".")[-2:])) > 1
    ]
    homes = source.module_stems(named_freely)
    twice = source.repeated(homes)
    known.check("module stems used twice", [Violation(stem, ", ".join(paths)) for stem, paths in twice.items()])


@pytest.mark.parametrize(("kind", "node"), [("classes", ast.ClassDef), ("functions", ast.FunctionDef)])
def test_public_names_are_not_defined_twice(modules: list[Any], kind: str, node: type[ast.stmt]) -> None:
    """Every command has `configure` and `run`."""
    twice = source.repeated(source.public_names(modules, node))
    known.check(
        f"public {kind} defined twice",
        [Violation(name, ", ".join(paths)) for name, paths in twice.items() if name not in ("configure", "run")],
    )


def test_no_probes_by_attribute_name(modules: list[Any]) -> None:
    probes = source.probes(modules)
    known.check("probes by attribute name", [Violation(probe.name, place(probe)) for probe in probes])


def test_no_any_in_public_signatures(modules: list[Any]) -> None:
    known.check(
        "Any in public signatures",
        [Violation(found.name, place(found)) for found in source.any_in_signatures(modules)],
    )


def place(found: Any) -> str:
    return f"{found.path}:{found.line}: {found.what}"


def test_files_stay_readable(modules: list[Any]) -> None:
    """Cohesion decides what stands in one file, up to about 700 lines."""
    assert {module.path: module.lines for module in modules if module.lines > 700} == {}


def test_the_checks_see_what_they_look_for(tmp_path: Path) -> None:
    package = tmp_path / "example"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "room" / "__init__.py").write_text("from .first import First\n")
    (package / "room" / "first.py").write_text(
        "from typing import Any\nfrom example.room import second\n"
        "class First:\n    field: dict[str, Any]\n    _hidden: Any\n"
        "    def __init__(self, x: 'list[Any]'): ...\n    def _private(self, x: Any): ...\n"
    )
    (package / "room" / "second.py").write_text(
        "class First: ...\ndef load(value):\n    import example.third\n    return hasattr(value, 'name')\n"
    )
    (package / "third.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from example.room.first import First\n"
        "from example.room.second import load\ndef load(value, name):\n    return getattr(value, name)\n"
    )
    modules = source.read_package(package)
    imports = source.imports(modules)
    assert source.circles(imports, "module") == []
    assert source.circles(imports, "module", "function") == [["example.room.second", "example.third"]]
    assert source.circles(imports, "module", "function", "typing") == [
        ["example.room.first", "example.room.second", "example.third"]
    ]
    assert [probe.what for probe in source.probes(modules)] == ["hasattr(value, 'name')"]
    assert [place.what for place in source.any_in_signatures(modules)] == [
        "First.field: field: dict[str, Any]",
        "First.__init__: x: 'list[Any]'",
    ]
    assert source.repeated(source.public_names(modules, ast.ClassDef)) == {"First": ["room/first.py", "room/second.py"]}
    assert list(source.repeated(source.public_names(modules, ast.FunctionDef))) == ["load"]


def test_known_violations_only_shrink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "known.json"
    file.write_text('{"rule": {"a": 2, "b": 1}, "other": {"c": 1}}')
    monkeypatch.setattr(known, "FILE", file)
    monkeypatch.delenv("SHRINK_KNOWN", raising=False)
    known.check("rule", [Violation("a"), Violation("b")])
    with pytest.raises(AssertionError, match=r"rule: d: at most 0 known\nfile\.py:3"):
        known.check("rule", [Violation("a"), Violation("b"), Violation("d", "file.py:3")])
    with pytest.raises(AssertionError, match=r"these no longer occur"):
        known.check("rule", [Violation("a")])
    monkeypatch.setenv("SHRINK_KNOWN", "1")
    known.check("rule", [Violation("a")])
    assert json.loads(file.read_text()) == {"rule": {"a": 1}, "other": {"c": 1}}


def test_public_names_are_there() -> None:
    assert [name for name in darknet_py.__all__ if getattr(darknet_py, name, None) is None] == []
    assert callable(darknet_py.train) and callable(darknet_py.convert)


def test_help_needs_nothing_heavy() -> None:
    script = (
        "import sys\nfrom darknet_py.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'cv2', 'yaml', 'matplotlib') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip().splitlines()[-1] == "[]"
