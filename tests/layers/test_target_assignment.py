from __future__ import annotations

import torch

from darknet_py import boxes
from darknet_py.layers.target_assignment import (
    Assignments,
    Grid,
    SlotGroups,
    TruthBoxes,
    assign_slots,
    best_anchor_index,
    best_match,
)

ROWS = torch.tensor([[0, 1, 0.3, 0.4, 0.2, 0.3], [1, 0, 0.7, 0.2, 0.1, 0.1], [0, 2, 0.3, 0.4, 0.2, 0.3]])


def test_grid_positions_are_those_of_the_tensor() -> None:
    grid = Grid(2, 3, 4, 5, 6)
    values = torch.arange(2 * 3 * 4 * 5 * 6.0).view(grid)
    image, anchor, row, column = 1, 2, 3, 4
    slot = torch.tensor([((image * 3 + anchor) * 5 + row) * 6 + column])
    assert grid.gather(values, slot, 1, 3)[0].tolist() == values[image, anchor, 1:, row, column].tolist()
    flat = grid.zeros(values)
    flat[grid.positions(torch.tensor([grid.slots]), 0, 4)] = 1.0
    assert not grid.view(flat).any()


def test_rows_that_darknet_skips() -> None:
    rows = torch.tensor([[0, 3, 0.5, 0.5, 0.1, 0.1], [0, -1, 0.5, 0.5, 0.1, 0.1], [0, 1, 0, 0.5, 0.1, 0.1]])
    assert TruthBoxes.from_rows(rows, 3).valid.tolist() == [False, False, False]
    truth = TruthBoxes.from_rows(ROWS, 3, class_map=torch.tensor([2, 0, 1]))
    assert truth.label.tolist() == [0, 2, 1] and truth.valid.all()
    column, row = TruthBoxes.from_rows(torch.tensor([[0, 0, 1.0, 1.0, 0.1, 0.1]]), 3).cell(8, 6)
    assert (int(column), int(row)) == (7, 5)


def test_best_match_is_the_best_iou_of_the_image_and_its_first_row() -> None:
    torch.manual_seed(0)
    truth = TruthBoxes.from_rows(ROWS, 3)
    predicted = torch.rand(2, 50, 4)
    match = best_match(predicted, truth, with_row=True)
    iou = boxes.iou(predicted[0][:, None], truth.box[[0, 2]])
    assert torch.equal(match.iou[0], iou.amax(1)) and match.row is not None
    assert set(match.row[0].tolist()) == {0}  # rows 0 and 2 are equal
    assert best_match(predicted, truth).row is None
    predicted[0, 0] = float("nan")
    assert best_match(predicted, truth).iou[0, 0] == 0
    assert not best_match(predicted, TruthBoxes.from_rows(ROWS[:0], 3)).iou.any()


def test_best_anchor_compares_sizes() -> None:
    truth = TruthBoxes.from_rows(ROWS, 3)
    assert best_anchor_index(truth, torch.tensor([[0.2, 0.3], [0.1, 0.1]])).tolist() == [0, 1, 0]


def test_groups_keep_the_order_of_darknet() -> None:
    groups = SlotGroups.from_slots(torch.tensor([5, 2, 5, 2, 9]))
    assert groups.slots.tolist() == [2, 2, 5, 5, 9] and groups.order.tolist() == [1, 3, 0, 2, 4]
    assert groups.first.tolist() == [True, False, True, False, True]
    assert groups.last.tolist() == [False, True, False, True, True]
    assert groups.leader().tolist() == [0, 0, 2, 2, 4]
    assert SlotGroups.from_slots(torch.zeros(0, dtype=torch.long)).leader().tolist() == []


def test_chosen_slots_get_their_truth() -> None:
    chosen = torch.zeros(1, 2, 1, 3, dtype=torch.bool)
    chosen[0, 1, 0, 2] = True
    assigned = assign_slots(chosen, torch.arange(6).view(1, 6), torch.tensor([4, 7]))
    assert [part.tolist() for part in assigned] == [[5], [5], [7], [False]]
    assert len(Assignments.join((assigned, assigned)).slots) == 2
