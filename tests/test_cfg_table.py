"""tools/cfg_table.py and its committed result."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import pytest
import torch

from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
from tests import conftest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return conftest.tool("cfg_table")


def test_folder_of_cfgs(tool: ModuleType, tmp_path: Path) -> None:
    cfgs = tmp_path / "some+repository" / "cfg"
    cfgs.mkdir(parents=True)
    image = "[net]\nwidth=416\nheight=416\nchannels=3\n[convolutional]\nbatch_normalize=1\nfilters=4\n"
    (cfgs / "good.cfg").write_text(image + "[maxpool]\nsize=2\nstride=2\n[avgpool]\n[softmax]\n")
    (cfgs / "same.cfg").write_text(image + "[maxpool]\nsize=2\nstride=2\n[avgpool]\n[softmax]\n")
    (cfgs / "text.cfg").write_text("[net]\ninputs=9\ntime_steps=500\n[rnn]\noutput=4\nhidden=3\n[softmax]\n[cost]\n")
    (cfgs / "wrong.cfg").write_text(image + "[route]\nlayers=7\n")
    rows = {row["cfg"]: row for row in tool.table(list(tool.cfgs(tmp_path, tmp_path)), 8, 60)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "cfg/good.cfg": "ok", "cfg/same.cfg": "ok", "cfg/text.cfg": "ok", "cfg/wrong.cfg": "broken",
    }  # fmt: skip
    good = rows["cfg/good.cfg"]
    assert (good["repository"], good["layers"], good["parameters"]) == ("some/repository", 4, 28)
    assert (good["ran_at"], good["gradients"]) == ("64x64", "3/3")
    assert rows["cfg/wrong.cfg"]["reason"] == "line 9: [route] #1: layers: expected layers 0…0 (or −1…−1), got '7'"


def test_a_class_hierarchy_stays(tool: ModuleType, tmp_path: Path) -> None:
    """Clearing the weights leaves the groups of classes, which come from the cfg."""
    (tmp_path / "a.tree").write_text("a -1\nb -1\nc 0\nd 0\n")
    text = f"[net]\ninputs=8\n[connected]\noutput=4\n[softmax]\ntree={tmp_path / 'a.tree'}\n"
    net = Network(parse_text(text)).eval()
    tool.round_trip(net)
    assert net(torch.rand(1, 8)).view(2, 2).sum(1).tolist() == pytest.approx([1, 1])


def test_too_much_memory_or_time_is_a_row(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "large.cfg"
    path.write_text("[net]\ninputs=60000\n[connected]\noutput=60000\n[cost]\n")
    file = tool.CfgFile("", "", "", path.read_bytes(), tmp_path)
    assert tool.run(file, 4, 60)["status"] == "failed"
    assert tool.run(file, 4, 0.0)["status"] == "time"


def test_only_broken_cfgs_fail_in_the_committed_table() -> None:
    with open(ROOT / "docs" / "cfg_table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 743 and len({row["repository"] for row in rows}) == 9
    broken = {row["cfg"].split("/")[-1]: row["reason"] for row in rows if row["status"] != "ok"}
    assert all(row["status"] in ("ok", "broken") for row in rows) and all(broken.values())
    elastic = {"csresnet50-elastic-panet-spp.cfg", "csresnext50-elastic-panet-spp.cfg"}
    assert set(broken) == {"cspx-p7-mish.cfg", "yolov3-spp-matrix.cfg"} | elastic


def test_cfgs_of_other_people() -> None:
    with open(ROOT / "docs" / "cfg_table_wild.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 513 and len({row["repository"] for row in rows}) == 56
    assert all(row["status"] == "ok" or (row["status"] == "broken" and row["reason"]) for row in rows)
    differing = {row["cfg"].split("/")[-1] for row in rows if row["c"].startswith("layer ")}
    assert differing == {"go.cfg", "go.test.cfg"}
    assert sum(row["c"] == "equal" for row in rows) == 359
