"""Writes the tables of docs/zoo.md: published metrics compared with ours, and CSPNet's claims on our graphs.

    python tools/zoo/tables.py        writes docs/zoo_published.csv, docs/zoo_claims.csv and the tables of docs/zoo.md

The published values are in tests/golden/published.csv (from the READMEs of CrossStagePartialNetworks and
PartialResidualNetworks and the latter's Results.md; "as recalled": tables 1 and 2 of the paper of CSPNet from memory);
ours are computed from the cfgs of the zoo.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from darknet_py.graph.gradient_paths import count_text, gradient_paths
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.graph.profile import layer_profiles, network_profile
from darknet_py.zoo import blocks, build, heads, net_sections
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.dense import peleenet
from darknet_py.zoo.stages import Csp

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "tests" / "golden" / "published.csv"

# Rows of published.csv whose cfg was not published or has another name → ours. size: the input size of the value, if it
# is missing or wrong in the README.
_UNPUBLISHED: dict[str, dict[str, Any]] = {
    "DenseNet-201+Elastic": {
        "cfg": "densenet201-elastic",
        "size": 224,
        "why": "Elastic's authors state 4.38 G multiply-adds at 224, so the input is not 256. BatchNorm follows each "
        "convolution here, in their network it precedes it; it and the bilinear upsampling are counted there",
    },
    "CSPDenseNet-201+Elastic": {
        "cfg": "csdensenet201-elastic",
        "size": 224,
        "why": "unsaid: γ, transitions. Here γ = .5; the first transition leaves as many channels as the dense layers "
        "got from the split, the last one works behind the pooling",
    },
    "PeleeNet": {"cfg": "peleenet", "why": "from PeleeNet's paper and its authors' model; maxima for means"},
    "PeleeNet-swish-SE": {"cfg": "peleenet-swish-se", "why": "unsaid: where SE is. Here on each dense layer's output"},
    "CSPPeleeNet": {
        "cfg": "cspeleenet",
        "why": "unsaid: width of the transitions. Here γ = .5, both keep the channels, the last one works behind the "
        "pooling",
    },
    "PeleeNet-swish": {"cfg": "peleenet-swish", "why": "PeleeNet with another activation"},
    "CSPPeleeNet-swish": {"cfg": "cspeleenet-swish", "why": "CSPPeleeNet with another activation"},
    "SparsePeleeNet": {
        "cfg": "sparsepeleenet",
        "why": "a layer reads the outputs 1, 2, 4, … layers before it; the transition reads all",
    },
    "PeleeNeXt": {
        "cfg": "peleenext",
        "why": "unsaid: where the groups are. Here the 1x1 convolutions of the layers from stride 8 on have four",
    },
    "CSPResNeXt-50+Elastic": {
        "cfg": "csresnext50-plus-elastic",
        "why": "Elastic's 6, 8, 5 and 3 blocks less the first of stages 2 to 4, as in CSPResNeXt-50; half of "
        "the groups of each block at half of the resolution",
    },
    "DenseNet-264-32": {
        "cfg": "densenet264",
        "why": "with the transitions of Darknet's DenseNet-201, which leave fewer channels than half: 512, not 1152, "
        "in the last stage. With 1152 there are 32.94 M and 11.505 BFLOPs",
    },
    "ResNet-152": {
        "cfg": "resnet152",
        "why": "the stride is in the 3x3 convolution, as in Darknet's ResNets, not in the 1x1 before it; without the "
        "classifier's biases and BatchNorm",
    },
    "CSPPeleeNet-swish-SE": {"cfg": "cspeleenet-swish-se", "why": "as CSPPeleeNet; SE on each dense layer's output"},
    "CSPDenseNet Ref.": {
        "cfg": "csdensenet-ref",
        "size": 256,
        "why": "unsaid: everything. Darknet reference's first two convolutions, then 1, 4, 5 and 5 dense layers of "
        "growth 32, a 3x3 convolution to 512",
    },
    "CSPDenseNetb Ref.": {"cfg": "csdensenetb-ref", "size": 256, "why": "the same with a 1x1 convolution at the end"},
    "CSPPeleeNet Ref.": {
        "cfg": "cspeleenet-ref",
        "size": 224,
        "why": "unsaid: everything. Darknet reference's first two convolutions, then 3, 5, 5 and 5 two-way layers, a "
        "3x3 convolution to 448. At 224: between this and the next are 2.09 M weights, .206 BFLOPs: 49 pixels",
    },
    "CSPPeleeNetb Ref.": {"cfg": "cspeleenetb-ref", "size": 224, "why": "the same with a 1x1 convolution at the end"},
    "CSPResNet-10": {
        "cfg": "csresnet10",
        "size": 256,
        "why": "unsaid: how stages are entered. Here the last transition doubles the channels, then a maximum; the "
        "first stage's parts keep 64 channels, as in CSPDarknet-53",
    },
    "Pelee-PRN": {"cfg": "pelee-prn", "why": "YOLOv3-tiny-PRN's neck"},
    "Pelee-YOLOv3": {
        "cfg": "pelee-yolov3",
        "why": "YOLOv3-tiny's neck with 256 and 128 channels; stride 16 has a 1x1 and a second 3x3 convolution",
    },
    "Pelee-FPN": {"cfg": "pelee-fpn", "why": "a pyramid of 256 channels, joined by addition"},
    "Pelee-PRN-3l": {
        "cfg": "pelee-prn-3l",
        "why": "one level of 128 channels more. 3.98 at 320 is a misprint of 2.98: 5.03 x (320 / 416)²",
    },
    "Pelee-PAN": {
        "cfg": "pelee-pan",
        "why": "unsaid: everything. Here levels of 128 and 256 channels, heads twice as wide",
    },
    "Pelee-PAN2": {"cfg": "pelee-pan2", "why": "the same with heads as wide as their levels"},
    "mPelee-PRN": {
        "cfg": "mpelee-prn",
        "why": "unsaid: everything. Here 3, 5, 10 and 6 layers instead of 3, 4, 8 and 6",
    },
    "SparsePelee-PRN": {"cfg": "sparsepelee-prn", "why": "SparsePeleeNet with the neck of Pelee-PRN"},
    "PartialPelee-PRN": {
        "cfg": "partialpelee-prn",
        "why": "γ = .5, fusion first in all four stages, the transition before the pooling",
    },
    "CSPPeleeNet-PRN": {
        "cfg": "cspeleenet-prn",
        "why": "CSPPeleeNet is .02 BFLOPs above the published one here and below",
    },
    "CSPPeleeNet-PRN (3l)": {"cfg": "cspeleenet-prn-3l", "why": "one level of 128 channels more"},
    "CSPPeleeNet-CEM": {
        "cfg": "cspeleenet-cem",
        "why": "ThunderNet's sum of two scales and the global mean, 245 channels; two heads of 256 channels",
    },
    "CSPPeleeNet-CEM (SAM)": {"cfg": "cspeleenet-cem-sam", "why": "spatial attention before both heads"},
    "CSPPeleeNet-GFM": {
        "cfg": "cspeleenet-gfm",
        "why": "the sum has 256 channels; in the heads they grow with the stride",
    },
    "CSPPeleeNet-EFM": {"cfg": "cspeleenet-efm", "why": "unsaid: widths. Here all 3x3 convolutions have the same cost"},
    "CSPPeleeNet-EFM (SAM)": {
        "cfg": "cspeleenet-efm-sam",
        "why": "unsaid: where SAM is. Here before each head; 5.07 BFLOPs would result from three per level",
    },
    "CSPPeleeNet-EFM (SPP)": {
        "cfg": "cspeleenet-efm-spp",
        "why": "unsaid: where SPP is. Here on the compressed coarsest scale, compressed again by Maxout",
    },
    "CSPPeleeNet Ref.-PRN (3l)": {"cfg": "cspeleenet-ref-prn-3l", "why": "CSPPeleeNet Ref. with PRN's neck"},
    "CSPPeleeNet Ref.-EFM (SAM)": {"cfg": "cspeleenet-ref-efm-sam", "why": "CSPPeleeNet Ref. with EFM and SAM"},
    "CSPDenseNet Ref.-EFM (SAM)": {"cfg": "csdensenet-ref-efm-sam", "why": "CSPDenseNet Ref. with EFM and SAM"},
    "CSPDenseNetb Ref.-PRN": {"cfg": "csdensenetb-ref-prn", "why": "CSPDenseNetb Ref. with PRN's neck"},
}
_SIZES = {"darknet": 256, "resnet10": 256}  # "not stated"; from their cfgs
_NOTES = {
    "ResNet-50": "the README has the value of a later cfg, with the pooling before the scores, not after (9.749)",
    "Darknet Ref.": "the README has pjreddie's value, truncated",
    "YOLOv3-tiny-PRN": "the published cfg has 4.94 M; the README says 4.95",
}

# (plain, cross stage partial, change of the BFLOPs by the paper)
_PAIRS = (
    ("darknet53", "csdarknet53", -0.30),
    ("resnet50", "csresnet50", -0.08),
    ("resnext50", "csresnext50", -0.22),
    ("resnet10", "csresnet10", -0.16),
    ("peleenet", "cspeleenet", -0.13),
    ("mobilenet-v2", "csmobilenet-v2", -0.11),
    ("densenet201-elastic", "csdensenet201-elastic", -0.19),
)
# PeleeNet's stages in the text of the paper's ablation: fusion, gamma, change of the computation.
_ABLATION = (
    ("first", 0.5, -0.26),
    ("last", 0.5, -0.21),
    ("last", 0.25, -0.11),
    ("csp", 0.5, -0.13),
    ("csp", 0.25, -0.03),
    ("first", 0.25, None),
    ("first", 0.75, None),
    ("last", 0.75, None),
    ("csp", 0.75, None),
)
# Ours, input, the published network with its parameters in millions and its BFLOPs (detectors: at 640, as recalled from
# their papers and READMEs), and how much of it the cfg has.
_AGGREGATION = (
    ("vovnet39", 224, "VoVNet-39", "22.6", "14.2", "all of it"),
    ("csvovnet39", 224, "", "", "", "VoVNet-39 with CSP stages (CSP-OSA)"),
    ("elan", 224, "", "", "", "the backbone of YOLOv7, as a classifier"),
    ("yolov7", 640, "YOLOv7", "36.9", "104.7", "all of it, equal to the published cfg"),
    ("e-elan", 224, "YOLOv7-E6E", "", "", "its blocks, with the channels of YOLOv7, at four strides"),
    ("yolov7-tiny", 640, "YOLOv7-tiny", "6.2", "13.8", "all of it, equal to the published cfg"),
    ("gelan-c", 224, "YOLOv9-c", "25.3", "102.1", "the backbone as deployed; Darknet has no distribution focal head"),
    ("gelan-t", 224, "YOLOv9-t", "2.0", "7.7", "the backbone as deployed; Darknet has no distribution focal head"),
    ("c3", 224, "YOLOv5s", "7.2", "16.5", "the backbone, with a 3x3 instead of a 6x6 first convolution"),
    ("c2f", 224, "YOLOv8s", "11.2", "28.6", "the backbone; Darknet has no distribution focal head"),
    (
        "csp-stackrep",
        224,
        "YOLOv6-M",
        "34.9",
        "85.8",
        "its blocks; channels as in `c3`",
    ),
    ("csp-stackrep-deploy", 224, "YOLOv6-M", "34.9", "85.8", "the same after `merge`"),
)
# A dense block: base channels, growth, layers. Stages of DenseNet-201 and PeleeNet, then the case that the formula is
# for: a base that is wide compared with growth and layers.
_BLOCKS = (
    (64, 32, 6),
    (128, 32, 12),
    (256, 32, 48),
    (128, 32, 4),
    (256, 32, 8),
    (512, 32, 6),
    (512, 16, 4),
    (2048, 16, 4),
)


def main() -> None:
    for path, text in documents().items():
        path.write_text(text)
        print(path.relative_to(ROOT))


def documents() -> dict[Path, str]:
    """Path → text of every file that this tool writes."""
    published = published_table()
    claims = {
        "computation": computation_table(),
        "ablation": ablation_table(),
        "bottleneck": bottleneck_table(),
        "traffic": cio_table(),
        "aggregation": aggregation_table(),
    }
    page = (ROOT / "docs" / "zoo.md").read_text()
    for name, table in {"published": published, **claims}.items():
        begin, end = f"<!-- {name}: tools/zoo/tables.py -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        page = before + begin + markdown(table) + end + rest.partition(end)[2]
    return {
        ROOT / "docs" / "zoo_published.csv": as_csv(published),
        ROOT / "docs" / "zoo_claims.csv": as_csv(
            [{"claim": claim, **row} for claim, table in claims.items() for row in table]
        ),
        ROOT / "docs" / "zoo.md": page,
    }


# --- published values


def published_table() -> list[dict[str, Any]]:
    """A row per row of published.csv: millions of parameters, BFLOPs, differences in percent."""
    with PUBLISHED.open(newline="") as file:
        return [_published_row(row) for row in csv.DictReader(file)]


def _published_row(row: dict[str, str]) -> dict[str, Any]:
    unpublished = _UNPUBLISHED.get(row["model"], {})
    name = unpublished.get("cfg", row["cfg"])
    stated = int(row["input"]) if row["input"].isdigit() else _SIZES.get(name, 0)
    size = unpublished.get("size", stated)
    graph = _graph(name, size)
    weights = kernel_weights(graph)
    # One README counts kernels only, the other one all parameters.
    counted = graph.parameters if row["source"].startswith("PartialResidualNetworks") else weights
    note = unpublished.get("why") or _NOTES.get(row["model"], "")
    return {
        "model": row["model"],
        "cfg": name,
        "input": size,
        "parameters published": row["parameters_M"],
        "ours": f"{counted / 1e6:.2f}",
        "with all values": f"{graph.parameters / 1e6:.3f}",
        "difference": _percent(counted / 1e6, row["parameters_M"]),
        "BFLOPs published": row["bflops"],
        "BFLOPs ours": f"{graph.bflops:.3f}",
        "BFLOPs difference": _percent(graph.bflops, row["bflops"]),
        "source": _source(row["source"]),
        "layers": "designed" if unpublished else "equal to the published cfg",
        "note": note,
    }


def _source(source: str) -> str:
    """Short for the column of the table: the repository's table, or that the value was not looked up in the paper."""
    return (
        source.partition(" (")[0]
        .replace("CrossStagePartialNetworks", "CSPNet's")
        .replace("PartialResidualNetworks", "PRN's")
    )


def kernel_weights(graph: Graph) -> int:
    """Number of kernel values, without biases and batch normalization: CSPNet's "#Parameter"."""
    arrays = (array for node in graph for array in node.spec.arrays(node))
    return sum(math.prod(array.shape) for array in arrays if array.role == "weight")


@cache
def _graph(name: str, size: int | None = None) -> Graph:
    return parse_text(build(name), name, width=size, height=size)


def _percent(ours: float, published: str) -> str:
    return f"{ours / float(published) - 1:+.1%}" if published else ""


# --- CSPNet's claims


def computation_table() -> list[dict[str, Any]]:
    """Operations of a plain network and of its cross stage partial version."""
    table = []
    for plain, csp, paper in _PAIRS:
        before, after = _graph(plain), _graph(csp)
        table.append(
            {
                "plain": plain,
                "CSP": csp,
                "input": before.net.width,
                "BFLOPs plain": f"{before.bflops:.3f}",
                "BFLOPs CSP": f"{after.bflops:.3f}",
                "change": f"{after.bflops / before.bflops - 1:+.1%}",
                "by the paper": f"{paper:+.0%}",
                "CIO plain (M)": f"{network_profile(before).cio / 1e6:.3f}",
                "CIO CSP (M)": f"{network_profile(after).cio / 1e6:.3f}",
            }
        )
    return table


def ablation_table() -> list[dict[str, Any]]:
    """PeleeNet with other fusions and gammas against the plain one, at 224 x 224.

    Either all four stages are cross stage partial, or the first is plain.
    """
    plain = _graph("peleenet").bflops
    table = []
    for fusion, gamma, paper in _ABLATION:
        row: dict[str, Any] = {
            "fusion": fusion,
            "γ": gamma,
            "change by the paper": "" if paper is None else f"{paper:+.0%}",
        }
        for first, stages in enumerate(("stages 1-4", "stages 2-4")):
            graph = ablation_graph(fusion, gamma, first)
            row[f"{stages}: parameters"] = f"{kernel_weights(graph) / 1e6:.2f}"
            row[f"{stages}: BFLOPs"] = f"{graph.bflops:.3f}"
            row[f"{stages}: change"] = f"{graph.bflops / plain - 1:+.1%}"
            heaviest = max(node.bflops for node in graph)
            row[f"{stages}: heaviest layer"] = f"{heaviest:.4f}"
        table.append(row)
    return table


def ablation_graph(fusion: str, gamma: float, first: int) -> Graph:
    """PeleeNet whose stages from `first` on are cross stage partial, as a classifier at 224 x 224."""
    cfg = CfgWriter("", net_sections.classifier_net(1, size=224))
    peleenet(cfg, Csp(gamma, fusion, "groups"), first=first)
    heads.classifier(cfg, 1000)
    return parse_text(cfg.text())


def bottleneck_table() -> list[dict[str, Any]]:
    """The most expensive layer of PeleeNet detectors at 416 x 416, compared with their plain versions."""
    table = []
    first: dict[str, float] = {}
    for name, part in (
        ("pelee-yolov3", "whole"),
        ("pelee-prn", "whole"),
        ("cspeleenet-efm", "whole"),
        ("pelee-yolov3", "whole from stride 8 on"),
        ("cspeleenet-efm", "whole from stride 8 on"),
        ("pelee-prn", "backbone"),
        ("cspeleenet-efm", "backbone"),
        ("pelee-prn", "backbone from stride 8 on"),
        ("cspeleenet-efm", "backbone from stride 8 on"),
    ):
        profiles = [row for row in layer_profiles(_graph(name)) if _belongs(row.node, part, _graph(name))]
        heaviest = max(profiles, key=lambda row: row.bflops)
        total = sum(row.bflops for row in profiles)
        first.setdefault(part, heaviest.bflops)
        table.append(
            {
                "network": name,
                "part": part,
                "BFLOPs": f"{total:.3f}",
                "heaviest layer": heaviest.node.index,
                "its BFLOPs": f"{heaviest.bflops:.4f}",
                "its share": f"{heaviest.bflops / total:.1%}",
                "against the first": f"{heaviest.bflops / first[part] - 1:+.0%}",
            }
        )
    return table


def _belongs(node: Any, part: str, graph: Graph) -> bool:
    """Whether a layer belongs to a part. The backbone ends with the last layer of 704 channels, the last transition."""
    narrow = "stride 8" not in part or node.output.w <= graph.net.width // 8
    if part.startswith("whole"):
        return narrow
    end = max(other.index for other in graph if other.output.c == 704 and other.type == "convolutional")
    return node.index <= end and narrow


def cio_table() -> list[dict[str, Any]]:
    """Memory traffic of dense blocks per pixel: CSPNet's formulas and our count."""
    table = []
    for base, growth, layers in _BLOCKS:
        formula = base * layers + (layers**2 + layers) * growth / 2
        partial = (base * layers + (layers**2 + layers) * growth) / 2
        counted, counted_partial = (
            dense_cio(base, growth, layers, None),
            dense_cio(base, growth, layers, Csp(split="groups")),
        )
        table.append(
            {
                "c": base,
                "d": growth,
                "m": layers,
                "formula": f"{formula:.0f}",
                "counted": f"{counted:.0f}",
                "partial formula": f"{partial:.0f}",
                "partial counted": f"{counted_partial:.0f}",
                "change": f"{partial / formula - 1:+.0%}",
            }
        )
    return table


def dense_cio(base: int, growth: int, layers: int, csp: Csp | None) -> float:
    """Values per pixel that the convolutions of a dense block without bottlenecks read and write (graph/profile.py)."""
    side = 8
    cfg = CfgWriter("", {"": {"width": side, "height": side, "channels": 3}})
    cfg.part("base")
    cfg.conv(base)
    if csp:
        csp.divide(cfg, base)
    first = cfg.last
    blocks.repeat(cfg, lambda: blocks.dense(cfg, growth, 0), layers)
    profiles = layer_profiles(parse_text(cfg.text()))
    return sum(row.cio for row in profiles if row.node.index > first) / side**2


# --- blocks after CSPNet


def aggregation_table() -> list[dict[str, Any]]:
    """Our networks of blocks after CSPNet, beside the published network that uses them."""
    table = []
    for name, size, network, parameters, bflops, reach in _AGGREGATION:
        graph = _graph(name, size)
        paths = gradient_paths(graph).total
        table.append(
            {
                "cfg": name,
                "input": size,
                "parameters (M)": f"{graph.parameters / 1e6:.3f}",
                "BFLOPs": f"{graph.bflops:.3f}",
                "gradient paths": count_text(paths.count),
                "timestamps": paths.timestamps,
                "published network": network,
                "its parameters (M)": parameters,
                "its BFLOPs": bflops,
                "what the cfg has of it": reach,
            }
        )
    return table


# --- as text


def as_csv(table: Sequence[dict[str, Any]]) -> str:
    """The table as CSV, with the columns of all rows in order of appearance."""
    columns = list(dict.fromkeys(key for row in table for key in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(table)
    return file.getvalue()


def markdown(table: Sequence[dict[str, Any]]) -> str:
    columns = list(table[0])

    def line(cells: Iterable[Any]) -> str:
        return f"| {' | '.join(map(str, cells))} |\n"

    head = line(columns) + line("---" for _ in columns)
    return head + "".join(line(row[column] for column in columns) for row in table)


if __name__ == "__main__":
    main()
