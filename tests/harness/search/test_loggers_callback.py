"""A search is copied to loggers: each trial is a run of the logger, in each start of the search."""

import logging
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from harness.search.config import TuneConfig
from harness.search.loggers_callback import LoggersCallback
from harness.search.search import Search
from harness.search.space import read_space
from harness.search.trials import MEASURED

SPACE = {"train.learning_rate": "interval(0.1, 0.9)"}


class Kept:
    """A logger that keeps its calls in the class attribute `calls`: trial -> calls."""

    calls: dict[str, list]

    def begin(self, run):
        self.own = self.calls.setdefault(run.trial, [])
        self.own.append((run.axis, run.options["train.learning_rate"], [*run.searched]))

    def log(self, values, at):
        self.own.append((values, at))

    def end(self, *, failed=False):
        self.own.append("failed" if failed else "end")


class Other(Kept):
    """A second logger."""


class Broken(Kept):
    """A logger that cannot write."""

    def log(self, values, at):
        raise OSError("disk full")


def trial(number, rung=None, status=Trial.RUNNING):
    report = rung and dict.fromkeys(MEASURED, 0.1 * number) | {"rung": rung, "steps": 3 * rung}
    return SimpleNamespace(
        trial_id=f"id{number}",
        experiment_tag=f"{number + 1}_x",
        config={"train.learning_rate": 0.5 + number / 10},
        last_result=report,
        status=status,
    )


@pytest.fixture
def started(composed, tmp_path, monkeypatch):
    """A function that starts the copies of a search with some loggers."""
    classes = {"tensorboard": Kept, "mlflow": Other, "wandb": Broken}
    for one in classes.values():
        one.calls = {}
    monkeypatch.setattr(
        "harness.reporting.loggers.protocol.load", lambda kind, known, name: classes[name]
    )

    def start(*names):
        network = ("network=mlp", "network_options.hidden=[8]", "outputs=12")
        base = composed("data=digits", "tasks=4", "train.steps=9", *network)
        base.loggers = [*names]
        settings = TuneConfig(space=SPACE, stages=2, reduction=3)
        dimensions = read_space(SPACE, base)
        return LoggersCallback(Search(base, settings, dimensions, (1, 8, 8), 10), tmp_path, "s")

    return start


VALUES = {f"trial/{name}": 0.1 for name in MEASURED}
BEGUN = ("steps", 0.6, ["train.learning_rate"])


def test_a_trial_is_copied_stage_by_stage_and_the_search_has_its_best(started):
    copied = started("tensorboard")
    for rung in (1, 3):
        one = trial(1, rung)
        copied.on_trial_result(0, [one], one, one.last_result)
        copied.on_step_end(0, [one])
    copied.on_step_end(0, [trial(1, 3, Trial.TERMINATED), trial(2, 1, Trial.TERMINATED)])
    copied.on_step_end(0, [trial(1, 3, Trial.TERMINATED), trial(2, 1, Trial.TERMINATED)])
    copied.end()
    assert Kept.calls["trial-1"] == [BEGUN, (VALUES, 3), (VALUES, 9), "end"]
    (axis, _, searched), *logged = Kept.calls[""]
    assert (axis, searched) == ("trials", [])
    # A trial that was stopped early is not the best.
    assert logged == [({"search/best_expected_accuracy": 0.1}, 2), "end"]


def test_a_continued_search_copies_what_a_logger_lacks(started):
    first = started("tensorboard")
    ended = trial(1, 3, Trial.TERMINATED)
    first.on_step_end(0, [ended])
    second = started("tensorboard", "mlflow")
    second.set_state(first.get_state())
    second.on_step_end(1, [ended, trial(2, None, Trial.ERROR)])
    assert Kept.calls["trial-1"] == Other.calls["trial-1"] == [BEGUN, (VALUES, 9), "end"]
    assert Kept.calls["trial-2"][1:] == ["failed"]
    assert second.get_state() == {name: ["id1", "id2"] for name in ("tensorboard", "mlflow")}


def test_a_logger_that_fails_is_left_out_of_the_search(started, caplog):
    copied = started("wandb", "tensorboard")
    with caplog.at_level(logging.WARNING):
        for last in (1, 2):
            copied.on_step_end(0, [trial(1 + i, 3, Trial.TERMINATED) for i in range(last)])
    assert [*Broken.calls] == ["", "trial-1"]
    assert [*Kept.calls] == ["", "trial-1", "trial-2"]
    assert [record.getMessage() for record in caplog.records] == [
        "the logger wandb failed, and the command goes on without it: OSError: disk full"
    ]


def test_without_loggers_nothing_is_stored(started):
    copied = started()
    copied.on_step_end(0, [trial(1, 3, Trial.TERMINATED)])
    assert copied.get_state() is None
