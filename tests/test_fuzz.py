"""Mutated cfgs are rejected by a CfgError or parsed, and small networks run. tools/fuzz.py tries millions."""

from __future__ import annotations

import importlib.util
import sys
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

TOOL = Path(__file__).parents[1] / "tools" / "fuzz.py"
NET = "[net]\nwidth=16\nheight=16\nchannels=4\n"
QUIET = pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


def test_mutated_cfgs_are_rejected_or_run(fuzz: ModuleType) -> None:
    report = fuzz.fuzz(fuzz.golden_cfgs(), count=3000, seed=20, run_every=4, seconds=60)
    assert report["failures"] == []
    assert {"parsed", "ran", "refused"} <= set(report["outcomes"])


def test_same_seed_gives_same_cfgs(fuzz: ModuleType) -> None:
    texts = fuzz.golden_cfgs()
    first, second = fuzz.Mutator(texts, 3), fuzz.Mutator(texts, 3)
    assert [first.draw() for _ in range(20)] == [second.draw() for _ in range(20)]


def test_initial_cfgs_run_and_contain_every_section(fuzz: ModuleType) -> None:
    texts = fuzz.golden_cfgs()
    seen = {line.strip("[]") for text in texts for line in text.splitlines() if line.startswith("[")}
    assert set(LAYERS) <= seen
    for text in texts:
        outcome, wrong = fuzz.check(text, run=False)
        assert (outcome, wrong) == ("parsed", ""), text


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
