"""Samples that depend on each other: video sequences (`track=1`) and contrastive pairs.

Darknet's `get_sequential_paths`, `get_random_paths_custom` and the reuse of random numbers in `load_data_detection`.
"""

from __future__ import annotations

import numpy as np

from darknet_py.data.augment.augmentation import Augmentation, AugmentationParams, draw_params


def rank_samples(first: int, images: int, rank: int, world: int, pairs: bool) -> list[int]:
    """The samples of process `rank` of `world` in a mini-batch that starts with sample `first`: `images` of them.

    Each `world`-th sample, or with `pairs` (contrastive) each `world`-th pair, whose two views belong together.
    """
    views = 2 if pairs else 1
    return [first + (k // views * world + rank) * views + k % views for k in range(images)]


def related_index(options: Augmentation, seed: int, number: int, part: int, images: int, count: int) -> int | None:
    """The image (of `count`) of sample `number`, where it depends on other samples; else None.

    images: samples of one mini-batch (of all processes). part: 0 for the image itself, 1 … for those mixed into it.
    With track, a mini-batch holds images / time_steps timelines side by side, each starting anywhere in the list and
    going on by 1 to augment_speed images per time step. With contrastive, each second sample (or timeline) repeats the
    one before.
    """
    if options.track:
        batch, position = divmod(number, images)
        rng = np.random.default_rng([seed, 4, batch, part])
        speed = int(rng.integers(1, max(options.augment_speed, 1) + 1))
        lines = max(images // options.time_steps, 1)
        line, step = position % lines, position // lines
        starts = rng.integers(count, size=lines)
        start = starts[line - line % 2 if options.contrastive else line]
        return int(start + step * speed) % count
    if options.contrastive:
        return int(np.random.default_rng([seed, 6, number // 2, part]).integers(count))
    return None


def related_params(
    options: Augmentation, seed: int, number: int, part: int, images: int, own: AugmentationParams
) -> AugmentationParams:
    """`own` with the parameters that the sample shares with others.

    With track, all images of a mini-batch have the same parameters. The two of a contrastive pair share crop and flip
    unless contrastive_jit_flip is set, and colors unless contrastive_color is.
    """
    if options.track:
        return draw_params(options, np.random.default_rng([seed, 5, number // images, part]))
    if options.contrastive:
        pair = draw_params(options, np.random.default_rng([seed, 5, number // 2, part]))
        if not options.contrastive_jit_flip:
            own = own._replace(sides=pair.sides, flip=pair.flip)
        if not options.contrastive_color:
            own = own._replace(hue=pair.hue, saturation=pair.saturation, exposure=pair.exposure)
    return own
