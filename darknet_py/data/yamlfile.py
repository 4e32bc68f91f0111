"""Reading the YAML files that data sets are described in, by PyYAML.

Every scalar is a str, so that a class named `no` stays that; tags are ignored, so that no file creates other objects.
"""

from __future__ import annotations

import os
from typing import TypeAlias

import yaml

from darknet_py.errors import DataError
from darknet_py.untrusted import read_file

Value: TypeAlias = str | list["Value"] | dict[str, "Value"]

_MAX_BYTES = 1 << 22  # PyYAML reads a megabyte in ten seconds
_MAX_VALUES = 1_000_000  # with each alias written out; more is an attack, not a data set


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Value]:
    """Reads a YAML file whose top level is a mapping.

    Args:
        path: The file, UTF-8 with or without a byte order mark.

    Returns:
        The mapping. Values are str, list or dict; an empty value is "".

    Raises:
        DataError: The file cannot be read, is not such YAML, is nested too deeply, or its aliases expand to more than a
            million values. The message names the file and the line.
    """
    text = read_file(path, "YAML file", limit=_MAX_BYTES).decode("utf-8-sig", "surrogateescape")
    try:
        content = _Expander().value(yaml.compose(text, yaml.BaseLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise DataError(f"{path}{line}: invalid YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        line_number = text.count("\n", 0, error.position) + 1
        raise DataError(f"{path}:{line_number}: invalid YAML: {error.reason}") from None
    except RecursionError:
        raise DataError(f"{path}: invalid YAML: nested too deeply") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected `key: value` lines, got {str(content)[:60]!r}")
    return content


class _Expander:
    """Nodes → values, counted, as a few aliases of aliases can stand for billions of values."""

    def __init__(self) -> None:
        self.count = 0

    def value(self, node: yaml.Node | None) -> Value:
        self.count += 1
        if self.count > _MAX_VALUES:
            raise yaml.MarkedYAMLError(None, None, "aliases expand to more than a million values", None)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return {self._key(key): self.value(value) for key, value in node.value}
        return "" if node is None else str(node.value)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(None, None, "expected a plain key, got a list or a mapping", node.start_mark)
        return str(node.value)
