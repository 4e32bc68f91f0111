"""Mutated files are refused in one line or read, cfgs also run. tools/fuzz.py tries millions."""

from __future__ import annotations

import importlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darknet_py.errors import CfgError, DataError
from darknet_py.graph.graph import parse_text
from darknet_py.layers import LAYERS
from darknet_py.layers.head_options import read_map
from darknet_py.model.network import Network

TOOLS = Path(__file__).parents[1] / "tools"
NET = "[net]\nwidth=16\nheight=16\nchannels=4\n"
QUIET = pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        yield importlib.import_module("fuzz")


READERS = [
    *(
        "cfgs",
        "weights",
        "checkpoints",
        "checkpoints of others",
        "states",
        "images",
        "labels",
        "names",
        "lists",
        ".data",
    ),
    *("class trees and maps", "COCO", "VOC", "YAML", "CSV", "folders"),
    *("files beside weights", "check", "records of detect"),
    *("bits of states", "bits of weights", "bits of checkpoints"),
]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_refused_or_read(
    name: str, fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    count = {"cfgs": 2000, "records of detect": 3}.get(name, 100)
    part = fuzz.read_part(fuzz.READERS[name](tmp_path), name, 20, range(count), mmap.mmap(-1, 16))
    assert part["faults"] == []
    assert sum(part["outcomes"].values()) == count
    if name == "cfgs":
        assert {"parsed", "ran", "refused"} <= set(part["outcomes"])


def test_every_reader_has_a_test(fuzz: ModuleType) -> None:
    assert list(fuzz.READERS) == READERS


def test_faults_are_found(fuzz: ModuleType, tmp_path: Path) -> None:
    """A reader that fails, and one that lets a changed bit in."""
    from hostile.readers import Reader

    def read(content: bytes, number: int) -> str:
        if number == 1:
            raise ValueError("two\nlines")
        if number == 2:
            raise DataError("two\nlines")
        return "read"

    part = fuzz.read_part(Reader(lambda rng, number: b"", read, 3), "", 0, range(4), mmap.mmap(-1, 16))
    assert part["outcomes"] == {"read": 2, "fault": 2}
    assert [number for number, _ in part["faults"]] == [1, 2] and "ValueError at" in part["faults"][0][1]


def test_same_seed_gives_same_files(fuzz: ModuleType, tmp_path: Path) -> None:
    reader = fuzz.READERS["cfgs"](tmp_path)
    first, second = ([reader.draw(fuzz.number_rng(3, "cfgs", n), n) for n in range(20)] for _ in range(2))
    assert first == second


@QUIET
def test_initial_cfgs_run_and_contain_every_section(fuzz: ModuleType) -> None:
    cfgs = importlib.import_module("hostile.cfgs")
    texts = cfgs.golden_cfgs()
    seen = {line.strip("[]") for text in texts for line in text.splitlines() if line.startswith("[")}
    assert set(LAYERS) <= seen
    for text in texts:
        assert cfgs.check(text, run=False) == "parsed", text


@QUIET
@settings(derandomize=True, deadline=None, max_examples=500, database=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=200))
def test_any_text_is_rejected_or_parsed(text: str) -> None:
    for cfg in (text, NET + text, NET + "[convolutional]\n" + text):
        try:
            parse_text(cfg)
        except CfgError as error:
            assert error.problems


@QUIET
@settings(derandomize=True, deadline=None, max_examples=1000, database=None, suppress_health_check=list(HealthCheck))
@given(
    section=st.sampled_from(sorted(LAYERS)),
    options=st.lists(
        st.tuples(
            st.sampled_from(
                ["filters", "size", "stride", "padding", "dilation", "groups", "output", "hidden", "num", "side",
                 "classes", "layers", "from", "history_size", "antialiasing", "out_channels", "extra", "atoms"]
            ),
            st.integers(-(1 << 40), 1 << 70) | st.integers(-2, 20) | st.floats().map(str),
        ),
        max_size=6,
    ),
)  # fmt: skip
def test_any_numbers_are_rejected_or_parsed(section: str, options: list[tuple[str, object]]) -> None:
    text = f"{NET}[{section}]\n" + "".join(f"{key}={value}\n" for key, value in options)
    try:
        parse_text(text)
    except CfgError as error:
        assert error.problems


@QUIET
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[net]\nwidth=65536\nheight=65536\nchannels=65536\n[avgpool]\n", r":1: \[net\]: expected at most"),
        (NET + "[convolutional]\npadding=1000000\nstride=2000000000\n", r":5: \[convolutional\] #0: expected at most"),
        (NET + "[convolutional]\nsize=3\ndilation=900000\nstride=2000000000\n", r"#0: expected at most"),
        (
            NET + "[convolutional]\nfilters=1000000\nsize=15\npadding=99\nantialiasing=1\nstride=200\n",
            "expected at most",
        ),
        (
            NET
            + "[upsample]\nstride=64\n[upsample]\nstride=8\n"
            + "[upsample]\nstride=-1\nscale=2\n" * 40
            + "[shortcut]\nfrom="
            + ",".join(f"-{k}" for k in range(2, 41))
            + "\n",
            r"\[upsample\] #\d+: .* values in memory at once",
        ),
        (NET + "[convolutional]\nfilters=4\nsize=4096\npad=1\nsway=1\n", "sway: expected a size from 2 to 32"),
        (NET + "[convolutional]\nfilters=16\n[maxpool]\nsize=16384\npadding=16384\nstride=16384\n", "expected at most"),
        (NET + "[crnn]\nsize=1\nhidden=100000000\n", r"\[crnn\] #0: expected at most"),
        (NET + "[rnn]\noutput=1\nhidden=100000000\n", r"\[rnn\] #0: expected at most"),
        (NET + "[yolo]\nnum=2000000000\n", "num: expected an integer of at most"),
        (NET + "[region]\nnum=2000000000\n", "num: expected an integer of at most"),
        (NET + "[history]\nhistory_size=2000000000\n", "expected at most"),
        (NET + "[implicit]\nfilters=2000000000\natoms=2000000000\n", "expected at most"),
    ],
)
def test_excessive_memory_is_rejected_with_the_layer(text: str, where: str) -> None:
    with pytest.raises(CfgError, match=where):
        parse_text(text)


@QUIET
def test_very_long_numbers() -> None:
    with pytest.raises(CfgError, match="filters: expected an integer of at most"):
        parse_text(NET + f"[convolutional]\nfilters={'9' * 5000}\n")
    with pytest.raises(CfgError, match="layers: expected layers"):
        parse_text(NET + f"[convolutional]\n[route]\nlayers=-{'9' * 5000}\n")
    graph = parse_text(NET + f"[convolutional]\nfilters={'0' * 5000}7\n")
    assert graph.layers[0].output.c == 7


@QUIET
@pytest.mark.parametrize("path", ["/dev/zero", "/", "no/such/file", "x" * 5000])
@pytest.mark.parametrize("key", ["tree", "map"])
def test_invalid_class_file(key: str, path: str) -> None:
    text = "[net]\nwidth=2\nheight=2\nchannels=7\n[region]\nclasses=2\nnum=1\nanchors=1,1\n"
    with pytest.raises(DataError, match="cannot read the class"):
        Network(parse_text(f"{text}{key}={path}\n"))


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"99999999999999999999\n", b"-1\n", b""])
def test_invalid_class_map(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.map"
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected one class number per line"):
        read_map(str(path))


@QUIET
def test_line_ends_at_a_zero_byte_as_in_c() -> None:
    assert parse_text(NET + "[convolutional]\nfilters=5\0 9\n").layers[0].output.c == 5
