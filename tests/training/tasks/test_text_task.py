"""Recurrent networks on text: they learn, resume bit by bit, and write what they have learned."""

from __future__ import annotations

import csv
import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import darknet_py
from darknet_py.cli import main, rnn
from darknet_py.data.builtin import synthetic_text
from darknet_py.errors import DataError, TrainError
from darknet_py.evaluation.text import evaluate_text
from darknet_py.layers.recurrent import reset_state
from darknet_py.training.tasks import text_task as training_text
from darknet_py.training.trainer import TrainResult

CFG = """
[net]
inputs=128
batch=8
subdivisions=1
time_steps=8
momentum=0.9
decay=0
learning_rate=0.03
adam=1
policy=constant
max_batches=60

{layer}

[connected]
output=128
activation=linear

[softmax]
"""
LAYERS = {
    "lstm": "[lstm]\noutput=32",
    "gru": "[gru]\noutput=32\ntanh=1",
    "rnn": "[rnn]\noutput=32\nhidden=32\nactivation=leaky",
}
VERSE = "the cat sat on the mat.\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "verse.txt"
    path.write_text(VERSE * 20)
    return path


def train(kind: str, text: Path, out: Path, **overrides: object) -> tuple[TrainResult, Path]:
    cfg = out.parent / f"{kind}.cfg"
    cfg.write_text(CFG.format(layer=LAYERS[kind]))
    return darknet_py.train(cfg, text, out=out, quiet=True, device="cpu", **overrides), cfg


@pytest.mark.parametrize("kind", LAYERS)
def test_it_learns(kind: str, text: Path, tmp_path: Path) -> None:
    result, _ = train(kind, text, tmp_path / "out")
    losses = [float(row["loss"]) for row in csv.DictReader(result.log.read_text().splitlines())]
    assert losses[0] > 3
    assert sum(losses[-5:]) / 5 < 0.3 * losses[0]


def test_resumed_it_ends_with_the_same_bits(text: Path, tmp_path: Path) -> None:
    whole, _ = train("lstm", text, tmp_path / "a", max_batches=6)
    train("lstm", text, tmp_path / "b", max_batches=3)
    resumed, _ = train("lstm", text, tmp_path / "b", max_batches=6, resume=True)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


def test_the_commands_train_and_write(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = tmp_path / "lstm.cfg"
    cfg.write_text(CFG.format(layer=LAYERS["lstm"]))
    out = tmp_path / "out"
    argv = ["--out", str(out), "--max-batches", "120", "--quiet", "--device", "cpu"]
    assert main(["rnn", "train", str(cfg), str(text), *argv]) == 0
    capsys.readouterr()
    network = [str(cfg), "--weights", str(out / "lstm_final.weights")]
    assert main(["rnn", "generate", *network, "--seed-text", VERSE, "--length", "24", "--temperature", "0.2"]) == 0
    assert capsys.readouterr().out == VERSE + VERSE + "\n"


def test_without_a_text_it_learns_the_built_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = partial(synthetic_text.ensure_synthetic_text, tmp_path / "text", train=3000, valid=400)
    monkeypatch.setattr(training_text, "ensure_synthetic_text", few)
    monkeypatch.setattr(rnn, "ensure_synthetic_text", few)
    cfg = tmp_path / "lstm.cfg"
    cfg.write_text(CFG.format(layer=LAYERS["lstm"]))
    out = tmp_path / "out"
    argv = ["train", str(cfg), "--out", str(out), "--max-batches", "30", "--map", "15", "--device", "cpu"]
    assert main(argv) == 0
    said = capsys.readouterr().err
    assert f"training on the built-in one, {len(synthetic_text.generate_text('train', 3000).text)} bytes" in said
    assert f"rnn train {cfg} TEXT" in said
    assert "best likelihood of a byte" in said
    rows = json.loads((out / "lstm_likelihood.json").read_text())
    assert [row["iteration"] for row in rows] == [15, 30]
    assert rows[1]["bits_per_byte"] < rows[0]["bits_per_byte"] < 7
    assert rows[1]["likelihood"] == pytest.approx(2 ** -rows[1]["bits_per_byte"])

    measure = ["evaluate", str(cfg), "--weights", str(out / "lstm_final.weights")]
    assert main([*measure, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_byte"] == pytest.approx(rows[1]["bits_per_byte"])
    assert main([*measure, "--data", str(tmp_path / "text" / "valid.txt")]) == 0
    count = len(synthetic_text.generate_text("valid", 400).text) - 1
    assert capsys.readouterr().out.startswith(f"{count} bytes: {found['bits_per_byte']:.3f} bits per byte (perplexity ")


def test_bits_per_byte_are_those_of_the_streams_read_one_after_the_other(text: Path, tmp_path: Path) -> None:
    result, cfg = train("lstm", text, tmp_path / "out", max_batches=20)
    network = darknet_py.load(cfg, result.weights)
    symbols = np.frombuffer(VERSE.encode(), np.uint8)[:20]
    whole = evaluate_text(
        network, symbols
    )  # 19 bytes in 16 streams: two bytes each in the first nine, one in the tenth
    bits, right = 0.0, 0
    for start in range(0, 19, 2):
        reset_state(network)
        for here, after in pairwise(symbols[start : start + 3].tolist()):
            with torch.inference_mode():
                chances = network(torch.eye(128)[[here]]).flatten()
            bits -= float(chances[after].double().log2())
            right += int(chances.argmax() == after)
    assert whole.bytes == 19
    assert whole.bits == pytest.approx(bits / 19, rel=1e-5) and whole.found == right / 19
    assert whole.likelihood == pytest.approx(2 ** (-bits / 19), rel=1e-5)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert evaluate_text(network, symbols).bits == pytest.approx(7)  # nothing known: log2(128)


def test_what_cannot_be_used_is_told(text: Path, tmp_path: Path) -> None:
    (tmp_path / "uneven.cfg").write_text(CFG.format(layer=LAYERS["lstm"]).replace("output=128", "output=64"))
    with pytest.raises(TrainError, match=r"expected as many outputs as inputs \(128\), got 64"):
        darknet_py.train(tmp_path / "uneven.cfg", text, out=tmp_path / "out")
    odd = tmp_path / "odd.txt"
    odd.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"expected bytes below 128 .* got 255 at position 2"):
        train("lstm", odd, tmp_path / "out")
    odd.write_bytes(b"")
    with pytest.raises(DataError, match="at least 2 bytes"):
        train("lstm", odd, tmp_path / "out")


def test_the_end_of_ones_own_text_is_held_out_on_request(text: Path, tmp_path: Path) -> None:
    result, cfg = train("lstm", text, tmp_path / "out", max_batches=4, map=2, patience=9)
    whole = text.read_bytes()
    held_out = np.frombuffer(whole[len(whole) - len(whole) // 20 :], np.uint8)
    found = evaluate_text(darknet_py.load(cfg, result.weights), held_out)
    assert result.map == pytest.approx(found.likelihood, rel=1e-6) and result.best is not None
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(DataError, match="at least 4 bytes"):
        train("lstm", tmp_path / "short.txt", tmp_path / "out", map=2)
