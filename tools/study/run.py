"""The fusion study on real training: fusions, partial ratios and necks, several seeds each.

    python tools/study/run.py                      everything, as in docs/study.md: half an hour on one core
    python tools/study/run.py --jobs 4             four trainings in parallel, one thread each
    python tools/study/run.py --only necks         one question: fusion, gamma, necks or equal-necks
    python tools/study/run.py --scale gpu --data imagenet --detector-data coco.data
                                                   full networks at full size, longer, with mixed precision

Every finished training is a JSON row in study/rows.jsonl. Networks with a row are not trained again, and an interrupted
training is resumed. At the end it writes study/report.md and charts of the rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import plan  # noqa: E402
import report  # noqa: E402
import torch  # noqa: E402
from plan import Run, StudyData  # noqa: E402
from tqdm import tqdm  # noqa: E402

import darknet_py  # noqa: E402
from darknet_py.data.builtin.shape_classes import ensure_shape_classes  # noqa: E402
from darknet_py.data.builtin.shapes import ensure_shapes  # noqa: E402
from darknet_py.data.open_classification import open_classifier_data  # noqa: E402
from darknet_py.data.open_dataset import open_dataset  # noqa: E402
from darknet_py.errors import DarknetError  # noqa: E402
from darknet_py.files import write_atomically  # noqa: E402
from darknet_py.graph.profile import network_profile  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return study(args)
    except DarknetError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"interrupted; run the same command again to resume with the rows of {args.out / 'rows.jsonl'}",
            file=sys.stderr,
        )
        return 130


def study(args: argparse.Namespace) -> int:
    scale = plan.SCALES[args.scale]
    device = args.device or scale.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DarknetError(f"--scale {args.scale}: expected a CUDA device, got none (try --device cpu)")
    args.out.mkdir(parents=True, exist_ok=True)
    data = _open_data(args)
    planned = list(plan.runs(args.scale, args.only, args.seeds, args.iterations, data))
    rows_path = args.out / "rows.jsonl"
    rows = report.read_jsonl(rows_path) if rows_path.is_file() else []
    done = {row["digest"] for row in rows}
    missing = [run for run in _shard(planned, args.shard) if run.digest not in done][: args.runs]
    paths = {part: images.path for part, images in data.items()}
    train_one = partial(train, out=args.out, paths=paths, device=device, workers=args.workers, keep=args.keep)
    with tqdm(total=len(missing), unit="training", dynamic_ncols=True) as bar:
        for row in _results(missing, train_one, args.jobs):
            append_row(rows_path, row)
            rows.append(row)
            bar.set_postfix_str(f"{row['variant']} seed {row['seed']}: {row['score']:.1%}", False)
            bar.update()
    digests = {run.digest for run in planned}
    for path in report.write(args.out, [row for row in rows if row["digest"] in digests]):
        print(path)
    return 0


def train(
    run: Run, *, out: Path, paths: dict[str, str], device: str, workers: int | None, keep: bool
) -> dict[str, Any]:
    """Trains and evaluates one network; returns its row."""
    if device == "cpu":
        torch.set_num_threads(1)
    folder = out / "trainings" / f"{run.name}-{run.digest}"
    folder.mkdir(parents=True, exist_ok=True)
    cfg = folder / f"{run.variant.name}.cfg"
    write_atomically(cfg, run.cfg.encode())
    used = time.process_time()
    result = darknet_py.train(
        cfg,
        paths[run.variant.part],
        out=folder,
        device=device,
        seed=run.seed,
        map=run.recipe.iterations,
        workers=0 if workers is None and device == "cpu" else workers,
        amp=plan.SCALES[run.scale].amp if device != "cpu" and plan.SCALES[run.scale].amp else None,
        resume=True,
        quiet=True,
        chart=False,
    )
    cost = network_profile(darknet_py.parse(cfg))
    row = {
        "scale": run.scale,
        "part": run.variant.part,
        "variant": run.variant.name,
        "seed": run.seed,
        "score": result.map,
        "loss": round(result.average, 6),
        "parameters": cost.parameters,
        "bflops": round(cost.bflops, 6),
        "cio": cost.cio,
        "iterations": result.iterations,
        "batch": run.recipe.batch,
        "size": run.recipe.size,
        "data": run.data,
        "seconds": round(time.process_time() - used if device == "cpu" else _seconds(result.log), 1),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
        "digest": run.digest,
    }
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return row


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends a line to rows.jsonl; starts a new line after one that a crash cut off."""
    with open(path, "a+b") as file:
        file.seek(max(file.tell() - 1, 0))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(start + json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _results(runs: Sequence[Run], train_one: partial[dict[str, Any]], jobs: int) -> Iterator[dict[str, Any]]:
    """Rows in order of completion; with several jobs each training runs in its own process."""
    if jobs == 1:
        yield from map(train_one, runs)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(train_one, run) for run in runs]
        try:
            for task in as_completed(tasks):
                yield task.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _open_data(args: argparse.Namespace) -> dict[str, StudyData]:
    """The images of each part; without --data the built-in data, which is generated if missing."""
    parts = {variant.part for variant in plan.variants_of(args.only)}
    scale, data = plan.SCALES[args.scale], {}
    if "stages" in parts:
        path, name = args.data, ""
        if not path:
            train, valid = scale.stages.train, scale.stages.valid
            path = ensure_shape_classes(args.out / f"shape-classes-{args.scale}", train=train, valid=valid).path
            name = f"built-in shape classes, {train} images, evaluated on {valid} others"
        classes = len(open_classifier_data(path).names)
        data["stages"] = StudyData(name or Path(path).name, str(path), classes, not args.data)
    if parts - {"stages"}:
        path, name = args.detector_data, ""
        if not path:
            train, valid = scale.necks.train, scale.necks.valid
            path = ensure_shapes(args.out / f"shapes-{args.scale}", train=train, valid=valid).path
            name = f"built-in shapes, {train} images, evaluated on {valid} others"
        file = open_dataset(path)
        classes = file.classes or len(file.class_names())
        images = StudyData(name or Path(path).name, str(path), classes, not args.detector_data)
        data |= dict.fromkeys(parts - {"stages"}, images)
    return data


def _shard(runs: list[Run], shard: tuple[int, int]) -> list[Run]:
    return runs[shard[0] :: shard[1]]


def _seconds(log: Path) -> float:
    """Seconds of all iterations, from NAME_log.csv."""
    with open(log, newline="", encoding="utf-8") as file:
        return float(list(csv.DictReader(file))[-1]["seconds"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=plan.TOPICS, help="one question; can be repeated")
    parser.add_argument(
        "--scale", choices=plan.SCALES, default="cpu", help="long: three times as long; gpu: full networks"
    )
    parser.add_argument("--data", help="images to classify: a folder with one folder per class, or a .data file")
    parser.add_argument("--detector-data", help="images with boxes, for the necks: .data, COCO JSON, VOC folder …")
    parser.add_argument("--seeds", type=_positive, help="trainings of each network (default: the scale's)")
    parser.add_argument("--iterations", type=_positive, help="of each training (default: the scale's)")
    parser.add_argument("--jobs", type=_positive, default=1, help="parallel trainings")
    parser.add_argument("--workers", type=int, help="processes that load images (default: none on a CPU)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: the scale's)")
    parser.add_argument(
        "--shard", type=_parse_shard, default=(0, 1), metavar="K/N", help="run only shard K of N of the trainings"
    )
    parser.add_argument("--runs", type=_positive, metavar="N", help="stop after N trainings")
    parser.add_argument("--keep", action="store_true", help="keep weights and logs of the trainings")
    parser.add_argument("--out", type=Path, default=Path("study"), help="folder for rows and report")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return value


def _parse_shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 0 to N - 1, got {text}")
    return int(number), int(count)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
