"""tools/study: networks as in docs/study.md, Student's intervals, training and resuming."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

import darknet_py
from darknet_py.data.builtin.shape_classes import ensure_shape_classes
from darknet_py.errors import DataError
from darknet_py.graph.profile import network_profile
from darknet_py.zoo import build
from tests.conftest import tool

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    return SimpleNamespace(**{name: tool(f"study/{name}") for name in ("chart", "plan", "report", "run", "stats")})


def row(variant: str, seed: int, score: float, part: str = "stages", **more: object) -> dict[str, object]:
    return {"scale": "cpu", "part": part, "variant": variant, "seed": seed, "score": score, **more}


SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: str) -> list[tuple[str, str, float, float]]:
    """Texts and dots of a chart with their positions; other SVG details depend on the version of matplotlib."""
    nodes = [node for node in ElementTree.fromstring(chart).iter() if node.tag in (f"{SVG}text", f"{SVG}use")]
    return [(n.tag, n.text or "", round(float(n.get("x", "0"))), round(float(n.get("y", "0")))) for n in nodes]


# --- what is committed


def test_docs_tables_are_generated_from_the_committed_rows(study: SimpleNamespace):
    for path, text in study.report.documents(study.report.read_csv(study.report.ROWS)).items():
        same = drawn if path.suffix == ".svg" else str
        assert same(path.read_text(encoding="utf-8")) == same(text), "python tools/study/report.py"


def test_every_network_was_trained_with_at_least_three_seeds(study: SimpleNamespace):
    rows = study.report.read_csv(study.report.ROWS)
    for variant in study.plan.variants_of(["fusion", "gamma", "necks"]):  # equal-necks has not been run
        seeds = [row["seed"] for row in rows if row["variant"] == variant.name and row["scale"] == "cpu"]
        assert len(seeds) >= 3 and seeds == list(range(len(seeds))), variant.name


def test_rows_belong_to_the_recipes_of_the_plan(study: SimpleNamespace):
    """Parameters, BFLOPs and traffic of the cfgs as stated; the digest covers the cfg, the data and the seed."""
    rows = study.report.read_csv(study.report.ROWS)
    names = {row["part"]: row["data"] for row in rows}
    data = {part: study.plan.StudyData(name, "", 6, True) for part, name in names.items()}
    data["equal_necks"] = study.plan.StudyData(names["equal_necks"], "", 3, False)  # BCCD
    for scale in {row["scale"] for row in rows}:
        topics = study.plan.TOPICS
        planned = {(run.variant.name, run.seed): run for run in study.plan.runs(scale, topics, None, None, data)}
        graphs = {run.variant.name: darknet_py.parse_text(run.cfg, run.name, strict=True) for run in planned.values()}
        for planned_row in (row for row in rows if row["scale"] == scale):
            cost = network_profile(graphs[planned_row["variant"]])
            assert (planned_row["parameters"], planned_row["cio"]) == (cost.parameters, cost.cio)
            assert planned_row["bflops"] == pytest.approx(cost.bflops, abs=1e-6)
            assert planned_row["digest"] == planned[planned_row["variant"], planned_row["seed"]].digest
            assert planned_row["iterations"] == graphs[planned_row["variant"]].net.max_batches


# --- the plan


def test_study_covers_every_fusion_gamma_and_neck(study: SimpleNamespace):
    plan = study.plan
    assert [v.name for v in plan.variants_of(["fusion"])] == ["plain", "first-0.5", "last-0.5", "csp-0.5"]
    assert [v.name for v in plan.variants_of(["gamma"])] == ["plain", "csp-0.25", "csp-0.5", "csp-0.75"]
    assert [v.name for v in plan.variants_of(["necks"])] == ["fpn", "gfm", "efm"]
    assert len(plan.variants_of([])) == 14
    assert [(v.csp.fusion, v.csp.gamma) for v in plan.variants_of(["fusion"]) if v.csp] == [
        ("first", 0.5),
        ("last", 0.5),
        ("csp", 0.5),
    ]


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_equal_necks_cost_the_same_within_2_percent(study: SimpleNamespace, scale: str):
    recipe = study.plan.SCALES[scale].necks
    variants = study.plan.variants_of(["equal-necks"])
    assert [v.title for v in variants] == ["FPN", "GFM", "EFM", "PAN", "PRN"]
    costs = [network_profile(darknet_py.parse_text(study.plan.cfg_text(v, recipe, 10), strict=True)) for v in variants]
    assert max(cost.bflops for cost in costs) < 1.015 * min(cost.bflops for cost in costs)


@pytest.mark.parametrize(
    ("variant", "network", "classes"),
    [
        ("plain", "peleenet", 1000),
        ("csp-0.5", "cspeleenet", 1000),
        ("gfm", "cspeleenet-gfm", 80),
        ("efm", "cspeleenet-efm", 80),
    ],
)
def test_networks_of_the_gpu_scale_equal_those_of_the_zoo(
    study: SimpleNamespace, variant: str, network: str, classes: int
):
    (chosen,) = (v for v in study.plan.variants() if v.name == variant)
    recipe = study.plan.SCALES["gpu"].recipe(chosen.part)
    ours = darknet_py.parse_text(study.plan.cfg_text(chosen, recipe, classes, builtin=False), strict=True)
    theirs = darknet_py.parse_text(build(network))
    assert [(n.type, n.inputs, n.output) for n in ours.layers] == [(n.type, n.inputs, n.output) for n in theirs.layers]


def test_networks_of_a_part_differ_in_their_layers_only(study: SimpleNamespace):
    for part in ("stages", "necks"):
        recipe = getattr(study.plan.SCALES["cpu"], part)
        nets = [
            study.plan.cfg_text(v, recipe, 6).split("[net]")[1].split("# ====")[0]
            for v in study.plan.variants()
            if v.part == part
        ]
        assert len(nets) in (3, 6) and len(set(nets)) == 1


# --- statistics and charts


def test_quantiles_of_students_t(study: SimpleNamespace):
    table = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 29: 2.0452}  # any textbook's
    for freedom, value in table.items():
        assert study.stats.t_quantile(0.975, freedom) == pytest.approx(value, abs=5e-5)
    assert study.stats.t_quantile(0.95, 4) == pytest.approx(2.1318, abs=5e-5)


def test_interval_equals_a_manual_calculation(study: SimpleNamespace):
    interval = study.stats.interval([1, 2, 3, 4, 5])  # deviation √2.5, so 2.7764 · √2.5 / √5
    assert interval.mean == 3 and interval.half == pytest.approx(1.9632, abs=1e-4)
    assert math.isnan(study.stats.interval([7]).half)
    with pytest.raises(ValueError):
        study.stats.interval([])


def test_differences_are_paired_by_seed(study: SimpleNamespace):
    cost = {"parameters": 1000, "bflops": 0.5, "seconds": 60}
    rows = [row("plain", seed, score, **cost) for seed, score in enumerate((0.50, 0.60, 0.70))]
    rows += [row("csp-0.5", seed, score, **(cost | {"bflops": 0.4})) for seed, score in enumerate((0.51, 0.62, 0.73))]
    plain, csp = study.report.network_table(rows, "plain")
    # The scores spread by .1, the differences 1, 2, 3 by 1 point: 4.3027 / √3 = 2.48.
    assert csp["against plain, points"] == "+2.0 ± 2.5"
    assert plain["top-1, %"] == "60.0 ± 24.8" and plain["against plain, points"] == ""
    assert csp["BFLOPs, change"] == "-20.0%"
    rows.append(row("last-0.5", 1, 0.5, **cost))  # one seed in common
    assert study.report.network_table(rows, "plain")[1]["against plain, points"] == "-10.0"


def test_two_rows_of_one_training_are_an_error(study: SimpleNamespace):
    with pytest.raises(DataError, match="one training of plain with seed 0, got two"):
        study.report.checked([row("plain", 0, 0.5), row("plain", 0, 0.6)])


def test_chart_shows_every_value(study: SimpleNamespace):
    lines = [study.chart.Line("γ < 1", "note", [50.0, 52.0, 51.0]), study.chart.Line("one", "", [70.0])]
    root = ElementTree.fromstring(study.chart.chart("Title & more", lines))
    texts = [node.text for node in root.iter(f"{SVG}text")]
    assert {"γ < 1", "one", "Title & more"} <= set(texts)
    groups = [node for node in root.iter(f"{SVG}g") if node.get("id", "").startswith("seeds-")]
    seeds = [node for group in groups for node in group.iter(f"{SVG}use")]
    assert len(seeds) == 4
    assert all(0 <= float(node.get("x", "-1")) <= study.chart.WIDTH for node in seeds)


# --- running it


def test_study_of_two_iterations_is_resumed(study: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = ensure_shape_classes(tmp_path / "data", train=36, valid=12).path
    base = ["--out", str(tmp_path / "study"), "--data", str(data), "--only", "fusion", "--iterations", "2"]
    threads = torch.get_num_threads()
    try:
        assert study.run.main([*base, "--seeds", "1", "--shard", "2/4"]) == 0
        printed = capsys.readouterr().out.split()
        rows_path = tmp_path / "study" / "rows.jsonl"
        (result,) = map(json.loads, rows_path.read_text().splitlines())
        assert (result["variant"], result["seed"], result["iterations"]) == ("last-0.5", 0, 2)
        assert 0 <= result["score"] <= 1 and math.isfinite(result["loss"])
        assert printed == [str(tmp_path / "study" / name) for name in ("rows.jsonl", "stages.svg", "report.md")]
        assert "| fusion last, γ = 0.5 | 336 k |" in (tmp_path / "study" / "report.md").read_text()
        assert not any((tmp_path / "study" / "trainings").iterdir())  # weights are deleted

        before = rows_path.read_text()
        rows_path.write_text(before + '{"variant": "pl')  # as a crash leaves it
        assert study.run.main([*base, "--seeds", "1", "--shard", "2/4"]) == 0
        assert rows_path.read_text() == before + '{"variant": "pl'  # nothing was trained
        assert study.run.main([*base, "--seeds", "1", "--shard", "1/4"]) == 0
        assert [row["variant"] for row in study.report.read_jsonl(rows_path)] == ["last-0.5", "first-0.5"]
    finally:
        torch.set_num_threads(threads)


def test_missing_gpu_is_a_one_line_error(
    study: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert study.run.main(["--scale", "gpu", "--out", str(tmp_path / "study")]) == 1
    assert capsys.readouterr().err.strip().startswith("--scale gpu: expected a CUDA device, got none")
