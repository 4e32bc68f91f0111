"""Darknet's own command lines (`detector train my.data yolo.cfg yolo.conv.137 -map`), said in ours.

An existing script works once its first word is changed. Flags may stand anywhere, as in C's `find_arg`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from darknet_py.errors import DarknetError

# Flags with a value and without; those of C's detector.c, classifier.c, rnn.c and darknet.c.
_VALUED = {"-thresh", "-iou_thresh", "-hier", "-points", "-out", "-out_filename", "-prefix", "-c", "-s", "-avgframes"}
_VALUED |= {"-json_port", "-mjpeg_port", "-http_post_host", "-time_limit_sec", "-json_file_output", "-mAP_epochs"}
_VALUED |= {"-num_of_clusters", "-width", "-height", "-chart", "-gpus", "-i", "-t"}
_VALUED |= {"-file", "-seed", "-len", "-temp", "-srand", "-tokens"}
_BARE = {"-map", "-clear", "-dont_show", "-benchmark", "-benchmark_layers", "-show", "-letter_box", "-show_imgs"}
_BARE |= {"-dontdraw_bbox", "-ext_output", "-save_labels", "-topk", "-nogpu", "-dontuse_opencv", "-tokenized"}
_QUIET = {"-dont_show", "-ext_output", "-show_imgs", "-chart", "-dontuse_opencv"}  # ours has that, or needs it not
_NAMES = ("cfg/coco.data", "data/coco.data")  # what C's `detect` reads, and ours


class ArgumentLine:
    """A Darknet command line taken apart; what was asked for is ticked off."""

    def __init__(self, arguments: Sequence[str]):
        self.places: list[str] = []
        self.flags: dict[str, str] = {}
        rest = iter(arguments)
        for word in rest:
            if word in _BARE:
                self.flags[word] = ""
            elif word in _VALUED:
                self.flags[word] = next(rest, "")
            elif word.startswith("-") and len(word) > 1 and not word.startswith("--"):
                raise DarknetError(f"{word}: expected one of Darknet's flags, got none of that name")
            else:
                self.places.append(word.rstrip("\r"))
        self.left = set(self.flags)

    def has(self, flag: str) -> bool:
        self.left.discard(flag)
        return flag in self.flags

    def value(self, flag: str, default: str = "") -> str:
        return self.flags[flag] if self.has(flag) else default

    def options(self, names: Mapping[str, str]) -> list[str]:
        """Ours for each of Darknet's flags that was given."""
        found = []
        for flag, ours in names.items():
            if self.has(flag):
                found += [ours, self.flags[flag]] if flag in _VALUED else [ours]
        return found

    def device(self) -> list[str]:
        gpus = (self.value("-gpus") or self.value("-i")).split(",")
        if len(gpus) > 1:
            run = f"CUDA_VISIBLE_DEVICES={','.join(gpus)} torchrun --nproc_per_node={len(gpus)} -m darknet_py train …"
            raise DarknetError(f"-gpus: expected one GPU, got {len(gpus)}; several are used by {run}")
        if self.has("-nogpu") or gpus == ["-1"]:
            return ["--device", "cpu"]
        return ["--device", f"cuda:{gpus[0]}"] if gpus[0] else []


class CommandForm(NamedTuple):
    """A command: what stands where (a name in brackets may be left out), and how it is said."""

    places: str
    say: Callable[[ArgumentLine, dict[str, str]], list[str]]


def translate(argv: Sequence[str]) -> list[str]:
    """Darknet's command line in ours; any other as it is. Raises DarknetError for what has no counterpart."""
    words = list(argv)
    command = _command(words)
    if command is None:
        return words
    form = FORMS[command]
    line = ArgumentLine(words[len(command.split()) :])
    expected = [name.strip("[]") for name in form.places.split()]
    least = sum(not name.startswith("[") for name in form.places.split())
    if not least <= len(line.places) <= len(expected):
        raise DarknetError(f"expected {command} {form.places.upper()}, got {' '.join(line.places) or 'nothing'}")
    said = form.say(line, dict(zip(expected, line.places, strict=False)))
    unheard = sorted(line.left - _QUIET)
    if unheard:
        print(f"note: {', '.join(unheard)} has no counterpart here and does nothing", file=sys.stderr)
    print(f"= darknet_py {shlex.join(said)}", file=sys.stderr)
    return said


def _command(words: Sequence[str]) -> str | None:
    first = words[0] if words else ""
    if first in ("detector", "classifier"):
        command = " ".join(words[:2])
        if command not in FORMS:
            known = ", ".join(name.split()[1] for name in FORMS if name.startswith(first))
            raise DarknetError(f"{first}: expected one of {known}, got {words[1] if len(words) > 1 else 'nothing'}")
        return command
    if first == "partial":
        return first
    # These are commands of ours, too: Darknet's have flags of one dash, or weights behind the cfg.
    command = " ".join(words[:2]) if first == "rnn" else first
    rest = words[len(command.split()) :]
    flags = any(word in _BARE | _VALUED for word in rest)
    weights = len(rest) > 1 and (rest[1].endswith(".weights") or ".conv." in rest[1])
    return command if command in FORMS and (flags or weights) else None


def _train(line: ArgumentLine, at: dict[str, str], measure: str = "-map") -> list[str]:
    said = ["train", at["cfg"], "--data", at["data"], *_weights(at), "--map", "on" if line.has(measure) else "off"]
    names = {"-mAP_epochs": "--map-epochs", "-clear": "--clear", "-thresh": "--thresh", "-iou_thresh": "--iou-thresh"}
    return said + line.options(names) + line.device()


def _test(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    said = ["detect", at["cfg"], *_images(at), *_weights(at)]
    if "data" in at:
        said += ["--data", at["data"]]
    elif names := [name for name in _NAMES if Path(name).exists()]:
        said += ["--data", names[0]]
    return said + line.options({**_FINDING, "-save_labels": "--save-labels", "-out": "--json"}) + line.device()


def _demo(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    source = at.get("video") or line.value("-c", "0")
    said = ["video", at["cfg"], source, *_weights(at), "--data", at["data"]]
    files = {"-out_filename": "--out", "-prefix": "--pictures", "-json_file_output": "--json"}
    said += line.options({**_FINDING, **files, "-time_limit_sec": "--seconds"}) + line.device()
    if "--out" not in said:
        said.append("--no-video")
    if not line.has("-dont_show") and "--pictures" not in said:
        said.append("--show")
    return said


def _valid(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    out = Path("results") / line.value("-out")
    said = ["evaluate", at["cfg"], "--data", at["data"], *_weights(at), "--protocol", "coco", "--out", str(out)]
    return said + line.options({"-letter_box": "--letter-box"}) + line.device()


def _map(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    said = ["evaluate", at["cfg"], "--data", at["data"], *_weights(at), "--protocol", "darknet"]
    names = {"-thresh": "--thresh", "-iou_thresh": "--iou-thresh", "-points": "--points", "-letter_box": "--letter-box"}
    return said + line.options(names) + line.device()


def _anchors(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    said = ["anchors", "--data", at["data"], "--clusters", line.value("-num_of_clusters", "5")]
    said += line.options({"-width": "--width", "-height": "--height"})
    return said + (["--plot", "cloud.png"] if line.has("-show") else [])


def _predict(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    said = ["classify", at["cfg"], *_images(at), *_weights(at), "--data", at["data"]]
    return said + line.options({"-t": "--top"}) + line.device()


def _measure(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    return ["evaluate", at["cfg"], "--data", at["data"], *_weights(at), *line.device()]


def _learn(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    text = line.value("-file")
    return [
        "rnn",
        "train",
        at["cfg"],
        *([text] if text else []),
        *_weights(at),
        *line.options({"-clear": "--clear"}),
        *line.device(),
    ]


def _write(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    names = {"-seed": "--seed-text", "-len": "--length", "-temp": "--temperature", "-srand": "--seed"}
    return ["rnn", "generate", at["cfg"], *_weights(at), *line.options(names), *line.device()]


def _partial(line: ArgumentLine, at: dict[str, str]) -> list[str]:
    return ["convert", at["cfg"], at["weights"], at["out"], "--cutoff", at["layers"]]


def _images(at: dict[str, str]) -> list[str]:
    """The one that is named, or a list on standard input."""
    images = [at["image"]] if "image" in at else [name.strip() for name in sys.stdin if name.strip()]
    if not images:
        raise DarknetError("expected an image, or a list of them on standard input, got none")
    return images


def _weights(at: dict[str, str]) -> list[str]:
    return ["--weights", at["weights"]] if at.get("weights") else []


_FINDING = {"-thresh": "--thresh", "-hier": "--hier", "-letter_box": "--letter-box"}
FORMS: dict[str, CommandForm] = {
    "detector train": CommandForm("data cfg [weights]", _train),
    "detector test": CommandForm("data cfg weights [image]", _test),
    "detector demo": CommandForm("data cfg weights [video]", _demo),
    "detector valid": CommandForm("data cfg weights", _valid),
    "detector map": CommandForm("data cfg weights", _map),
    "detector calc_anchors": CommandForm("data", _anchors),
    "detect": CommandForm("cfg weights [image]", _test),
    "classifier train": CommandForm("data cfg [weights]", lambda line, at: _train(line, at, "-topk")),
    "classifier predict": CommandForm("data cfg weights [image]", _predict),
    "classifier valid": CommandForm("data cfg weights", _measure),
    "rnn train": CommandForm("cfg [weights]", _learn),
    "rnn generate": CommandForm("cfg weights", _write),
    "partial": CommandForm("cfg weights out layers", _partial),
}
