"""A trial in the form that Ray Tune needs, for `harness/tune.py` and for one's own Tuner."""

import time
from collections.abc import Iterator
from typing import Any

from ray import tune

from harness.config.compose import checked, compose_overrides
from harness.run.dataset import dataset_of
from harness.run.spec import RunSpec
from harness.search.config import TuneJob, base_config, check_tune
from harness.search.search import Search
from harness.search.trial import BlockTrial, Report, checked_spec
from supsup_core.data import ImageSet


class Trial(tune.Trainable):
    """A trial of a search. One step of Ray Tune is one stage of the trial."""

    def setup(  # type: ignore[override]  # with_parameters adds arguments
        self, config: dict[str, Any], search: Search, train: ImageSet, test: ImageSet
    ) -> None:
        """Prepare the trial with the values that the search algorithm drew."""
        self._search, self._train, self._test = search, train, test
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in this actor.

        A new actor takes seconds to start, which may be longer than a trial.
        """
        self._begin(new_config)
        return True

    def _begin(self, sampled: dict[str, Any]) -> None:
        search = self._search
        spec = RunSpec(search.config(sampled), search.input_shape, search.num_classes)
        self._reports: Iterator[Report] = BlockTrial(
            spec, self._train, self._test, search.tune
        ).reports()
        self._num_stages = 0

    def step(self) -> dict[str, Any]:
        """Train one stage, and return its Report as a mapping.

        `measured_at` is the time of the report, in seconds since the start of 1970 (UTC). Ray
        Tune's own `timestamp` has whole seconds, in which many short trials may end.
        """
        report = next(self._reports)
        self._num_stages += 1
        return {
            **report.as_dict(),
            "measured_at": time.time(),
            tune.result.DONE: report.rung == self._search.tune.last_rung,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, int]:
        """Return the number of finished stages.

        The scores are not saved. They are the same if the trial trains the stages again, and this
        takes seconds.
        """
        return {"stages": self._num_stages}

    def load_checkpoint(self, checkpoint: dict[str, int] | None) -> None:
        """Train the stages again that the trial had finished."""
        while checkpoint is not None and self._num_stages < checkpoint["stages"]:
            self.step()


def trainable(*overrides: str) -> Any:
    """Make a trainable for one's own `ray.tune.Tuner`, with any search space and scheduler of Tune.

    The keys of `param_space` are those of a run, such as "train.learning_rate", and a value that
    Tune draws is the value of the key. A trial reports the attributes of
    `harness.search.trial.Report` at the end of each stage: `rung`, `steps`, `accuracy`,
    `task_accuracy`, `expected_task_accuracy` and `expected_accuracy`. `measured_at` is the time of
    the report, in seconds since the start of 1970. A scheduler needs
    time_attr="rung". A trial needs one CPU, or the fraction of a GPU that one gives to
    `tune.with_resources`. For example::

        from ray import tune
        import harness

        tuner = tune.Tuner(
            harness.trainable("data=mnist5k", "tasks=8", "train=fast"),
            param_space={"train.learning_rate": tune.loguniform(1e-4, 1e-2)},
            tune_config=tune.TuneConfig(metric="expected_accuracy", mode="max", num_samples=12),
        )
        results = tuner.fit()

    Args:
        overrides: texts KEY=VALUE, as for `harness/tune.py`. `tune.space`, `tune.trials`,
            `tune.search` and `tune.scheduler` have no effect.

    Raises:
        UserError: a key is unknown, or a value is not allowed.
    """
    job = checked(compose_overrides(overrides, "tune", TuneJob), list(overrides))
    assert isinstance(job, TuneJob)
    check_tune(job)
    data = dataset_of(job, download=job.download)
    base = base_config(job)
    checked_spec(base, data)
    search = Search(base, job.tune, (), data.input_shape, data.num_classes)
    with_data = tune.with_parameters(Trial, search=search, train=data.train, test=data.test)
    return tune.with_resources(with_data, {"cpu": 1})
