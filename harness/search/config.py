"""The configuration of a search: that of a run, and how its space is searched."""

from dataclasses import dataclass, field, fields
from typing import Any

from harness.config.checks import at_least, one_of
from harness.config.schema import Config
from harness.errors import UserError
from harness.places.places import is_url

METRICS = ("expected_accuracy", "accuracy", "task_accuracy")
SEARCHES = ("optuna", "random")
SCHEDULERS = ("asha", "none")
FINISHED, STOPPED_EARLY, FAILED = "finished", "stopped", "failed"  # a trial's status


@dataclass
class TuneConfig:
    """What is searched, and how."""

    space: dict[str, Any] = field(default_factory=dict)
    """Key of the configuration -> its values, as Hydra writes sweeps: interval(0.1, 0.9),
    tag(log, interval(1e-4, 1e-2)), range(64, 512, 64), choice(rmsprop, adam)."""
    trials: int = 100
    """Configurations to try."""
    metric: str = METRICS[0]
    """What is to be large: accuracy (the task given), task_accuracy (among the trial's own
    masks), or expected_accuracy: accuracy times the task accuracy to expect among `among`."""
    among: int = 2500
    """Masks among which the right one is to be found, for expected_accuracy."""
    search: str = "optuna"
    """optuna (tree-structured Parzen estimator), or random."""
    scheduler: str = "asha"
    """asha: of the trials that have come as far, the best go on; none: all do."""
    stages: int = 3
    """Reports of a trial, the last after all its steps."""
    reduction: int = 3
    """Each stage has so many times the steps of the one before; asha lets one in so many go on."""

    @property
    def last_rung(self) -> int:
        """Of a trial that has taken all its steps; the first rung is 1."""
        return int(self.reduction ** (self.stages - 1))


@dataclass
class TuneJob(Config):
    """A run's configuration, each trial's but for what the space says, and the search."""

    tune: TuneConfig = field(default_factory=TuneConfig)


def base_config(job: TuneJob) -> Config:
    """The run's part."""
    return Config(**{entry.name: getattr(job, entry.name) for entry in fields(Config)})


def check_tune(job: TuneJob) -> None:
    """Check the search's own values; its space is checked by harness/search/space.py.

    Raises:
        UserError: naming the key, what was expected and what came.
    """
    tune = job.tune
    for key, least in {"trials": 1, "among": 2, "stages": 1, "reduction": 2}.items():
        at_least(f"tune.{key}", getattr(tune, key), least)
    one_of("tune.metric", tune.metric, METRICS)
    one_of("tune.search", tune.search, SEARCHES)
    one_of("tune.scheduler", tune.scheduler, SCHEDULERS)
    one_of("executor", job.executor, ("ray",))
    if job.run_dir is not None and is_url(job.run_dir):
        raise UserError(f"run_dir of a search must be a folder, got {job.run_dir}")
    # The spread of the other masks' slopes, which a margin is counted in.
    at_least("tasks", job.tasks, 3)
