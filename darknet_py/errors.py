"""The exceptions of the package.

    DarknetError
    ├── CfgError          a cfg that cannot be read or does not fit together (carries every problem found)
    ├── WeightsError      a weights or checkpoint file that does not fit its network
    ├── DataError         a .data file, list, label or image that cannot be used
    ├── TrainError        training that cannot start or continue
    └── MissingExtra      an optional package that is not installed

A command turns each into one line on stderr and exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DISTRIBUTION = "darknet-torch"  # what pip installs; `darknet-py` on PyPI is another project


class DarknetError(Exception):
    """Base class of all exceptions of the package."""


SHOWN_PROBLEMS = 100  # of one cfg; the others are counted


class Problem(NamedTuple):
    """One problem of a cfg and its location."""

    path: str
    line: int
    where: str  # "[section] #index", or "" if it concerns no section
    message: str

    def __str__(self) -> str:
        location = f"{self.path}:{self.line}: " if self.line else f"{self.path}: "
        return location + (f"{self.where}: " if self.where else "") + self.message


class CfgError(DarknetError):
    """A cfg is not valid.

    Attributes:
        problems: every problem, in file order.
        warnings: what would have been warned about. They often name the cause (an unknown key, say), so the message
            ends with them. It has the first hundred of each.
    """

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()):
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        noted = [problem._replace(message=f"warning: {problem.message}") for problem in self.warnings[:SHOWN_PROBLEMS]]
        lines = [str(problem) for problem in (*self.problems[:SHOWN_PROBLEMS], *noted)]
        for name, found in (("errors", self.problems), ("warnings", self.warnings)):
            if len(found) > SHOWN_PROBLEMS:
                lines.append(f"and {len(found) - SHOWN_PROBLEMS} more {name}")
        super().__init__("\n".join(lines))


class CfgWarning(UserWarning):
    """Something in a cfg that Darknet ignores silently, such as an unknown key or a duplicate."""


class WeightsError(DarknetError):
    """A weights file or checkpoint does not fit the network."""


class DataError(DarknetError):
    """A data set, list, label or image cannot be used."""


class TrainError(DarknetError):
    """Training cannot start or continue."""


class MissingExtra(DarknetError):
    """An optional package is not installed; `extra` is the extra that contains it."""

    def __init__(self, package: str, extra: str, purpose: str):
        self.extra = extra
        super().__init__(f"{purpose} needs the package {package!r}: pip install '{DISTRIBUTION}[{extra}]'")
