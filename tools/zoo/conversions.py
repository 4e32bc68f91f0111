"""Runs `design --csp` with every fusion and split on cfgs of some repositories and reads the results with C Darknet.

    python tools/zoo/conversions.py DARKNET FOLDER --out docs/csp_conversions.csv

DARKNET is a CPU build of AlexeyAB/darknet, FOLDER holds OWNER/NAME/….cfg; of files with the same content the least
nested is taken. A row per cfg and kind (fusion, split): converted, with the cost before and after, or refused, with the
reason; one row (kind "all") if all kinds are refused for the same reason. C must read each converted cfg and count the
same layers, shapes, parameters and BFLOPs (tools/zoo/c_darknet.py).
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

FIELDS = (
    *("repository", "cfg", "kind", "result", "parameters", "parameters CSP", "BFLOPs", "BFLOPs CSP", "C Darknet"),
    "remarks",
)
KINDS = [Csp(0.5, fusion, split) for split in SPLITS for fusion in FUSIONS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("darknet", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="CSV file to write; default: standard output")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    paths = {file.read_bytes(): file for file in sorted(options.folder.glob("*/*/**/*.cfg"), key=_least_nested)[::-1]}
    found: list[dict[str, Any]] = []
    with open(options.out, "w", newline="") if options.out else sys.stdout as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for path in tqdm(sorted(paths.values()), disable=not sys.stderr.isatty()):
            kinds = [row(options.darknet, options.folder, path, csp) for csp in KINDS]
            same = all(kind["result"] == "refused" and kind["remarks"] == kinds[0]["remarks"] for kind in kinds)
            kinds = [{**kinds[0], "kind": "all"}] if same else kinds
            writer.writerows(kinds)
            file.flush()
            found += kinds
    converted = [row for row in found if row["result"] == "converted"]
    failed = [row for row in converted if row["C Darknet"] != "equal"]
    cfgs = len({(row["repository"], row["cfg"]) for row in converted})
    print(
        f"{len(paths)} cfgs, {cfgs} of them converted, in {len(converted)} ways; {len(failed)} results are not as in C",
        file=sys.stderr,
    )
    return 1 if failed else 0


def _least_nested(path: Path) -> tuple[int, str]:
    return len(path.parts), str(path)


def row(darknet: Path, folder: Path, path: Path, csp: Csp) -> dict[str, Any]:
    """The row of one cfg and kind."""
    owner, name, *parts = path.relative_to(folder).parts
    cfg = path.name
    found: dict[str, Any] = {
        "repository": f"{owner}/{name}",
        "cfg": "/".join(parts).removeprefix("cfg/"),
        "kind": f"{csp.fusion}, {csp.split}",
    }
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
