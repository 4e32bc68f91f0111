from __future__ import annotations

import pytest

from darknet_py.errors import CfgError
from darknet_py.layers.yolo import YoloSpec
from tests.layers import head_cases

NET = "[net]\nwidth=64\nheight=48\nchannels=16\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("mask=0,3\n", "mask: expected different anchors from 0 to 0 (num=1), got '0,3'"),
        ("mask=0\nanchors=3,4\niou_loss=siou\n", "expected one of mse, iou, giou, diou, ciou, got 'siou'"),
        ("anchors=3,4\ncounters_per_class=1,2\n", "counters_per_class: expected 20 numbers, one per class, got 2"),
        ("anchors=3,-4\n", "anchors: expected sizes above zero"),
        ("", "anchors: expected 2 numbers (num=1), got 0"),
    ],
)
def test_errors_are_reported(options: str, message: str) -> None:
    with pytest.raises(CfgError) as caught:
        head_cases.spec_of(YoloSpec, NET + "[yolo]\n" + options)
    assert message in str(caught.value)
