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
    assert (net.name, net.line, net.options) == (
        "net",
        3,
        (Option("batch", "64", 4), Option("width", "416", 6, "4 1 6")),
    )
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
        ("[net]\nbatch 64", 2, "; did you mean 'batch=64'?"),
        ("[net]\ndecay -.1", 2, "; did you mean 'decay=-.1'?"),
        ("[net\nbatch=1", 1, "expected a section like [net]"),
        ("[net]\n=3", 2, "expected key=value"),
        ("[net] width=8", 1, "expected nothing after [net], got 'width=8'; write one option per line"),
        ("[net][yolo]", 1, "expected nothing after [net], got '[yolo]'"),
        ("[net]\u00a0", 1, "expected nothing after [net], got '\\xa0'; it contains U+00A0 NO-BREAK SPACE"),
        ("[net]\nwidth: 64", 2, "expected key=value or [section], got 'width: 64'; did you mean 'width=64'?"),
        ("[net]\nwidth＝64", 2, "U+FF1D FULLWIDTH EQUALS SIGN; did you mean 'width=64'?"),
        ("［net］", 1, "did you mean '[net]'?"),
        ("[net]\n(yolo)", 2, "expected key=value or [section], got '(yolo)'; did you mean '[yolo]'?"),
        ("[net]\nyolo]", 2, "did you mean '[yolo]'?"),
        ("[net]\n【yolo】", 2, "did you mean '[yolo]'?"),
    ],
)
def test_names_the_line_of_a_fault(text: str, line: int, message: str) -> None:
    with pytest.raises(CfgError) as caught:
        sections(text)
    assert str(caught.value).startswith(f"a.cfg:{line}: ")
    assert message in str(caught.value)


def test_comments_follow_sections_and_values() -> None:
    text = "[net] # the input\nwidth=8 ; pixels\n[yolo]#head\nmap=a#b.map\niou_loss=ciou # was mse\nmask = # none\n"
    net, yolo = sections(text)
    assert (net.options, yolo.name) == ((Option("width", "8", 2),), "yolo")
    assert [(option.key, option.value) for option in yolo.options] == [
        ("map", "a#b.map"),
        ("iou_loss", "ciou"),
        ("mask", ""),
    ]


def test_lines_of_other_white_space_say_nothing() -> None:
    (net,) = sections("[net]\n\u00a0\n\u3000# a comment\nwidth=8\n")
    assert net.options == (Option("width", "8", 4),)


def test_lines_that_c_ignores_are_warnings() -> None:
    """`read_option`: without `=` an option without a value, whose default counts."""
    problems = Problems("a.cfg")
    (net,) = parse_sections("[net]\nTraining\nbatch=4\n-----\nhello, world\n", problems)
    assert net.options == (Option("batch", "4", 3),) and not problems.errors
    assert [(problem.line, problem.message) for problem in problems.warnings] == [
        (2, "expected key=value or [section], got 'Training', which is ignored, as in C"),
        (4, "expected key=value or [section], got '-----', which is ignored, as in C"),
        (5, "expected key=value or [section], got 'hello, world', which is ignored, as in C"),
    ]


def test_an_option_after_its_section_is_read_so_that_no_other_fault_follows() -> None:
    problems = Problems("a.cfg")
    (section,) = parse_sections("[conv] filters=8\nsize=3", problems)
    assert [option.key for option in section.options] == ["filters", "size"] and len(problems.errors) == 1
