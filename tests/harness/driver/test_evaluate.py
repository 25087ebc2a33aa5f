"""Evaluate an existing run again: new files are added, old files stay, mistakes are refused."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from analysis.load import load
from analysis.summary import WAYS, evaluation_summary, largest_samples
from composing import configured
from harness import evaluate, recall, scale
from harness.config.command import STOPPED
from harness.config.identity import from_yaml
from harness.driver import start
from harness.driver.train import Train
from harness.driver.unit_files import UnitFiles
from harness.reporting import html
from harness.run.existing import evaluation_configuration
from harness.storage.lock import run_lock
from harness.tables.files import read_table_file, read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import TASKS
from supsup_core.tasks.permuted import Permuted
from supsup_core.tasks.protocol import Task

RUN = (
    *("data=digits", "network=mlp", "network_options.hidden=[8]", "outputs=12", "tasks=5"),
    *("train.block=2",),
    *("train.steps=2", "train.batch_size=8", "executor=serial", "evaluate.batches=1"),
    *("evaluate.algorithms=[max_logit]", "evaluate.checkpoints=[2,5]", "evaluate.tasks=2"),
)
# With these options a call repeats the evaluations of the run itself.
SAME = tuple(option for option in RUN if option.startswith("evaluate."))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a complete small run. Tests must not change this folder."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert scale.run(configured(*RUN, f"run_dir={run_dir}")) == 0
    return run_dir


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the complete small run, in the folder in which commands are typed."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.mark.parametrize("command", [evaluate, recall])
def test_a_command_on_an_existing_run_writes_its_report_if_it_is_not_stopped(
    command, typed, run, monkeypatch
):
    reports = []
    monkeypatch.setattr(html, "write_reports", reports.append)
    small = ("run_dir=run", "executor=serial", "evaluate.checkpoints=[2]", "evaluate.tasks=1")
    code, _, err = typed(command, *small)
    assert (code, reports) == (0, [[run]]), err

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "carry_out_together", stop)
    code, _, err = typed(command, *small, "evaluate.tasks=2", "evaluate.batch_size=7")
    assert (code, reports) == (STOPPED, [[run]]), err


class Reversed(Permuted):
    """The family `permuted` after a change: it reverses each permutation."""

    def make(self, task_id, setting):
        task = super().make(task_id, setting)
        return replace(task, source=task.source[::-1].copy())


def test_evaluations_of_another_run_and_copies_are_set_aside_and_made_again(typed, run, tmp_path):
    assert typed(scale, *RUN, "run_dir=other", "seed=1")[0] == 0
    before = {name: read_table_file(run / name, EVALUATIONS) for name in evaluated(run)}
    shutil.rmtree(run / "evaluations")
    shutil.copytree(tmp_path / "other" / "evaluations", run / "evaluations")
    with pytest.raises(ValueError, match="must belong to the run"):
        load(run, "evaluations")
    code, _, err = typed(scale, *RUN, "run_dir=run")
    assert code == 0, err
    assert err.count("must belong to the run") == len(before)
    assert "complete already" not in err
    kept = len(load(run, "evaluations"))
    assert kept == sum(map(len, before.values()))
    for name, rows in before.items():
        again = read_table_file(run / name, EVALUATIONS)
        timed = ["seconds_per_inference"]
        assert again.drop(timed).equals(rows.drop(timed))
    # One file under the name of another one is no result of that other unit.
    first, second = evaluated(run)
    shutil.copy(run / first, run / second)
    code, _, err = typed(scale, *RUN, "run_dir=run")
    assert (code, err.count("must have its own name")) == (0, 1)
    assert len(load(run, "evaluations")) == kept


def test_a_log_of_another_run_is_set_aside_and_its_masks_are_trained(typed, run, tmp_path):
    assert typed(scale, *RUN, "run_dir=other", "seed=1")[0] == 0
    crcs = read_tables(run / "log", TASKS)["row_crc32c"]
    shutil.copytree(tmp_path / "other" / "log", run / "log", dirs_exist_ok=True)
    code, _, err = typed(scale, *RUN, "run_dir=run")
    assert (code, err.count("is not a whole Parquet file of this run's log")) == (0, 3)
    assert read_tables(run / "log", TASKS)["row_crc32c"] == crcs


@pytest.mark.parametrize("job", [scale, evaluate])
def test_a_run_whose_family_has_changed_is_refused(job, typed, run, monkeypatch):
    monkeypatch.setattr("supsup_core.tasks.permuted.Permuted", Reversed)
    before = content(run)
    code, _, err = typed(job, *(RUN if job is scale else SAME), "run_dir=run")
    assert (code, err.count("\n")) == (2, 1)
    assert (
        "inputs/permutations must have the values that the configuration of this run gives" in err
    )
    assert "if the code of the network or of the family has changed" in err
    added(before, run)


def test_a_family_that_cannot_make_its_tasks_is_one_line(typed, tmp_path, monkeypatch):
    class Short(Permuted):
        def make(self, task_id, setting):
            return Task(task_id, source=np.zeros(9, np.uint16))

    monkeypatch.setattr("supsup_core.tasks.permuted.Permuted", Short)
    code, _, err = typed(scale, *RUN, "run_dir=run")
    assert (code, err.count("\n")) == (2, 1)
    assert "task 0 must have a source of type uint16 and shape (64,), got uint16 and (9,)" in err
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.fixture
def begun(typed, tmp_path, monkeypatch):
    """The folder of a run that was stopped when tasks 0 to 3 were committed."""
    commit = Train._commit

    def commit_and_stop(stage, trained):
        commit(stage, trained)
        if len(stage._masks) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Train, "_commit", commit_and_stop)
        code, _, err = typed(scale, *RUN, "run_dir=run")
    assert code == 130, err
    return tmp_path / "run"


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def evaluated(run):
    """List the files of the table `evaluations`."""
    return sorted(str(path.relative_to(run)) for path in run.glob("evaluations/*.parquet"))


def added(before, folder):
    """List the new files, except those of the table `queries`.

    Check that no old file except provenance.json has changed.
    """
    after = content(folder)
    assert before.keys() <= after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"provenance.json"}
    return sorted(name for name in after.keys() - before.keys() if not name.startswith("queries/"))


def rows_of(run, names):
    tables = [read_table_file(run / name, EVALUATIONS) for name in names]
    return [row for table in tables for row in table.to_pylist()]


def test_the_keys_of_the_run_itself_do_nothing_twice(typed, run):
    before = content(run)
    code, out, err = typed(evaluate, "run_dir=run", *SAME)
    assert code == 0, err
    assert added(before, run) == []
    assert "complete already: nothing left to evaluate" in err
    assert "max_logit" in out


def test_other_evaluations_stand_beside_the_run_s_own(typed, run):
    before = content(run)
    asked = (*SAME, "evaluate.num_images=3", "evaluate.checkpoints=[3]")
    code, out, err = typed(evaluate, "run_dir=run", *asked)
    assert code == 0, err
    [name] = added(before, run)
    assert name.startswith("evaluations/k000003-max_logit-000000-")
    rows = rows_of(run, [name])
    assert [(r["num_tasks"], r["task_id"], r["num_images"]) for r in rows] == [(3, 0, 3), (3, 2, 3)]
    assert "training" not in err

    # The screen shows only the evaluations of this call, not all evaluations of the run.
    lines = [line.split() for line in out.splitlines() if " max_logit  " in line]
    assert [line[:3] for line in lines] == [["3", "max_logit", "2"]]
    starts = json.loads((run / "provenance.json").read_text())["starts"]
    assert starts[-1]["command"][1:] == ["run_dir=run", *asked]

    # The run's own summary does not include the new evaluations, and the run is still complete.
    before = content(run)
    code, out, err = typed(scale, *RUN, "run_dir=run")
    assert code == 0, err
    assert "complete already" in err
    assert added(before, run) == []
    lines = [line.split() for line in out.splitlines() if " max_logit  " in line]
    assert [line[:3] for line in lines] == [["2", "max_logit", "2"], ["5", "max_logit", "2"]]


# Option -> number of ways in the summary of binary and gradient_descent with and without it. A
# setting that an algorithm does not read, and the size of the sample, make no other way.
OPTIONS = {
    "evaluate.batch_size=64": 4,
    "evaluate.num_images=2": 4,
    "evaluate.log_base=4": 3,
    "evaluate.steps=3": 3,
    "evaluate.rate=0.5": 3,
    "evaluate.batches=2": 2,
    "evaluate.tasks=1": 2,
}


def test_evaluations_with_another_setting_can_be_told_apart(typed, run):
    asked = (*SAME, "evaluate.algorithms=[binary,gradient_descent]", "evaluate.objectives=[H]")
    assert typed(evaluate, "run_dir=run", *asked)[0] == 0
    own = content(run)
    for option, num_ways in OPTIONS.items():
        code, _, err = typed(evaluate, "run_dir=run", *asked, option)
        assert code == 0, err
        rows = load(run, "evaluations").to_pandas()
        rows = rows[rows["algorithm"] != "max_logit"]
        for keys in (WAYS, [*WAYS, "tasks_asked", "batches"]):
            kept = largest_samples(rows) if keys is WAYS else rows
            groups = kept.groupby(["num_tasks", *keys], dropna=False)
            assert (groups["task_id"].nunique() == groups.size()).all()
        assert evaluation_summary(rows).groupby("num_tasks").size().unique().tolist() == [num_ways]
        for name in added(own, run):
            (run / name).unlink()


def test_keys_that_are_not_given_have_their_defaults(typed, run):
    before = content(run)
    code, _, err = typed(evaluate, "run_dir=run", "evaluate.objectives=[H]", "evaluate.batches=1")
    assert code == 0, err
    rows = rows_of(run, added(before, run))
    found = {(row["num_tasks"], row["algorithm"], row["task_id"]) for row in rows}
    names = ("one_shot", "one_shot_ranked", "binary", "min_entropy", "max_logit")
    assert found == {(5, name, task_id) for name in names for task_id in range(5)}


def test_a_second_call_does_what_is_missing(typed, run):
    asked = (*SAME, "evaluate.num_images=2")
    assert typed(evaluate, "run_dir=run", *asked)[0] == 0
    before = content(run)
    code, _, err = typed(evaluate, "run_dir=run", *asked)
    assert (code, added(before, run)) == (0, [])
    assert "nothing left to evaluate" in err
    lost = next(path for path in (run / "evaluations").glob("k000002-max_logit-000000-*"))
    lost.unlink()
    kept = content(run)
    assert typed(evaluate, "run_dir=run", *asked)[0] == 0
    assert added(kept, run) == [str(lost.relative_to(run))]


def test_distractors_come_to_the_masks_of_a_run(typed, run):
    before = content(run)
    asked = (*SAME, "evaluate.algorithms=[one_shot]", "evaluate.objectives=[H]")
    code, out, err = typed(evaluate, "run_dir=run", *asked, "evaluate.distractors=4")
    assert code == 0, err
    names = added(before, run)
    rows = rows_of(run, names)
    found = {(row["num_tasks"], row["num_distractors"]) for row in rows}
    assert found == {(2, 0), (5, 0), (9, 4)}
    assert "5+4  one_shot H" in out
    # Evaluations without distractors do not depend on the number of distractors.
    before = content(run)
    code, _, err = typed(evaluate, "run_dir=run", *asked, "evaluate.distractors=6")
    assert code == 0, err
    [name] = added(before, run)
    assert "distractors000006" in name


def test_a_run_that_is_not_finished_is_evaluated_as_far_as_it_is(typed, begun):
    before = content(begun)
    asked = ("evaluate.algorithms=[max_logit]", "evaluate.batches=1")
    code, out, err = typed(evaluate, "run_dir=run", *asked)
    assert code == 0, err
    assert {row["num_tasks"] for row in rows_of(begun, added(before, begun))} == {4}
    assert "4 masks" in out
    assert len(read_tables(begun / "log", TASKS)) == 4

    assert typed(scale, *RUN, "run_dir=run")[0] == 0  # the run can still go on
    assert len(read_tables(begun / "log", TASKS)) == 5


def refusal(typed, *arguments):
    """Run an evaluation that must be refused; return its one line without "error: "."""
    code, out, err = typed(evaluate, *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err.removeprefix("error: ").rstrip("\n")


def test_checkpoints_that_are_not_committed_are_refused(typed, begun):
    before = content(begun)
    line = refusal(typed, "run_dir=run", "evaluate.checkpoints=[2,5]")
    assert "evaluate.checkpoints must lie in [1, 4]" in line
    assert "got [5]" in line
    assert "continue the run with harness/scale.py" in line
    line = refusal(typed, "run_dir=run", "evaluate.checkpoints=[6]")
    assert "evaluate.checkpoints must be at most tasks=5, got [6]" in line
    assert content(begun) == before


def test_a_run_without_a_first_mask_is_refused(typed, begun):
    (begun / "log" / "unit-000000.parquet").unlink()
    line = refusal(typed, "run_dir=run")
    assert f"run directory {begun} holds no mask of task 0 yet" in line


REFUSED = {
    "tasks=7": ["key must be one of evaluate, executor", "got tasks", "leave it out"],
    "train=fast": ["key must be one of evaluate, executor", "got train:"],
    "train.steps=3": ["got train.steps:"],
    "seed=1": ["got seed:"],
    "++tasks=7": ["got tasks:"],
    "~family": ["got ~family: leave it out"],
    "hydra.verbose=true": ["got hydra.verbose:"],
    "tsks=7": ["key must be one that --help lists, got tsks", "try tasks=32"],
    "evaluate.taks=7": ["got evaluate.taks", "try evaluate.tasks=50"],
    "evaluate.tasks=many": ["evaluate.tasks must be null or a whole number >= 1", "got many"],
    "evaluate.algorithms=[foo]": ["evaluate.algorithms must be auto or a list", "got [foo]"],
    "evaluate.rate=0": ["evaluate.rate must be a number > 0", "got 0"],
    "executor=dask": ["executor must be one of ray, serial"],
    "--multirun": ["options must be KEY=VALUE", "unrecognized arguments: --multirun"],
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_cannot_be_asked_of_a_run_is_refused_in_one_line(option, typed, run):
    before = content(run)
    line = refusal(typed, "run_dir=run", option)
    for part in REFUSED[option]:
        assert part in line
    assert content(run) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "run_dir must be given, got nothing: try run_dir=runs/"),
        (("run_dir=",), "run_dir must be given"),
        (("run_dir=nowhere",), "nowhere must hold a run, got no config.yaml in it"),
        (("run_dir=file",), "file must hold a run, got no config.yaml in it"),
        ((f"run_dir={'n' * 300}",), "has a name that is too long"),
    ],
)
def test_a_folder_without_a_run_is_refused(arguments, said, typed, tmp_path):
    (tmp_path / "file").write_text("precious")
    assert said in refusal(typed, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_store_of_another_run_is_refused(typed, run):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    before = content(run)
    assert "masks.zarr/zarr.json must have seed" in refusal(typed, "run_dir=run")
    assert content(run) == before


def test_a_run_that_is_at_work_is_left_alone(typed, run):
    before = content(run)
    with run_lock(run):
        line = refusal(typed, "run_dir=run", "evaluate.num_images=2")
    assert f"run directory {run} is in use by process {os.getpid()}" in line
    assert content(run) == before


def test_damaged_masks_are_named_and_left_to_the_main_job(typed, run):
    [chunk] = [path for path in (run / "masks.zarr" / "masks" / "c").rglob("*") if path.is_file()]
    data = chunk.read_bytes()
    chunk.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    before = content(run)
    code, _, err = typed(evaluate, "run_dir=run", "evaluate.num_images=2")
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith("error: task")
    assert last.endswith("continue the run with harness/scale.py to train the mask again")
    assert added(before, run) == []


def test_a_broken_file_of_the_log_is_named(typed, run):
    path = run / "log" / "unit-000002.parquet"
    path.write_bytes(path.read_bytes()[:50])
    line = refusal(typed, "run_dir=run")
    assert f"{path} is not a whole Parquet file: continue the run with harness/scale.py" in line


@pytest.mark.long  # test_run.py compares the evaluations of whole runs
def test_ray_gives_the_rows_of_the_serial_executor(typed, run, ray_session):
    found = []
    for executor in ("serial", "ray"):
        before = content(run)
        asked = (*SAME, "evaluate.num_images=2", f"executor={executor}", "actors.evaluate=2")
        code, _, err = typed(evaluate, "run_dir=run", *asked)
        assert code == 0, err
        names = added(before, run)
        rows = rows_of(run, names)
        found.append([row | {"seconds_per_inference": 0.0} for row in rows])
        for name in names:
            (run / name).unlink()
    assert found[0] == found[1]
    assert len(found[0]) == 4


def test_ctrl_c_keeps_what_was_evaluated(typed, run, monkeypatch):
    keep = UnitFiles.keep

    def keep_and_stop(files, unit, rows, details):
        keep(files, unit, rows, details)
        raise KeyboardInterrupt

    before = content(run)
    asked = ("run_dir=run", *SAME, "evaluate.num_images=2")
    with monkeypatch.context() as patched:
        patched.setattr(UnitFiles, "keep", keep_and_stop)
        code, out, _ = typed(evaluate, *asked)
    assert code == 130
    assert "stopped: the evaluations so far are kept" in out
    assert len(added(before, run)) == 1
    assert typed(evaluate, *asked)[0] == 0
    assert len(added(before, run)) == 2


def test_a_unit_that_fails_is_set_aside(typed, run, monkeypatch):
    def fail(worker, unit, rows, own):
        raise RuntimeError("no luck")

    monkeypatch.setattr("harness.driver.evaluate.EvaluateWorker.run", fail)
    code, _, err = typed(evaluate, "run_dir=run", *SAME, "evaluate.num_images=2")
    assert code == 1
    assert "failed three times: k000002-max_logit-000000-" in err
    assert "RuntimeError: no luck" in err


def test_what_was_not_typed_is_as_the_run_began_but_for_the_actors_that_trained(typed, run):
    path = run / "config.yaml"
    text = path.read_text().replace("  train: auto\n", "  train: 64\n")
    text = text.replace("gpus: 0.25", "gpus: 0.5").replace("quiet: false", "quiet: true")
    path.write_text(text)
    stored = from_yaml(path)
    assert (stored.actors.train, stored.actors.gpus, stored.quiet) == (64, 0.5, True)
    given = ["run_dir", "evaluate.tasks", "actors.evaluate"]
    asked = from_yaml(path)
    asked.run_dir, asked.evaluate.tasks, asked.actors.evaluate = str(run), 7, 3
    asked.tasks, asked.actors.gpus, asked.executor, asked.quiet = 99, 1.0, "ray", False
    config = evaluation_configuration(asked, given)
    assert (config.evaluate.tasks, config.actors.evaluate) == (7, 3)
    assert (config.tasks, config.actors.gpus, config.executor) == (5, 0.5, "serial")
    assert (config.actors.train, config.quiet) == ("auto", True)
