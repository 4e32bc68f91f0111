"""The docs: the site builds strictly and without a network, lists all there is, and its command lines parse."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import darknet_py
from darknet_py.cli import COMMANDS, parse_arguments
from darknet_py.layers import ALIASES, LAYERS

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXTERNAL = re.compile(
    r"<(?:script|img|iframe|source)[^>]* src=\"?(?:https?:)?//|<link [^>]*href=\"?(?:https?:)?//[^>]*>"
)


@pytest.fixture(scope="module")
def cfg_options() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "tools" / "docs"))
    import cfg_options

    yield cfg_options
    sys.path.remove(str(ROOT / "tools" / "docs"))


def command_lines(page: Path) -> list[str]:
    """The command lines of darknet_py on a page, from fenced and indented blocks and from `inline code`."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(
        r"^\s*(?:\$ )?((?:darknet-py|python -m darknet_py|torchrun .*?-m darknet_py) .+)$", text, re.MULTILINE
    )
    lines += re.findall(r"`((?:darknet-py|python -m darknet_py) [^`\n]+)`", text)
    return [line for line in lines if not re.search(r"COMMAND|…$|\.\.\.$", line.split("#")[0].strip())]


def test_every_command_line_parses(capsys: pytest.CaptureFixture[str]) -> None:
    count, wrong = 0, []
    for page in PAGES:
        for line in command_lines(page):
            words = shlex.split(line.partition(" > ")[0].partition("`")[0], comments=True)
            words = words[words.index("darknet_py") + 1 :] if "darknet_py" in words else words[1:]
            count += 1
            try:
                parse_arguments(words)
            except SystemExit as error:
                if error.code:
                    wrong.append(
                        f"{page.relative_to(ROOT)}: {line}: {capsys.readouterr().err.strip().splitlines()[-1]}"
                    )
    assert not wrong, "\n".join(wrong)
    assert count > 100


def test_every_command_has_a_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in COMMANDS:
        path = f"reference/commands/{name}.md"
        assert f": {path}\n" in nav, f"expected {path} in the nav of mkdocs.yml"
        assert "<!-- options -->" in (ROOT / "docs" / path).read_text(encoding="utf-8")


def test_every_option_of_a_section_is_described_and_nothing_else(cfg_options: ModuleType) -> None:
    texts = yaml.safe_load((ROOT / "tools" / "docs" / "sections.yml").read_text(encoding="utf-8"))
    shared: set[str] = set()
    for name in ("net", "common", *LAYERS):
        options, own = cfg_options.options_of(name), set(texts[name].get("options") or {})
        assert own <= set(options), name
        shared |= set(options) - own
        missing = set(options) - own - set(texts["shared"])
        assert not missing, f"[{name}]: expected a text for {', '.join(missing)} in tools/docs/sections.yml"
        assert set(texts[name].get("defaults") or {}) <= set(options), name
    assert shared == set(texts["shared"])


def test_every_option_that_our_cfgs_use_is_in_the_reference(cfg_options: ModuleType) -> None:
    common = set(cfg_options.options_of("common"))
    for path in sorted((ROOT / "cfg").glob("*.cfg")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if section := re.match(r"\[(\w+)\]", line):
                name = ALIASES.get(section[1], section[1])
            elif option := re.match(r"(\w+)\s*=", line):
                assert option[1] in common | set(cfg_options.options_of(name)), f"{path.name}: [{name}] {option[1]}"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_lists_everything(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix(): path.read_text(encoding="utf-8")
             for path in (tmp_path / "site").rglob("*.html")}  # fmt: skip
    # A browser asks no other host for anything.
    outside = {name: EXTERNAL.search(text) for name, text in pages.items()}
    assert {name: found.group() for name, found in outside.items() if found and 'rel="canonical"' not in found[0]} == {}
    for css in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", css.read_text(encoding="utf-8")), css
    for name in COMMANDS:
        assert f"reference/commands/{name}.html" in pages and "<h3" in pages[f"reference/commands/{name}.html"]
    sections = pages["reference/cfg/layers.html"] + pages["reference/cfg/heads.html"]
    assert [name for name in LAYERS if f"<code>[{name}]</code>" not in sections] == []
    api = pages["reference/api.html"]
    assert [name for name in darknet_py.__all__ if f'id="darknet_py.{name}"' not in api] == ["__version__"]
