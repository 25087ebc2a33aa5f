"""A search by Ray Tune: its trials as actors, what it leaves on disk, and going on with it.

config.yaml  provenance.json  lock  ray/  trials/trials.parquet  recipe/best.yaml
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from harness.config.identity import to_yaml
from harness.config.schema import AUTO, Config, leaf
from harness.data.dataset import Dataset
from harness.errors import UserError
from harness.executors.on_ray import capacity
from harness.executors.ray_start import start_ray
from harness.reporting.display import Display
from harness.run.provenance import config_hash, has_bfloat16_matrices
from harness.run.spec import RunSpec
from harness.search.config import FAILED, FINISHED, STOPPED_EARLY, TuneConfig
from harness.search.space import Dimension, with_values
from harness.search.trial import BlockTrial, Report, resolve_trial
from harness.tables.schemas import trials_schema
from supsup_core.data import ImageSet

logger = logging.getLogger("harness")

RAY_FOLDER = "ray"
BAR = "trials"
_TRIES = 3

# Of Tune: no files a trial beyond its own state, no handler that swallows Ctrl-C, no change of
# folder, and no more than these seconds of trials to do again after a crash.
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # which says less than the other at verbosity 0
}


@dataclass(frozen=True)
class Search:
    """What the driver and every trial know.

    Attributes:
        base: every trial's configuration but for the space.
        tune: how the search goes.
        dimensions: of the space.
        input_shape: of one image of the data set.
        num_classes: of the data set.
        has_bfloat16: what `train.dtype=auto` comes to: said by the driver's machine for all
            trials, wherever they run.
    """

    base: Config
    tune: TuneConfig
    dimensions: Sequence[Dimension]
    input_shape: tuple[int, ...]
    num_classes: int
    has_bfloat16: bool = field(default_factory=has_bfloat16_matrices)

    def config(self, sampled: Mapping[str, Any]) -> Config:
        """A trial's configuration, resolved, from what Optuna drew."""
        values = {d.key: d.value(sampled[d.key]) for d in self.dimensions}
        return resolve_trial(
            with_values(self.base, values),
            self.input_shape,
            self.num_classes,
            has_bfloat16=self.has_bfloat16,
        )

    @property
    def schema(self) -> pa.Schema:
        """Of the table of trials."""
        kinds = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        return trials_schema({d.key: kinds.get(d.kind, pa.string()) for d in self.dimensions})


class _Trial(tune.Trainable):
    """A trial as Tune drives it: a step is a stage."""

    def setup(  # type: ignore[override]  # with_parameters gives the rest
        self, config: dict[str, Any], search: Search, train: ImageSet, test: ImageSet
    ) -> None:
        self._search, self._train, self._test = search, train, test
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial: an actor starts for seconds, a trial may last no more."""
        self._begin(new_config)
        return True

    def _begin(self, sampled: dict[str, Any]) -> None:
        search = self._search
        spec = RunSpec(search.config(sampled), search.input_shape, search.num_classes)
        self._reports: Iterator[Report] = BlockTrial(
            spec, self._train, self._test, search.tune
        ).reports()

    def step(self) -> dict[str, Any]:
        report = next(self._reports)
        return {**report.as_dict(), tune.result.DONE: report.rung == self._search.tune.last_rung}


class Shown(tune.Callback):
    """Counts trials that ended, and says what the best of the finished has.

    Tune keeps its callbacks with the search's state and would go on with those; what it reads
    back is the callback of the start that reads it, for a screen cannot be kept.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _shown_now, ()

    def __init__(self, display: Display, metric: str, last_rung: int) -> None:
        self._display, self._metric, self._last_rung = display, metric, last_rung
        self._done, self._best = 0, None

    def begin(self, total: int, ended: int) -> None:
        """Show how many there are, and how many ended before this start."""
        self._done = ended
        self._display.add(BAR, total, ended, "trials")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Remember the best of the finished."""
        if result["rung"] == self._last_rung:
            found = result[self._metric]
            self._best = found if self._best is None else max(self._best, found)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count it."""
        self._done += 1
        self._display.update(BAR, self._done, self._best)

    on_trial_error = on_trial_complete


_now: ContextVar[Shown | None] = ContextVar("shown", default=None)


def _shown_now() -> Shown | None:
    return _now.get()


def run_trials(search: Search, data: Dataset, directory: Path, display: Display) -> pa.Table:
    """Do all trials, or those that an earlier start left.

    Args:
        search: checked.
        data: that trials are trained and measured on.
        directory: of the search; this process holds its lock.
        display: shows how far it is.

    Returns:
        The table `trials`, in the order they began.

    Raises:
        UserError: Ray would not start, or Tune cannot read what an earlier start left.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ray, began = start_ray()
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        gpus = search.base.actors.gpus if capacity(ray.cluster_resources())[1] else 0
        with_data = tune.with_parameters(_Trial, search=search, train=data.train, test=data.test)
        trainable = tune.with_resources(with_data, {"cpu": 0 if gpus else 1, "gpu": gpus})
        shown = Shown(display, search.tune.metric, search.tune.last_rung)
        _now.set(shown)
        tuner = _tuner(search, trainable, directory, shown)
        with display, warnings.catch_warnings():
            # A trial that is tried again reports its first stage again.
            warnings.filterwarnings("ignore", "The reported value is ignored", UserWarning)
            shown.begin(search.tune.trials, _num_ended(tuner))
            results = tuner.fit()
        return _table(search, results)
    finally:
        _now.set(None)
        if began:
            ray.shutdown()


def _num_ended(tuner: tune.Tuner) -> int:
    """Trials that need nothing more, after an earlier start."""
    try:
        results = tuner.get_results()
    except RuntimeError:  # a new search has none
        return 0
    return sum(_is_over(results[i]) for i in range(len(results)))


def _is_over(result: Any) -> bool:
    return bool(result.metrics and result.metrics.get("done") and not result.error)


def _tuner(search: Search, trainable: Any, directory: Path, shown: Shown) -> tune.Tuner:
    """A new search, or the one that the folder holds."""
    path = directory / RAY_FOLDER
    if tune.Tuner.can_restore(str(path)):
        logger.info("going on with the search in %s", directory)
        try:
            # A trial that failed keeps its name, by which Optuna knows it.
            return tune.Tuner.restore(str(path), trainable, resume_errored=True)
        except Exception as error:  # whatever Ray makes of files that a kill or a disk cut short
            raise UserError(
                f"search in {directory} must be one that Ray Tune can read, got "
                f"{type(error).__name__}: choose another run_dir"
            ) from error
    settings = search.tune
    most = None if search.base.actors.train == AUTO else int(search.base.actors.train)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=settings.metric,
            mode="max",
            num_samples=settings.trials,
            search_alg=OptunaSearch(
                {d.key: d.distribution for d in search.dimensions},
                sampler=_sampler(search),
                metric=settings.metric,
                mode="max",
            ),
            scheduler=_scheduler(settings),
            max_concurrent_trials=most,
            trial_dirname_creator=_folder_name,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=RAY_FOLDER,
            storage_path=str(directory),
            callbacks=[shown],
            # A trial is begun again rather than continued: it takes seconds.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=_TRIES - 1),
            verbose=0,
        ),
    )


def _folder_name(trial: Any) -> str:
    """Of a trial's empty folder; Tune's own would have the values in it, whatever they are."""
    return str(trial.trial_id)


def _sampler(search: Search) -> optuna.samplers.BaseSampler:
    if search.tune.search == "random":
        return optuna.samplers.RandomSampler(seed=search.base.seed)
    # Trials run side by side: what others are trying counts as bad, or all would try the same.
    return optuna.samplers.TPESampler(seed=search.base.seed, constant_liar=True)


def _scheduler(settings: TuneConfig) -> ASHAScheduler | None:
    if settings.scheduler == "none" or settings.stages == 1:
        return None  # first in, first out
    return ASHAScheduler(
        time_attr="rung",
        grace_period=1,
        max_t=settings.last_rung,
        reduction_factor=settings.reduction,
    )


def _table(search: Search, results: tune.ResultGrid) -> pa.Table:
    rows = []
    names = ("accuracy", "task_accuracy", "expected_task_accuracy", "expected_accuracy")
    # Tune's own list of trials, in the grid's order: what a trial was drawn as is not in the
    # grid where it failed before it told anything.
    grid = [results[i] for i in range(len(results))]
    tried = zip(results._experiment_analysis.trials, grid, strict=True)
    for number, (trial, result) in enumerate(sorted(tried, key=_began_as)):
        metrics = result.metrics or {}
        finished = metrics.get("rung") == search.tune.last_rung
        config = search.config(trial.config)
        values = {d.key: _cell(d.kind, leaf(config, d.key)) for d in search.dimensions}
        rows.append(
            {
                "trial": number,
                "status": FAILED if result.error else FINISHED if finished else STOPPED_EARLY,
                **values,
                **{name: metrics.get(name) for name in names},
                "among": search.tune.among,
                "num_tasks": search.base.tasks,
                "steps": metrics.get("steps", 0),
                "seconds": metrics.get("time_total_s", 0.0),
                "config_hash": config_hash(config),
                "config": to_yaml(config),
            }
        )
    return pa.Table.from_pylist(rows, schema=search.schema)


def _began_as(tried: tuple[Any, Any]) -> int:
    """Which trial of the search it was; Tune lists restored ones in another order."""
    return int(tried[0].experiment_tag.partition("_")[0])


def _cell(kind: Any, value: Any) -> Any:
    """A value as its column holds it: a list, or what may be a word, as text."""
    return value if kind in (int, float, bool) else str(value)
