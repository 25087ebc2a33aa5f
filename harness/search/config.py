"""The configuration of a search: the keys of a run, and the settings of the search."""

from dataclasses import dataclass, field, fields
from typing import Any

from harness.config.checks import must_be
from harness.config.compose import store_schema
from harness.config.option import knob
from harness.config.schema import Config, is_streamed
from harness.places.places import is_url

METRICS = ("expected_accuracy", "accuracy", "task_accuracy")
SEARCHES = ("optuna", "random")
SCHEDULERS = ("asha", "none")
# The expected task accuracy needs the standard deviation of the slopes of the wrong tasks. So there
# must be at least two wrong tasks.
_FEWEST_TASKS = 3
_MOST_TRIALS = 10**5  # Ray Tune writes the state of all trials every few seconds
_LARGEST_SEED = 2**32 - 1  # Optuna's samplers take seeds of 32 bits


@dataclass
class TuneConfig:
    """Settings of a search: the searched keys, and how to search."""

    space: dict[str, Any] = knob(
        dict,
        help="Searched keys and their values, in the form of Hydra's sweeps: interval(0.1, 0.9), "
        "tag(log, interval(1e-4, 1e-2)), range(64, 512, 64) or choice(rmsprop, adam).",
    )
    trials: int = knob(
        100, at_least=1, at_most=_MOST_TRIALS, help="Number of configurations to try."
    )
    metric: str = knob(
        METRICS[0],
        one_of=METRICS,
        help="Value that the search maximises. accuracy is the accuracy with the task given. "
        "task_accuracy is the task accuracy among the masks of the trial. expected_accuracy is the "
        "product of accuracy and the task accuracy that is expected among tune.among masks.",
    )
    among: int = knob(2500, at_least=2, help="Number of masks that expected_accuracy assumes.")
    search: str = knob(
        "optuna",
        one_of=SEARCHES,
        help="Method that proposes configurations. optuna uses a tree-structured Parzen estimator. "
        "random draws configurations at random.",
    )
    scheduler: str = knob(
        "asha",
        one_of=SCHEDULERS,
        help="asha stops the worse trials after each stage. none lets every trial finish.",
    )
    # The steps of the last stage are the steps of the first stage times reduction ** (stages - 1).
    stages: int = knob(
        3,
        at_least=1,
        at_most=30,
        help="Number of stages of a trial. The trial is measured at the end of each stage.",
    )
    reduction: int = knob(
        3,
        at_least=2,
        at_most=100,
        help="Factor by which the number of steps grows from stage to stage. With the factor r, "
        "asha continues the best 1/r of the trials after each stage.",
    )

    @property
    def last_rung(self) -> int:
        """The rung of the last stage. A rung is the number by which ASHA knows a stage.

        The first stage has rung 1. The rung of each later stage is `reduction` times the rung of
        the stage before.
        """
        return int(self.reduction ** (self.stages - 1))


# The keys of a search are not part of Config, so that the hashes of stored runs stay the same.
@dataclass
class TuneJob(Config):
    """The configuration of a search: the keys of a run, and the settings of the search in `tune`.

    The keys of a run are the configuration from which each trial starts.
    """

    tune: TuneConfig = field(default_factory=TuneConfig)


store_schema("tune_schema", TuneJob)


def base_config(job: TuneJob) -> Config:
    """Return the configuration from which each trial starts: `job` without the key `tune`."""
    return Config(**{entry.name: getattr(job, entry.name) for entry in fields(Config)})


def check_tune(job: TuneJob) -> None:
    """Check the keys for which a search allows fewer values than a run.

    The searched keys are checked in harness/search/space.py.

    Raises:
        UserError: a key has a value that a search does not allow.
    """
    if job.executor != "ray":
        raise must_be("executor", "ray for a search", job.executor, "executor=ray")
    if job.run_dir is not None and is_url(job.run_dir):
        raise must_be(
            "run_dir", "a folder on this machine for a search", job.run_dir, "run_dir=runs/search"
        )
    if is_streamed(job):
        raise must_be("scenario", "gn for a search", job.scenario, "scenario=gn")
    if job.seed > _LARGEST_SEED:
        raise must_be("seed", f"<= {_LARGEST_SEED} for a search", job.seed, "seed=0")
    if job.tasks < _FEWEST_TASKS:
        raise must_be(
            "tasks", f">= {_FEWEST_TASKS} for a search", job.tasks, f"tasks={_FEWEST_TASKS}"
        )
