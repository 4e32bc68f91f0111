"""The writer of cfg text."""

from __future__ import annotations

from darknet_py.cfg.sections import Problems, Section, parse_sections
from darknet_py.zoo.cfg_writer import CfgWriter


def small() -> CfgWriter:
    cfg = CfgWriter(
        "A test.\nOf two lines.", {"Input": {"width": 32, "height": 32, "channels": 3}, "Rate": {"steps": (1, 2)}}
    )
    cfg.chapter("Backbone")
    cfg.part("stem")
    first = cfg.conv(4, 3)
    cfg.conv(4, 3, 2)
    cfg.part("stage")
    cfg.route(first)
    cfg.chapter("Neck")
    cfg.part("all of it")
    second = cfg.upsample()
    cfg.note("Joins two")
    cfg.route(second, first)
    return cfg


def sections(cfg: CfgWriter) -> list[Section]:
    problems = Problems("<test>")
    sections = parse_sections(cfg.text(), problems)
    problems.raise_errors()
    return sections


def test_layer_indices_start_at_0():
    cfg = CfgWriter("", {})
    cfg.part("")
    assert [cfg.conv(8), cfg.maxpool(2, 2), cfg.route(0)] == [0, 1, 2]
    assert cfg.last == 2


def test_references_are_relative_inside_a_chapter_and_absolute_outside():
    routes = [section.options[0].value for section in sections(small()) if section.name == "route"]
    assert routes == ["-2", "-1,0"]


def test_previous_layer_is_minus_1_across_chapters():
    cfg = CfgWriter("", {})
    cfg.chapter("one")
    cfg.part("")
    cfg.conv(8)
    cfg.chapter("two")
    cfg.part("")
    cfg.route(cfg.last)
    assert sections(cfg)[-1].options[0].value == "-1"


def test_text_has_comments_with_layer_ranges_for_parts():
    comments = [line for line in small().text().splitlines() if line.startswith("#")]
    assert comments[:2] == ["# A test.", "# Of two lines."]
    assert [line.strip("# =") for line in comments[3:]] == [
        "Input",
        "Rate",
        "Backbone",
        "---- Layers 0-1: stem",
        "---- Layer 2: stage",
        "Neck",
        "---- Layers 3-4: all of it",
        "Joins two",
    ]


def test_disabled_options_are_not_written():
    cfg = CfgWriter("", {})
    cfg.part("")
    cfg.conv(255, norm=False, activation="linear")
    cfg.depthwise(16, 5)
    head, depthwise = ({option.key: option.value for option in section.options} for section in sections(cfg)[1:])
    assert head == {"filters": "255", "size": "1", "stride": "1", "pad": "1", "activation": "linear"}
    assert depthwise["groups"] == depthwise["filters"] == "16"


def test_width_of_every_layer_is_known():
    cfg = CfgWriter("", {})
    cfg.part("")
    assert cfg.width() == 3
    wide = cfg.conv(32)
    half = cfg.slice(wide, 2, 1)
    assert cfg.width(half) == 16
    cfg.route(half, wide)
    assert cfg.width() == 48
    cfg.maxpool(2, 2)
    cfg.shortcut(half)
    assert cfg.width() == 48
    cfg.maxout(24)
    assert [cfg.width(), cfg.width(wide)] == [24, 32]


def test_options_can_be_added_to_the_last_section():
    cfg = CfgWriter("", {})
    cfg.part("")
    cfg.conv(8)
    cfg.also(stopbackward=800)
    assert sections(cfg)[-1].options[-1][:2] == ("stopbackward", "800")


def test_raw_sections_are_written_unchanged():
    cfg = CfgWriter.verbatim("# mine\n[net]\nwidth=8\n")
    assert cfg.raw("# stem\n[convolutional]\nfilters = 8\n", 8) == 0
    cfg.conv(4)
    assert cfg.route(0) == 2
    assert cfg.width() == 8
    assert cfg.text().startswith("# mine\n[net]\nwidth=8\n\n# stem\n[convolutional]\nfilters = 8\n\n[convolutional]\n")
