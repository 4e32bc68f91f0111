"""The network that a command line names."""

from __future__ import annotations

import argparse
import logging

from darknet_py.cli.common import device_or_default
from darknet_py.model.load import build
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

logger = logging.getLogger(__name__)


def read_model(args: argparse.Namespace, *, needs_weights: bool = True) -> ModelFile:
    """The files of `network_arguments`. Raises WeightsError where needed weights are missing, as `check_weights`."""
    model = ModelFile.read(args.cfg, args.weights, width=args.width, height=args.height, ignore_rest=args.ignore_rest)
    if needs_weights:
        check_weights(args, model)
    return model


def check_weights(args: argparse.Namespace, model: ModelFile) -> None:
    """Raises WeightsError where weights are missing; with --random-weights warns instead."""
    if not args.random_weights:
        model.require_weights()
    elif model.loaded_layers < len(model.graph.layers):
        logger.warning("%s: random weights from layer %d on", model.graph.path, model.loaded_layers)


def load_network(args: argparse.Namespace, *, needs_weights: bool = True) -> Network:
    """The network of `network_arguments`, on its device. Raises as `read_model`."""
    model = read_model(args, needs_weights=needs_weights)
    return build(model, device_or_default(args.device), random_weights=args.random_weights)
