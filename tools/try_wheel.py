"""Builds the sdist and, from it, the wheel; installs the wheel in an empty environment and uses it in an empty folder.

The environment sees the packages of the Python that runs this program (torch is not installed again), but not the
repository: commands find the shipped cfgs by name, train on built-in data, and mypy sees the types of the package.

    python tools/try_wheel.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = {"cfg": ("*.cfg",), "data": ("*.data", "*.names")}
USER_SCRIPT = """\
import darknet_py

net = darknet_py.load("yolov4-tiny.cfg", width=32, height=32)
reveal_type(net)
reveal_type(darknet_py.parse("yolov4.cfg"))
reveal_type(darknet_py.__version__)
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="try-wheel-") as name:
        work = Path(name)
        wheel = build(work / "dist")
        check_contents(wheel)
        python = install(wheel, work / "environment")
        folder = work / "elsewhere"
        folder.mkdir()
        use(python, folder)
        check_types(python, folder)
    print("the wheel works outside the repository")
    return 0


def build(out: Path) -> Path:
    """The wheel, built from the sdist, so that the sdist is complete too."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)], ROOT)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    print(
        f"built {sdist.name} ({sdist.stat().st_size / 1e6:.1f} MB), {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB)"
    )
    return wheel


def check_contents(wheel: Path) -> None:
    """Every file of the package and every shipped file is there, and nothing else."""
    package = ROOT / "darknet_py"
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    for folder, patterns in SHIPPED.items():
        expected |= {
            f"darknet_py/_shipped/{folder}/{path.name}"
            for pattern in patterns
            for path in (ROOT / folder).glob(pattern)
        }
    with zipfile.ZipFile(wheel) as archive:
        contents = {name for name in archive.namelist() if ".dist-info/" not in name}
    if contents != expected:
        raise SystemExit(
            f"{wheel.name}: missing {sorted(expected - contents)}, unexpected {sorted(contents - expected)}"
        )


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel; everything else comes from the running Python's packages."""
    venv.create(folder)
    python = folder / "bin" / "python"
    packages = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    run([*pip, "install", "--no-deps", "--no-index", str(wheel)], folder)
    paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(packages.strip()) / "packages.pth").write_text("".join(f"{path}\n" for path in paths))
    return python


def use(python: Path, folder: Path) -> None:
    command = str(python.with_name("darknet-py"))
    where = run([str(python), "-c", "import darknet_py; print(darknet_py.__file__)"], folder).strip()
    if not Path(where).is_relative_to(python.parents[1]):
        raise SystemExit(f"darknet_py: expected the installed package, got {where}")
    print(run([command, "--version"], folder).strip())
    print(run([command, "info", "csresnext50-panet-spp.cfg"], folder).splitlines()[-1])
    message = run([command, "info", "csresnext50-panet-sp.cfg"], folder, expected_status=1)
    if "did you mean csresnext50-panet-spp.cfg" not in message:
        raise SystemExit(f"expected a hint at the cfg of a similar name, got {message!r}")
    print(message.strip())
    sizes = ["--width", "32", "--height", "32", "--batch", "2", "--subdivisions", "1", "--workers", "0"]
    data = ["--data", "shapes.data", "--map", "off"]
    run([command, "train", "yolov4-tiny-shapes.cfg", *data, *sizes, "--max-batches", "2"], folder)
    weights = folder / "backup" / "yolov4-tiny-shapes_final.weights"
    print(f"trained 2 iterations: {weights.name}, {weights.stat().st_size / 1e6:.1f} MB")
    run([command, "convert", "yolov4-tiny-shapes.cfg", str(weights), "net.pt", "--names", "shapes.names"], folder)
    run([command, "info", "net.pt"], folder)


def check_types(python: Path, folder: Path) -> None:
    """A user's script sees the package's types. mypy is the running Python's."""
    (folder / "user.py").write_text(USER_SCRIPT)
    options = ["--strict", "--python-executable", str(python), "--cache-dir", str(folder / "cache")]
    output = run([sys.executable, "-m", "mypy", *options, "user.py"], folder)
    revealed = [line.rpartition("Revealed type is ")[2] for line in output.splitlines() if "Revealed type" in line]
    print("types:", ", ".join(revealed))
    names = [name.strip('"').rpartition(".")[2] for name in revealed]
    if names != ["Network", "Graph", "str"]:
        raise SystemExit(f"expected the types Network, Graph and str, got {output}")


def run(command: list[str], folder: Path, expected_status: int = 0) -> str:
    """What it prints (its errors, where it is expected to fail). Ends this program where the exit status is another."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MYPYPATH")}
    environment["XDG_CACHE_HOME"] = str(folder / "user-cache")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != expected_status:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stderr if expected_status else done.stdout


if __name__ == "__main__":
    sys.exit(main())
