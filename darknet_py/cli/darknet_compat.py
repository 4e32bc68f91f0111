"""Translates Darknet's own command lines, such as `detector train my.data yolo.cfg yolo.conv.137 -map`.

An existing script works with its first word changed. Flags may stand anywhere, also before the command: C's `find_arg`
takes those it knows out of the line, and the rest counts by position. What C ignores is ignored, with a note.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from darknet_py.cfg.options import did_you_mean
from darknet_py.cli.usage import UsageError

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
    "-cuda_debug_sync",
}
# Always the case here, or not needed.
_IMPLIED_FLAGS = {"-dont_show", "-ext_output", "-cuda_debug_sync", "-show_imgs", "-chart", "-dontuse_opencv"}


class ArgumentLine:
    """A parsed Darknet command line. `unused` are the flags that no translation has read."""

    def __init__(self, arguments: Sequence[str]):
        self.positional: list[str] = []
        self.flags: dict[str, str] = {}
        rest = iter(arguments)
        for word in rest:
            if word in _FLAGS_WITHOUT_VALUE:
                self.flags.setdefault(word, "")
            elif word in _FLAGS_WITH_VALUE:
                self.flags.setdefault(word, next(rest, ""))  # the first of two counts, as in C
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
                value = [self.flags[flag]] if flag in _FLAGS_WITH_VALUE else []
                options += [f"{option}={value[0]}"] if option == "--json" else [option, *value]  # of any ending
        return options

    def device(self) -> list[str]:
        """--device for -gpus, -i and -nogpu; without CUDA the CPU, as in a Darknet without it."""
        gpus = (self.value("-gpus") or self.value("-i")).split(",")
        if len(gpus) > 1:
            run = f"CUDA_VISIBLE_DEVICES={','.join(gpus)} torchrun --nproc_per_node={len(gpus)} -m darknet_py train …"
            raise UsageError(f"-gpus: expected one GPU, got {len(gpus)}; for several GPUs use {run}")
        if self.has("-nogpu") or gpus == ["-1"]:
            return ["--device", "cpu"]
        if not gpus[0]:
            return []
        import torch

        if not torch.cuda.is_available():
            logger.info("note: GPU %s: there is no CUDA here; using the CPU", gpus[0])
            return ["--device", "cpu"]
        return ["--device", f"cuda:{gpus[0]}"]


class CommandForm(NamedTuple):
    """A command of Darknet and its translation.

    arguments: the positional ones; optional ones in brackets, and "…" after one that may be repeated.
    """

    arguments: str
    translate: Callable[[ArgumentLine, dict[str, str]], list[str]]


def translate(argv: Sequence[str]) -> list[str]:
    """Translates a command line of Darknet; returns others unchanged.

    `detector --help` and the like print the usage and end the process. Raises UsageError for what is not a command line
    of Darknet.
    """
    line = ArgumentLine(argv)
    command = _command(line)
    if command is None:
        return list(argv)
    if {"-h", "--help"} & set(argv):
        print(usage(command))
        raise SystemExit(0)
    if command not in FORMS:
        known = ", ".join(name.split()[1] for name in FORMS if name.startswith(f"{command} "))
        got = line.positional[1] if len(line.positional) > 1 else "nothing"
        raise UsageError(f"{command}: expected one of {known}, got {got}", usage(command))
    form = FORMS[command]
    own = [word for word in line.positional if _is_own_option(word)]
    words = [word for word in line.positional if word not in own][len(command.split()) :]
    expected = [name.strip("[]…") for name in form.arguments.split()]
    required = sum(not name.startswith("[") for name in form.arguments.split())
    read, extra = (words, []) if form.arguments.endswith("…") else (words[: len(expected)], words[len(expected) :])
    for word in read:
        if _is_flag(word):
            raise UsageError(f"{word}: unknown flag of Darknet{_similar_flag(word)}", usage(command))
    if len(read) < required:
        got = " ".join(read) or "nothing"
        raise UsageError(f"expected {command} {form.arguments.upper()}, got {got}", usage(command))
    line.positional = read
    words = [*form.translate(line, dict(zip(expected, read, strict=False))), *own]
    if extra:
        hints = "".join(_similar_flag(word) for word in extra if _is_flag(word))
        logger.info("note: %s: ignored, as in C%s", " ".join(extra), hints)
    ignored = sorted(line.unused - _IMPLIED_FLAGS)
    if ignored:
        logger.info("note: %s: ignored, no counterpart here", ", ".join(ignored))
    logger.info("= darknet-py %s", shlex.join(words))
    return words


def usage(command: str) -> str:
    """The command lines of a command of Darknet, with all flags."""
    forms = [name for name in FORMS if name == command or name.startswith(f"{command} ")]
    lines = [f"darknet-py {name} {FORMS[name].arguments.upper()} [-flags]" for name in forms]
    flags = [*sorted(_FLAGS_WITHOUT_VALUE), *(f"{flag} VALUE" for flag in sorted(_FLAGS_WITH_VALUE))]
    return "\n".join(["usage: " + "\n       ".join(lines), f"flags of Darknet: {', '.join(flags)}"])


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1


def _is_own_option(word: str) -> bool:
    """Whether a word is an option of darknet_py, such as --stb or --device=cpu, that no flag of Darknet resembles."""
    name = word.removeprefix("--").partition("=")[0]
    is_flag = f"-{name.replace('-', '_')}" in _FLAGS_WITH_VALUE | _FLAGS_WITHOUT_VALUE
    return word.startswith("--") and name != "" and not is_flag


def _similar_flag(word: str) -> str:
    return did_you_mean(word, sorted(_FLAGS_WITH_VALUE | _FLAGS_WITHOUT_VALUE))


def _command(line: ArgumentLine) -> str | None:
    """The command of Darknet that a line has, its first word alone where there is no such command; None for ours."""
    first, *rest = line.positional or [""]
    if first in ("detector", "classifier"):
        command = f"{first} {rest[0]}" if rest else first
        return command if command in FORMS else first
    if first in _WEIGHT_TOOLS:
        return first
    # Commands of both: Darknet's have flags with one dash, or weights after the cfg.
    command = " ".join(line.positional[:2]) if first == "rnn" else first
    rest = line.positional[len(command.split()) :]
    weights = len(rest) > 1 and (rest[1].endswith(".weights") or ".conv." in rest[1])
    return command if command in FORMS and (line.flags or weights) else None


def _train(line: ArgumentLine, arguments: dict[str, str], measure: str = "-map") -> list[str]:
    words = ["train", arguments["cfg"], "--data", arguments["data"], *_weights(arguments)]
    words += ["--map", "on" if line.has(measure) else "off"]
    names = {"-mAP_epochs": "--map-epochs", "-clear": "--clear", "-thresh": "--thresh", "-iou_thresh": "--iou-thresh"}
    stream = line.options({"-mjpeg_port": "--mjpeg-port"})
    words += [*stream, "--stream-host", "0.0.0.0"] if stream else []  # as in C
    return [*words, "--darknet", *line.options(names), *line.device()]


def _test(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["detect", arguments["cfg"], arguments.get("image", "-"), *_weights(arguments)]
    words += ["--data", arguments["data"]] if "data" in arguments else _shipped_data("coco.data")
    flags = {"-save_labels": "--save-labels", "-out": "--json", "-ext_output": "--ext-output"}
    if "data" not in arguments and not line.has("-thresh"):
        words += ["--thresh", "0.24"]  # of C's `detect`
    return [*words, "--darknet", *line.options({**_DETECTION_FLAGS, **flags}), *line.device()]


def _demo(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    source = arguments.get("video") or line.value("-c", "0")
    words = ["video", arguments["cfg"], source, *_weights(arguments), "--data", arguments["data"], "--darknet"]
    files = {
        "-ext_output": "--ext-output",
        "-out_filename": "--out",
        "-prefix": "--pictures",
        "-json_file_output": "--json",
    }
    words += line.options({**_DETECTION_FLAGS, **files, "-time_limit_sec": "--seconds"}) + line.device()
    streams = line.options({"-json_port": "--json-port", "-mjpeg_port": "--mjpeg-port"})
    words += streams + line.options({"-http_post_host": "--http-post"})
    if streams:
        words += ["--stream-host", "0.0.0.0"]  # as in C
    if "--out" not in words:
        words.append("--no-video")
    if not line.has("-dont_show") and "--pictures" not in words:
        words.append("--show")
    return words


def _valid(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["evaluate", arguments["cfg"], "--data", arguments["data"], *_weights(arguments)]
    words += ["--protocol", "coco", "--darknet"]
    return words + line.options({"-out": "--results-name", "-letter_box": "--letter-box"}) + line.device()


def _map(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["evaluate", arguments["cfg"], "--data", arguments["data"], *_weights(arguments)]
    words += ["--protocol", "darknet", "--darknet"]
    names = {"-thresh": "--thresh", "-iou_thresh": "--iou-thresh", "-points": "--points", "-letter_box": "--letter-box"}
    return words + line.options(names) + line.device()


def _recall(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["evaluate", arguments["cfg"], "--data", arguments["data"], *_weights(arguments)]
    return [*words, "--protocol", "recall", "--darknet", *line.device()]


def _anchors(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    if not (line.has("-width") and line.has("-height")):
        raise UsageError("calc_anchors: expected -width and -height, as in -num_of_clusters 9 -width 416 -height 416")
    words = ["anchors", "--data", arguments["data"], "--clusters", line.value("-num_of_clusters", "5"), "--darknet"]
    words += line.options({"-width": "--width", "-height": "--height"})
    return words + (["--plot", "cloud.png"] if line.has("-show") else [])


def _predict(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    words = ["classify", arguments["cfg"], arguments.get("image", "-"), *_weights(arguments)]
    words += ["--data", arguments["data"]] if "data" in arguments else _shipped_data("imagenet1k.data")
    return [*words, "--darknet", *line.options({"-t": "--top"}), *line.device()]


def _classifier_valid(line: ArgumentLine, arguments: dict[str, str]) -> list[str]:
    return [
        "evaluate",
        arguments["cfg"],
        "--data",
        arguments["data"],
        *_weights(arguments),
        "--darknet",
        *line.device(),
    ]


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


def _shipped_data(name: str) -> list[str]:
    """--data for the file that C's `detect` and `classify` read, where it is here or comes with the package."""
    found = [path for path in (f"cfg/{name}", f"data/{name}") if Path(path).exists()]
    return ["--data", found[0]] if found else []


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
    "detector recall": CommandForm("data cfg weights", _recall),
    "detector calc_anchors": CommandForm("data", _anchors),
    "detect": CommandForm("cfg weights [image]", _test),
    "classify": CommandForm("cfg weights [image]", _predict),
    "classifier train": CommandForm("data cfg [weights]", lambda line, arguments: _train(line, arguments, "-topk")),
    "classifier predict": CommandForm("data cfg weights [image]", _predict),
    "classifier valid": CommandForm("data cfg weights", _classifier_valid),
    "rnn train": CommandForm("cfg [weights]", _rnn_train),
    "rnn generate": CommandForm("cfg weights", _rnn_generate),
    **{name: CommandForm(arguments, _weight_tool(name)) for name, arguments in _WEIGHT_TOOLS.items()},
}
