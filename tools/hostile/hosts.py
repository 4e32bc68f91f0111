"""Trains on two hosts, loses one of them and replaces it: are the final weights those of an undisturbed training?

    python tools/hostile/hosts.py [KIND …] [--iterations 200] [--out docs/bench/hosts.json]

A host is a network namespace with a name and an address of its own, in which an agent of torchrun runs; a bridge joins
them. The folder of the output is the same for all. The second host is lost in the middle: `killed` ends all its
processes at once, whose connections the system then closes; `vanished` cuts its cable first, so that nobody is told
anything; `stopped` stops its training process alone. A new host with another address takes its place (of `stopped`,
torchrun's agent replaces the process). The first host has torchrun's rendezvous and goes on. Linux, root and `ip` are
needed. Exits with code 1 where weights or the log differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from small_training import detector_cfg, write_images, write_list
from tqdm import tqdm

import darknet_py
from darknet_py.files import sha256_of

UNDISTURBED = "undisturbed"
KINDS = ("killed", "vanished", "stopped")
_NETWORK = "10.213.77"
_TIMEOUT = 5  # of --rank-timeout, seconds
_LIMIT = 600  # seconds for a training


class Network(NamedTuple):
    """A bridge with namespaces; `name` begins all their names."""

    name: str

    def make_host(self, number: int) -> Host:
        """Makes a namespace that is connected to the bridge."""
        host = Host(self.name, number)
        commands = (
            f"ip netns add {host.namespace}",
            f"ip link add {host.link} type veth peer name eth0 netns {host.namespace}",
            f"ip link set {host.link} master {self.name} up",
            f"ip -n {host.namespace} link set lo up",
            f"ip -n {host.namespace} addr add {host.address}/24 dev eth0",
            f"ip -n {host.namespace} link set eth0 up",
        )
        for command in commands:
            _call(command)
        return host


class Host(NamedTuple):
    network: str
    number: int

    @property
    def namespace(self) -> str:
        return f"{self.network}-{self.number}"

    @property
    def link(self) -> str:
        return f"{self.network}v{self.number}"

    @property
    def address(self) -> str:
        return f"{_NETWORK}.{self.number}"

    def start_agent(self, first: Host, folder: Path, out: Path) -> subprocess.Popen[bytes]:
        """Starts torchrun with one training process."""
        own = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--max-restarts=5"]
        own += ["--rdzv-backend=c10d", f"--rdzv-endpoint={first.address}:29400", f"--rdzv-id={out.name}"]
        own += [f"--local-addr={self.address}", "-m", "darknet_py", "train", "net.cfg", "--data", "x.data"]
        own += ["--out", str(out), "--resume", "--workers", "0", "--device", "cpu", "--map", "off", "--no-chart"]
        own += ["--no-report", "--save-every", "20", "--rank-timeout", str(_TIMEOUT)]
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(darknet_py.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "GLOO_SOCKET_IFNAME": "eth0",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        script = f'hostname host{self.number} && mount --bind hosts /etc/hosts && exec "$@"'
        inside = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount", "sh", "-c", script, "sh"]
        with (folder / f"{out.name}-{self.number}.txt").open("wb") as said:
            return subprocess.Popen([*inside, *own], cwd=folder, env=environment, stdout=said, stderr=said)

    def pids(self) -> list[int]:
        return [int(word) for word in _call(f"ip netns pids {self.namespace}").split()]

    def kill(self) -> int:
        """Kills all processes of the host; returns how many."""
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def stop_training(self) -> int:
        """Stops the training process, which has no child."""
        pids = self.pids()
        parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
        stopped = [pid for pid in pids if pid not in parents]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        return len(stopped)

    def cut_cable(self) -> None:
        _call(f"ip link set {self.link} down")


def _call(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def make_network() -> Iterator[Network]:
    name = f"dn{os.getpid() % 100000}"
    try:
        _call(f"ip link add {name} type bridge")
        _call(f"ip link set {name} up")
        yield Network(name)
    finally:
        for line in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.splitlines():
            namespace = line.split()[0]
            if namespace.startswith(f"{name}-"):
                Host(name, int(namespace.rpartition("-")[2])).kill()
                subprocess.run(["ip", "netns", "delete", namespace], check=False)
        subprocess.run(["ip", "link", "delete", name], check=False)


def make_files(folder: Path, iterations: int) -> None:
    names = "".join(f"{_NETWORK}.{number} host{number}\n" for number in range(1, 250))
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
    images = [str(number) for number in range(16)]
    write_images(folder, images)
    write_list(folder / "train.txt", images)
    (folder / "x.data").write_text(f"classes = 2\ntrain = {folder}/train.txt\n")
    (folder / "net.cfg").write_text(detector_cfg(batch=4, burn_in=10, iterations=iterations, filters=8))


def train(network: Network, folder: Path, kind: str, iterations: int, numbers: Iterator[int]) -> dict[str, Any]:
    """One training on two hosts; `kind` is what becomes of the second one in its middle."""
    begin, out = time.monotonic(), folder / kind
    hosts = [network.make_host(next(numbers)) for _ in range(2)]
    agents = [host.start_agent(hosts[0], folder, out) for host in hosts]
    report: dict[str, Any] = {"hosts": 2, "iterations": iterations}
    if kind != UNDISTURBED:
        report["lost after iteration"] = wait_until(out, iterations // 2, agents, folder)
        if kind == "stopped":
            report["processes"] = hosts[1].stop_training()
        else:
            if kind == "vanished":
                hosts[1].cut_cable()
                time.sleep(2 * _TIMEOUT)  # it is there, but alone
            report["processes"] = hosts[1].kill()
            agents.pop().wait()
            hosts.append(network.make_host(next(numbers)))
            agents.append(hosts[-1].start_agent(hosts[0], folder, out))
    for agent in agents:
        status = agent.wait(timeout=_LIMIT)
        if status:
            raise RuntimeError(f"{kind}: torchrun ended with {status}\n{said(folder, kind)}")
    for host in hosts:
        host.kill()
    report["seconds"] = round(time.monotonic() - begin, 1)
    report["said"] = [
        f"host {path.stem.rpartition('-')[2]}: {line}"
        for path in logs(folder, kind)
        for line in path.read_text(errors="replace").splitlines()
        if any(words in line for words in ("not answered", "terminated unexpectedly", "resuming at"))
    ]
    return report


def wait_until(out: Path, iteration: int, agents: list[subprocess.Popen[bytes]], folder: Path) -> int:
    """Waits until the log has an iteration."""
    end = time.monotonic() + _LIMIT
    while time.monotonic() < end and all(agent.poll() is None for agent in agents):
        rows = log_of(out)
        if rows and int(rows[-1][0]) >= iteration:
            return int(rows[-1][0])
        time.sleep(0.1)
    raise RuntimeError(f"{out.name}: iteration {iteration} was not reached\n{said(folder, out.name)}")


def log_of(out: Path) -> list[list[str]]:
    """Iteration and loss of each row."""
    path = out / "net_log.csv"
    if not path.exists():
        return []
    return [row[:2] for row in csv.reader(path.read_text().splitlines()[1:]) if len(row) > 1]


def logs(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}-*.txt"))


def said(folder: Path, kind: str) -> str:
    return "\n".join(path.read_text(errors="replace")[-6000:] for path in logs(folder, kind))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    numbers = iter(range(1, 250))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hosts-")))
        make_files(folder, options.iterations)
        network = stack.enter_context(make_network())
        report: dict[str, Any] = {}
        for kind in tqdm([UNDISTURBED, *(options.kinds or KINDS)], unit="training"):
            report[kind] = train(network, folder, kind, options.iterations, numbers)
            weights = {path.name: sha256_of(path) for path in sorted((folder / kind).glob("*.weights"))}
            report[kind] |= {"log": log_of(folder / kind), "weights": weights}
    expected = report[UNDISTURBED]
    for entry in report.values():
        entry["same weights"] = entry["weights"] == expected["weights"]
        entry["same log"] = entry["log"] == expected["log"]
    for entry in report.values():
        del entry["log"]
    text = json.dumps(report, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    sys.exit(not all(entry["same weights"] and entry["same log"] for entry in report.values()))


if __name__ == "__main__":
    main()
