"""status.py describes complete, stopped, killed and live runs, and changes none of their files."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from composing import configured
from harness import status
from harness.config.identity import to_yaml
from harness.errors import UserError
from harness.plan.evaluation import evaluation_units
from harness.plan.reservoirs import recall_units, recovery_units
from harness.progress.of_run import look
from harness.scale import run as run_job
from harness.search.config import TuneConfig, TuneJob
from harness.storage.lock import lock_holder, run_lock
from harness.tables.files import (
    create_table_file,
    read_table_file,
    read_tables,
    table_files,
    write_table,
)
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import FAILURES, TASKS

SMALL = (
    *("data=digits", "network=mlp", "network_options.hidden=[8]", "outputs=12", "tasks=5"),
    *("train.block=2",),
    *("train.steps=2", "train.batch_size=8", "executor=serial", "evaluate.batches=1"),
    *("evaluate.algorithms=[max_logit,one_shot]", "evaluate.checkpoints=[2,5]"),
)

# Take the lock of a run, print "held", and wait to be killed.
HOLD = """
import sys, time
from pathlib import Path
from harness.storage.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def configure(*overrides):
    return configured(*SMALL, *overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a complete small run. Tests must not change this folder."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert run_job(configure(f"run_dir={run_dir}")) == 0
    return run_dir


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the complete small run, which the test may change."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def holder():
    """A function that starts a process which holds a run's lock until the test ends."""
    started = []

    def start(run_dir):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def identity(run):
    """Return the identity of a run, which its table files carry."""
    group = json.loads((run / "masks.zarr" / "zarr.json").read_text())
    return group["attributes"]["run_id"]


def files(run):
    return {str(path): path.stat().st_mtime_ns for path in run.rglob("*")}


def begun(directory, *overrides, **changes):
    """Write only the configuration of a run; return the configuration and the run's progress."""
    config = configure(*overrides)
    kept = to_yaml(config)
    for old, new in changes.items():
        kept = kept.replace(old, new)
    (directory / "config.yaml").write_text(kept)
    return config, look(directory)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["evaluate.tasks=1", "evaluate.checkpoints=[1,5]"],
        ["tasks=120", "evaluate.tasks=null", "evaluate.checkpoints=[30,120]"],
        ["evaluate.distractors=7", "evaluate.algorithms=[one_shot,binary,min_entropy]"],
        [
            *("experiment=reservoir", "network_options.hidden=[1024]", "evaluate.reservoir=true"),
            *("evaluate.algorithms=[one_shot]", "reservoir.rules=[hebb,projection]"),
            "reservoir.cues=[flipped,descent]",
        ],
    ],
)
def test_a_look_wants_what_the_plan_has(overrides, tmp_path):
    config, seen = begun(tmp_path, *overrides)
    wanted = {}
    for k in config.evaluate.checkpoints:
        units = evaluation_units(config, k)
        units += recall_units(config, k) if config.evaluate.reservoir else []
        units += recovery_units(config, k) if config.evaluate.reservoir else []
        for unit in units:
            name = getattr(unit, "rule", None) or f"{unit.algorithm} {unit.objective or ''}".strip()
            line = unit.table, k, getattr(unit, "num_distractors", 0), name
            wanted[line] = wanted.get(line, 0) + unit.num_rows
    found = {(p.table, p.num_tasks, p.num_distractors, p.name): p.wanted for p in seen.parts}
    assert found == wanted
    assert len(found) == len(seen.parts)
    assert (seen.committed, seen.state) == (0, "stopped")


def test_a_configuration_of_another_version_can_be_looked_at(tmp_path):
    _, now = begun(tmp_path)
    _, old = begun(
        tmp_path,
        **{
            "network_options:": "hidden:",
            "method: threshold": "method: unit_mask",
            "  distractors: 0\n": "",
            "  weight_decay: 0.0\n": "",
        },
    )
    assert old.config.method == "unit_mask"
    assert old.parts == now.parts


def test_a_whole_run_is_complete_and_left_alone(run, capsys):
    before = files(run)
    assert status.main([f"run_dir={run}"]) == 0
    said = capsys.readouterr().out
    assert files(run) == before
    accuracies = read_tables(run / "log", TASKS)["accuracy"].to_pylist()
    assert f"{run}: complete\n" in said
    assert f"5 of 5 tasks committed, mean accuracy {sum(accuracies) / 5:.4f}" in said
    # Each task has one query by each of three ways: max_logit, one_shot with H, one_shot with G.
    assert "checkpoint 2: complete, 6 queries" in said
    assert "checkpoint 5: complete, 15 queries" in said


def test_json_says_the_same(run, capsys):
    assert status.main([f"run_dir={run}", "json=true"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["committed"], said["tasks"]) == ("complete", 5, 5)
    assert said["bytes"] == sum(p.stat().st_size for p in run.rglob("*") if p.is_file())
    assert {part["name"] for part in said["checkpoints"]} == {
        "max_logit",
        "one_shot H",
        "one_shot G",
    }


def test_what_is_missing_is_counted(run, capsys):
    (run / "evaluations" / "k000005-one_shot-H-000000.parquet").unlink()
    table_files(run / "log")[-1].unlink()  # the file of task 4
    (run / "log" / ".unit-000004.parquet.1.partial").write_bytes(b"half")
    assert status.main([f"run_dir={run}"]) == 0
    said = capsys.readouterr().out
    assert f"{run}: stopped\n" in said
    assert "4 of 5 tasks committed" in said
    assert "checkpoint 5: 66 %, 10 queries; incomplete parts:\n    one_shot H: 0 %\n" in said


def test_a_broken_log_file_is_named(run, capsys):
    broken = table_files(run / "log")[0]
    broken.write_bytes(broken.read_bytes()[:100])
    assert status.main([f"run_dir={run}"]) == 0
    said = capsys.readouterr().out
    assert "3 of 5 tasks committed" in said
    assert f"broken: {broken}\n" in said


def test_a_held_lock_is_live(run, holder, capsys):
    process = holder(run)
    status.main([f"run_dir={run}"])
    assert f"{run}: live, process {process.pid} on host " in capsys.readouterr().out


def test_a_killed_driver_is_dead(run, holder, capsys):
    table_files(run / "log")[-1].unlink()
    process = holder(run)
    process.send_signal(signal.SIGKILL)
    process.wait()
    status.main([f"run_dir={run}"])
    said = capsys.readouterr().out
    assert f"{run}: dead, its driver was killed: process {process.pid} on host " in said
    with run_lock(run):  # reading the status does not keep the next driver out
        assert lock_holder(run).pid == os.getpid()
    assert lock_holder(run) is None


def test_another_hosts_lock_is_not_judged(run, capsys):
    table_files(run / "log")[-1].unlink()
    signed = {"host": "elsewhere", "pid": os.getpid(), "since": "2026-01-01T00:00:00+00:00"}
    (run / "lock").write_text(json.dumps(signed))
    status.main([f"run_dir={run}"])
    assert f"{run}: unknown, locked by process {os.getpid()} on host elsewhere" in (
        capsys.readouterr().out
    )


def test_rate_counts_the_last_minutes_of_this_start(run, holder):
    """The rate does not count the tasks of earlier starts; the time left follows from the rate."""
    now = datetime.now(UTC)
    times = [now - timedelta(hours=1)] * 2 + [now - timedelta(seconds=30)] * 2
    rows = read_tables(run / "log", TASKS).sort_by("task_id").slice(0, 4)
    for path in table_files(run / "log"):
        path.unlink()
    place = TASKS.get_field_index("finished_at")
    column = pa.array(times, TASKS.field(place).type)
    rows = pa.table(rows.set_column(place, TASKS.field(place), column), schema=TASKS)
    create_table_file(rows, run / "log" / "all.parquet", identity(run))
    record = json.loads((run / "provenance.json").read_text())
    record["starts"][-1]["at"] = (now - timedelta(seconds=100)).isoformat()
    (run / "provenance.json").write_text(json.dumps(record))
    holder(run)
    seen = look(run, now)
    assert seen.tasks_per_second == pytest.approx(2 / 100)
    assert seen.seconds_left == pytest.approx(50)
    record["starts"][-1]["at"] = (now - timedelta(hours=2)).isoformat()
    (run / "provenance.json").write_text(json.dumps(record))
    assert look(run, now).tasks_per_second == pytest.approx(2 / 300)


def test_units_set_aside_are_named(run, capsys):
    (run / "failures").mkdir()
    same = {"unit": "unit-000002", "pool": "train", "tries": 3, "error": "OSError: x"}
    rows = [{"task_id": i, "failed_at": datetime.now(UTC), **same} for i in (2, 3)]
    table = pa.Table.from_pylist(rows, schema=FAILURES)
    create_table_file(table, run / "failures" / "failures.parquet", identity(run))
    status.main([f"run_dir={run}"])
    assert capsys.readouterr().out.count("set aside: unit-000002: OSError: x\n") == 1


def test_files_of_another_run_and_copies_are_broken_and_not_counted(run, capsys):
    folder = run / "evaluations"
    other, copied = sorted(folder.iterdir())[:2]
    rows = read_table_file(other, EVALUATIONS)
    other.unlink()
    create_table_file(rows, other, "another run")
    copied.rename(folder / "copy.parquet")
    assert status.main([f"run_dir={run}"]) == 0
    said = capsys.readouterr().out
    assert "complete\n" not in said
    for path in (other, folder / "copy.parquet"):
        assert f"  broken: {path}\n" in said
    seen = look(run)
    assert sum(p.wanted - p.rows for p in seen.parts) == 2 * len(rows)
    assert seen.other_files == 0


def test_tables_of_another_version_are_one_line(run, capsys):
    path = table_files(run / "log")[0]
    table = pa.parquet.read_table(path)
    metadata = table.schema.metadata | {b"schema_version": b"1"}
    pa.parquet.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(UserError, match="must have schema_version 4, got 1: choose another"):
        status.main([f"run_dir={run}"])


def test_a_folder_of_runs_is_a_table(run, tmp_path, capsys):
    runs = tmp_path / ("a path wider than the table" * 3)
    for name in ("run", "run-10", "run-9", "seeds/seed-1"):
        shutil.copytree(run, runs / name)
    begun(runs / "run")
    (runs / "run" / "log").rename(runs / "run" / "no log")
    search = runs / "search"
    search.mkdir()
    (search / "config.yaml").write_text(to_yaml(TuneJob(tune=TuneConfig(trials=8))))
    (runs / "bad").mkdir()
    (runs / "bad" / "config.yaml").write_text("half")
    (runs / "empty").mkdir()
    assert status.main([f"run_dir={runs}"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == str(runs)
    rows = [line.split() for line in out.splitlines()[3:9]]
    accuracy = f"{sum(read_tables(runs / 'run-9/log', TASKS)['accuracy'].to_pylist()) / 5:.4f}"
    whole = ["complete", "5/5", "tasks", accuracy, "100", "%"]
    assert rows == [
        ["bad", "unreadable", "see", "below"],
        ["run", "stopped", "0/5", "tasks", "100", "%"],
        ["run-9", *whole],
        ["run-10", *whole],
        ["search", "stopped", "0/8", "trials"],
        ["seeds/seed-1", *whole],
    ]
    assert "bad: " in out
    assert status.main([f"run_dir={runs}", "verify=true"]) == 2
    assert status.main([f"run_dir={runs}", "json=true"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert "must be the configuration" in told[0]["error"]
    assert [one.get("committed") for one in told] == [None, 0, 5, 5, None, 5]


def test_verify_finds_a_changed_mask(run, capsys):
    assert status.main([f"run_dir={run}", "verify=true"]) == 0
    assert "every mask is intact" in capsys.readouterr().out
    [chunk] = [path for path in (run / "masks.zarr" / "masks" / "c").rglob("*") if path.is_file()]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    assert status.main([f"run_dir={run}", "verify=true"]) == 1
    assert "damaged: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "run_dir must be given, got nothing"),
        (["run_dir=nowhere"], "must be the folder of a run"),
        (["run_dir=."], "got no config.yaml in it"),
        (["rundir=x"], "got rundir=x: try run_dir="),
        (["nowhere"], "got nowhere: try run_dir="),
        (["run_dir=.", "json=maybe"], "json must be true or false, got maybe"),
    ],
)
def test_wrong_input_is_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        status.main(arguments)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


def test_a_configuration_that_is_none_is_one_line(run):
    whole = (run / "config.yaml").read_text()
    half = whole[: whole.index("evaluate:")]
    bomb = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 10))
    odd = [
        whole.replace(old, new, 1)
        for old, new in {
            "tasks: 5\n": "tasks: many\n",
            "tasks: 5": "tasks: .inf",
            "tasks: 5\nseed": "tasks: -3\nseed",
            "tasks: 5\ns": "tasks: 4\ns",  # fewer than the largest checkpoint
            "  checkpoints:\n": "  checkpoints: auto\n  others:\n",
            "  algorithms:\n": "  algorithms: auto\n  others:\n",
            "reservoir:\n": "reservoir: 3\nothers:\n",
            "seed: 0\n": f"seed: 0\nothers: {'[' * 999}\n",
            "data:": f"l0: &l0 x\n{bomb}data:",
            "\n...\n": "\n",
        }.items()
    ]
    assert whole not in odd
    for content in ("tasks: [", "tasks: 3", "[]", "tasks: many", "", half, *odd):
        (run / "config.yaml").write_text(content)
        with pytest.raises(
            UserError, match=r"config\.yaml must be the configuration of"
        ) as refused:
            status.main([f"run_dir={run}"])
        assert "\n" not in str(refused.value)


def test_a_plan_without_end_is_refused(tmp_path):
    huge = 10**9
    for tasks in ("null", huge):
        overrides = (f"tasks={huge}", f"evaluate.checkpoints=[{huge}]", f"evaluate.tasks={tasks}")
        with pytest.raises(UserError, match="must need at most 20000000 rows"):
            begun(tmp_path, *overrides)
    config, seen = begun(tmp_path, f"tasks={huge}", f"evaluate.checkpoints=[{huge}]")
    assert (config.tasks, seen.committed, seen.state) == (huge, 0, "stopped")


def test_a_run_whose_store_is_gone_is_not_complete(run, capsys):
    shutil.rmtree(run / "masks.zarr")
    assert look(run).state == "stopped"
    status.main([f"run_dir={run}"])
    assert f"broken: {run / 'masks.zarr' / 'zarr.json'}\n" in capsys.readouterr().out


def test_tasks_are_counted_once_and_only_if_they_are_this_runs(run):
    """A log of another run names tasks that this run does not have."""
    rows = read_tables(run / "log", TASKS)
    create_table_file(rows.slice(0, 2), run / "log" / "again.parquet", identity(run))
    place = TASKS.get_field_index("task_id")
    beyond = rows.set_column(place, TASKS.field(place), pa.array(range(5, 10), pa.int64()))
    create_table_file(pa.table(beyond, schema=TASKS), run / "log" / "other.parquet", identity(run))
    seen = look(run)
    assert (seen.committed, seen.config.tasks) == (5, 5)
    assert seen.broken == [run / "log" / "other.parquet"]


def test_rows_are_counted_up_to_those_that_a_unit_has(run):
    [path, *_] = table_files(run / "evaluations")
    write_table(pa.concat_tables([read_table_file(path, EVALUATIONS)] * 3), path, identity(run))
    assert all(part.rows == part.wanted for part in look(run).parts)


@pytest.mark.parametrize(
    "name", ["log/x.parquet", "evaluations/x.parquet", "failures/x.parquet", "provenance.json"]
)
def test_a_fifo_in_the_place_of_a_file_is_not_waited_for(run, name):
    path = run / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert look(run).broken == ([path] if name.startswith(("log", "eval")) else [])


@pytest.mark.parametrize("name", ["lock", "config.yaml"])
def test_a_fifo_in_the_place_of_the_lock_or_the_configuration_is_one_line(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(UserError, match="must be a regular file, got a FIFO"):
        look(run)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("", lambda one: one["attributes"].update(row_bytes="a"), "got 'a'"),
        ("", lambda one: one["attributes"].update(row_bytes=10**13), f"got {10**13}"),
        ("", lambda one: one["attributes"].update(tensors=5), "must have tensors"),
        ("masks", lambda one: one.update(shape=[10**12, 128]), f"shape[0] 5, got {10**12}"),
        ("masks", lambda one: one.update(data_type="int8", fill_value=-1), 'got "int8"'),
        ("masks", lambda one: one.update(node_type="group"), "must be a Zarr group with an array"),
    ],
)
def test_verify_refuses_a_store_that_is_not_of_this_run(run, file, change, said):
    path = run / "masks.zarr" / file / "zarr.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError) as refused:
        status.main([f"run_dir={run}", "verify=true"])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_look_imports_nothing_heavy():
    code = (
        "import sys, harness.status\n"
        "heavy = 'torch ray numba zarr hydra omegaconf pandas'.split()\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
