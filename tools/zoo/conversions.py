"""Runs `design --csp` on every cfg of some repositories and reads each result with C Darknet.

    python tools/zoo/conversions.py DARKNET FOLDER --out docs/csp_conversions.csv [--fusion csp] [--split conv]

DARKNET is a CPU build of AlexeyAB/darknet, FOLDER holds OWNER/NAME/cfg/*.cfg. A row per cfg: converted, with the cost
before and after, or refused, with the reason. C must read each converted cfg and count the same layers, shapes,
parameters and BFLOPs (tools/zoo/c_darknet.py).
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import c_darknet  # noqa: E402
from tqdm import tqdm  # noqa: E402

from darknet_py.errors import DarknetError  # noqa: E402
from darknet_py.graph.graph import parse, parse_text  # noqa: E402
from darknet_py.zoo.csp_transform import to_csp  # noqa: E402
from darknet_py.zoo.stages import FUSIONS, SPLITS, Csp  # noqa: E402

FIELDS = ["repository", "cfg", "result", "parameters", "parameters CSP", "BFLOPs", "BFLOPs CSP", "C Darknet", "remarks"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("darknet", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="CSV file to write; default: standard output")
    parser.add_argument("--fusion", choices=FUSIONS, default="csp")
    parser.add_argument("--split", choices=SPLITS, default="conv")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    csp = Csp(0.5, options.fusion, options.split)
    paths = sorted(options.folder.glob("*/*/cfg/*.cfg"))
    rows = [row(options.darknet, options.folder, path, csp) for path in tqdm(paths, disable=not sys.stderr.isatty())]
    with open(options.out, "w", newline="") if options.out else sys.stdout as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    converted = [row for row in rows if row["result"] == "converted"]
    failed = [row for row in converted if row["C Darknet"] != "equal"]
    print(f"{len(rows)} cfgs: {len(converted)} converted, {len(failed)} of them not as in C", file=sys.stderr)
    return 1 if failed else 0


def row(darknet: Path, folder: Path, path: Path, csp: Csp) -> dict[str, Any]:
    """The row of one cfg."""
    repository, cfg = "/".join(path.relative_to(folder).parts[:2]), path.name
    found: dict[str, Any] = {"repository": repository, "cfg": cfg}
    try:
        result = to_csp(path, csp)
    except DarknetError as error:
        reason = str(error).splitlines()[0].replace(str(path), cfg).removeprefix(f"{cfg}: ")
        return {**found, "result": "refused", "remarks": reason}
    plain, new = parse(path), parse_text(result.text)
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / cfg
        written.write_text(result.text)
        text, graph = c_darknet.small(written)
    differences = c_darknet.compare(graph, *c_darknet.run(darknet, text))
    remarks = [change for change in result.changes if "stay as they are" in change or change.startswith("the cross")]
    return {
        **found,
        "result": "converted",
        "parameters": plain.parameters,
        "parameters CSP": new.parameters,
        "BFLOPs": f"{plain.bflops:.3f}",
        "BFLOPs CSP": f"{new.bflops:.3f}",
        "C Darknet": differences[0] if differences else "equal",
        "remarks": "; ".join(remarks),
    }


if __name__ == "__main__":
    sys.exit(main())
