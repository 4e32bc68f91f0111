"""Options are read by the rules of C, and faults and unknown keys are reported."""

from __future__ import annotations

import pytest

from darknet_py.cfg.options import Options, atof, atoi
from darknet_py.cfg.sections import Problems, parse_sections
from darknet_py.errors import CfgError


def test_numbers_are_read_as_c_reads_them() -> None:
    assert [atoi(text) for text in ("180###P6", "-4,x", "+7", "x", "")] == [180, -4, 7, None, None]
    assert [atof(text) for text in (".1", "1e-3#", "-2.", "1.5.2", "e5")] == [0.1, 1e-3, -2.0, 1.5, None]


def read(body: str, strict: bool = False) -> tuple[Options, Problems]:
    problems = Problems("a.cfg", strict)
    (section,) = parse_sections("[layer]\n" + body, problems)
    return Options(section, 3, problems), problems


def test_options_fall_back_to_the_default_and_record_the_fault() -> None:
    options, problems = read("size=abc\nstride=0\npad=2\nscale=nan")
    assert options.int("size", 3) == 3
    assert options.int("stride", 1, minimum=1) == 1
    assert options.float("scale", 1.0) == 1.0
    assert options.flag("pad") is True
    assert options.int("missing", 7) == 7
    assert [str(problem) for problem in problems.errors] == [
        "a.cfg:2: [layer] #3: size: expected an integer, got 'abc'",
        "a.cfg:3: [layer] #3: stride: expected an integer of at least 1, got '0'",
        "a.cfg:5: [layer] #3: scale: expected a number, got 'nan'",
    ]


def test_lists_end_at_a_comment_and_allow_a_trailing_comma() -> None:
    options, problems = read("anchors=10,13, 16,30, #33,23\nmask=0,1,\nsteps=1,,2")
    assert options.floats("anchors") == (10, 13, 16, 30)
    assert options.ints("mask") == (0, 1)
    assert options.ints("steps", (5,)) == (5,)
    assert len(problems.errors) == 1


def test_unknown_and_double_keys_warn_with_a_hint() -> None:
    options, problems = read("filters=3\nfilter=4\nfilters=5")
    assert options.int("filters") == 3
    options.report_unknown()
    messages = [str(problem) for problem in problems.warnings]
    assert messages[0].startswith("a.cfg:4: [layer] #3: filters is set twice")
    assert messages[1] == "a.cfg:3: [layer] #3: unknown key 'filter' is ignored; did you mean 'filters'?"
    assert not problems.errors


def test_strict_makes_warnings_errors() -> None:
    options, problems = read("filter=4", strict=True)
    options.report_unknown()
    with pytest.raises(CfgError, match="unknown key 'filter'"):
        problems.raise_errors()


def test_accepted_keys_do_not_warn() -> None:
    options, problems = read("filters=3\nuse_cuda_graph=1", strict=True)
    options.accept("filters", "use_cuda_graph")
    options.report_unknown()
    problems.raise_errors()
