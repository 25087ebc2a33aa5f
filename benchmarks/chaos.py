"""Kill the actors, nodes and driver of a run at random, and check the run's results.

    python benchmarks/chaos.py --seconds 120

The program starts three Ray nodes on this machine: a head and two nodes for the actors. On these
nodes, it starts a run of small tasks. Every few seconds, it kills one of these with SIGKILL: a
training actor, an evaluation actor, a node with all its processes, or the driver. It replaces a
killed node, and starts a killed driver again at once. When the time is up, the program stops
killing, and waits until the run ends. Then it compares the run with a second run in which nothing
was killed. The masks must be equal bit for bit, the evaluations must be equal, and every task must
be in the log once. Files that were committed before a kill must not have changed.

All processes are in a network namespace that has only the loopback interface, and in a process
namespace. So all of them end with the program. This needs Linux, and root or permission to create
user namespaces.
"""

import argparse
import fcntl
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from commandline import Parser, real, run_program, whole

from analysis.load import load

SCALE = Path(__file__).resolve().parent.parent / "harness" / "scale.py"
INSIDE = "SUPERMASKS_CHAOS"  # environment variable of the process inside the namespaces
SMALL = [
    *("data=digits", "network=mlp", "network_options.hidden=[24]", "outputs=20", "train.block=2"),
    *("train.learning_rate=0.001", "evaluate.batches=1", "evaluate.tasks=100", "quiet=true"),
]
VICTIMS = ("training actor", "evaluation actor", "node", "driver")
TITLES = {"training actor": b"ray::TrainWorker", "evaluation actor": b"ray::EvaluateWorker"}
SECONDS_BETWEEN_KILLS = (0.5, 3.0)
MOST_SECONDS_TO_APPEAR = 3.0
MOST_SECONDS_TO_END = 240.0  # after the last kill


def inside_namespaces() -> int:
    """Start this program again inside new namespaces, and return its exit code."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    environment = os.environ | {INSIDE: "1"}
    return subprocess.run(
        [*command, sys.executable, *sys.argv], env=environment, check=False
    ).returncode


def raise_loopback() -> None:
    """Start the interface `lo`, which is down in a new network namespace."""
    set_flags, up_and_running = 0x8914, 0x41
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        fcntl.ioctl(some, set_flags, struct.pack("16sH14x", b"lo", up_and_running))


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder, except hidden files. Return a mapping from name to content."""
    return {p.name: p.read_bytes() for p in folder.glob("*") if not p.name.startswith(".")}


def processes(title: bytes) -> list[int]:
    """Find the ids of the processes whose command line begins with `title`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(title):
                found.append(int(folder.name))
        except OSError:  # the process has ended
            continue
    return found


class Chaos:
    """A cluster and the driver of a run on this cluster, with methods to kill parts of both.

    Args:
        folder: folder for Ray, the run, and the output of the drivers.
        options: options of harness/scale.py.
        seed: seed of the random choices: what to kill, and when.
    """

    def __init__(self, folder: Path, options: list[str], seed: int) -> None:
        from ray.cluster_utils import Cluster

        self._choices = random.Random(seed)
        self._run_dir, self._output = folder / "run", folder / "output"
        self._options = [*options, f"run_dir={self._run_dir}"]
        self._cluster = Cluster(initialize_head=True, head_node_args=self._node_arguments(0))
        self._nodes = [self._add_node() for _ in range(2)]
        self._kept: dict[str, bytes] = {}
        self._next: list[str] = []  # kinds to kill next; the last of the list is the first to kill
        self.kills: Counter[str] = Counter()
        self.broken: list[str] = []
        self.num_starts = 0
        self._driver = self._start_driver()

    @staticmethod
    def _node_arguments(cpus: int) -> dict[str, Any]:
        return {
            "num_cpus": cpus,
            "object_store_memory": 100_000_000,
            "include_dashboard": False,
            "node_ip_address": "127.0.0.1",
        }

    def _add_node(self) -> Any:
        return self._cluster.add_node(wait=False, **self._node_arguments(1))

    def _start_driver(self) -> "subprocess.Popen[bytes]":
        self.num_starts += 1
        environment = os.environ | {"RAY_ADDRESS": self._cluster.address}
        with self._output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(SCALE), *self._options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def spared(self) -> list[str]:
        """Return the kinds in VICTIMS of which nothing has been killed yet."""
        return [victim for victim in VICTIMS if not self.kills[victim]]

    def work(self, seconds: float) -> None:
        """Kill parts of the run until the time is up, or until the run has ended.

        If a kind in VICTIMS has not been killed when the time is up, continue until it is killed.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end or self.spared():
            self._pause(self._choices.uniform(*SECONDS_BETWEEN_KILLS))
            if self._driver.poll() == 0:
                print("the run ended before the time was up")
                return
            if self._driver.poll() is not None:  # for example because a unit failed three times
                self._driver = self._start_driver()
            late = time.monotonic() > end and self.spared()
            self._kill(late[0] if late else self._rare_victim() or self._next_victim())

    def _pause(self, seconds: float) -> None:
        """Wait for some seconds, or until _rare_victim finds an actor to kill."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._rare_victim():
            time.sleep(0.1)

    def _rare_victim(self) -> str | None:
        """Return a kind of actor that runs now and has not been killed yet; None if there is none.

        Such an actor must be killed at once, because it may soon end.
        """
        spared = [victim for victim in self.spared() if victim in TITLES]
        return next((victim for victim in spared if processes(TITLES[victim])), None)

    def _next_victim(self) -> str:
        """Return the next kind to kill.

        The order is random. At first, each kind comes once. Later, the kinds that restart faster
        come more often.
        """
        if len(self._next) < len(VICTIMS):
            more = list(VICTIMS)
            if self.kills:
                more += ["training actor", "training actor", "evaluation actor", "node"]
            self._choices.shuffle(more)
            self._next = more + self._next
        return self._next.pop()

    def _kill(self, victim: str) -> None:
        match victim:
            case "training actor" | "evaluation actor":
                self._kill_one(victim)
            case "driver":
                self._driver.kill()
                self._driver.wait()
                self.kills[victim] += 1
                self._hold_on_to_commits()
                self._driver = self._start_driver()
            case "node":
                place = self._choices.randrange(len(self._nodes))
                self._cluster.remove_node(self._nodes[place], allow_graceful=False)
                self.kills[victim] += 1
                self._nodes[place] = self._add_node()

    def _kill_one(self, victim: str) -> None:
        """Kill an actor of a kind. If none runs, wait a short time, and then postpone the kill."""
        limit = time.monotonic() + MOST_SECONDS_TO_APPEAR
        while not (found := processes(TITLES[victim])):
            if self._driver.poll() is not None or time.monotonic() > limit:
                self._next.insert(0, victim)
                return
            time.sleep(0.1)
        os.kill(self._choices.choice(found), signal.SIGKILL)
        self.kills[victim] += 1

    def _hold_on_to_commits(self) -> None:
        """Check that no log file has changed since the last call, and remember the log files."""
        found = contents(self._run_dir / "log")
        self.broken += [name for name, data in self._kept.items() if found.get(name) != data]
        self._kept = found

    def end(self) -> int:
        """Wait for the run to end, and start its driver again if the driver fails.

        Returns:
            The exit code of the last driver.
        """
        limit = time.monotonic() + MOST_SECONDS_TO_END
        code = 1
        while code and time.monotonic() < limit:
            try:
                code = self._driver.wait(limit - time.monotonic())
            except subprocess.TimeoutExpired:
                self.broken.append("(the driver did not end in time)")
                break
            if code:
                self._driver = self._start_driver()
        self._hold_on_to_commits()
        return code

    def close(self) -> None:
        """Kill the driver, and end the cluster."""
        self._driver.kill()
        self._cluster.shutdown()

    def said(self) -> str:
        """Return everything that the drivers printed."""
        return self._output.read_text(errors="replace")


def rows_of(run_dir: Path, table: str, *but: str) -> list[tuple[Any, ...]]:
    """Read and sort the rows of a table, without the columns `but`, whose values are durations."""
    rows = load(run_dir, table).drop_columns(list(but)).to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=repr)


def masks(run_dir: Path) -> bytes:
    """Read all rows of the array `masks` as bytes."""
    return np.asarray(zarr.open_array(run_dir / "masks.zarr" / "masks", mode="r")[...]).tobytes()


def differences(run_dir: Path, undisturbed: Path, num_tasks: int) -> list[str]:
    """Describe the differences between a run and the undisturbed run, and unwanted files."""
    found = []
    if masks(run_dir) != masks(undisturbed):
        found.append("the masks differ")
    if sorted(load(run_dir, "tasks")["task_id"].to_pylist()) != list(range(num_tasks)):
        found.append("a task is missing from the log, or occurs twice")
    timing = "seconds_per_inference"
    if rows_of(run_dir, "evaluations", timing) != rows_of(undisturbed, "evaluations", timing):
        found.append("the evaluations differ")
    if rows_of(run_dir, "queries") != rows_of(undisturbed, "queries"):
        found.append("the queries differ")
    if list(run_dir.rglob("*.partial")):
        found.append("unfinished files are left")
    if len(load(run_dir, "failures")) if (run_dir / "failures").exists() else 0:
        found.append("the table `failures` still has rows, although every unit is done")
    return found


def main() -> int:
    """Read the options and do all runs. Return 1 if any check fails."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--seconds", type=real(above=0, at_most=10**6), default=120.0, help="duration of the kills"
    )
    parser.add_argument("--tasks", type=whole(8), default=200)
    parser.add_argument(
        "--steps", type=whole(), help="steps per task (default: enough for a run of --seconds)"
    )
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--show", action="store_true", help="print the output of the drivers")
    arguments = parser.parse_args()
    if INSIDE not in os.environ:
        return inside_namespaces()
    raise_loopback()
    checkpoints = [arguments.tasks // 8, arguments.tasks // 2, arguments.tasks]
    options = [
        *(*SMALL, f"tasks={arguments.tasks}"),
        f"evaluate.checkpoints={checkpoints}".replace(" ", ""),
    ]
    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    # Ray writes its sessions and the address of the cluster to this folder.
    os.environ["RAY_TMPDIR"] = str(folder)
    try:
        return disturb(folder, options, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_in_peace(options: list[str], run_dir: Path) -> float:
    """Run harness/scale.py in one process, without kills, and return its duration in seconds."""
    began = time.monotonic()
    command = [sys.executable, str(SCALE), *options, "executor=serial", f"run_dir={run_dir}"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return time.monotonic() - began


def disturb(folder: Path, options: list[str], arguments: argparse.Namespace) -> int:
    """Compare a run with kills and a run without kills. Return 1 if any check fails."""
    undisturbed = folder / "undisturbed"
    steps = arguments.steps or int(2 * arguments.seconds)
    took = run_in_peace([*options, f"train.steps={steps}"], undisturbed)
    if not arguments.steps and took < arguments.seconds:  # this machine is fast: train longer
        steps = int(1.2 * steps * arguments.seconds / took)
        shutil.rmtree(undisturbed)
        took = run_in_peace([*options, f"train.steps={steps}"], undisturbed)
    print(f"undisturbed serial run: {took:.0f} s, {steps} steps per task", flush=True)
    options = [*options, f"train.steps={steps}"]

    began = time.monotonic()
    chaos = Chaos(folder, options, arguments.seed)
    try:
        chaos.work(arguments.seconds)
        killing = time.monotonic() - began
        code = chaos.end()
    finally:
        chaos.close()
    said = chaos.said()
    if arguments.show:
        print(said)
    killed = ", ".join(f"{chaos.kills[victim]} {victim}s" for victim in VICTIMS)
    print(f"killed in {killing:.0f} s: {killed}; driver starts: {chaos.num_starts}")
    print(
        f"complete after {time.monotonic() - began:.0f} s; units tried again: "
        f"{said.count('trying ')}, set aside for a time: {said.count('failed three times')}"
    )
    wrong = differences(folder / "run", undisturbed, arguments.tasks)
    if code:
        wrong.append(f"the last driver ended with exit code {code}")
    if chaos.broken:
        wrong.append(f"committed files changed: {chaos.broken}")
    if "Traceback" in said:
        wrong.append("a driver ended with a traceback")
    if spared := chaos.spared():
        wrong.append(f"no {', '.join(spared)} was killed: raise --steps")
    print("; ".join(wrong) or "masks, log and evaluations equal those of the undisturbed run")
    return bool(wrong)


if __name__ == "__main__":
    run_program(main)
