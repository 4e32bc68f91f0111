"""How often each class occurs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from darknet_py.view.draw import color
from darknet_py.view.sketch import Sketch

_MOST = 60  # classes
_STEP, _LEFT, _BAR = 24, 190, 560


def balance_chart(names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Sketch:
    """A bar per class and split, most frequent first; counts: by split, then class. At most 60 classes are drawn."""
    totals = [sum(split[number] for split in counts.values()) for number in range(len(names))]
    order = sorted(range(len(names)), key=lambda number: -totals[number])[:_MOST]
    largest = max((count for split in counts.values() for count in split), default=0) or 1
    sketch = Sketch(_LEFT + _BAR + 90, 74 + _STEP * len(order))
    more = f", the {_MOST} most frequent of {len(names)}" if len(names) > _MOST else ""
    sketch.words(f"boxes by class{more}", 14, 26, size=16)
    inks = {split: color(1 + 3 * place) for place, split in enumerate(counts)}
    for place, (split, ink) in enumerate(inks.items()):
        sketch.box(14 + 150 * place, 42, 26 + 150 * place, 54, ink)
        sketch.words(f"{split}: {sum(counts[split])}", 32 + 150 * place, 53)
    for place, number in enumerate(order):
        top = 66 + _STEP * place
        sketch.words(names[number][:26], _LEFT - 10, top + 15, "end")
        thick = (_STEP - 6) / len(counts)
        for row, (split, ink) in enumerate(inks.items()):
            y, count = top + 2 + thick * row, counts[split][number]
            end = _LEFT + _BAR * count / largest
            sketch.box(_LEFT, y, end, y + thick - 1, ink)
            sketch.words(str(count), end + 6, y + thick / 2 + 4, size=10)
    return sketch
