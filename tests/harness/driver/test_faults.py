"""A fault during a run costs only the work in flight.

After any fault, a later start ends with the masks of an undisturbed run, and does not train
a committed task again.
"""

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zarr

from analysis.load import load
from composing import configured
from harness.config.schema import Config
from harness.driver.failures import Failures
from harness.errors import UserError
from harness.executors.on_ray import RayExecutor
from harness.executors.protocol import Outcome
from harness.plan.units import EvaluationUnit, TrainUnit
from harness.run.spec import RunSpec
from harness.scale import run
from harness.storage.store import MaskStore
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import TASKS
from harness.workers.evaluating import EvaluateWorker
from harness.workers.training import TrainedUnit, TrainWorker
from patience import PATIENCE
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.protocol import Measured

SCRIPT = Path(__file__).parents[3] / "harness" / "scale.py"
NUM_TASKS = 6
SMALL = [
    *("data=digits", "network=mlp", "network_options.hidden=[24]", "outputs=20", "tasks=6"),
    *("train.block=2",),
    *("train.steps=20", "train.learning_rate=0.01", "train.smoothing=0.9"),
    *("evaluate.batches=1", "evaluate.checkpoints=[2,6]"),
]
# This run takes seconds, so that a signal arrives while the run is working.
LONG = [
    *SMALL, "tasks=40", "train.steps=400", "train.learning_rate=0.001",
    "evaluate.checkpoints=[4,16,40]",
]  # fmt: skip
MEDIUM = [*LONG, "tasks=16", "evaluate.checkpoints=[4,16]"]
RESIDUAL = [
    *("data=digits", "family=split", "tasks=4", "outputs=20", "train.block=1"),
    *("network=resnet18_slim", "network_options.width=2", "method=edge_popup", "train=residual"),
    *("train.steps=20", "train.batch_size=16", "train.augment=crop"),
    *("evaluate.batches=1", "evaluate.batch_size=32", "evaluate.checkpoints=[4]"),
]


def configure(run_dir: Path, options: list[str], *more: str) -> Config:
    """Return the configuration of a command line with the serial executor."""
    # If a key occurs twice, keep its last value: LONG and MEDIUM repeat keys of SMALL.
    values = dict(option.split("=", 1) for option in (*options, "executor=serial", *more))
    overrides = [f"{key}={value}" for key, value in values.items()]
    return configured(*overrides, f"run_dir={run_dir}")


def mask_bytes(run_dir: Path) -> bytes:
    """Return the bytes of all rows of the array `masks`."""
    rows = zarr.open_array(run_dir / "masks.zarr" / "masks", mode="r")[...]
    return np.asarray(rows).tobytes()


def files(folder: Path) -> dict[str, bytes]:
    """Return the visible files of a folder: name -> content."""
    return {p.name: p.read_bytes() for p in folder.glob("*") if not p.name.startswith(".")}


def committed(run_dir: Path) -> list[int]:
    """Return the sorted numbers of the committed tasks."""
    ids: list[int] = read_tables(run_dir / "log", TASKS)["task_id"].to_pylist()
    return sorted(ids)


def evaluated(run_dir: Path) -> list[tuple[Any, ...]]:
    """Return the sorted rows of the table `evaluations`, without the timings."""
    table = read_tables(run_dir / "evaluations", EVALUATIONS).drop(["seconds_per_inference"])
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)


def assert_same_end(run_dir: Path, undisturbed: Path) -> None:
    assert mask_bytes(run_dir) == mask_bytes(undisturbed)
    assert committed(run_dir) == committed(undisturbed)
    assert evaluated(run_dir) == evaluated(undisturbed)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of SMALL. Tests must not change this folder."""
    run_dir = tmp_path_factory.mktemp("small")
    assert run(configure(run_dir, SMALL)) == 0
    return run_dir


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder (read-only) of an undisturbed run of LONG, and the mean seconds per work unit."""
    run_dir = tmp_path_factory.mktemp("long")
    started = time.monotonic()
    assert run(configure(run_dir, LONG)) == 0
    return run_dir, (time.monotonic() - started) / len(files(run_dir / "log"))


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of MEDIUM. Tests must not change this folder."""
    run_dir = tmp_path_factory.mktemp("medium")
    assert run(configure(run_dir, MEDIUM)) == 0
    return run_dir


# --- a driver in a separate process ---------------------------------------------------


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Drivers:
    """Drivers in separate processes, which share one folder for Ray's sessions."""

    def __init__(self, ray_dir: Path) -> None:
        self._ray_dir = ray_dir
        self._started: list[subprocess.Popen[str]] = []

    def start(self, run_dir: Path, options: list[str], output: Path) -> "subprocess.Popen[str]":
        """Start the main job; its stdout and stderr go to the file `output`."""
        environment = os.environ | {"RAY_TMPDIR": str(self._ray_dir)}
        environment.pop("RAY_ADDRESS", None)
        config = dict(option.split("=", 1) for option in options)
        command = [sys.executable, str(SCRIPT), f"run_dir={run_dir}"]
        with output.open("w") as file:
            process = subprocess.Popen(
                [*command, *(f"{key}={value}" for key, value in config.items())],
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                start_new_session=True,  # its own process group, as in a shell
            )
        self._started.append(process)
        return process

    def left(self) -> list[int]:
        """Return the ids of all processes that inherited RAY_TMPDIR from a driver."""
        mark = f"RAY_TMPDIR={self._ray_dir}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # the process has ended, or another user owns it
                continue
        return found

    def wait_until_idle(self) -> None:
        """Fail if a driver, a Ray service or a worker goes on running.

        A process that Ray was just starting may search for its cluster for one more minute
        before it ends. It is idle and unconnected, so this check ignores it.
        """
        kinds = (b"scale.py", b"gcs_server", b"raylet/raylet", b"TrainWorker", b"EvaluateWorker")

        def at_work() -> list[int]:
            return [pid for pid in self.left() if any(kind in _command(pid) for kind in kinds)]

        wait_until(lambda: not at_work(), "all Ray processes of ended drivers have ended")

    def end(self) -> None:
        """Kill all drivers and their descendants."""
        for process in self._started:
            process.kill()
            process.wait()
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    # tmp_path is too long: the path of a Ray socket may have 107 bytes at most.
    ray_dir = Path(tempfile.mkdtemp(prefix="ray"))
    found = Drivers(ray_dir)
    yield found
    found.end()
    shutil.rmtree(ray_dir, ignore_errors=True)


def wait_until(
    condition: Callable[[], object], what: str, process: "subprocess.Popen[str] | None" = None
) -> None:
    """Wait until a condition is true; fail at once if the process ends before."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, f"the driver ended before: {what}"
        assert time.monotonic() < limit, f"after {PATIENCE} s this is still not true: {what}"
        time.sleep(0.02)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_a_driver_killed_at_any_moment_costs_the_work_in_flight_alone(
    long: tuple[Path, float], tmp_path: Path, drivers: Drivers
) -> None:
    undisturbed, unit_seconds = long
    moments = random.Random(20)
    run_dir, output = tmp_path / "run", tmp_path / "output"
    seen: dict[str, bytes] = {}

    def num_new() -> int:
        return len(files(run_dir / "log").keys() - seen.keys())

    for executor in ("ray", "serial", "ray", "serial", "serial"):
        process = drivers.start(run_dir, [*LONG, f"executor={executor}"], output)
        wait_until(
            lambda: "; run directory" in output.read_text(), "the driver is at work", process
        )
        # Ray's actors take seconds to start, so wait for at least one commit.
        least = moments.randint(1 if executor == "ray" else 0, 2)
        wait_until(lambda: num_new() >= least, "enough units are committed", process)  # noqa: B023
        time.sleep(moments.uniform(0, unit_seconds))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the driver ended before it was killed"
        found = files(run_dir / "log")
        assert {name: found[name] for name in seen} == seen
        seen = found
        # The next driver starts at once. Ray processes of the killed driver may still be running.
    assert 0 < len(seen) < 20

    assert run(configure(run_dir, LONG)) == 0
    found = files(run_dir / "log")
    assert {name: found[name] for name in seen} == seen
    assert_same_end(run_dir, undisturbed)
    leftovers = [p.name for p in run_dir.rglob("*.partial")]
    assert leftovers == []
    drivers.wait_until_idle()


@pytest.mark.long
def test_a_killed_run_of_a_residual_network_ends_with_the_same_bits(
    tmp_path: Path, drivers: Drivers
) -> None:
    undisturbed, run_dir, output = (tmp_path / name for name in ("undisturbed", "run", "output"))
    assert run(configure(undisturbed, RESIDUAL)) == 0
    process = drivers.start(run_dir, [*RESIDUAL, "executor=ray"], output)  # several actors
    wait_until(lambda: files(run_dir / "log"), "a commit", process)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the driver ended before it was killed"
    before = files(run_dir / "log")
    assert run(configure(run_dir, RESIDUAL)) == 0  # one process
    assert {name: files(run_dir / "log")[name] for name in before} == before
    assert_same_end(run_dir, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "sent", "to_group"),
    [
        ("serial", signal.SIGINT, True),
        pytest.param("serial", signal.SIGTERM, False, marks=pytest.mark.long),
        ("ray", signal.SIGINT, True),  # like Ctrl-C on a terminal: Ray's processes get it too
        pytest.param("ray", signal.SIGTERM, False, marks=pytest.mark.long),
    ],
)
def test_a_signal_stops_a_run_cleanly(
    executor: str,
    sent: signal.Signals,
    to_group: bool,
    medium: Path,
    tmp_path: Path,
    drivers: Drivers,
) -> None:
    run_dir, output = tmp_path / "run", tmp_path / "output"
    process = drivers.start(run_dir, [*MEDIUM, f"executor={executor}"], output)
    wait_until(lambda: files(run_dir / "log"), "a commit", process)
    assert process.poll() is None
    (os.killpg if to_group else os.kill)(process.pid, sent)
    assert process.wait(PATIENCE) == 130

    said, num_committed = output.read_text(), len(committed(run_dir))
    assert 0 < num_committed < 16
    [told] = re.findall(rf"stopped: (\d+) of 16 tasks are committed in {run_dir}", said)
    # If the signal comes during a commit, the driver does not count this commit yet.
    assert num_committed - 4 <= int(told) <= num_committed  # one block per actor
    assert "type the same command again to go on" in said
    for noise in ("Traceback", "KeyboardInterrupt", "received at time"):
        assert noise not in said
    drivers.wait_until_idle()

    before = files(run_dir / "log")
    assert run(configure(run_dir, MEDIUM)) == 0
    assert {name: files(run_dir / "log")[name] for name in before} == before
    assert_same_end(run_dir, medium)


def lock_names(run_dir: Path) -> str:
    """Return the text of the lock, which names its holder; "" if nobody holds the lock."""
    path = run_dir / "lock"
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_many_quick_signals_while_a_run_is_opened_end_it_once(
    first: signal.Signals, tmp_path: Path, drivers: Drivers
) -> None:
    run_dir, output = tmp_path / "run", tmp_path / "output"
    process = drivers.start(run_dir, [*MEDIUM, "executor=serial"], output)
    wait_until(lambda: lock_names(run_dir), "the lock is signed", process)
    for sent in (first, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(sent)
        time.sleep(0.05)
    assert process.wait(PATIENCE) == 130
    assert lock_names(run_dir) == ""
    assert "Traceback" not in output.read_text()


@pytest.mark.long
@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_a_driver_that_is_stopped_keeps_its_lock_and_goes_on(
    executor: str, medium: Path, tmp_path: Path, drivers: Drivers
) -> None:
    run_dir, output, other = tmp_path / "run", tmp_path / "output", tmp_path / "other"
    process = drivers.start(run_dir, [*MEDIUM, f"executor={executor}"], output)
    wait_until(lambda: files(run_dir / "log"), "a commit", process)
    process.send_signal(signal.SIGSTOP)
    before = files(run_dir / "log")
    assert drivers.start(run_dir, [*MEDIUM, "executor=serial"], other).wait(PATIENCE) == 2
    assert f"is in use by process {process.pid} on host" in other.read_text()
    assert files(run_dir / "log") == before
    process.send_signal(signal.SIGCONT)
    assert process.wait(PATIENCE) == 0
    assert_same_end(run_dir, medium)


# --- actors that die ------------------------------------------------------------------


UNITS = [f"unit-{first:06d}" for first in range(0, 16, 2)]  # the units of MEDIUM


class Assassin(RayExecutor):
    """An executor that kills the actors of some units in the first tries of these units."""

    kills: Mapping[str, int] = {}  # unit -> number of tries in which its actor is killed
    killed: Counter[str]
    collected: list[str]

    def poll(self) -> list[Outcome]:
        pool = self._pools["train"]
        for actor, entry in list(pool.running.values()):
            name = entry.unit.name
            if self.killed[name] < min(entry.tries, self.kills.get(name, 0)):
                self.killed[name] += 1
                pid = self._ray.get(actor.__ray_call__.remote(lambda worker: os.getpid()))
                while self._ray.get(actor.progress.remote()) == 0:
                    time.sleep(0.01)
                os.kill(pid, signal.SIGKILL)
        return super().poll()

    def _collect(self, name: str, pool: Any, reference: Any) -> list[Outcome]:
        self.collected.append(pool.running[reference][1].unit.name)
        return super()._collect(name, pool, reference)


@pytest.fixture
def assassin(monkeypatch: pytest.MonkeyPatch) -> type[Assassin]:
    class Hired(Assassin):
        killed: Counter[str] = Counter()  # noqa: RUF012
        collected: list[str] = []  # noqa: RUF012

    monkeypatch.setattr("harness.driver.start.RayExecutor", Hired)
    return Hired


def test_the_unit_of_a_killed_actor_is_done_again_and_one_that_kills_each_actor_is_set_aside(
    assassin: type[Assassin],
    medium: Path,
    tmp_path: Path,
    ray_session: ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assassin.kills = {"unit-000002": 3, "unit-000006": 1}
    config = configure(tmp_path, MEDIUM, "executor=ray", "actors.train=2")
    assert run(config) == 1
    trained = [name for name in assassin.collected if name.startswith("unit-")]
    assert sorted(trained) == sorted([*UNITS, *["unit-000002"] * 2, "unit-000006"])
    assert committed(tmp_path) == [i for i in range(16) if i not in (2, 3)]
    said = capsys.readouterr().err.splitlines()
    assert sum("trying unit-000002 again: ActorDiedError" in line for line in said) == 2
    assert "failed three times: unit-000002 (tasks 2, 3): ActorDiedError" in said[-1]
    assert max(map(len, said)) < 250  # Ray's own message is a page long

    assert run(configure(tmp_path, MEDIUM)) == 0
    assert_same_end(tmp_path, medium)


# --- units that fail ------------------------------------------------------------------


def test_a_unit_that_fails_three_times_is_set_aside_and_named(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried = []
    train = TrainWorker.run

    def fail_one(worker: TrainWorker, unit: TrainUnit) -> TrainedUnit:
        tried.append(unit.name)
        if unit.name == "unit-000002":
            raise RuntimeError("a poisoned unit")
        return train(worker, unit)

    with monkeypatch.context() as patched:
        patched.setattr(TrainWorker, "run", fail_one)
        assert run(configure(tmp_path, SMALL)) == 1
    assert tried == ["unit-000000", *["unit-000002"] * 3, "unit-000004"]
    assert committed(tmp_path) == [0, 1, 4, 5]
    # Checkpoint 6 was never due, because tasks 2 and 3 are missing.
    assert {row[0] for row in evaluated(tmp_path)} == {2}
    last = capsys.readouterr().err.splitlines()[-1]
    assert "failed three times: unit-000002 (tasks 2, 3): RuntimeError: a poisoned unit" in last

    before = files(tmp_path / "log")
    assert run(configure(tmp_path, SMALL)) == 0
    assert {name: files(tmp_path / "log")[name] for name in before} == before
    assert_same_end(tmp_path, small)


def test_a_unit_that_fails_once_or_twice_is_tried_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {"unit-000000": 2, "unit-000004": 1}
    train = TrainWorker.run

    def stumble(worker: TrainWorker, unit: TrainUnit) -> TrainedUnit:
        if failures.get(unit.name):
            failures[unit.name] -= 1
            raise RuntimeError("a passing trouble")
        return train(worker, unit)

    monkeypatch.setattr(TrainWorker, "run", stumble)
    assert run(configure(tmp_path, SMALL)) == 0
    assert not any(failures.values())
    assert_same_end(tmp_path, small)


def test_a_task_whose_data_raise_is_set_aside_alone(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[int] = []
    make = RunSpec.task

    def fail_one(spec: RunSpec, task_id: int) -> Task:
        if task_id == 2:  # the first task's number decides the block's batches
            asked.append(task_id)
            raise OSError("its images\ncannot be read")
        return make(spec, task_id)

    begin = configure(tmp_path, SMALL)
    with monkeypatch.context() as patched:
        interrupt_the_first_unit(patched)
        assert run(begin) == 130  # the store exists now, and lists the inputs of each task
    with monkeypatch.context() as patched:
        patched.setattr(RunSpec, "task", fail_one)
        assert run(begin) == 1
    assert len(asked) == 3
    assert committed(tmp_path) == [0, 1, 3, 4, 5]
    names, masks = (
        {row["task_id"]: row["row_crc32c"] for row in read_tables(d / "log", TASKS).to_pylist()}
        for d in (tmp_path, small)
    )
    assert names == {i: masks[i] for i in names}
    [failure] = load(tmp_path, "failures").to_pylist()
    kept = {"task_id": 2, "unit": "unit-000002", "pool": "train", "tries": 3}
    where = f"({__file__}, line {fail_one.__code__.co_firstlineno + 3})"
    assert failure == failure | kept | {"error": f"OSError: its images cannot be read {where}"}
    said = capsys.readouterr()
    assert "failed three times: unit-000002 (tasks 2): OSError: its images" in said.err
    line = "set aside after 3 tries: task 2 of unit-000002: OSError: its images cannot be read"
    assert line in said.out

    assert run(begin) == 0
    assert_same_end(tmp_path, small)
    assert len(load(tmp_path, "failures")) == 0
    assert "set aside" not in capsys.readouterr().out


def interrupt_the_first_unit(patched: pytest.MonkeyPatch) -> None:
    def interrupt(worker: TrainWorker, unit: TrainUnit) -> TrainedUnit:
        raise KeyboardInterrupt

    patched.setattr(TrainWorker, "run", interrupt)


def test_a_task_that_cannot_be_measured_is_set_aside_alone(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, tried = MLPTrainer.measure, []

    def fail_one(trainer: MLPTrainer, task: Task, state: TaskState, shared: Any = None) -> Measured:
        if task.task_id == 3:
            tried.append(task.task_id)
            raise ArithmeticError("no number")
        return measure(trainer, task, state)

    with monkeypatch.context() as patched:
        patched.setattr(MLPTrainer, "measure", fail_one)
        assert run(configure(tmp_path, SMALL)) == 1
    assert len(tried) == 2 * 3  # with the other states, then alone
    assert committed(tmp_path) == [0, 1, 2, 4, 5]
    with monkeypatch.context() as patched:  # as if killed between commit and `forget`
        patched.setattr(Failures, "forget", lambda failures, unit, task_ids=None: None)
        run(configure(tmp_path, SMALL))
    assert len(load(tmp_path, "failures")) > 0
    assert run(configure(tmp_path, SMALL)) == 0
    assert len(load(tmp_path, "failures")) == 0
    assert_same_end(tmp_path, small)


def test_an_evaluation_that_fails_is_in_the_table_until_it_is_done(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(worker: EvaluateWorker, unit: EvaluationUnit, rows: Any, own: Any) -> Any:
        raise RuntimeError(f"no {unit.algorithm}")

    with monkeypatch.context() as patched:
        patched.setattr(EvaluateWorker, "run", fail)
        assert run(configure(tmp_path, SMALL)) == 1
    rows = load(tmp_path, "failures").to_pylist()
    units = {row["unit"] for row in rows}
    assert len(units) == 16
    assert {row["task_id"] for row in rows} == set(range(NUM_TASKS))
    assert {row["pool"] for row in rows} == {"evaluate"}
    victim = tmp_path / "failures" / "failures.parquet"
    victim.write_bytes(victim.read_bytes()[:50])  # a broken table must not stop a run
    assert run(configure(tmp_path, SMALL)) == 0
    assert_same_end(tmp_path, small)


# --- disks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written_by", "good_writes", "code"),
    [
        # fails at the second chunk of masks
        ("harness.storage.chunks.write_durably", 1, errno.ENOSPC),
        # fails at the first file of the log
        ("harness.tables.files.write_durably", 0, errno.EDQUOT),
        # fails at an evaluation
        ("harness.tables.files.write_durably", 3, errno.ENOSPC),
    ],
)
def test_a_full_disk_ends_a_run_in_one_line_and_a_later_start_completes_it(
    written_by: str,
    good_writes: int,
    code: int,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, name = written_by.rsplit(".", 1)
    write = getattr(sys.modules[module], name)
    calls = []

    def fill_up(path: Path, data: bytes, **options: Any) -> None:
        calls.append(path)
        if len(calls) > good_writes:
            raise OSError(code, os.strerror(code), str(path))
        write(path, data, **options)

    with monkeypatch.context() as patched:
        patched.setattr(written_by, fill_up)
        with pytest.raises(UserError) as ended:
            run(configure(tmp_path, SMALL))
    message = str(ended.value)
    assert len(message.splitlines()) == 1
    assert str(tmp_path) in message
    assert "has no room left" in message
    assert "committed results are kept" in message

    before = files(tmp_path / "log") | files(tmp_path / "evaluations")
    assert len(committed(tmp_path)) < NUM_TASKS
    assert run(configure(tmp_path, SMALL)) == 0
    after = files(tmp_path / "log") | files(tmp_path / "evaluations")
    assert {name: after[name] for name in before} == before
    assert_same_end(tmp_path, small)


def flip_byte(run_dir: Path, task_id: int) -> None:
    """Change one byte in the middle of a task's mask, as a bad disk would."""
    root = zarr.open_group(run_dir / "masks.zarr", mode="r")
    row_bytes = root.attrs["row_bytes"]
    assert isinstance(row_bytes, int)
    path = run_dir / "masks.zarr" / "masks" / "c" / "0" / "0"
    chunk = np.fromfile(path, np.uint8)
    chunk[task_id * row_bytes + row_bytes // 2] ^= 4
    path.write_bytes(chunk.tobytes())


def test_one_flipped_byte_costs_one_task_which_is_named_and_trained_again(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    tasks = {row["task_id"]: row for row in read_tables(tmp_path / "log", TASKS).to_pylist()}
    evaluations = files(tmp_path / "evaluations")
    flip_byte(tmp_path, 3)
    capsys.readouterr()

    assert run(configure(tmp_path, SMALL)) == 0
    said = capsys.readouterr().err
    assert "damaged: masks.zarr/masks/c/0/0" in said
    assert "training again: tasks 3\n" in said
    assert_same_end(tmp_path, small)
    again = {row["task_id"]: row for row in read_tables(tmp_path / "log", TASKS).to_pylist()}
    assert again.keys() == tasks.keys()
    assert [i for i in tasks if tasks[i] != again[i]] == [3]
    assert again[3]["finished_at"] > tasks[3]["finished_at"]
    assert again[3]["row_crc32c"] == tasks[3]["row_crc32c"]
    assert files(tmp_path / "evaluations") == evaluations

    assert run(configure(tmp_path, SMALL)) == 0
    assert "damaged" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("victim", "again"),
    [("masks.zarr/masks/c/0/0", range(6)), ("log/unit-000002.parquet", (2, 3))],
)
def test_a_truncated_file_costs_its_tasks_alone_which_are_trained_again(
    victim: str, again: Sequence[int], small: Path, tmp_path: Path
) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    before = {row["task_id"]: row for row in read_tables(tmp_path / "log", TASKS).to_pylist()}
    path = tmp_path / victim
    path.write_bytes(path.read_bytes()[:64])
    assert run(configure(tmp_path, SMALL)) == 0
    after = {row["task_id"]: row for row in read_tables(tmp_path / "log", TASKS).to_pylist()}
    assert {i for i in before if after[i]["finished_at"] != before[i]["finished_at"]} == {*again}
    assert_same_end(tmp_path, small)


def in_a_mount_namespace(script: str, **values: object) -> "subprocess.CompletedProcess[str]":
    """Run a shell script in its own mount namespace: other processes do not see its mounts."""
    environment = os.environ | {name: str(value) for name, value in values.items()}
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *user, "--mount", "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.long
def test_a_disk_that_fills_up_or_is_read_only_is_said_in_one_line_and_costs_nothing(
    small: Path, tmp_path: Path
) -> None:
    if in_a_mount_namespace("mount -t tmpfs none $AT", AT=tmp_path).returncode:
        pytest.skip("this user may not mount a file system")
    options = dict(option.split("=", 1) for option in SMALL)
    script = """
        mount -t tmpfs -o size=40m none "$AT"
        fill() { fallocate -l 39m "$AT/ballast"; cat /dev/zero > "$AT/more"; } 2> /dev/null
        fill; $JOB; echo "full before: $?"
        rm "$AT"/ballast "$AT"/more
        $JOB > /dev/null; echo "then: $?"
        rm "$AT"/run/log/unit-000002.parquet
        fill; $JOB; echo "full again: $?"
        rm "$AT"/ballast "$AT"/more
        mount -o remount,ro "$AT"
        $JOB; echo "read-only: $?"
        mount -o remount,rw "$AT"
        $JOB > /dev/null; echo "at last: $?"
        cp -r "$AT/run" "$KEEP"
    """
    overrides = [f"{key}={value}" for key, value in (options | {"executor": "serial"}).items()]
    disk = tmp_path / "disk"
    spec = " ".join([sys.executable, str(SCRIPT), *overrides, f"run_dir={disk}/run"])
    disk.mkdir()
    done = in_a_mount_namespace(script, AT=disk, KEEP=tmp_path / "kept", JOB=spec)
    codes = [line for line in done.stdout.splitlines() if line[-3:-1] == ": "]
    assert codes == ["full before: 2", "then: 0", "full again: 2", "read-only: 2", "at last: 0"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    for error in errors[:2]:
        assert "has no room left on its disk: free some space and type the same" in error
    assert "lies on a read-only file system: choose another run_dir" in errors[2]
    assert_same_end(tmp_path / "kept", small)


def test_a_broken_file_of_evaluations_is_put_aside_and_made_again(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    victim = sorted((tmp_path / "evaluations").glob("*.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    capsys.readouterr()

    assert run(configure(tmp_path, SMALL)) == 0
    assert f"{victim.name} is not a whole Parquet file; evaluating again" in capsys.readouterr().err
    assert victim.with_name(f"{victim.name}.broken").exists()
    assert_same_end(tmp_path, small)


def test_a_mask_damaged_under_way_ends_the_run_and_the_next_start_mends_it(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = MaskStore.commit_together

    def commit_on_a_bad_disk(store: MaskStore, units: Any) -> Any:
        table = commit(store, units)
        if units[0][0] == "unit-000002":
            flip_byte(tmp_path, 1)
        return table

    with monkeypatch.context() as patched:
        patched.setattr(MaskStore, "commit_together", commit_on_a_bad_disk)
        with pytest.raises(UserError, match="type the same command again to train the mask again"):
            run(configure(tmp_path, SMALL))
    assert committed(tmp_path) == [0, 1, 2, 3]
    assert run(configure(tmp_path, SMALL)) == 0
    assert_same_end(tmp_path, small)


def test_a_lost_file_of_the_log_costs_its_tasks_alone(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    before = files(tmp_path / "log")
    (tmp_path / "log" / "unit-000002.parquet").unlink()
    assert run(configure(tmp_path, SMALL)) == 0
    after = files(tmp_path / "log")
    assert [name for name in before if after[name] != before[name]] == ["unit-000002.parquet"]
    assert_same_end(tmp_path, small)
