"""Cfgs to draw."""

from __future__ import annotations

import random

NET = "[net]\nwidth={size}\nheight={size}\nchannels=3\n"


class Writer:
    """Cfg text, a section a call; each call gives the layer's index."""

    def __init__(self, size: int = 128):
        self.parts = [NET.format(size=size)]

    @property
    def last(self) -> int:
        return len(self.parts) - 2

    def section(self, name: str, **options: object) -> int:
        self.parts.append(f"[{name}]\n" + "".join(f"{key.rstrip('_')}={value}\n" for key, value in options.items()))
        return self.last

    def conv(self, filters: int, size: int = 1, stride: int = 1) -> int:
        return self.section(
            "convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation="mish"
        )

    def route(self, *layers: int, **options: object) -> int:
        return self.section("route", layers=",".join(map(str, layers)), **options)

    def text(self) -> str:
        return "\n".join(self.parts)


def scattered(seed: int, layers: int = 40) -> str:
    """Layers that read others at random: routes, shortcuts, splits, scales, pools, upsamplings."""
    draw = random.Random(seed)
    cfg = Writer(64)
    sizes: dict[int, int] = {-1: 64}
    while cfg.last + 1 < layers:
        last = cfg.last
        size = sizes[last]
        peers = [index for index, other in sizes.items() if index >= 0 and other == size]
        kind = draw.choice("ccccrrssdugx")
        if last < 0 or kind == "c":
            cfg.conv(8, draw.choice((1, 3)))
        elif kind == "r":
            cfg.route(*draw.sample(peers, min(len(peers), draw.randint(1, 4))))
            cfg.conv(8)
        elif kind == "s":
            cfg.section("shortcut", from_=draw.choice(peers), activation="leaky")
        elif kind == "d" and size > 4:
            size //= 2
            cfg.conv(8, 3, 2)
        elif kind == "u" and size < 64:
            size *= 2
            cfg.section("upsample", stride=2)
        elif kind == "g":
            cfg.route(last, groups=2, group_id=draw.randint(0, 1))
            cfg.conv(8)
        elif kind == "x":
            index = draw.choice([index for index in sizes if index >= 0])
            size = sizes[index]
            cfg.route(index)
        for index in range(last + 1, cfg.last + 1):
            sizes[index] = size
    return cfg.text()
