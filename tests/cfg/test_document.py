"""Single options of a cfg change, and not one byte more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darknet_py.cfg import document as document_module
from darknet_py.cfg.document import CfgDocument, CfgEdit
from darknet_py.errors import CfgError


def edited(content: bytes, edits: list[CfgEdit]) -> bytes:
    """The content after the edits; the sections must be those that its text has."""
    document = CfgDocument.from_text(content.decode("utf-8", "surrogateescape")).with_edits(edits)
    again = CfgDocument.from_text(document.text)
    assert options(document) == options(again)
    assert document.layers_hash == again.layers_hash
    return document.content


def options(document: CfgDocument) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(section.name, [(option.key, option.value) for option in section.options]) for section in document.sections]


CFG = (
    b"\xef\xbb\xbf# caf\xe9 \xe2\x80\x94 not all UTF-8\r\n[net]\r\n width = 4 # pixels\r\n;comment = 1\r\n\r\n"
    b"[yolo]\r\nanchors = 1,2,  3,4   ###P5\r\nmask=0,1\r\nmask=7\r\n\tnum =2"
)


def test_values_change_and_all_else_stays() -> None:
    changes = [
        CfgEdit(1, "anchors", "5,6, 7,8"),
        CfgEdit(0, "width", "64"),
        CfgEdit(1, "num", "3"),
        CfgEdit(1, "mask", "0"),
    ]
    expected = CFG.replace(b"1,2,  3,4", b"5,6, 7,8").replace(b"= 4 #", b"= 64 #").replace(b"=2", b"=3")
    assert edited(CFG, changes) == expected.replace(b"mask=0,1", b"mask=0")  # the first of two, which counts


def test_nothing_changes_nothing() -> None:
    assert edited(CFG, []) == CFG


def test_a_new_option_opens_its_section() -> None:
    content = edited(CFG, [CfgEdit(1, "classes", "3"), CfgEdit(1, "jitter", ".1"), CfgEdit(0, "height", "4")])
    assert content == CFG.replace(b"[yolo]\r\n", b"[yolo]\r\nclasses=3\r\njitter=.1\r\n").replace(
        b"[net]\r\n", b"[net]\r\nheight=4\r\n"
    )
    assert edited(b"[net]\nwidth=1\n[yolo]", [CfgEdit(1, "mask", "0")]) == b"[net]\nwidth=1\n[yolo]\nmask=0"


def test_a_value_that_was_added_changes_again() -> None:
    edits = [CfgEdit(1, "classes", "3"), CfgEdit(1, "num", "4"), CfgEdit(1, "classes", "5")]
    assert edited(b"[net]\n[yolo]", edits) == b"[net]\n[yolo]\nclasses=5\nnum=4"


def test_lines_end_wherever_the_parser_ends_them() -> None:
    text = "[net]\rwidth=4\x0cheight=4\u2028channels=3"
    assert edited(text.encode(), [CfgEdit(0, "width", "8"), CfgEdit(0, "height", "8")]).decode() == text.replace(
        "=4", "=8"
    )


def test_a_document_keeps_its_edits_and_does_not_change() -> None:
    document = CfgDocument.from_text("[net]\nwidth = 4 # pixels\n[yolo]\n", "a.cfg")
    changed = document.set(0, "width", "8", "a test").set(1, "classes", "2")
    assert changed.edits == (CfgEdit(0, "width", "8", "a test"), CfgEdit(1, "classes", "2"))
    assert (document.edits, document.text) == ((), "[net]\nwidth = 4 # pixels\n[yolo]\n")
    assert changed.set(0, "width", " 8 ") is changed and changed.with_edits([]) is changed


def test_lines_are_those_of_the_file() -> None:
    document = CfgDocument.from_text("[net]\nwidth=4\n[yolo]\nnum=2\n").set(0, "height", "4").set(1, "num", "3")
    assert [section.line for section in document.sections] == [1, 3]
    assert [option.line for section in document.sections for option in section.options] == [1, 2, 4]


def test_edits_do_not_parse_the_text_again(monkeypatch: pytest.MonkeyPatch) -> None:
    document = CfgDocument.from_text("[net]\nwidth=4\n")
    monkeypatch.delattr(document_module, "parse_sections")
    assert document.set(0, "width", "8").sections[0].options[0].value == "8"


def test_a_file_is_read_and_written_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.cfg"
    path.write_bytes(CFG)
    document = CfgDocument.read(path)
    assert (document.path, document.content) == (str(path), CFG)


def test_the_hash_is_that_of_the_layers() -> None:
    document = CfgDocument.from_text("[net]\nwidth=4\n[yolo]\nnum=2 # two\n")
    same = CfgDocument.from_text("# a comment\n[net]\nwidth=8\n[yolo]\n num = 2# two\n")
    assert document.layers_hash == same.layers_hash == document.set(0, "batch", "4").layers_hash
    assert document.layers_hash != document.set(1, "num", "3").layers_hash


def test_a_value_has_one_line() -> None:
    document = CfgDocument.from_text("[net]\n[yolo]\n", "a.cfg")
    with pytest.raises(CfgError, match=r"a.cfg:2: \[yolo\] #0: num: expected a value on one line, got '2\\n\[yolo\]'"):
        document.set(1, "num", "2\n[yolo]")


def test_faults_of_the_text_are_kept() -> None:
    (fault,) = CfgDocument.from_text("[net]\nbatch 64\n", "a.cfg").syntax_errors
    assert str(fault) == "a.cfg:2: expected key=value or [section], got 'batch 64'; did you mean 'batch=64'?"


def test_an_edit_keeps_the_comment_after_a_value() -> None:
    cfg = b"[net]\npolicy=steps ; of 2\nwidth=8\t# pixels\n"
    edits = [CfgEdit(0, "policy", "constant"), CfgEdit(0, "width", "16")]
    assert edited(cfg, edits) == b"[net]\npolicy=constant ; of 2\nwidth=16\t# pixels\n"


KEYS = st.sampled_from(["width", "num", "mask"])
LINES = st.one_of(
    st.builds(
        "{}{}={}{}".format,
        st.sampled_from(["", " ", "\t"]),
        KEYS,
        st.text(max_size=6),
        st.sampled_from(["", " # 1", " ;1"]),
    ),
    st.sampled_from(["[net]", "[yolo]", "# width=1", ";num=1", "", "num", "=1", "w i dth=3"]),
)


@settings(derandomize=True, deadline=None, max_examples=300, database=None)
@given(
    lines=st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r", "\x0b", "\u2028"])), max_size=12),
    end=LINES,
    edits=st.lists(st.tuples(st.integers(0, 20), KEYS, st.from_regex(r"[0-9,# ]{0,5}", fullmatch=True)), max_size=6),
)
def test_text_and_sections_stay_in_step(
    lines: list[tuple[str, str]], end: str, edits: list[tuple[int, str, str]]
) -> None:
    text = "[net]\n" + "".join(line + ending for line, ending in lines) + end
    document = CfgDocument.from_text(text)
    for number, key, value in edits:
        section = number % len(document.sections)
        document = document.set(section, key, value)
        expected = value.partition("#")[0].replace(" ", "")
        read = next(option.value for option in document.sections[section].options if option.key == key)
        assert read.partition("#")[0] == expected
    assert options(document) == options(CfgDocument.from_text(document.text))
