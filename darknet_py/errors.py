"""Every exception the package raises on purpose.

    DarknetError
    ├── CfgError          a cfg that cannot be read or does not fit together (carries every problem found)
    ├── WeightsError      a weights or checkpoint file that does not fit its network
    ├── DataError         a .data file, list, label or image that cannot be used
    ├── TrainError        training that cannot start or go on
    └── MissingExtra      an optional package that is not installed

A command turns each into one line on stderr and exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DISTRIBUTION = "darknet-torch"  # what pip installs; `darknet-py` on PyPI is another project


class DarknetError(Exception):
    """Base of all errors raised on purpose."""


class Problem(NamedTuple):
    """One fault of a cfg, with the place it was found in."""

    path: str
    line: int
    where: str  # "[section] #index", or "" where no section is concerned
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}: " if self.line else f"{self.path}: "
        return place + (f"{self.where}: " if self.where else "") + self.message


class CfgError(DarknetError):
    """A cfg is wrong. `problems` lists every fault, in file order."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CfgWarning(UserWarning):
    """Something in a cfg that Darknet would ignore silently (an unknown key, a duplicate)."""


class WeightsError(DarknetError):
    """A weights file or checkpoint does not fit."""


class DataError(DarknetError):
    """A data set, list, label or image cannot be used."""


class TrainError(DarknetError):
    """Training cannot start or go on."""


class MissingExtra(DarknetError):
    """An optional package is needed. `extra` is what to install."""

    def __init__(self, package: str, extra: str, purpose: str):
        self.extra = extra
        super().__init__(f"{purpose} needs the package {package!r}: pip install '{DISTRIBUTION}[{extra}]'")
