"""Numbers with their nouns, in messages."""

from __future__ import annotations


def counted(number: float, noun: str, form: str = "") -> str:
    """The number and the noun, in the plural unless the number is 1: `1 image`, `2 epochs`, `0 classes`.

    Args:
        number: How many.
        noun: In the singular.
        form: How the number is formatted, as in `format`.
    """
    if number != 1:
        noun += "es" if noun.endswith(("s", "x", "tch", "nch", "rch", "sh")) else "s"
    return f"{number:{form}} {noun}"
