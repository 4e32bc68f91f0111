"""Arrows between the rooms go one way, files stay short, and the public names are there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import darknet_py

PACKAGE = Path(darknet_py.__file__).parent

# From the bottom up; a room may import itself and what comes before it.
LEVELS = [
    ["errors"],
    ["boxes", "files", "shipped"],
    ["cfg"],
    ["layers"],
    ["graph"],
    ["data"],
    ["model", "inference"],
    ["view", "zoo"],
    ["evaluation", "export"],
    ["training"],
    ["cli"],
]


def level(module: str) -> int:
    name = module.removeprefix("darknet_py").removeprefix(".")
    for height, rooms in enumerate(LEVELS):
        if any(name == room or name.startswith(room + ".") for room in rooms):
            return height
    return -1 if not name else len(LEVELS)


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of our own modules that a file imports at run time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("darknet_py"):
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            files = [name for name in submodules if (PACKAGE / Path(*name.split(".")[1:])).with_suffix(".py").exists()]
            found += [(node.lineno, name) for name in files or [str(node.module)]]
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name.startswith("darknet_py")]
    return found


def test_arrows_go_one_way() -> None:
    upward = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent == PACKAGE and path.stem.startswith("__"):
            continue
        module = ".".join(("darknet_py", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for line, target in imports(path):
            if target == "darknet_py":
                continue  # the version
            if level(target) > level(module):
                upward.append(f"{path.relative_to(PACKAGE)}:{line}: {module} → {target}")
    assert upward == []


def test_files_stay_short() -> None:
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 700
    }
    assert long == {}


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
