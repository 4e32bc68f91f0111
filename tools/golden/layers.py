"""Writes tests/golden/layers.json: small cfgs, one layer or option each, run in C Darknet.

    python tools/golden/layers.py DRIVER DRIVER_FIXED DRIVER_PJREDDIE

A driver is a program of yours around C Darknet's library (CPU, -O3), with this command line:

    driver predict CFG WEIGHTS BATCH STEPS CALLS INPUT OUT         outputs of all layers after CALLS calls
    driver train CFG WEIGHTS INPUT TRUTH OUT                       outputs and weight updates of one training pass

OUT: per layer an int32 count and its floats; with train, per layer also its weight, bias and scale updates. The three
run
- AlexeyAB/darknet without two crashes: a division by zero on nets without pixels, and binarize_weights of xnor layers
  with the size of all filters for that of one;
- the same with what its GPU build does right: col2im adds to the delta of the layer before instead of replacing it,
  and [rnn] and [crnn] copy the state's delta before the recurrent part changes it;
- pjreddie/darknet, with groups=1 where [deconvolutional] leaves them 0.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from darknet_py.graph.graph import parse_text
from darknet_py.layers.activations import ACTIVATIONS, FORK_ACTIVATIONS

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.layers import layer_cases as golden


def conv(filters: int = 8, norm: bool = True, **options: object) -> str:
    values = {"filters": filters, "size": 3, "pad": 1, "activation": "leaky", **options}
    norm_line = "batch_normalize=1\n" if norm else ""
    return f"[convolutional]\n{norm_line}" + "".join(f"{key}={value}\n" for key, value in values.items())


C = conv()
P = conv(norm=False)
COST = "[cost]\ntype=sse\n"
PIXELS = "width=12\nheight=8\nchannels=3\n"
VECTOR = "inputs=20\n"


def plain() -> dict[str, dict[str, Any]]:
    """Outputs of AlexeyAB's build."""
    cases: dict[str, dict[str, Any]] = {}

    def case(name: str, body: str, net: str = PIXELS, **options: Any) -> None:
        cases[name] = {"body": body, "net": net, **options}

    for name in sorted(ACTIVATIONS.keys() - FORK_ACTIVATIONS):
        case(f"activation {name}", P + conv(6, norm=False, size=1, pad=0, activation=name))
    case("activation layer", C + "[activation]\nactivation=elu\n")
    for section in ("activation", "connected", "local", "sam", "scale_channels", "shortcut"):
        source = {"connected": "output=6\n", "local": "filters=4\nsize=3\npad=1\n"}.get(section, "from=-2\n")
        gate = "[avgpool]\n" if section == "scale_channels" else C
        for name in ("logistic", "hard_mish"):
            options = source * (section != "activation") + f"activation={name}\n"
            after = conv(4, size=1) * (section != "connected")
            case(f"{name} in [{section}]", C + gate + f"[{section}]\n{options}{after}")
    case("stride_x, stride_y", C + conv(4, stride_x=2, stride_y=1))
    case("one window, sticking out", conv(6, stride_y=2) + conv(4, size=5, pad=0, stride_y=2))
    case("dilation", C + conv(4, dilation=2))
    case("padding", C + conv(4, pad=0, padding=2))
    case("groups, flipped", C + conv(8, groups=2, flipped=1))
    case("antialiasing 1", conv(stride=2, antialiasing=1) + C)
    case("antialiasing 2", conv(stride=2, antialiasing=2) + C)
    case("share_index", C + C + conv(share_index=1, stride=2) + conv(share_index=-2, activation="mish"))
    case("xnor", C + conv(xnor=1) + conv(4, xnor=1, stride=2, bin_output=1))
    case("no effect", C + conv(binary=1, coordconv=1, rotate=1, assisted_excitation=1, grad_centr=1))
    for size, stride, padding in ((2, 2, ""), (2, 1, ""), (3, 2, 0), (3, 3, ""), (13, 1, ""), (4, 2, ""), (2, 2, 4)):
        pool = f"size={size}\nstride={stride}\n" + (f"padding={padding}\n" if padding != "" else "")
        case(f"maxpool {size} {stride} {padding}".strip(), C + "[maxpool]\n" + pool)
        if padding != 4:
            case(f"local_avgpool {size} {stride} {padding}".strip(), C + "[local_avgpool]\n" + pool)
    case("maxpool antialiasing", C + "[maxpool]\nsize=3\nstride=2\nantialiasing=1\n" + C)
    case("maxpool depth", C + "[maxpool]\nmaxpool_depth=1\nout_channels=3\n" + C)
    case("maxpool strides", C + "[maxpool]\nsize=3\nstride_x=2\nstride_y=1\n")
    case("avgpool, connected", C + "[avgpool]\n[connected]\noutput=5\nbatch_normalize=1\nactivation=ramp\n")
    case("upsample", C + "[upsample]\nstride=2\nscale=.5\n" + C)
    case("downsample", C + "[upsample]\nstride=-2\nscale=.5\n" + C)
    case("reorg", C + "[reorg]\nstride=2\n" + C)
    case("reorg reverse", C + "[reorg]\nstride=2\nreverse=1\n" + C)
    case("reorg3d", C + "[reorg3d]\nstride=2\n" + C)
    case("reorg3d reverse", conv(16) + "[reorg3d]\nstride=2\nreverse=1\n" + C)
    case("route", C + conv(4) + "[route]\nlayers=-1,0\n" + "[route]\nlayers=-1,-3\ngroups=2\ngroup_id=1\n")
    case("shortcut", C + conv(12) + conv(6) + "[shortcut]\nfrom=-2,0\nactivation=mish\n")
    case("shortcut misplaced", C + conv(12) + C + "[shortcut]\nfrom=-2\nactivation=linear\n" + C)
    for kind in ("per_feature", "per_channel"):
        for normalization in ("relu", "softmax"):
            options = f"weights_type={kind}\nweights_normalization={normalization}\n"
            case(f"shortcut {kind} {normalization}", C + C + C + "[shortcut]\nfrom=-2,-3\n" + options)
    case("scale_channels", C + "[avgpool]\n[scale_channels]\nfrom=-2\nactivation=leaky\n")
    case("scale_wh", C + conv(1) + "[scale_channels]\nfrom=-2\nscale_wh=1\nactivation=logistic\n")
    case("sam", C + C + "[sam]\nfrom=-2\nactivation=linear\n")
    case("implicit", C + "[implicit]\nfilters=8\natoms=2\n[implicit]\nfilters=8\n[scale_channels]\nfrom=0\n")
    case("batchnorm", "[batchnorm]\n" + C)
    for size in (1, 2, 5, 9):
        case(f"normalization {size}", conv(12) + f"[normalization]\nsize={size}\nalpha=.05\nbeta=.6\nkappa=3\n")
    case("local", C + "[local]\nfilters=4\nsize=3\nstride=1\npad=1\nactivation=leaky\n")
    case("local stride 2", C + "[local]\nfilters=4\nsize=3\nstride=2\npad=0\nactivation=tanh\n")
    case("crop", "[crop]\ncrop_height=5\ncrop_width=7\nflip=1\n" + C)
    case("crop noadjust", "[crop]\ncrop_height=5\ncrop_width=7\nnoadjust=1\n" + C)
    case("empty, dropout", C + "[silence]\n[dropout]\nprobability=.5\n" + conv(4))
    rnn = "[rnn]\noutput=7\nhidden=6\nbatch_normalize=1\nactivation=leaky\n"
    rnn += "[rnn]\noutput=7\nhidden=6\nactivation=tanh\nshortcut=1\nlogistic=2\n"
    recurrent = {
        "rnn": rnn + "[rnn]\noutput=5\nhidden=4\nactivation=tanh\nlogistic=1\n",
        "gru": "[gru]\noutput=7\nbatch_normalize=1\n[gru]\noutput=5\n",
        "lstm": "[lstm]\noutput=7\nbatch_normalize=1\n[lstm]\noutput=5\n",
    }
    for name, body in recurrent.items():
        case(f"{name} calls", body, VECTOR, calls=3)
        case(f"{name} steps", body, VECTOR, steps=3)
    images = {
        "crnn": "[crnn]\nbatch_normalize=1\npad=1\nhidden=5\noutput=6\nactivation=leaky\nshortcut=1\n",
        "conv_lstm": "[conv_lstm]\nbatch_normalize=1\npad=1\noutput=6\nactivation=leaky\n",
        "conv_lstm peephole": "[conv_lstm]\npad=1\noutput=6\npeephole=1\nstate_constrain=1\n",
    }
    for name, body in images.items():
        case(f"{name} calls", C + body + conv(4), calls=3)
        case(f"{name} steps", C + body + conv(4), steps=3)
    case("history", C + "[history]\nhistory_size=3\n" + conv(4))
    case("history steps", C + "[history]\nhistory_size=3\n" + conv(4), steps=4, net=PIXELS + "time_steps=4\n")
    return cases


def pjreddie() -> dict[str, dict[str, Any]]:
    """Outputs of pjreddie's build. With [l2norm], our network uses pjreddie's batch norm too."""
    bodies = {
        "deconvolutional": C + "[deconvolutional]\nfilters=5\nsize=3\nstride=2\npad=1\nbatch_normalize=1\n"
        "activation=relu\n[deconv]\nfilters=4\nsize=4\nstride=2\npadding=1\nactivation=leaky\n",
        "l2norm": C + "[l2norm]\n" + C,
        "shortcut from larger": C + conv(12, stride=2) + "[shortcut]\nfrom=-2\nactivation=leaky\n",
        "shortcut from smaller": conv(12, stride=2)
        + C
        + "[upsample]\nstride=2\n[shortcut]\nfrom=-3\nactivation=leaky\n",
        "xnor": C + conv(4, xnor=1),
        "reorg extra": C + "[reorg]\nextra=2\n[connected]\noutput=4\nactivation=leaky\n",
    }
    return {f"pjreddie {name}": {"body": body + "[l2norm]\n", "net": PIXELS} for name, body in bodies.items()}


def trained() -> dict[str, dict[str, Any]]:
    """Weight updates of the corrected AlexeyAB build."""
    # C's derivatives of these are wrong; for gelu it evaluates the derivative at the output.
    wrong = {"relu6", "gelu", *FORK_ACTIVATIONS, *(name for name in ACTIVATIONS if name.startswith("normalize"))}
    bodies = {name: P + conv(norm=False, activation=name) + P for name in sorted(set(ACTIVATIONS) - wrong)}
    bodies |= {
        "maxpool": P + "[maxpool]\nsize=3\nstride=2\n" + P,
        "maxpool depth": P + "[maxpool]\nmaxpool_depth=1\nout_channels=3\n" + P,
        "avgpool": P + "[avgpool]\n[connected]\noutput=4\nactivation=tanh\n",
        "upsample": P + "[upsample]\nstride=2\nscale=.5\n" + P,
        "downsample": P + "[upsample]\nstride=-2\n" + P,
        "reorg": P + "[reorg]\nstride=2\n" + P,
        "reorg3d": P + "[reorg3d]\nstride=2\n" + P,
        "local": P + "[local]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n",
        "route": P + P + "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1\n" + P,
        "shortcut": P + conv(12, norm=False) + P + "[shortcut]\nfrom=-2,-3\nactivation=leaky\n" + P,
        "shortcut per_feature relu": P + P + P + "[shortcut]\nfrom=-2,-3\nactivation=leaky\nweights_type=per_feature\n"
        "weights_normalization=relu\n" + P,
        "shortcut per_channel softmax": P + P + P + "[shortcut]\nfrom=-2,-3\nactivation=leaky\n"
        "weights_type=per_channel\nweights_normalization=softmax\n" + P,
        "scale_channels": P + "[avgpool]\n" + conv(norm=False, size=1) + "[scale_channels]\nfrom=-3\n" + P,
        "scale_wh": P + conv(1, norm=False) + "[scale_channels]\nfrom=-2\nscale_wh=1\nactivation=leaky\n" + P,
        "sam": P + conv(norm=False, activation="logistic") + "[sam]\nfrom=-2\n" + P,
        "implicit": P + "[implicit]\nfilters=8\n[scale_channels]\nfrom=-2\n" + P,
        "share_index": P + P + conv(norm=False, share_index=1) + P,
        "groups, flipped": P + conv(norm=False, groups=4, flipped=1, dilation=2) + P,
    }
    cases: dict[str, dict[str, Any]] = {
        f"gradient {name}": {"body": body + COST, "net": PIXELS} for name, body in bodies.items()
    }
    steps = "time_steps=3\n"
    cases["gradient crnn"] = {
        "body": P + "[crnn]\npad=1\nhidden=5\noutput=6\nactivation=leaky\n" + P + COST, "net": PIXELS + steps,
    }  # fmt: skip
    cases["gradient history"] = {"body": P + "[history]\nhistory_size=3\n" + P + COST, "net": PIXELS + steps}
    cases["gradient rnn"] = {
        "body": "[connected]\noutput=9\nactivation=tanh\n[rnn]\noutput=6\nhidden=5\nactivation=tanh\n"
        "[connected]\noutput=4\nactivation=leaky\n" + COST,
        "net": VECTOR + steps,
    }
    return cases


def make(case: dict[str, Any], seed: int, driver: str, train: bool, folder: Path) -> dict[str, Any]:
    """Runs one case in C; returns the case with its values."""
    case = {"batch": 2, "calls": 1, "steps": 1, **case}
    cfg = f"[net]\nbatch={case['batch']}\nmax_batches=100\n{case.pop('net')}{case.pop('body')}"
    graph = parse_text(cfg)
    rows = case["batch"] * (graph.net.time_steps if train else case["steps"] * case["calls"])
    (folder / "cfg").write_text(cfg)
    (folder / "weights").write_bytes(golden.weights(graph, seed))
    golden.inputs(graph, rows, seed).tofile(folder / "input")
    golden.targets(graph, rows, seed).tofile(folder / "truth")
    files = [folder / "cfg", folder / "weights"]
    numbers = [case["batch"] * case["steps"], case["steps"], case["calls"]]
    if train:
        command = [driver, "train", *files, folder / "input", folder / "truth", folder / "out"]
    else:
        command = [driver, "predict", *files, *numbers, folder / "input", folder / "out"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    raw = (folder / "out").read_bytes()
    arrays, position = [], 0
    while position < len(raw):
        (count,) = struct.unpack_from("<i", raw, position)
        arrays.append(np.frombuffer(raw, "<f4", count, position + 4))
        position += 4 + 4 * count
    result = {"cfg": cfg, "seed": seed, **case}
    if not train:
        outputs = {str(i): golden.sampled(array) for i, array in enumerate(arrays) if array.size}
        return {**result, "outputs": outputs}
    updates = {
        f"{i // 4}.{name}": golden.sampled(arrays[i + k])
        for i in range(0, len(arrays), 4)
        for k, name in ((1, "weight"), (2, "bias"), (3, "scale"))
        if arrays[i + k].size
    }
    return {**result, "gradients": updates}


def main() -> None:
    warnings.simplefilter("ignore")
    plain_driver, fixed_driver, pjreddie_driver = sys.argv[1:]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for driver, cases, train in (
            (plain_driver, plain(), False),
            (pjreddie_driver, pjreddie(), False),
            (fixed_driver, trained(), True),
        ):
            for name, case in cases.items():
                try:
                    results[name] = make(case, len(results) + 1, driver, train, Path(folder))
                except subprocess.CalledProcessError as error:
                    print(f"{name}: C exited with code {error.returncode}: {error.stderr[-200:]}")
    golden.GOLDEN.write_text(
        "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in results.items()) + "\n}\n"
    )
    print(f"{len(results)} cases in {golden.GOLDEN}, {golden.GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
