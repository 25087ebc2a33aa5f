"""Small searches on the digits are run, resumed and refused. recipe/best repeats the best trial."""

import gc
import json
import pickle
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
import yaml
from ray import tune as ray_tune

import harness
from analysis import report
from analysis.load import load
from harness import open_search, scale, status, tune
from harness.config.identity import job_from_yaml, to_yaml
from harness.data.catalogue import load_dataset
from harness.errors import UserError
from harness.reporting import html
from harness.search import start as job
from harness.search import tuning
from harness.search.config import TuneConfig, TuneJob, base_config
from harness.search.search import Search
from harness.search.space import read_space
from harness.search.table import trials_schema
from harness.search.trial import stage_steps
from harness.search.trials import write_trials
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import TASKS
from tensorboard_files import events

SMALL = (
    *("data=digits", "network=mlp", "network_options.hidden=[24]", "outputs=12", "tasks=6"),
    *("train.steps=27",),
    *("train.batch_size=32", "evaluate.batches=2", "tune.among=50", "quiet=true"),
)
SPACE = ("train.learning_rate=tag(log, interval(1e-3, 1e-1))", "train.optimizer=rmsprop,adam")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """Restore the environment variables that a search sets for Ray Tune."""
    for name in tuning.ENVIRONMENT:
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)


def trials(directory):
    table = open_search(directory).table()
    job = job_from_yaml(directory / "config.yaml", TuneJob)
    space = read_space(job.tune.space, base_config(job))
    assert table.schema.equals(Search(base_config(job), job.tune, space, 8, 10).schema)
    assert load(directory, "trials").num_rows == table.num_rows
    return table.to_pylist()


def check_rows(found):
    """Check the rows of the table `trials` of a search of SPACE with 8 trials."""
    assert [row["trial"] for row in found] == list(range(8))
    assert len({row["train.learning_rate"] for row in found}) == 8
    status = Counter(row["status"] for row in found)
    assert set(status) == {"finished", "stopped"}  # ASHA stopped some trials
    for row in found:
        assert 1e-3 <= row["train.learning_rate"] <= 1e-1
        assert row["steps"] in {"finished": [27], "stopped": [3, 9]}[row["status"]]
        assert row["seconds"] > 0
        config = yaml.safe_load(row["config"])
        assert config["train"]["learning_rate"] == row["train.learning_rate"]
        assert config["train"]["optimizer"] == row["train.optimizer"]
        assert row["expected_accuracy"] == row["accuracy"] * row["expected_task_accuracy"]


def check_open_search(directory, found, best):
    """Check that a search, opened from Python, has the rows of its table."""
    search = open_search(directory)
    results = search.results()
    assert len(results) == 8
    assert results.get_best_result(scope="last").metrics["expected_accuracy"] == max(
        row["expected_accuracy"] for row in found
    )
    assert {result.config["train.learning_rate"] for result in results} == {
        row["train.learning_rate"] for row in found
    }
    assert search.best() == yaml.safe_load(best["config"])
    assert len(results.get_dataframe()) == 8


def check_logged(directory, found, best):
    """Check the numbers of a search in TensorBoard, and its report."""
    for row in found:
        numbers, texts = events(directory / f"tensorboard/trial-{row['trial']}")
        assert numbers["trial/accuracy"][row["steps"]] == pytest.approx(row["accuracy"])
        assert f"train.learning_rate: {row['train.learning_rate']}" in texts[0]
    numbers, _ = events(directory / "tensorboard")
    assert numbers["search/best_expected_accuracy"][8] == pytest.approx(best["expected_accuracy"])
    page = report.write(directory).read_text()
    assert f'"result">Of 8 trials, trial {best["trial"]} is the best: expected_accuracy ' in page
    assert "--config-dir" in page


def check_repeated(directory, best):
    """Check that a run with the recipe of the best trial has the results of this trial."""
    tasks = read_tables(directory / "log", TASKS)["accuracy"].to_numpy()
    assert tasks.mean() == best["accuracy"]
    asked = read_tables(directory / "evaluations", EVALUATIONS)["task_accuracy"].to_numpy()
    assert asked.mean() == best["task_accuracy"]
    there = yaml.safe_load(best["config"])
    assert there["train"].pop("device") == "auto"  # the run has chosen a device
    there["train"]["device"] = "cpu"
    assert there == yaml.safe_load((directory / "config.yaml").read_text()) | {
        key: there[key] for key in ("executor", "actors", "run_dir", "quiet", "loggers")
    }


def test_a_search_is_a_table_and_a_file_that_gives_its_best_trial_again(
    ray_session, typed, tmp_path, monkeypatch
):
    reports = []
    monkeypatch.setattr(html, "write_reports", reports.append)
    code, out, err = typed(
        tune, "run_dir=found", *SMALL, *SPACE, "tune.trials=8", "loggers=[tensorboard]"
    )
    assert code == 0, err
    found = trials(tmp_path / "found")
    check_rows(found)
    finished = [row for row in found if row["status"] == "finished"]
    best = max(finished, key=lambda row: row["expected_accuracy"])
    assert "8 trials:" in out
    assert f"{best['accuracy']:.4f}" in out
    assert "+recipe=best" in out
    assert max(map(len, out.splitlines()[:12])) <= 110
    assert "Trial" not in err + out  # Ray Tune itself prints nothing
    assert reports == [[tmp_path / "found"]]
    check_open_search(tmp_path / "found", found, best)
    check_logged(tmp_path / "found", found, best)

    taken = ("--config-dir", str(tmp_path / "found"), "+recipe=best")
    code, _, err = typed(scale, *taken, "run_dir=run", "executor=serial")
    assert code == 0, err
    check_repeated(tmp_path / "run", best)

    code, _, err = typed(tune, "run_dir=found", *SMALL, *SPACE, "tune.trials=8")
    assert code == 0
    assert "complete already" in err
    assert trials(tmp_path / "found") == found

    code, _, err = typed(tune, "run_dir=found", *SMALL, SPACE[0], "tune.trials=8")
    assert code == 2
    assert err.count("\n") == 1
    assert "holds another search: tune.space.train.optimizer is rmsprop,adam in" in err
    assert "not given in this command" in err


def test_status_tells_how_far_a_search_is(tmp_path, capsys):
    row = {"trial": 3, "status": "finished", "train.steps": 9, "accuracy": 0.5, "among": 2500}
    row |= {"task_accuracy": 0.5, "expected_task_accuracy": 0.5, "expected_accuracy": 0.25}
    row |= {"num_tasks": 4, "steps": 9, "seconds": 1.0, "config_hash": "", "config": "{}"}
    row |= {"measured_at": datetime(2026, 11, 27, tzinfo=UTC), "error": None}
    worse = row | {"trial": 4, "expected_accuracy": 0.125}
    stopped = row | {"trial": 5, "status": "stopped", "expected_accuracy": 0.75}
    schema = trials_schema({"train.steps": pa.int64()})
    (tmp_path / "config.yaml").write_text(to_yaml(TuneJob(tune=TuneConfig(trials=8))))
    assert status.main([f"run_dir={tmp_path}"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["  0 of 8 trials ended"]
    write_trials(tmp_path, pa.Table.from_pylist([row, worse, stopped], schema=schema), "search")
    assert status.main([f"run_dir={tmp_path}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: search, stopped",
        "  3 of 8 trials ended: 2 finished, 1 stopped",
        "  best expected_accuracy: 0.2500, trial 3",
    ]
    assert status.main([f"run_dir={tmp_path}", "json=true"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["trials"], told["best"]["trial"]) == (8, 3)
    assert told["best"]["measured_at"] == "2026-11-27T00:00:00+00:00"
    assert told["ended"] == {"finished": 2, "stopped": 1}
    with pytest.raises(UserError, match="verify must be false for a search"):
        status.main([f"run_dir={tmp_path}", "verify=true"])


def test_the_trials_of_ones_own_tuner_are_those_of_a_search(ray_session, tmp_path):
    own = ray_tune.Tuner(
        harness.trainable(*SMALL, "tune.stages=2"),
        param_space={"train.optimizer": ray_tune.grid_search(["rmsprop", "adam"])},
        tune_config=ray_tune.TuneConfig(metric="accuracy", mode="max"),
        run_config=ray_tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    results = own.fit()
    assert len(results) == 2
    assert not results.errors
    assert {one.metrics["steps"] for one in results} == {27}
    assert results[0].metrics["accuracy"] != results[1].metrics["accuracy"]


@pytest.mark.long
def test_a_stopped_search_goes_on_where_it_was(ray_session, typed, tmp_path, monkeypatch):
    ended = []

    class Watching(tuning.ProgressCallback):
        def on_trial_complete(self, iteration, trials, trial, **info):
            super().on_trial_complete(iteration, trials, trial, **info)
            ended.append(trial.trial_id)

    class Stopping(Watching):
        def on_trial_complete(self, iteration, trials, trial, **info):
            super().on_trial_complete(iteration, trials, trial, **info)
            if len(ended) == 3:
                raise KeyboardInterrupt

    options = ("run_dir=found", *SMALL, *SPACE, "tune.trials=6", "tune.scheduler=none")
    monkeypatch.setattr(tuning, "ProgressCallback", Stopping)
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")  # Ray Tune saves every trial at once
    code, out, err = typed(tune, *options)
    assert code == 130, err
    assert "type the same command again" in out
    assert len(ended) == 3
    assert len(trials(tmp_path / "found")) <= 3
    gc.collect()  # ends the actors of the stopped search, as the end of a process would

    monkeypatch.setattr(tuning, "ProgressCallback", Watching)
    code, _, err = typed(tune, *options)
    assert code == 0, (err, ended)
    assert "continuing the search" in err
    assert len(trials(tmp_path / "found")) == 6
    assert {row["status"] for row in trials(tmp_path / "found")} == {"finished"}
    assert len(set(ended)) == 6, ended
    repeated = [name for name, times in Counter(ended).items() if times > 1]
    assert len(repeated) <= 1  # the trial that had ended when the search was stopped


@pytest.mark.long
def test_trials_that_failed_are_tried_again(ray_session, typed, tmp_path, monkeypatch):
    broken, data = tmp_path / "broken", load_dataset("digits")
    broken.touch()

    class Labels(np.ndarray):  # local, because Ray pickles local classes by value
        def astype(self, *arguments, **options):
            if broken.exists():
                raise OSError("labels cannot be read")
            return super().astype(*arguments, **options)

    train = replace(data.train, labels=data.train.labels.view(Labels))
    given = replace(data, train=train)
    monkeypatch.setattr(job, "dataset_of", lambda *args, **options: given)
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    options = ("run_dir=found", *SMALL, *SPACE, "tune.trials=3", "tune.scheduler=none")
    code, _, err = typed(tune, *options)
    assert code == 1, err
    failed = trials(tmp_path / "found")
    assert [row["status"] for row in failed] == ["failed"] * 3
    assert all(row["error"].startswith("OSError: labels cannot be read") for row in failed)
    gc.collect()
    broken.unlink()
    code, _, err = typed(tune, *options)
    assert code == 0, err
    assert [row["status"] for row in trials(tmp_path / "found")] == ["finished"] * 3


@pytest.mark.long
def test_masks_over_units_are_searched_too(ray_session, typed, tmp_path):
    code, _, err = typed(
        *(
            tune,
            "run_dir=found",
            "data=digits",
            "experiment=reservoir",
            "network_options.hidden=[256]",
        ),
        *("tasks=4", "train.steps=9", "evaluate.batches=1", "evaluate.num_images=128"),
        *("evaluate.reservoir=false", "tune.trials=2", "tune.stages=2", "tune.scheduler=none"),
        *("tune.search=random", "tune.metric=accuracy", "quiet=true"),
        "train.learning_rate=interval(0.1, 0.5)",
    )
    assert code == 0, err
    found = trials(tmp_path / "found")
    assert [row["status"] for row in found] == ["finished"] * 2
    assert min(row["accuracy"] for row in found) > 0.3


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            ["train.learnin_rate=interval(0,1)"],
            ["key must be one that --help lists, got train.learnin_rate"],
        ),
        (["train.learning_rate=interval(1)"], ["train.learning_rate must be", "interval(0.1"]),
        (["train.learning_rate=interval(-1,1)"], ["train.learning_rate must be a number > 0"]),
        ([], ["tune.space must have at least one key"]),
        (
            ["train.steps=1,2", "tune.trials=0"],
            ["tune.trials must be a whole number in [1, 100000], got 0"],
        ),
        (["train.steps=1,2", "tune.trials=100001"], ["a whole number in [1, 100000], got 100001"]),
        (["train.steps=1,2", "tune.reduction=101"], ["a whole number in [2, 100], got 101"]),
        (["train.steps=1,2", "tune.trails=1"], ["got tune.trails", "try tune.trials=100"]),
        (["train.steps=1,2", "tune.search=grid"], ["tune.search must be one of optuna, random"]),
        (["train.steps=1,2", "executor=serial"], ["executor must be ray for a search"]),
        (["train.steps=1,2", "tasks=2"], ["tasks must be >= 3 for a search, got 2"]),
        (["outputs=5,20"], ["outputs must be at least 10"]),
        (["--config-dir", "nowhere", "train.steps=1,2"], ["--config-dir must be a folder"]),
    ],
)
def test_wrong_input_is_one_line(typed, options, parts):
    code, _, err = typed(tune, *options, "data=digits")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_equal_tasks_are_warned_about(typed, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run_trials", stop)
    options = ("tasks=25", "family=rotated", "run_dir=found")
    code, _, err = typed(tune, *SMALL[:4], *options, "train.optimizer=rmsprop,adam")
    assert code == 130
    assert "only 24 of 25 tasks are different with family=rotated" in " ".join(err.split())


def test_a_search_of_a_stranger_runs_no_program(typed, tmp_path, monkeypatch):
    marker = tmp_path / "ran"

    class Program:
        def __reduce__(self):
            return marker.touch, ()

    monkeypatch.setattr(tuning, "start_ray", lambda: pytest.fail("Ray was started"))
    state = tmp_path / "found" / "ray"
    state.mkdir(parents=True)
    (state / "tuner.pkl").write_bytes(pickle.dumps(Program()))
    code, _, err = typed(tune, "run_dir=found", *SMALL, *SPACE)
    assert code == 2
    assert err == (
        f"error: search in {tmp_path}/found must be one that you began, because its files can run "
        f"any program; {state}/tuner.pkl has no valid signature of this user: choose another "
        "run_dir\n"
    )
    assert not marker.exists()


def test_a_space_of_yaml_is_that_of_the_command_line(typed, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search/mine.yaml").write_text(
        "# @package _global_\ntune:\n  space:\n    train.steps: interval(5, 1)\n"
    )
    code, _, err = typed(tune, "--config-dir", ".", "+search=mine", "data=digits")
    assert code == 2
    assert "train.steps must have a range with an end above its start, got interval(5, 1)" in err


def test_a_recipe_that_is_not_there_is_one_line(typed, tmp_path):
    code, _, err = typed(scale, "--config-dir", str(tmp_path), "+recipe=best")
    assert (code, err.count("\n")) == (2, 1)
    assert "recipe" in err


def test_stages_grow_by_the_reduction_and_end_with_the_steps():
    assert stage_steps(100, TuneConfig(stages=3, reduction=3)) == {12: 1, 34: 3, 100: 9}
    assert stage_steps(1, TuneConfig(stages=3, reduction=3)) == {1: 9}
    assert stage_steps(5, TuneConfig(stages=1)) == {5: 1}
