"""docs/support.md is up to date."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import tool

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def support_table() -> ModuleType:
    return tool("support_table")


def test_table_is_up_to_date_and_positive(support_table: ModuleType) -> None:
    """`python tools/support_table.py` updates it."""
    table = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    assert support_table.table() == table
    assert " no |" not in table and " no (" not in table


@pytest.mark.reference
def test_counts_of_reference_cases_are_up_to_date(support_table: ModuleType, reference: Path) -> None:
    committed = json.loads((ROOT / "tests" / "golden" / "reference_sections.json").read_text(encoding="utf-8"))
    assert support_table.reference_cases(reference) == committed
