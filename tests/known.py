"""What is known to break a rule of the project still: `known.json`, which only ever shrinks.

A check fails for what occurs more often than the file says, and for what the file names although it is gone. After a
cleanup

    SHRINK_KNOWN=1 python -m pytest tests/test_structure.py tests/test_language.py

lowers the numbers to what still occurs; it never adds anything.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("known.json")


class Violation(NamedTuple):
    """what: the same wherever the code moves, as the file counts it. place: where it is, for the message."""

    what: str
    place: str = ""


def check(rule: str, violations: Iterable[Violation]) -> None:
    """Compares what breaks a rule with what is known to."""
    places: dict[str, list[str]] = defaultdict(list)
    for what, place in violations:
        places[what].append(place)
    content: dict[str, dict[str, int]] = json.loads(FILE.read_text(encoding="utf-8"))
    known = content.get(rule, {})
    if os.environ.get("SHRINK_KNOWN"):
        known = {what: min(limit, len(places[what])) for what, limit in known.items() if places[what]}
        content = {name: limits for name, limits in {**content, rule: known}.items() if limits}
        FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for what, found in places.items():
        limit = known.get(what, 0)
        assert len(found) <= limit, f"{rule}: {what}: at most {limit} known\n" + "\n".join(found)
    gone = [what for what in known if not places[what]]
    assert gone == [], f"{rule}: these no longer occur; SHRINK_KNOWN=1 removes them from {FILE.name}"
