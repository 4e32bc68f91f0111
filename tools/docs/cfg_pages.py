"""The pages about cfg sections: `[net]`, layers and heads, with every option and its default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from cfg_options import options_of

from darknet_py.layers import ALIASES, LAYERS
from darknet_py.layers.activations import ACTIVATIONS
from darknet_py.layers.base import HeadSpec

TEXTS = Path(__file__).with_name("sections.yml")


def pages() -> dict[str, str]:
    """Page name → Markdown."""
    texts = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    layers = sorted(LAYERS, key=str.lower)
    return {
        "net": "\n".join(_net(texts)),
        "layers": "\n".join(_layers(texts, [name for name in layers if not issubclass(LAYERS[name], HeadSpec)])),
        "heads": "\n".join(_heads(texts, [name for name in layers if issubclass(LAYERS[name], HeadSpec)])),
    }


def _net(texts: Mapping[str, Any]) -> Iterator[str]:
    yield from ("# `[net]`", "", texts["net"]["summary"])
    yield from _table("net", texts)


def _layers(texts: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    yield from ("# Layers", "", texts["layers"], "", "## Options of every layer", "", texts["common"]["summary"])
    yield from _table("common", texts)
    for name in names:
        yield from _section(name, texts)
    yield from ("", "## Activations", "", texts["activations"], "", ", ".join(f"`{name}`" for name in ACTIVATIONS))


def _heads(texts: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    yield from ("# Heads", "", texts["heads"])
    for name in names:
        yield from _section(name, texts)


def _section(name: str, texts: Mapping[str, Any]) -> Iterator[str]:
    aliases = ", ".join(f"`[{alias}]`" for alias, meant in ALIASES.items() if meant == name)
    yield from ("", f"## `[{name}]`", "", texts[name]["summary"])
    if aliases:
        yield from ("", f"Also spelled {aliases}.")
    yield from _table(name, texts)


def _table(section: str, texts: Mapping[str, Any]) -> Iterator[str]:
    reads = options_of(section)
    if not reads:
        yield from ("", "No options of its own.")
        return
    yield from ("", "| option | value | default | |", "|---|---|---|---|")
    described = {**texts["shared"], **(texts[section].get("options") or {})}
    for key, read in reads.items():
        text = described.get(key, "")
        default = texts[section].get("defaults", {}).get(key, f"`{read.default}`" if read.default else "")
        kind = read.kind if key != "activation" else "[an activation](#activations)"
        yield f"| `{key}` | {kind} | {default} | {text} |"
