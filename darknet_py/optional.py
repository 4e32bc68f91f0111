"""Packages that belong to an extra."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from darknet_py.errors import MissingExtra


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports a module. Raises MissingExtra with the extra that contains it where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(module.partition(".")[0], extra, purpose) from error
