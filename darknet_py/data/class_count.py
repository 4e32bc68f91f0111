"""How many classes count where a data set and a network have different numbers: one rule for all commands."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from darknet_py.data.datafile import DataFile
from darknet_py.data.labels import find_labels, load_labels

logger = logging.getLogger(__name__)


def count_classes(data: DataFile, classes: int, network: str, images: Sequence[str]) -> DataFile:
    """The data set with the number of classes that counts for labeled images.

    It is the data's own number, with a note, unless labels need more: then the network's head knows better than the
    `.data` file, as in Darknet, which does not read `classes=` there. (Names for the boxes of a network follow the head
    alone: `DataFile.for_network`.)

    Args:
        data: The data set.
        classes: Number of classes of the network's head.
        network: The cfg, for messages.
        images: The images whose labels are used.

    Returns:
        The data set; `classes` is above `classes` of the network only where the data says so itself.
    """
    if not data.classes:
        return replace(data, classes=classes)
    if data.classes >= classes:
        return data
    if _have_labels_beyond(data.classes, images):
        return data.for_network(classes, network)
    logger.info("note: %s has classes=%d, %s %d; only those are used", network, classes, data.path, data.classes)
    return data


def _have_labels_beyond(classes: int, images: Sequence[str]) -> bool:
    labels = (load_labels(find_labels(image)).boxes[:, 0] for image in images)
    return any((class_ids >= classes).any() for class_ids in labels)
