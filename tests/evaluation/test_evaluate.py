"""`darknet_py.evaluate`: the kind of network decides what is measured."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

import darknet_py
from darknet_py.errors import DarknetError
from darknet_py.evaluation.detector import EvalOptions, Evaluation, evaluate_detector
from tests.evaluation import make


def test_a_detector_by_files_and_by_network(tmp_path: Path) -> None:
    cfg, weights = make.small_network(tmp_path, 0, "default")
    paths = make.labeled(tmp_path)
    by_files = darknet_py.evaluate(cfg, weights=weights, images=paths, protocols=["darknet"], workers=0)
    network = darknet_py.load(cfg, weights)
    by_network = darknet_py.evaluate(network, images=paths, protocols=["darknet"], workers=0)
    expected = evaluate_detector(network, paths, options=EvalOptions(["darknet"], workers=0)).darknet
    assert isinstance(by_files, Evaluation) and isinstance(by_network, Evaluation)
    assert by_files.darknet == by_network.darknet == expected and expected is not None


def test_random_weights_are_refused(tmp_path: Path) -> None:
    cfg, _ = make.small_network(tmp_path, 0, "default")
    with pytest.raises(DarknetError, match="expected trained weights"):
        darknet_py.evaluate(cfg)


@pytest.mark.reference
def test_the_classes_of_the_network_count(reference: Path, tmp_path: Path) -> None:
    """All classes of the head are evaluated, as in C, whatever number the .data file says."""
    base = reference / "bugs/base"
    images = sorted(str(path) for path in (base / "img").glob("*.png"))
    (tmp_path / "valid.txt").write_text("\n".join(images))
    maps = []
    for classes in (1, 2):
        lines = [f"classes={classes}", f"valid={tmp_path / 'valid.txt'}", f"names={base / 'obj.names'}"]
        (tmp_path / "x.data").write_text("\n".join(lines))
        with pytest.warns(match=r"classes=1, but .*t.cfg has 2; using 2") if classes == 1 else nullcontext():
            result = darknet_py.evaluate(
                base / "t.cfg", tmp_path / "x.data", base / "t_final.weights", protocols=["darknet"], workers=0
            )
        assert isinstance(result, Evaluation) and result.darknet is not None
        assert result.names == ("red box", "blue")
        maps.append(result.darknet.map)
    assert maps[0] == maps[1] and round(maps[0], 4) == 0.6029
