"""The text of a cfg is split into sections with line numbers."""

from __future__ import annotations

import pytest

from darknet_py.cfg.sections import Option, Problems, Section, parse_sections
from darknet_py.errors import CfgError


def sections(text: str) -> list[Section]:
    problems = Problems("a.cfg")
    result = parse_sections(text, problems)
    problems.raise_errors()
    return result


def test_keeps_names_options_and_lines() -> None:
    text = "# comment\n\n[net]\nbatch=64\n; another\n width = 4 1 6\n[conv]\npad=1"
    net, conv = sections(text)
    assert (net.name, net.line, net.options) == ("net", 3, (Option("batch", "64", 4), Option("width", "416", 6)))
    assert (conv.name, conv.line, conv.options) == ("conv", 7, (Option("pad", "1", 8),))


def test_reads_windows_files_and_a_byte_order_mark() -> None:
    (net,) = sections("\ufeff[net]\r\nbatch=1\r\n")
    assert net.options == (Option("batch", "1", 2),)


def test_an_option_value_may_hold_an_equals_sign() -> None:
    (net,) = sections("[net]\nnote=a=b")
    assert net.options[0].value == "a=b"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("batch=1\n[net]", 1, "expected a [net] section first"),
        ("[net]\nbatch 64", 2, "expected key=value or [section], got 'batch 64'"),
        ("[net\nbatch=1", 1, "expected a section like [net]"),
        ("[net]\n=3", 2, "expected key=value"),
    ],
)
def test_names_the_line_of_a_fault(text: str, line: int, message: str) -> None:
    with pytest.raises(CfgError) as caught:
        sections(text)
    assert str(caught.value).startswith(f"a.cfg:{line}: ")
    assert message in str(caught.value)
