"""Cfgs to draw: a large CSP detector with heads at five strides, and random ones."""

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

    def csp(self, filters: int, blocks: int, residual: bool = True) -> int:
        start = self.last
        skip = self.conv(filters // 2)
        self.route(start)
        self.conv(filters // 2)
        for _ in range(blocks):
            self.conv(filters // 2)
            self.conv(filters // 2, 3)
            if residual:
                self.section("shortcut", from_=-3, activation="linear")
        inside = self.conv(filters // 2)
        self.route(inside, skip)
        return self.conv(filters)

    def text(self) -> str:
        return "\n".join(self.parts)


def p7() -> str:
    """375 layers, shaped like the P7 networks: CSP stages down to stride 128, up again, down again, five heads."""
    cfg = Writer(896)
    cfg.conv(40, 3)
    features = []
    for filters, blocks in zip((80, 160, 320, 640, 1280, 1280, 1280), (2, 4, 16, 16, 8, 8, 8), strict=True):
        cfg.conv(filters, 3, 2)
        features.append(cfg.csp(filters, blocks))
    features = features[2:]
    for size in (5, 9, 13):
        cfg.section("maxpool", stride=1, size=size)
        if size < 13:
            cfg.route(features[-1])
    cfg.route(cfg.last, cfg.last - 2, cfg.last - 4, features[-1])
    widths = [160, 320, 640, 640, 640]
    up = [cfg.conv(widths.pop())]
    for feature in reversed(features[:-1]):
        width = widths.pop()
        cfg.conv(width // 2)
        upsampled = cfg.section("upsample", stride=2)
        cfg.route(feature)
        lateral = cfg.conv(width // 2)
        cfg.route(lateral, upsampled)
        up.append(cfg.csp(width, 2, residual=False))
    levels = [(up.pop(), 160)]
    for width in (320, 640, 640, 640):
        cfg.route(levels[-1][0])
        down = cfg.conv(width // 2, 3, 2)
        cfg.route(down, up.pop())
        levels.append((cfg.csp(width, 2, residual=False), width))
    for level, width in levels:
        cfg.route(level)
        cfg.conv(2 * width, 3)
        cfg.conv(255)
        cfg.section("yolo", classes=80, num=3, mask="0,1,2", anchors="10,13, 16,30, 33,23")
    return cfg.text()


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
