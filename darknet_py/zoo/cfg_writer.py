"""Writes the text of a cfg, one call per section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Value = int | float | str | Iterable[int] | Iterable[float]
_PAGE = 100


@dataclass
class _Part:
    title: str
    chapter: str
    first: int  # index of its first layer
    sections: list[str] = field(default_factory=list)


class CfgWriter:
    """Writes a cfg. Each call that adds a section returns its layer index, which later calls take as argument.

    A chapter (backbone, neck and heads) consists of parts (a stage, one step of a pyramid). Each part starts with a
    banner comment that names it and its layers. Layers of the same chapter are referenced by distance (`-3`), so that a
    layer can be inserted before the chapter; layers of another chapter by number (`61`).

    Attributes:
        activation: Default activation of the next convolutions and shortcuts.
        attention: Attention of the next blocks (blocks.py): "se", "sam" or "".
        elastic: Whether the next blocks are elastic.
        last: Index of the last layer, -1 before the first.
        size: Width of the input in pixels.
    """

    def __init__(
        self,
        about: str,
        net: Mapping[str, Mapping[str, Value]],
        by: str = "darknet_py.zoo: change it there, then `make cfgs`.",
    ):
        """Starts a cfg.

        Args:
            about: Description of the network, the comment at the top of the file.
            net: Comment → options of `[net]` (net_sections.py).
            by: What writes the file.
        """
        self.activation = "leaky"
        self.attention = ""  # "se" or "sam"
        self.elastic = False
        self.last = -1
        self.size = next((int(str(options["width"])) for options in net.values() if "width" in options), 0)
        self._widths: list[int] = []
        self._chapter = ""
        self._chapter_first = 0
        self._note = ""
        self._parts: list[_Part] = []
        options = "\n".join(_comment(why) + _options(net[why]) for why in net)
        self._head = f"{_comment(about)}# Written by {by}\n\n[net]\n{options}"

    @classmethod
    def verbatim(cls, head: str) -> CfgWriter:
        """A writer for layers that are given as text (`raw`). head: the text before the first layer."""
        cfg = cls("", {})
        cfg._head = head
        cfg.part("")
        return cfg

    def width(self, layer: int | None = None) -> int:
        """Number of channels of a layer (default: the last one); 3 before the first layer."""
        return self._widths[self.last if layer is None else layer] if self._widths else 3

    def chapter(self, title: str) -> None:
        self._chapter, self._chapter_first = title, self.last + 1

    def part(self, title: str) -> None:
        self._parts.append(_Part(title, self._chapter, self.last + 1))

    def note(self, text: str) -> None:
        """Sets the comment above the next section."""
        self._note = text

    def section(self, name: str, channels: int | None = None, /, **options: Value) -> int:
        """Adds a section and returns its layer index. channels: of its output; default: those of the last layer."""
        self._widths.append(self.width() if channels is None else channels)
        self._parts[-1].sections.append(_comment(self._note) + f"[{name}]\n" + _options(options))
        self._note = ""
        self.last += 1
        return self.last

    def raw(self, text: str, channels: int) -> int:
        """Adds the text of a section unchanged and returns its layer index. channels: of its output."""
        self.section("", channels)
        self._parts[-1].sections[-1] = text
        return self.last

    def also(self, **options: Value) -> None:
        """Adds options to the last section."""
        self._parts[-1].sections[-1] += _options(options)

    def conv(
        self,
        filters: int,
        size: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        activation: str | None = None,
        norm: bool = True,
    ) -> int:
        """A convolution with padding, so that the output has the input size divided by the stride."""
        options: dict[str, Value] = {"batch_normalize": 1} if norm else {}
        options.update(filters=filters, size=size, stride=stride, pad=1)
        if groups > 1:
            options["groups"] = groups
        if dilation > 1:
            options["dilation"] = dilation
        return self.section("convolutional", filters, **options, activation=activation or self.activation)

    def depthwise(self, channels: int, size: int = 3, stride: int = 1) -> int:
        """A depthwise convolution; with several filters per input channel if `channels` is a multiple of the input."""
        return self.conv(channels, size, stride, groups=min(self.width(), channels))

    def maxpool(self, size: int, stride: int) -> int:
        return self.section("maxpool", size=size, stride=stride)

    def maxout(self, channels: int) -> int:
        """Maxout: output channel g is the maximum of the input channels g, g + channels, … at each pixel."""
        return self.section("maxpool", channels, maxpool_depth=1, out_channels=channels, size=1, stride=1)

    def upsample(self) -> int:
        """Nearest-neighbor upsampling by 2."""
        return self.section("upsample", stride=2)

    def route(self, *layers: int) -> int:
        """Concatenates the given layers; with a single one: continues from it."""
        width = sum(self.width(layer) for layer in layers)
        return self.section("route", width, layers=[self._reference(layer) for layer in layers])

    def slice(self, layer: int, groups: int, group: int) -> int:
        """One of `groups` equal slices of the channels of a layer."""
        width = self.width(layer) // groups
        return self.section("route", width, layers=self._reference(layer), groups=groups, group_id=group)

    def shortcut(self, *layers: int, activation: str = "linear") -> int:
        """Adds layers to the last one, over the channels that all have."""
        return self.section("shortcut", **{"from": [self._reference(layer) for layer in layers]}, activation=activation)

    def text(self) -> str:
        """The text of the cfg."""
        blocks, chapter = [self._head], ""
        for part in self._parts:
            if part.chapter != chapter:
                chapter = part.chapter
                blocks.append(f"# {'=' * (_PAGE - 4 - len(chapter))}  {chapter}\n")
            if part.title:
                end = part.first + len(part.sections) - 1
                layers = f"Layers {part.first}-{end}" if end > part.first else f"Layer {end}"
                blocks.append(f"# ---- {layers}: {part.title}\n")
            blocks.extend(part.sections)
        return "\n".join(blocks)

    def _reference(self, layer: int) -> int:
        return layer - self.last - 1 if layer >= self._chapter_first or layer == self.last else layer


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())


def _options(options: Mapping[str, Value]) -> str:
    return "".join(f"{key}={_value(value)}\n" for key, value in options.items())


def _value(value: Value) -> str:
    return str(value) if isinstance(value, (int, float, str)) else ",".join(map(str, value))
