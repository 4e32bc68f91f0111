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


def test_a_key_without_a_value_keeps_its_default_as_in_c() -> None:
    """`read_option` refuses `key=`: the line is printed and dropped, and a later one counts."""
    options, problems = read("size=\nname =\nstride=\nstride=2\nmask= # none\n")
    assert (options.int("size", 3), options.text("name", "x"), options.int("stride")) == (3, "x", 2)
    assert [str(problem) for problem in problems.warnings] == [
        f"a.cfg:{line}: [layer] #3: {key} has no value; the line is ignored, as in C"
        for line, key in ((2, "size"), (3, "name"), (4, "stride"))
    ]
    options.ints("mask")
    assert str(*problems.errors) == "a.cfg:6: [layer] #3: mask: expected integers separated by commas, got '# none'"


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


@pytest.mark.parametrize(
    ("kind", "value", "number", "message"),
    [
        ("float", "0,001", 0.0, "'0,001' is read as 0 and ',001' is dropped, as in C; did you mean '0.001'?"),
        ("float", "1/1000", 1.0, "'1/1000' is read as 1 and '/1000' is dropped, as in C; did you mean '0.001'?"),
        ("float", "1.5y", 1.5, "'1.5y' is read as 1.5 and 'y' is dropped, as in C"),
        ("int", "6,000", 6, "'6,000' is read as 6 and ',000' is dropped, as in C; did you mean '6000'?"),
        ("int", "1e4", 1, "'1e4' is read as 1 and 'e4' is dropped, as in C; did you mean '10000'?"),
        ("int", "1.5", 1, "'1.5' is read as 1 and '.5' is dropped, as in C"),
        ("int", "64px", 64, "'64px' is read as 64 and 'px' is dropped, as in C"),
        ("int", "64;height=4", 64, "'64;height=4' is read as 64 and ';height=4' is dropped, as in C; write one option"),
        ("int", "4 subdivisions=2", 4, "'4 subdivisions=2' is read as 4 and 'subdivisions=2' is dropped, as in C; wri"),
        ("int", "6 000", 6000, "'6 000' is read as 6000, as in C"),
        ("ints", "-1 -2", (-1,), "'-1 -2' is read as -1 and '-2' is dropped, as in C; did you mean '-1,-2'?"),
        ("ints", "0，1", (0,), "U+FF0C FULLWIDTH COMMA; did you mean '0,1'?"),
        ("ints", "10;20,30", (10, 30), "'10;20' is read as 10 and ';20' is dropped, as in C; did you mean '10,20'?"),
        ("floats", "1,4 5,6", (1, 45, 6), "'4 5' is read as 45, as in C; did you mean '4,5'?"),
    ],
)
def test_numbers_that_c_cuts_off_warn(kind: str, value: str, number: object, message: str) -> None:
    options, problems = read(f"key={value}")
    readers = {"int": options.int, "float": options.float, "ints": options.ints, "floats": options.floats}
    assert readers[kind]("key") == number and readers[kind]("key") == number
    (warning,) = problems.warnings
    assert warning.line == 2 and message in warning.message and not problems.errors


@pytest.mark.parametrize(
    "value", ["180 ###P6", "180###P6", "64.0", "64,", "64 ; was 32,16", "64;pixels", "+64", " 6 4#"]
)
def test_numbers_that_lose_nothing_do_not_warn(value: str) -> None:
    options, problems = read(f"key={value}")
    options.int("key")
    options.ints("key")
    assert ("6 4" in value) == bool(problems.warnings) and not problems.errors


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("Filters", "; did you mean 'filters'?"),
        ("FILTERS", "; did you mean 'filters'?"),
        ("\u00a0filters", "; it contains U+00A0 NO-BREAK SPACE; did you mean 'filters'?"),
        ("ｆilters", "; it contains U+FF46 FULLWIDTH LATIN SMALL LETTER F; did you mean 'filters'?"),
    ],
)
def test_hints_do_not_depend_on_case_or_width(key: str, hint: str) -> None:
    options, problems = read(f"{key}=4")
    assert options.int("filters", 1) == 1
    options.report_unknown()
    (warning,) = problems.warnings
    assert warning.message.endswith("is ignored" + hint)


def test_values_of_words_lose_their_comment() -> None:
    options, problems = read("policy=steps # c\nkind=ciou;c\nname=Steps")
    assert options.choice("policy", "a", ("a", "steps")) == "steps" and not problems.errors
    options.choice("kind", "ciou", ("ciou",))
    options.choice("name", "a", ("a", "steps"))
    assert [problem.message for problem in problems.errors] == [
        "kind: expected one of ciou, got 'ciou;c'; did you mean 'ciou'?",
        "name: expected one of a, steps, got 'Steps'; did you mean 'steps'?",
    ]


def test_the_message_of_an_error_ends_with_the_warnings() -> None:
    options, problems = read("Size=3\nstride=x")
    options.int("size")
    options.int("stride")
    options.report_unknown()
    with pytest.raises(CfgError) as caught:
        problems.raise_errors()
    assert str(caught.value) == (
        "a.cfg:3: [layer] #3: stride: expected an integer, got 'x'\n"
        "a.cfg:2: [layer] #3: warning: unknown key 'Size' is ignored; did you mean 'size'?"
    )
    assert [len(caught.value.problems), len(caught.value.warnings)] == [1, 1]
