"""What the source of a Python package says about its structure, read with `ast` and without importing it.

`tools/structure/measure.py` prints these facts; `tests/test_structure.py` holds the package to them.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Module:
    """One file of the package. name: dotted, a package by its own name; path: relative to the package's folder."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    @property
    def lines(self) -> int:
        return self.text.count("\n") + (not self.text.endswith("\n") and bool(self.text))


class Import(NamedTuple):
    """One import of the package's own. when: `module` level, `function` (inside one), or `typing` (TYPE_CHECKING)."""

    source: str
    target: str
    line: int
    when: str


class Finding(NamedTuple):
    """Something found in the source. name: an attribute or a type; what: the expression or the signature around it."""

    path: str
    line: int
    name: str
    what: str


def read_package(folder: Path) -> list[Module]:
    """All Python files below a package's folder, sorted by path."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        parts = (folder.name, *relative.with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules.append(Module(name, relative.as_posix(), text, ast.parse(text)))
    return modules


def code_lines(module: Module) -> int:
    """Lines that hold code: neither blank, nor comment, nor docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    no_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type not in no_code:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


# --- imports


def imports(modules: list[Module]) -> list[Import]:
    """Every import of one of `modules` by another: the submodule where a name is one, else the module named."""
    names = {module.name for module in modules}
    found: list[Import] = []
    for module in modules:
        for node, when in _with_place(module.tree):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names if alias.name in names]
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(module, node)
                submodules = [f"{base}.{alias.name}" for alias in node.names]
                targets = [name if name in names else base for name in submodules]
                targets = [name for name in dict.fromkeys(targets) if name in names]
            found += [Import(module.name, target, node.lineno, when) for target in targets if target != module.name]
    return found


def _with_place(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Import statements with the place where they stand."""
    pending: list[tuple[ast.AST, str]] = [(tree, "module")]
    while pending:
        node, when = pending.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, when
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            when = "function" if when == "module" else when
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += [(child, "typing") for child in node.body] + [(child, when) for child in node.orelse]
            continue
        pending += [(child, when) for child in ast.iter_child_nodes(node)]


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def circles(found: list[Import], *when: str) -> list[list[str]]:
    """Sets of modules that import one another in a circle, counting the imports at the places `when`.

    The strongly connected components of the import graph with more than one module (Tarjan's algorithm).
    """
    graph: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.when in when:
            graph[one.source].add(one.target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph.get(name, ())):
            if target not in index:
                visit(target)
            if target in stack:
                low[name] = min(low[name], low[target])
        if low[name] == index[name]:
            at = stack.index(name)
            components.append(sorted(stack[at:]))
            del stack[at:]

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(component for component in components if len(component) > 1)


# --- names, types and probes


def public_names(modules: list[Module], kind: type[ast.stmt]) -> dict[str, list[str]]:
    """Public top-level names of one kind (ast.ClassDef, ast.FunctionDef) with the files that define them.

    Overloads of a function are one definition.
    """
    homes: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, kind) and not (name := str(getattr(node, "name", "_"))).startswith("_"):
                decorators = [ast.unparse(item) for item in getattr(node, "decorator_list", [])]
                if "overload" not in decorators:
                    homes[name].append(module.path)
    return dict(homes)


def module_stems(modules: list[Module]) -> dict[str, list[str]]:
    """Names of files and folders of modules, with all that bear them."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        stem = module.name.rpartition(".")[2]
        if not stem.startswith("__"):
            homes[stem].append(module.path)
    return dict(homes)


def repeated(homes: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Names that are defined more than once."""
    return {name: paths for name, paths in sorted(homes.items()) if len(paths) > 1}


def probes(modules: list[Module]) -> list[Finding]:
    """`getattr` and `hasattr` with a constant attribute name."""
    found = []
    for module in modules:
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
                and len(node.args) > 1
                and isinstance(node.args[1], ast.Constant)
            ):
                what = f"{node.func.id}({ast.unparse(node.args[0])}, {node.args[1].value!r})"
                found.append(Finding(module.path, node.lineno, str(node.args[1].value), what))
    return sorted(found, key=_order)


def any_in_signatures(modules: list[Module]) -> list[Finding]:
    """`Any` in a parameter, a result or a field of a public function or class."""
    found = []
    for module in modules:
        for owner, node in _public(module.tree.body, ""):
            for name, annotation in _annotations(node):
                if _mentions_any(annotation):
                    kind = ast.unparse(annotation)
                    found.append(Finding(module.path, annotation.lineno, kind, f"{owner}: {name}: {kind}"))
    return sorted(found, key=_order)


def _order(finding: Finding) -> tuple[str, int, str]:
    return finding.path, finding.line, finding.what


def parameters(modules: list[Module]) -> list[tuple[int, str]]:
    """(number of parameters, path and name) of every function, most first; `self` and `cls` do not count."""
    counts = []
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names = [argument.arg for argument in _arguments(node)]
                counts.append((len(names) - (names[:1] in (["self"], ["cls"])), f"{module.path}: {node.name}"))
    return sorted(counts, key=lambda row: (-row[0], row[1]))


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign


def _public(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, _Definition]]:
    """Public functions, and methods and annotated fields of public classes, with their dotted names."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not node.name.startswith("_") or (owner and node.name.startswith("__")):
                yield f"{owner}{node.name}", node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and owner and not ast.unparse(node.target).startswith("_"):
            yield f"{owner}{ast.unparse(node.target)}", node


def _annotations(node: _Definition) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.AnnAssign):
        yield "field", node.annotation
        return
    for argument in _arguments(node):
        if argument.annotation:
            yield argument.arg, argument.annotation
    if node.returns:
        yield "return", node.returns


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    given = node.args
    starred = [argument for argument in (given.vararg, given.kwarg) if argument]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *starred]


def _mentions_any(annotation: ast.expr) -> bool:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name) and node.id == "Any":
            return True
        if isinstance(node, ast.Attribute) and node.attr == "Any":
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                quoted = ast.parse(node.value, mode="eval").body
            except SyntaxError:  # Literal["any text"]
                continue
            if not isinstance(quoted, ast.Constant) and _mentions_any(quoted):
                return True
    return False
