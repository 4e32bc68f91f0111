"""Published metrics and the claims of CSPNet, on our graphs; docs/zoo.md is up to date."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import tool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return tool("zoo/tables")


def test_tables_in_the_docs_are_up_to_date(tables: ModuleType):
    for path, text in tables.documents().items():
        assert path.read_text() == text, "python tools/zoo/tables.py"


def test_published_values_are_reproduced_within_3_percent(tables: ModuleType):
    table = tables.published_table()
    assert len(table) == 36
    for row in table:
        assert row["layers"] == "equal to the published cfg" or row["note"], row["model"]
        for difference in (row["difference"], row["BFLOPs difference"]):
            assert abs(float(difference.rstrip("%") or 0)) <= 3, row


def test_published_parameters_count_kernels_only(tables: ModuleType):
    for row in tables.published_table():
        if row["layers"].startswith("equal") and row["parameters published"] and row["model"] != "YOLOv3-tiny-PRN":
            assert float(row["ours"]) == pytest.approx(float(row["parameters published"]), abs=0.011), row


def test_cross_stage_partial_saves_10_to_30_percent_of_the_computation(tables: ModuleType):
    for row in tables.computation_table():
        change, paper = (float(row[key].rstrip("%")) for key in ("change", "by the paper"))
        assert -30 <= change <= -10, row
        assert change == pytest.approx(paper, abs=2.5), row


def test_fusion_and_gamma_change_the_computation_in_the_papers_direction(tables: ModuleType):
    changes = {(row["fusion"], row["γ"]): float(row["change"].rstrip("%")) for row in tables.ablation_table()}
    assert changes["first", 0.5] < changes["last", 0.5] < changes["csp", 0.5] < changes["csp", 0.25] < 0
    assert changes["last", 0.5] < changes["last", 0.25]


def test_heaviest_layer_of_a_partial_network_is_cheaper(tables: ModuleType):
    plain, csp = tables.bottleneck_table()[-2:]
    assert csp["network"] == "cspeleenet-efm"
    assert float(csp["its BFLOPs"]) / float(plain["its BFLOPs"]) == pytest.approx(0.75**2, abs=1e-3)  # 44 % less
    whole = {row["network"]: float(row["its share"].rstrip("%")) for row in tables.bottleneck_table()[:3]}
    assert whole["cspeleenet-efm"] < whole["pelee-prn"] < whole["pelee-yolov3"]


def test_memory_traffic_of_dense_blocks_equals_the_formulas(tables: ModuleType):
    for row in tables.cio_table():
        assert row["counted"] == row["formula"]
        assert row["partial counted"] == row["partial formula"]
    assert tables.cio_table()[-1]["change"] == "-49%"
