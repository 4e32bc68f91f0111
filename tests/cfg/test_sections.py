from __future__ import annotations

import pytest

from darknet_py.cfg.options import Options, atof, atoi
from darknet_py.cfg.sections import Option, Problems, parse_sections
from darknet_py.errors import CfgError


def sections(text: str) -> list:
    problems = Problems("a.cfg")
    found = parse_sections(text, problems)
    problems.raise_errors()
    return found


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


def test_numbers_are_read_as_c_reads_them() -> None:
    assert [atoi(text) for text in ("180###P6", "-4,x", "+7", "x", "")] == [180, -4, 7, None, None]
    assert [atof(text) for text in (".1", "1e-3#", "-2.", "1.5.2", "e5")] == [0.1, 1e-3, -2.0, 1.5, None]


def options(body: str, strict: bool = False) -> tuple[Options, Problems]:
    problems = Problems("a.cfg", strict)
    (section,) = parse_sections("[layer]\n" + body, problems)
    return Options(section, 3, problems), problems


def test_options_fall_back_to_the_default_and_record_the_fault() -> None:
    o, problems = options("size=abc\nstride=0\npad=2\nscale=nan")
    assert o.int("size", 3) == 3
    assert o.int("stride", 1, minimum=1) == 1
    assert o.float("scale", 1.0) == 1.0
    assert o.flag("pad") is True
    assert o.int("missing", 7) == 7
    assert [str(problem) for problem in problems.errors] == [
        "a.cfg:2: [layer] #3: size: expected an integer, got 'abc'",
        "a.cfg:3: [layer] #3: stride: expected an integer of at least 1, got '0'",
        "a.cfg:5: [layer] #3: scale: expected a number, got 'nan'",
    ]


def test_lists_end_at_a_comment_and_allow_a_trailing_comma() -> None:
    o, problems = options("anchors=10,13, 16,30, #33,23\nmask=0,1,\nsteps=1,,2")
    assert o.floats("anchors") == (10, 13, 16, 30)
    assert o.ints("mask") == (0, 1)
    assert o.ints("steps", (5,)) == (5,)
    assert len(problems.errors) == 1


def test_unknown_and_double_keys_warn_with_a_hint() -> None:
    o, problems = options("filters=3\nfilter=4\nfilters=5")
    assert o.int("filters") == 3
    o.report_unknown()
    messages = [str(problem) for problem in problems.warnings]
    assert messages[0].startswith("a.cfg:4: [layer] #3: filters is set twice")
    assert messages[1] == "a.cfg:3: [layer] #3: unknown key 'filter' is ignored; did you mean 'filters'?"
    assert not problems.errors


def test_strict_makes_warnings_errors() -> None:
    o, problems = options("filter=4", strict=True)
    o.report_unknown()
    with pytest.raises(CfgError, match="unknown key 'filter'"):
        problems.raise_errors()
