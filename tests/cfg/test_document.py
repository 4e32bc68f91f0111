"""Single options of a cfg change, and not one byte more."""

from __future__ import annotations

from darknet_py.cfg.document import CfgDocument, CfgEdit


def edited(content: bytes, edits: list[CfgEdit]) -> bytes:
    """The content after the edits; the sections must be those that its text has."""
    document = CfgDocument.from_text(content.decode("utf-8", "surrogateescape")).with_edits(edits)
    again = CfgDocument.from_text(document.text)
    assert options(document) == options(again)
    assert document.layers_hash == again.layers_hash
    return document.content


def options(document: CfgDocument) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(section.name, [(key, value) for key, value, _ in section.options]) for section in document.sections]


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
