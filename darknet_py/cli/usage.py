"""Wrong usage of a command line: exit code 2, and a hint at what was probably meant."""

from __future__ import annotations

from darknet_py.errors import DarknetError


class UsageError(DarknetError):
    """A command line that cannot be understood: exit code 2.

    Attributes:
        usage: Text to print before the message.
    """

    def __init__(self, message: str, usage: str = ""):
        self.usage = usage
        super().__init__(message)
