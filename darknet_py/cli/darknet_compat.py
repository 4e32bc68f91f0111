"""Translates Darknet's own command lines, such as `detector train my.data yolo.cfg yolo.conv.137 -map`.

An existing script works with its first word changed. Flags may stand anywhere, as in C's `find_arg`.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from darknet_py.errors import DarknetError

logger = logging.getLogger(__name__)

# The flags of C's detector.c, classifier.c, rnn.c and darknet.c.
_FLAGS_WITH_VALUE = {
    "-thresh",
    "-iou_thresh",
    "-hier",
    "-points",
    "-out",
    "-out_filename",
    "-prefix",
    "-c",
    "-s",
    "-avgframes",
}
_FLAGS_WITH_VALUE |= {
    "-json_port",
    "-mjpeg_port",
    "-http_post_host",
    "-time_limit_sec",
    "-json_file_output",
    "-mAP_epochs",
}
_FLAGS_WITH_VALUE |= {"-num_of_clusters", "-width", "-height", "-chart", "-gpus", "-i", "-t"}
_FLAGS_WITH_VALUE |= {"-file", "-seed", "-len", "-temp", "-srand", "-tokens"}
_FLAGS_WITHOUT_VALUE = {
    "-map",
    "-clear",
    "-dont_show",
    "-benchmark",
    "-benchmark_layers",
    "-show",
    "-letter_box",
    "-show_imgs",
}
_FLAGS_WITHOUT_VALUE |= {
    "-dontdraw_bbox",
    "-ext_output",
    "-save_labels",
    "-topk",
    "-nogpu",
    "-dontuse_opencv",
    "-tokenized",
}
# Always the case here, or not needed.
_IMPLIED_FLAGS = {"-dont_show", "-ext_output", "-show_imgs", "-chart", "-dontuse_opencv"}
_COCO_DATA_FILES = ("cfg/coco.data", "data/coco.data")  # read by C's `detect`, and shipped here


class ArgumentLine:
    """A parsed Darknet command line. `unused` are the flags that no translation has read."""

    def __init__(self, arguments: Sequence[str]):
        self.positional: list[str] = []
        self.flags: dict[str, str] = {}
        rest = iter(arguments)
        for word in rest:
            if word in _FLAGS_WITHOUT_VALUE:
                self.flags[word] = ""
            elif word in _FLAGS_WITH_VALUE:
                self.flags[word] = next(rest, "")
            elif word.startswith("-") and len(word) > 1 and not word.startswith("--"):
                raise DarknetError(f"{word}: unknown flag of Darknet")
            else:
                self.positional.append(word.rstrip("\r"))
        self.unused = set(self.flags)

    def has(self, flag: str) -> bool:
        self.unused.discard(flag)
        return flag in self.flags

    def value(self, flag: str, default: str = "") -> str:
        return self.flags[flag] if self.has(flag) else default

    def options(self, names: Mapping[str, str]) -> list[str]:
        """Our option for each of Darknet's flags that is present."""
        options = []
        for flag, option in names.items():
            if self.has(flag):
                options += [option, self.flags[flag]] if flag in _FLAGS_WITH_VALUE else [option]
        return options

    def device(self) -> list[str]:
        gpus = (self.value("-gpus") or self.value("-i")).split(",")
        if len(gpus) > 1:
            run = f"CUDA_VISIBLE_DEVICES={','.join(gpus)} torchrun --nproc_per_node={len(gpus)} -m darknet_py train …"
            raise DarknetError(f"-gpus: expected one GPU, got {len(gpus)}; for several GPUs use {run}")
        if self.has("-nogpu") or gpus == ["-1"]:
            return ["--device", "cpu"]
        return ["--device", f"cuda:{gpus[0]}"] if gpus[0] else []


class CommandForm(NamedTuple):
    """A command of Darknet and its translation.

    arguments: the positional ones; optional ones in brackets, and "…" after one that may be repeated.
    """

    arguments: str
    translate: Callable[[ArgumentLine, dict[str, str]], list[str]]


def translate(argv: Sequence[str]) -> list[str]:
    """Translates a command line of Darknet; returns others unchanged. Raises DarknetError for unknown ones."""
    words = list(argv)
    command = _command(words)
    if command is None:
        return words
    form = FORMS[command]
    line = ArgumentLine(words[len(command.split()) :])
    expected = [name.strip("[]…") for name in form.arguments.split()]
    required = sum(not name.startswith("[") for name in form.arguments.split())
    repeated = form.arguments.endswith("…")
    if not required <= len(line.positional) or (len(line.positional) > len(expected) and not repeated):
        raise DarknetError(f"expected {command} {form.arguments.upper()}, got {' '.join(line.positional) or 'nothing'}")
    words = form.translate(line, dict(zip(expected, line.positional, strict=False)))
    ignored = sorted(line.unused - _IMPLIED_FLAGS)
    if ignored:
        logger.info("note: %s: ignored, no counterpart here", ", ".join(ignored))
    logger.info("= darknet-py %s", shlex.join(words))
    return words


def _command(words: Sequence[str]) -> str | None:
    first = words[0] if words else ""
    if first in ("detector", "classifier"):
        command = " ".join(words[:2])
        if command not in FORMS:
            known = ", ".join(name.split()[1] for name in FORMS if name.startswith(first))
            raise DarknetError(f"{first}: expected one of {known}, got {words[1] if len(words) > 1 else 'nothing'}")
        return command
    if first in _WEIGHT_TOOLS:
        return first
    # Commands of both: Darknet's have flags with one dash, or weights after the cfg.
    command = " ".join(words[:2]) if first == "rnn" else first
    rest = words[len(command.split()) :]
    flags = any(word in _FLAGS_WITHOUT_VALUE | _FLAGS_WITH_VALUE for word in rest)
    weights = len(rest) > 1 and (rest[1].endswith(".weights") or ".conv." in rest[1])
    return command if command in FORMS and (flags or weights) else None


def _train(line: ArgumentLine, arguments: dict[str, str], measure: str = "-map") -> list[str]:
    words = ["train", arguments["cfg"], "--data", arguments["data"], *_weights(arguments)]
    words += ["--map", "on" if line.has(measure) else "off"]
    names = {"-mAP_epochs": "--map-epochs", "-clear": "--clear", "-thresh": "--thresh", "-iou_thresh": "--iou-thresh"}
    return words + line.options(names) + line.device()


def _test(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["detect", arguments["cfg"], *_images(arguments), *_weights(arguments)]
    if "data" in arguments:
        words += ["--data", arguments["data"]]
    elif names := [name for name in _COCO_DATA_FILES if Path(name).exists()]:
        words += ["--data", names[0]]
    return words + line.options({**_DETECTION_FLAGS, "-save_labels": "--save-labels", "-out": "--json"}) + line.device()


def _demo(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    source = arguments.get("video") or line.value("-c", "0")
    words = ["video", arguments["cfg"], source, *_weights(arguments), "--data", arguments["data"]]
    files = {"-out_filename": "--out", "-prefix": "--pictures", "-json_file_output": "--json"}
    words += line.options({**_DETECTION_FLAGS, **files, "-time_limit_sec": "--seconds"}) + line.device()
    if "--out" not in words:
        words.append("--no-video")
    if not line.has("-dont_show") and "--pictures" not in words:
        words.append("--show")
    return words


def _valid(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    out = Path("results") / line.value("-out")
    words = ["evaluate", arguments["cfg"], "--data", arguments["data"], *_weights(arguments)]
    words += ["--protocol", "coco", "--out", str(out)]
    return words + line.options({"-letter_box": "--letter-box"}) + line.device()


def _map(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["evaluate", arguments["cfg"], "--data", arguments["data"], *_weights(arguments), "--protocol", "darknet"]
    names = {"-thresh": "--thresh", "-iou_thresh": "--iou-thresh", "-points": "--points", "-letter_box": "--letter-box"}
    return words + line.options(names) + line.device()


def _anchors(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["anchors", "--data", arguments["data"], "--clusters", line.value("-num_of_clusters", "5")]
    words += line.options({"-width": "--width", "-height": "--height"})
    return words + (["--plot", "cloud.png"] if line.has("-show") else [])


def _predict(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["classify", arguments["cfg"], *_images(arguments), *_weights(arguments), "--data", arguments["data"]]
    return words + line.options({"-t": "--top"}) + line.device()


def _classifier_valid(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    return ["evaluate", arguments["cfg"], "--data", arguments["data"], *_weights(arguments), *line.device()]


def _rnn_train(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    text = line.value("-file")
    return [
        "rnn",
        "train",
        arguments["cfg"],
        *([text] if text else []),
        *_weights(arguments),
        *line.options({"-clear": "--clear"}),
        *line.device(),
    ]


def _rnn_generate(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    names = {"-seed": "--seed-text", "-len": "--length", "-temp": "--temperature", "-srand": "--seed"}
    return ["rnn", "generate", arguments["cfg"], *_weights(arguments), *line.options(names), *line.device()]


def _weight_tool(name: str) -> Callable[[ArgumentLine, dict[str, str]], list[str]]:
    return lambda line, arguments: ["weights", name, *line.positional]


def _images(arguments: dict[str, str]) -> list[str]:
    """The image given, or a list on standard input."""
    images = [arguments["image"]] if "image" in arguments else [name.strip() for name in sys.stdin if name.strip()]
    if not images:
        raise DarknetError("expected an image, or a list of images on standard input")
    return images


def _weights(arguments: dict[str, str]) -> list[str]:
    return ["--weights", arguments["weights"]] if arguments.get("weights") else []


_DETECTION_FLAGS = {"-thresh": "--thresh", "-hier": "--hier", "-letter_box": "--letter-box"}
# Their arguments are the same here.
_WEIGHT_TOOLS = {
    "partial": "cfg weights out layers",
    "average": "cfg out weights…",
    "rgbgr": "cfg weights out",
    "rescale": "cfg weights out",
    "reset": "cfg weights out",
    "denormalize": "cfg weights out",
    "normalize": "cfg weights out",
    "oneoff": "cfg weights out",
    "statistics": "cfg weights",
}
FORMS: dict[str, CommandForm] = {
    "detector train": CommandForm("data cfg [weights]", _train),
    "detector test": CommandForm("data cfg weights [image]", _test),
    "detector demo": CommandForm("data cfg weights [video]", _demo),
    "detector valid": CommandForm("data cfg weights", _valid),
    "detector map": CommandForm("data cfg weights", _map),
    "detector calc_anchors": CommandForm("data", _anchors),
    "detect": CommandForm("cfg weights [image]", _test),
    "classifier train": CommandForm("data cfg [weights]", lambda line, arguments: _train(line, arguments, "-topk")),
    "classifier predict": CommandForm("data cfg weights [image]", _predict),
    "classifier valid": CommandForm("data cfg weights", _classifier_valid),
    "rnn train": CommandForm("cfg [weights]", _rnn_train),
    "rnn generate": CommandForm("cfg weights", _rnn_generate),
    **{name: CommandForm(arguments, _weight_tool(name)) for name, arguments in _WEIGHT_TOOLS.items()},
}
