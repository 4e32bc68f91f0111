"""MkDocs hooks: what the site takes from the code, so that it never goes stale.

- Pages under docs/reference/commands/ get the options of their command at the line `<!-- options -->`.
- docs/reference/cfg/ is generated: the sections of a cfg with their options and defaults.
- CONTRIBUTING.md and CHANGELOG.md of the repository become pages; the FAQ shows the README's table of cfgs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
for folder in (Path(__file__).parent, ROOT):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import cfg_pages  # noqa: E402
import command_pages  # noqa: E402

OPTIONS = "\n<!-- options -->\n"  # a line of its own
WHICH_CFG = "\n<!-- which cfg -->\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that have no file under docs/."""
    generated = {
        "contributing.md": _from_root("CONTRIBUTING.md"),
        "changelog.md": _from_root("CHANGELOG.md"),
        **{f"reference/cfg/{name}.md": text for name, text in cfg_pages.pages().items()},
    }
    for path, text in generated.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts a command's options into its page, and the README's table of cfgs into the FAQ."""
    markdown += "\n"
    if WHICH_CFG in markdown:
        table = _from_root("README.md").split("## Which cfg to take\n")[1].split("\n## ")[0]
        markdown = markdown.replace(WHICH_CFG, f"\n{table}\n")
    if OPTIONS in markdown:
        name = Path(page.file.src_uri).stem
        options = command_pages.overview() if name == "index" else command_pages.options(name)
        markdown = markdown.replace(OPTIONS, f"\n{options}\n")
    return markdown


def _from_root(name: str) -> str:
    """A Markdown file of the repository's root; its links into docs/ become relative to the site."""
    return re.sub(r"\]\((?:docs/)", "](", (ROOT / name).read_text(encoding="utf-8"))
