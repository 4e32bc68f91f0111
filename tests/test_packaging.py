"""The metadata of pyproject.toml agrees with the package."""

from __future__ import annotations

import re
from pathlib import Path

import darknet_py
from darknet_py.errors import DISTRIBUTION, MissingExtra

ROOT = Path(__file__).parents[1]
METADATA = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_one_name_of_the_distribution() -> None:
    assert re.findall(r'^name = "(.+?)"', METADATA, re.MULTILINE) == [DISTRIBUTION]
    message = str(MissingExtra("tensorboard", "tensorboard", "train --tensorboard"))
    assert f"pip install '{DISTRIBUTION}[tensorboard]'" in message


def test_messages_name_our_distribution() -> None:
    """`darknet-py` on PyPI is another project."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "darknet_py").rglob("*.py")]
    assert len(texts) > 100
    strangers = re.compile(r"pip install (-\S+ )*['\"]?darknet[-_]py\b")
    assert [str(path) for path in texts if strangers.search(path.read_text(encoding="utf-8"))] == []


def test_the_version_has_a_dated_section_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(darknet_py.__version__)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE)
