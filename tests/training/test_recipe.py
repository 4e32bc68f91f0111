"""Recipes: which edits follow from the images and the machine, and that the user's word counts more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import darknet_py
from darknet_py.errors import TrainError
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.layers.pool import DropoutSpec
from darknet_py.training.estimate import Speed
from darknet_py.training.optimizer import frozen_layers, last_stopped_layer
from darknet_py.training.recipe import Length, Machine, Photos, Recipe
from darknet_py.training.schedule import learning_rate
from darknet_py.training.train_options import NetValue, TrainOptions
from tests.training.conftest import CFG

GIB = 2**30
CPU, GPU = Machine(False, 8 * GIB), Machine(True, 64 * GIB)
# Boxes of half the image: at 320 x 320 the anchor 115,73 of yolo-fastest has IoU .33, 119,199 has .83
SQUARES = np.full((20, 2), 0.5)


def recipe(
    name: str = "finetune",
    cfg: str = "yolo-fastest-1.1.cfg",
    photos: Photos = Photos(300, 640, SQUARES),  # noqa: B008
    machine: Machine = CPU,
    length: Length = Length(),  # noqa: B008
    options: TrainOptions | None = None,
    **overrides: NetValue,
) -> Recipe:
    return Recipe(name, darknet_py.parse(cfg), overrides, photos, machine, options or TrainOptions(), length)


def edits(graph: Graph, section: int = 0) -> dict[str, str]:
    return {edit.key: edit.value for edit in graph.document.edits if edit.section == section}


def test_the_recipe_darknet_changes_nothing() -> None:
    made = recipe("darknet")
    assert made.graph() is made.base
    assert made.run_options(made.base.net, 30) == TrainOptions()


def test_a_recipe_replaces_what_depends_on_data_and_machine() -> None:
    graph = recipe().graph()
    # 100 epochs of 300 images in batches of 16 are 1,875 iterations
    assert edits(graph) == {
        "batch": "16",
        "max_batches": "1875",
        "burn_in": "20",
        "policy": "sgdr",
        "power": "1",
        "adam": "1",
        "ema_alpha": "0.9733",
        "mosaic": "1",
        "mosaic_stop": "1687",
    }
    assert all(edit.reason for edit in graph.document.edits)
    rates = [learning_rate(graph.net, iteration) for iteration in (5, 20, 984, 1875)]
    assert rates == pytest.approx([0.00025, 0.001, 0.000468, 0.00001], rel=0.01)


@pytest.mark.parametrize(
    ("images", "name", "batch", "iterations"),
    [
        (50, "finetune", 16, 1000),  # the least
        (1000, "finetune", 16, 6250),
        (4000, "finetune", 32, 6250),  # 50 epochs: the square root
        (100_000, "finetune", 64, 15625),  # 10 epochs
        (300, "scratch", 16, 5625),
    ],
)
def test_length_and_batch_follow_from_the_number_of_images(images: int, name: str, batch: int, iterations: int) -> None:
    net = recipe(name, photos=Photos(images, 640)).graph().net
    assert (net.batch, net.max_batches) == (batch, iterations)


def test_ways_to_say_how_long() -> None:
    assert recipe(length=Length(epochs=20)).graph().net.max_batches == 375
    assert recipe(length=Length(iterations=700), max_batches=700).graph().net.max_batches == 700
    timed = recipe(length=Length(seconds=60)).graph(444).net
    assert (timed.max_batches, timed.burn_in, timed.sgdr_cycle, timed.mosaic_stop) == (444, 8, 444, 399)
    fixed = recipe("darknet", length=Length(epochs=20)).graph().net  # batch=32
    assert (fixed.max_batches, fixed.steps) == (188, (150, 169))


def test_what_the_user_says_counts_more() -> None:
    graph = recipe(batch=8, learning_rate=0.5, mosaic=0, policy="constant", width=256, height=256, adam=0).graph()
    net = graph.net
    assert (net.batch, net.learning_rate, net.mixup, net.policy, net.width, net.adam) == (
        8,
        0.5,
        0,
        "constant",
        256,
        False,
    )
    assert net.max_batches == 3750  # 100 epochs in batches of 8
    assert not net.mosaic_stop  # there is nothing to stop


@pytest.mark.parametrize(("batch", "adam", "rate"), [(16, 1, 0.001), (64, 1, 0.002), (16, 0, 0.0005), (64, 0, 0.002)])
def test_the_rate_follows_from_batch_and_optimizer(batch: int, adam: int, rate: float) -> None:
    assert recipe(batch=batch, adam=adam).graph().net.learning_rate == rate


def test_the_mini_batch_fits_the_memory() -> None:
    # 77 MiB per image by the estimate, of which the mini-batch is the largest divisor of 16 that fits
    for memory, subdivisions in ((8 * GIB, 1), (GIB, 2), (GIB // 4, 8), (0, 16)):
        assert recipe(machine=Machine(False, memory)).graph().net.subdivisions == subdivisions


@pytest.mark.parametrize(
    ("cfg", "photo", "machine", "size"),
    [
        ("yolo-fastest-1.1.cfg", 640, CPU, 320),
        ("yolo-fastest-1.1.cfg", 200, GPU, 224),  # the next multiple of 32
        ("yolov4.cfg", 1280, GPU, 608),
        ("yolov4.cfg", 1280, CPU, 320),  # 128 BFLOPs at 608
        ("yolov4-p7.cfg", 2000, CPU, 384),  # its coarsest grid is 128 pixels wide
        ("yolov4-tiny.cfg", 1280, CPU, 416),
        ("yolov2-tiny.cfg", 0, CPU, 416),  # sizes that are not known
    ],
)
def test_the_input_follows_from_photos_and_machine(cfg: str, photo: int, machine: Machine, size: int) -> None:
    graph = recipe(cfg=cfg, photos=Photos(300, photo), machine=machine).graph()
    assert (graph.net.width, graph.net.height) == (size, size)
    assert all(
        spec.random == (machine.accelerator and before.random)
        for spec, before in zip(graph.detection_specs, darknet_py.parse(cfg).detection_specs, strict=True)
    )


def test_anchors_stay_where_they_fit() -> None:
    fits = np.array([[37, 49], [115, 73], [242, 238]]) / 320
    assert {edit.key for edit in recipe(photos=Photos(300, 640, fits)).graph().document.edits}.isdisjoint({"anchors"})


def _sizes(*pixels: tuple[float, float]) -> Any:
    """Boxes of these sizes in an image of 416 x 416, many of each."""
    return np.repeat(np.array(pixels), 30, axis=0) / 416


@pytest.mark.parametrize("kind", ["yolov3-tiny.cfg", "gaussian-yolov3-tiny-shapes.cfg", "yolov2-tiny.cfg"])
def test_anchors_that_fit_badly_are_replaced(kind: str) -> None:
    """Long thin boxes: the anchors become their sizes, in pixels or, of [region], in cells of 32 pixels."""
    base = darknet_py.parse(kind)
    count = len(base.detection_specs[0].anchors)
    pixels = [(20.0 * (k + 1), 6.0 * (k + 1)) for k in range(count)]
    photos = Photos(300, 640, _sizes(*pixels))
    made = Recipe("finetune", base, {"width": 416, "height": 416}, photos, CPU)
    graph = made.graph()
    unit = 32 if "v2" in kind else 1
    for before, spec in zip(base.detection_specs, graph.detection_specs, strict=True):
        assert np.allclose(spec.anchors, np.array(pixels) / unit, atol=1e-4 if unit > 1 else 0.5)
        assert spec.mask == before.mask
    change = next(edit for edit in graph.document.edits if edit.key == "anchors")
    assert change.reason.endswith("before, 1.00 after")


def test_freezing_stops_the_gradient_behind_the_first_layers() -> None:
    graph = recipe("darknet", options=TrainOptions(freeze=10)).graph()
    assert edits(graph, 10) == {"stopbackward": "1", "onlyforward": "1"} and not edits(graph, 11)
    assert last_stopped_layer(graph, 1) == 9  # weight decay alone would change a layer without a gradient
    assert frozen_layers(graph).frozen == frozenset(range(10))
    with pytest.raises(TrainError, match="freeze: expected fewer layers than the 121 before the first head, got 121"):
        recipe("darknet", options=TrainOptions(freeze=121)).graph()


@pytest.mark.parametrize(
    ("given", "letter_box", "mosaic"),
    [({}, False, True), ({"letter_box": 1}, True, False), ({"mosaic": 0}, True, False)],
)
def test_mosaic_and_letter_box_exclude_each_other(given: dict[str, int], letter_box: bool, mosaic: bool) -> None:
    """yolov4-csp.cfg as published asks for both, which C refuses to train."""
    before = darknet_py.parse("yolov4-csp.cfg").net
    assert before.letter_box and before.mixup == 3
    net = recipe(cfg="yolov4-csp.cfg", **given).graph().net
    assert (net.letter_box, net.mixup == 3) == (letter_box, mosaic)


def test_short_trainings_have_no_dropout() -> None:
    """300 images in batches of 16: 300 epochs are 5,625 iterations."""
    for iterations, probability in ((5625, 0.0), (5626, 0.15)):
        graph = recipe(length=Length(iterations=iterations), max_batches=iterations).graph()
        dropout = [node.spec.probability for node in graph.layers if isinstance(node.spec, DropoutSpec)]
        assert dropout == [probability] * 18
    kept = recipe("darknet").graph().layers[7].spec
    assert isinstance(kept, DropoutSpec) and kept.probability == 0.15


@pytest.mark.parametrize(
    ("cfg", "bfloat16", "name", "given", "amp"),
    [
        ("yolov4-tiny.cfg", True, "finetune", None, "bf16"),
        ("yolov4-tiny.cfg", False, "finetune", None, None),
        ("yolov4-tiny.cfg", True, "finetune", "fp32", None),
        ("yolov4-tiny.cfg", True, "darknet", None, None),
        ("yolov4-tiny.cfg", True, "darknet", "fp32", None),
        ("yolo-fastest-1.1.cfg", True, "finetune", None, None),  # it waits for its memory, not for products
    ],
)
def test_bfloat16_where_products_take_the_time(
    cfg: str, bfloat16: bool, name: str, given: str | None, amp: str | None
) -> None:
    made = recipe(name, cfg, machine=Machine(False, 8 * GIB, bfloat16=bfloat16), options=TrainOptions(amp=given))
    assert made.run_options(made.graph().net, 30).amp == amp


def test_evaluations_take_a_tenth_of_the_time() -> None:
    made = recipe()
    net = made.graph().net  # 1,875 iterations
    assert made.run_options(net, 30, Speed(1.0, 2.0)).map == 93
    assert made.run_options(net, 30, Speed(1.0, 20.0)).map == 200  # 20 seconds after 200


def test_evaluations_and_early_stopping() -> None:
    made = recipe()
    options = made.run_options(made.graph().net, 30)
    assert (options.map, options.patience, options.recover) == (93, 10, True)
    assert made.run_options(made.graph().net, 30_000).map == 6250  # a tenth of the time, if an image takes a third
    assert made.run_options(made.graph().net, 0) == TrainOptions(recover=True)
    timed = recipe(length=Length(seconds=60), options=TrainOptions(map=50, recover=False))
    assert timed.run_options(timed.graph().net, 30) == TrainOptions(map=50, recover=False)


def test_a_cfg_for_testing_can_be_trained() -> None:
    text = CFG.replace("batch=4", "batch=1").replace("max_batches=12", "").replace("learning_rate=0.001", "")
    net = Recipe("scratch", parse_text(text), {}, Photos(20), CPU).graph().net
    assert (net.batch, net.max_batches, net.learning_rate) == (16, 3000, 0.001)
