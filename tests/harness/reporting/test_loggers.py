"""Loggers copy what the tables of a run say, and a logger that fails never ends a run."""

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from harness import evaluate, scale
from harness.config.checks import check
from harness.config.names import LOGGERS
from harness.errors import UserError
from harness.plan.units import EvaluationUnit
from harness.reporting.logged import COLUMNS, LoggedMetrics
from harness.reporting.loggers.protocol import Logged, begin_loggers, check_packages
from harness.reporting.loggers.tensorboard import TensorBoard
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.reservoirs import RESERVOIR
from harness.tables.schemas import TASKS
from tensorboard_files import events

SMALL = (
    *("data=digits", "network=mlp", "network_options.hidden=[8]", "outputs=12"),
    *("tasks=5", "train.block=2", "train.steps=2", "train.batch_size=8"),
    *("evaluate.batches=1", "evaluate.batch_size=16", "evaluate.algorithms=[max_logit,one_shot]"),
    *("evaluate.objectives=[H]", "evaluate.checkpoints=[2,5]", "evaluate.reservoir=true"),
    *("reservoir.cues=[flipped]", "executor=serial", "quiet=true", "run_dir=run"),
)


def means(run, table, schema, where):
    """Return the means of a table's rows: (column, num_tasks) -> mean."""
    rows = read_tables(run / table, schema).to_pandas().query(where)
    found = rows.groupby("num_tasks")[list(COLUMNS[table])].mean()
    return {(name, k): found.loc[k, name] for name in found.columns for k in found.index}


def test_tensorboard_gets_the_means_of_the_tables(typed, tmp_path):
    assert typed(scale, *SMALL, "loggers=[tensorboard]")[0] == 0
    run = tmp_path / "run"
    numbers, texts = events(run / "tensorboard")
    accuracies = read_tables(run / "log", TASKS)["accuracy"].to_pylist()
    assert numbers["tasks/accuracy"][5] == pytest.approx(np.mean(accuracies))
    assert "train.steps: 2" in texts[0]
    expected = {
        (f"evaluations/{name}/{column}", k): mean
        for name, where in (
            ("max_logit", "algorithm == 'max_logit'"),
            ("one_shot_H", "algorithm == 'one_shot'"),
        )
        for (column, k), mean in means(run, "evaluations", EVALUATIONS, where).items()
    }
    expected |= {
        (f"reservoir/projection_flipped/{column}", k): mean
        for (column, k), mean in means(run, "reservoir", RESERVOIR, "rule == 'projection'").items()
    }
    found = {(n, k): v for n, steps in numbers.items() for k, v in steps.items()}
    assert {key: found.get(key) for key in expected} == pytest.approx(expected)
    assert len(found) == len(expected) + len(numbers["tasks/accuracy"])

    # Without new results, a start adds no file. Another evaluation has names of its own.
    typed(scale, *SMALL, "loggers=[tensorboard]")
    assert len([*(run / "tensorboard").iterdir()]) == 1
    other = ("evaluate.num_images=2", "evaluate.algorithms=[max_logit]", "evaluate.checkpoints=[5]")
    stored = ("evaluate.batches=1", "evaluate.batch_size=16", "loggers=[tensorboard]")
    assert typed(evaluate, "run_dir=run", *other, *stored, "quiet=true")[0] == 0
    more = {name for name in events(run / "tensorboard")[0] if name not in numbers}
    assert {name.rpartition("/")[0] for name in more} == {"evaluations/max_logit/num_images_2"}


def test_a_missing_package_is_one_line_before_anything_is_made(typed, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "harness.reporting.loggers.tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    code, _, err = typed(scale, *SMALL, "loggers=[tensorboard]")
    assert code == 2
    assert err.startswith("error: loggers=[tensorboard] needs the package tensorboardX, which is")
    assert "[loggers]" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_loggers_are_refused_where_they_cannot_write(composed):
    config = composed("run_dir=s3://bucket/run")
    config.loggers = ["wandb"]
    with pytest.raises(UserError, match=r"loggers must be \[\] for a run_dir in object storage"):
        check(config)


@pytest.fixture
def unit():
    return EvaluationUnit(num_tasks=5, algorithm="one_shot", objective="H", task_ids=(0, 1))


def rows(unit):
    values = [0.25] * len(unit.task_ids)
    columns = {name: SimpleNamespace(to_pylist=lambda: values) for name in COLUMNS[unit.table]}
    return columns | {"agreement": None}


class Copy:
    """A logger that keeps its calls."""

    def __init__(self, fails=False):
        self.calls, self.fails = [], fails

    def log(self, values, at):
        self.calls.append((values, at))
        if self.fails:
            raise OSError("disk full")

    def end(self, *, failed=False):
        assert not failed
        self.calls.append("end")
        if self.fails:
            raise OSError("disk still full")


def test_a_part_is_copied_once_when_its_last_unit_ends(unit):
    copy = Copy()
    second = EvaluationUnit(num_tasks=5, algorithm="one_shot", objective="H", task_ids=(2,))
    logged = LoggedMetrics({"copy": copy}, [unit, second])
    logged.evaluated(unit, rows(unit))
    assert copy.calls == []
    logged.evaluated(second, rows(second))
    [(values, num_masks)] = copy.calls
    assert num_masks == 5
    assert values["evaluations/one_shot_H/accuracy_gnu"] == 0.25


def test_a_logger_that_fails_is_left_out_with_a_warning(unit, caplog):
    copy, broken = Copy(), Copy(fails=True)
    logged = LoggedMetrics({"broken": broken, "copy": copy}, [unit])
    with caplog.at_level(logging.WARNING):
        logged.committed(2, 2, 0.5)
        logged.committed(2, 4, 0.75)
        logged.end()
    first = ({"tasks/accuracy": 0.5}, 2)
    assert broken.calls == [first, "end"]
    assert copy.calls == [first, ({"tasks/accuracy": 0.75}, 4), "end"]
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(",")[0] for text in told] == [
        "the logger broken failed",
        "the logger broken could not end: OSError: disk still full",
    ]


def test_if_a_logger_cannot_begin_those_before_it_end(monkeypatch, tmp_path):
    ended = []
    monkeypatch.setattr(TensorBoard, "begin", lambda self, run: None)
    monkeypatch.setattr(TensorBoard, "end", lambda self, **how: ended.append(self))
    monkeypatch.setitem(LOGGERS, "wandb", "builtins:object")  # has no method begin
    with pytest.raises(UserError, match=r"loggers=\[wandb\] must be able to begin, got Attrib"):
        begin_loggers(["tensorboard", "wandb"], Logged(tmp_path, "abc", {}))
    assert len(ended) == 1


RUN_OPTIONS = {"steps": 2, "run_dir": None, "checkpoints": [2, 5]}
VALUES = {"tasks/accuracy": 0.5, "evaluations/one_shot_H/accuracy_gnu": 0.25}


def started(name, directory, identity="abc123", **trial):
    """Begin the logger of this name, or skip the test if its package is not installed."""
    try:
        check_packages([name])
    except UserError as error:
        pytest.skip(str(error))
    return begin_loggers([name], Logged(directory, identity, RUN_OPTIONS, **trial))[name]


@pytest.mark.long  # MLflow takes seconds to import and to make its file
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow uses an old option of SQLAlchemy
def test_mlflow_continues_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "run's"
    for num_masks in (5, 2):
        logger = started("mlflow", directory)
        logger.log(VALUES, num_masks)
        logger.end()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    [experiment] = [one for one in client.search_experiments() if one.name == "supermask-scaling"]
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == directory.name
    assert run.info.status == "FINISHED"
    assert run.data.params == {"steps": "2", "run_dir": "null", "checkpoints": "[2,5]"}
    history = client.get_metric_history(run.info.run_id, "evaluations/one_shot_H/accuracy_gnu")
    assert sorted((one.step, one.value) for one in history) == [(2, 0.25), (5, 0.25)]

    trial = started("mlflow", directory, "def456", trial="trial-0", search="abc123")
    trial.end(failed=True)
    below = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    [child] = client.search_runs([experiment.experiment_id], below)
    assert (child.info.run_name, child.info.status) == ("run's/trial-0", "FAILED")


def test_wandb_writes_a_folder_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = started("wandb", tmp_path)
    for num_masks in (5, 2):
        logger.log(VALUES, num_masks)
    logger.end()
    [file] = (tmp_path / "wandb").glob("offline-run-*-abc123/*.wandb")
    content = file.read_bytes()
    assert content.count(b"evaluations/one_shot_H/accuracy_gnu") >= 2
