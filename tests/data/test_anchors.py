"""Anchors: Darknet's k-means, the cfg written back, the plot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from darknet_py.cfg.document import CfgDocument
from darknet_py.cli import main
from darknet_py.data import anchors as clustering
from darknet_py.data.anchor_heads import anchor_heads, anchor_space, assign_anchors, current_anchors, set_anchors
from darknet_py.errors import DataError
from darknet_py.graph.graph import parse, parse_text

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "kmeans.json").read_text())["cases"]
CLUSTERS = np.array([[10.0, 12], [30, 60], [61, 29], [120, 130], [200, 90], [300, 310]])


def boxes(count: int = 60, seed: int = 0) -> np.ndarray:
    """Sizes around CLUSTERS, in pixels."""
    noise = np.random.default_rng(seed).uniform(0.95, 1.05, (count, len(CLUSTERS), 2))
    return (CLUSTERS * noise).reshape(-1, 2)


@pytest.mark.parametrize("case", GOLDEN)
def test_kmeans_ends_where_darknet_ends(case: dict) -> None:
    sizes = np.array(case["sizes"])
    centers, rounds = clustering.kmeans(sizes, np.array(case["start"]))
    np.testing.assert_allclose(centers, case["centers"], rtol=1e-5)  # C sums in float32
    assert rounds == case["iterations"]
    assert clustering.evaluate_anchors(sizes, centers).average_iou == pytest.approx(case["average_iou"], rel=1e-6)


@pytest.mark.parametrize("case", GOLDEN)
def test_several_starts_are_not_worse_than_one(case: dict) -> None:
    sizes = np.array(case["sizes"])
    found = clustering.fit_anchors(sizes, len(case["start"]))
    assert clustering.evaluate_anchors(sizes, found).average_iou >= case["average_iou"] - 1e-6
    assert (np.diff(found.prod(1)) >= 0).all()


def test_fit_finds_clusters_and_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = boxes()
    found = clustering.fit_anchors(sizes, 6)
    np.testing.assert_allclose(found, CLUSTERS[np.argsort(CLUSTERS.prod(1))], rtol=0.02)
    assert (clustering.fit_anchors(sizes, 6) == found).all()
    monkeypatch.setattr(clustering, "_SAMPLE_SIZE", 100)
    monkeypatch.setattr(clustering, "_CHUNK", 7)
    np.testing.assert_allclose(clustering.fit_anchors(sizes, 6), found, rtol=0.02)


def test_fit_wants_enough_sizes() -> None:
    with pytest.raises(DataError, match="expected at least 3 different sizes of boxes for 3 anchors, got 2"):
        clustering.fit_anchors(np.array([[1.0, 1], [2, 2], [1, 1]]), 3)
    many = np.array([[5.0, 5]] * 50 + [[9.0, 9], [1, 1]])
    assert clustering.fit_anchors(many, 3).tolist() == [[1, 1], [5, 5], [9, 9]]  # no center twice, no empty cluster


def test_judge() -> None:
    found = clustering.evaluate_anchors(np.array([[10.0, 10], [10, 20], [2, 2]]), np.array([[10.0, 10], [100, 100]]))
    assert found.average_iou == pytest.approx((1 + 0.5 + 0.04) / 3)
    assert found.recall == pytest.approx(2 / 3) and found.counts == (3, 0)


def test_text_is_darknets() -> None:
    assert clustering.format_anchors(np.array([[9.6, 14.2], [344, 319]]), 416) == " 10, 14, 344,319"
    assert clustering.format_anchors(np.array([[1.32, 3.5]]), 13) == "1.3200,3.5000"
    assert clustering.round_anchors(np.array([[0.2, 7.6]]), 416).tolist() == [[1, 8]]


def test_masks_by_size() -> None:
    anchors = np.array([[8.0, 8], [20, 20], [29, 29], [31, 31], [80, 80], [200, 200]])
    assert clustering.masks_by_size(anchors, [8, 16, 32]) == [[0, 1, 2], [3], [4, 5]]
    assert clustering.masks_by_size(anchors, [32, 16, 8]) == [[4, 5], [3], [0, 1, 2]]
    assert clustering.masks_by_size(anchors * 9, [32, 16, 8]) == [[2, 3, 4, 5], [1], [0]]  # none is left without
    assert clustering.masks_by_size(anchors / 99, [8, 16, 32]) == [[0, 1, 2, 3], [4], [5]]
    with pytest.raises(DataError, match="expected at least 3 anchors, one per head, got 2"):
        clustering.masks_by_size(anchors[:2], [8, 16, 32])


HEAD = (
    "[convolutional]\n# a comment\nfilters = {filters}  # per head\n"
    "[yolo]\nnum=6\n{mask}anchors = {anchors}\nclasses=2\n"
)
OLD = "1,2, 3,4, 5,6, 7,8, 9,9, 9,11"


def two_heads(**given: str) -> str:
    """Strides 4 and 2, of two classes."""
    down = "[convolutional]\nfilters=4\nsize=3\npad=1\nstride=2\n"
    first = HEAD.format(filters=21, mask="mask = 3,4,5\n", anchors=given.get("first", OLD))
    second = HEAD.format(filters=21, mask="mask = 0,1,2\n", anchors=OLD)
    return f"[net]\nwidth=64\nheight=64\nchannels=3\n{down}{down}{first}[route]\nlayers=0\n{second}"


def test_a_cfg_keeps_all_but_its_anchors() -> None:
    text = two_heads()
    graph = parse_text(text)
    heads = anchor_heads(graph)
    assert [(head.stride, head.mask, head.entries, head.sources) for head in heads] == [
        (4, (3, 4, 5), 7, (2,)),
        (2, (0, 1, 2), 7, (5,)),
    ]
    assert anchor_space(graph, heads) == (64, 64) and current_anchors(heads).tolist()[0] == [1, 2]
    new = np.array([[2.0, 2], [4, 4], [5, 5], [6, 6], [7, 7], [30, 31]])
    assert assign_anchors(heads, new) == [[3, 4, 5], [0, 1, 2]]
    content = set_anchors(CfgDocument.from_text(text), heads, new, assign_anchors(heads, new), 64).content
    assert content == text.replace(OLD, "2,2, 4,4, 5,5, 6,6, 7,7, 30,31").encode()

    masks = assign_anchors(heads, new, "stride")
    assert masks == [[5], [0, 1, 2, 3, 4]]
    content = set_anchors(CfgDocument.from_text(text), heads, new, masks, 64).text
    assert content == text.replace(OLD, "2,2, 4,4, 5,5, 6,6, 7,7, 30,31").replace("mask = 3,4,5", "mask = 5").replace(
        "mask = 0,1,2", "mask = 0,1,2,3,4"
    ).replace("filters = 21", "filters = 7", 1).replace("filters = 21", "filters = 35")
    assert [head.mask for head in anchor_heads(parse_text(content))] == [(5,), (0, 1, 2, 3, 4)]


def test_a_new_number_of_anchors() -> None:
    text = two_heads()
    heads = anchor_heads(parse_text(text))
    new = np.arange(1.0, 9)[:, None] * [6, 6]
    content = set_anchors(CfgDocument.from_text(text), heads, new, assign_anchors(heads, new), 64).text
    changed = parse_text(content)
    assert [head.mask for head in anchor_heads(changed)] == [(1, 2, 3, 4, 5, 6, 7), (0,)]
    assert content.count("num=8") == 2
    with pytest.raises(DataError, match="expected 8 anchors in all heads, got 6"):
        assign_anchors(heads, new, "keep")


def test_heads_with_lists_of_their_own_share_one() -> None:
    heads = anchor_heads(parse_text(two_heads(first="1,2, 3,4, 5,6, 17,8, 19,9, 19,11")))
    assert current_anchors(heads)[:, 0].tolist() == [17, 19, 19, 1, 3, 5]
    assert assign_anchors(heads, current_anchors(heads)) == [[3, 4, 5], [0, 1, 2]]


def test_a_mask_that_was_left_out_is_added() -> None:
    text = two_heads().replace("mask = 3,4,5\n", "").replace("filters = 21", "filters = 42", 1)
    heads = anchor_heads(parse_text(text))
    content = set_anchors(CfgDocument.from_text(text), heads, current_anchors(heads), [[1, 2, 3, 4, 5], [0]], 64).text
    assert "[yolo]\nmask=1,2,3,4,5\nnum=6\n" in content and parse_text(content)


def test_implicit_channels_follow() -> None:
    """YOLOR's heads read a convolution times implicit values."""
    text = (
        "[net]\nwidth=32\nheight=32\nchannels=3\n[implicit_mul]\nfilters=21\n[convolutional]\nfilters=21\nsize=1\n"
        "[control_channels]\nfrom=0\n[yolo]\nnum=3\nmask=0,1,2\nclasses=2\nanchors=1,2,3,4,5,6\n"
    )
    heads = anchor_heads(parse_text(text))
    assert sorted(heads[0].sources) == [0, 1]
    content = set_anchors(CfgDocument.from_text(text), heads, np.array([[4.0, 4], [9, 9]]), [[0, 1]], 32).text
    assert content.count("filters=14") == 2 and parse_text(content)


def test_region_is_in_cells() -> None:
    graph = parse(ROOT / "cfg" / "yolov2-tiny.cfg")
    heads = anchor_heads(graph)
    assert heads[0].in_cells and anchor_space(graph, heads) == (13, 13)
    new = np.array([[1.5, 1.25], [3, 4], [6, 6]])
    content = set_anchors(graph.document, heads, new, assign_anchors(heads, new), 13).text
    changed = parse_text(content)
    assert anchor_heads(changed)[0].anchors == ((1.5, 1.25), (3, 4), (6, 6))
    assert "anchors=1.5000,1.2500, 3.0000,4.0000, 6.0000,6.0000" in content


def test_no_anchors_in_the_cfg() -> None:
    with pytest.raises(DataError, match=r"expected a head with anchors such as \[yolo\]"):
        anchor_heads(parse_text("[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\nsize=1\n"))


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    """A .data file of six images whose boxes have the sizes of `boxes`, at 400 x 400 pixels."""
    folder = tmp_path / "données été"
    folder.mkdir()
    names = []
    for number, part in enumerate(np.split(boxes(20) / 400, 6)):
        rows = "".join(f"{k % 2} .5 .5 {w:.6f} {h:.6f}\n" for k, (w, h) in enumerate(part.tolist()))
        (folder / f"{number}.txt").write_text(rows)
        names.append(f"{folder / str(number)}.jpg\n")  # anchors never opens an image
    (folder / "list.txt").write_text("".join(names))
    (folder / "5.txt").write_text((folder / "5.txt").read_text() + "9 .5 .5 .1 .1\n0 .5 .5 0 .1\n")
    (folder / "my.names").write_text("a\nb\n")
    (folder / "my.data").write_text(f"classes=2\ntrain={folder}/list.txt\nnames={folder}/my.names\n")
    return folder / "my.data"


def test_command(
    labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.cfg").write_text(two_heads().replace("=64", "=400"))
    command = ["anchors", "x.cfg", "--data", str(labeled), "--write", "new.cfg"]
    assert main([*command, "--plot", "p.svg"]) == 0
    text = capsys.readouterr().out
    assert "120 boxes of 6 images, input 400 x 400, 1 label missing or wrong" in text
    assert "counters_per_class = 60, 60" in text and "#3 [yolo]" in text
    assert text.endswith("wrote anchors.txt, new.cfg, p.svg\n")
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    found = clustering.round_anchors(CLUSTERS[np.argsort(CLUSTERS.prod(1))], 400)
    written = np.array([float(number) for number in (tmp_path / "anchors.txt").read_text().split(",")]).reshape(-1, 2)
    np.testing.assert_allclose(written, found, atol=2)
    changed = parse("new.cfg")
    assert list(anchor_heads(changed)[0].anchors) == list(map(tuple, written.tolist()))

    assert main([*command, "--plot", "p.png", "--masks", "stride", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["new"]["average_iou"] > 0.9 > report["old"]["average_iou"]
    assert [head["mask"] for head in report["heads"]] == [[1, 2, 3, 4, 5], [0]]
    assert len(report["problems"]) == 1 and "expected a class of 0 to 1, got 9" in report["problems"][0]


def test_command_without_a_cfg(
    labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `detector calc_anchors data -num_of_clusters 6 -width 13 -height 13`."""
    monkeypatch.chdir(tmp_path)
    command = ["anchors", "--data", str(labeled), "--clusters", "6", "--width", "13"]
    assert main(command) == 2
    assert "without CFG, --clusters, --width and --height are required" in capsys.readouterr().err
    assert main([*command, "--height", "13", "--plot", "x.gif"]) == 1
    assert "x.gif: expected a file name ending in .svg, .png or .jpg" in capsys.readouterr().err
    assert not (tmp_path / "anchors.txt").exists()
    assert main([*command, "--height", "13"]) == 0
    assert (tmp_path / "anchors.txt").read_text().startswith("0.32")
    (labeled.parent / "list.txt").write_text("nowhere.jpg\n")
    assert main([*command, "--height", "13"]) == 1
    assert "expected labeled boxes, got none in the labels of 1 image" in capsys.readouterr().err


@pytest.mark.reference
def test_bccd(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from darknet_py.data.open_dataset import open_dataset

    with pytest.warns(match="left out"):
        data = open_dataset(reference / "bccd")
    found = clustering.read_boxes(data.train_images(), data.classes)
    sizes = found.sizes * 416
    anchors = clustering.fit_anchors(sizes, 6)
    assert len(sizes) == 3941 and clustering.evaluate_anchors(sizes, anchors).average_iou > 0.855
