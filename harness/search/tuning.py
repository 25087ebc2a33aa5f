"""Run a search with Ray Tune. Each trial runs in an actor, and a stopped search can be continued.

The folder of a search has these files: config.yaml, provenance.json, lock, ray/ (the state of Ray
Tune), trials/trials.parquet, recipe/best.yaml and report.html. Loggers may add their own files.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from harness.config.command import show_traceback
from harness.config.names import AUTO
from harness.config.options import resolved_options
from harness.data.dataset import Dataset
from harness.errors import Failure, UserError
from harness.executors.on_ray import capacity
from harness.executors.ray_start import call_on, start_ray
from harness.reporting.display import Display
from harness.run.products import Call, measured_rates
from harness.run.provenance import read_rates, record_rates
from harness.run.spec import RunSpec
from harness.search.callbacks import Callbacks, now
from harness.search.config import TuneConfig
from harness.search.loggers_callback import LoggersCallback
from harness.search.progress_callback import ProgressCallback
from harness.search.results_callback import ResultsCallback
from harness.search.search import Search
from harness.search.signed import UnsignedError, check_signed, make_key, signed_files
from harness.search.space import one_by_one, with_values
from harness.search.trainable import Trial
from harness.search.trials import TrialsTable, write_trials

logger = logging.getLogger("harness")

RAY_FOLDER = "ray"
_TRIES = 3

# With these settings, Ray Tune writes no log files per trial, does not catch Ctrl-C, and does not
# change the working directory. It saves the state of the search every 2 seconds, so that a crash
# loses at most the results of 2 seconds.
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the old output prints less at verbosity 0
}


def run_trials(
    search: Search, data: Dataset, directory: Path, search_id: str, display: Display
) -> pa.Table:
    """Run all trials, or the remaining trials of a search that was stopped.

    Args:
        search: the checked specification of the search.
        data: the data set of the trials.
        directory: the search's folder. This process must hold the lock of this folder.
        search_id: the identity of the search.
        display: shows the progress.

    Returns:
        The table `trials`, in the order in which the trials started.

    Raises:
        UserError: Ray did not start, a logger cannot begin, Ray Tune cannot read the stored state
            of the search, or another user may have written this state.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_own(directory)
    copied = LoggersCallback(search, directory, search_id)
    try:
        return _run(search, data, directory, search_id, display, copied)
    finally:
        copied.end()


def _run(
    search: Search,
    data: Dataset,
    directory: Path,
    search_id: str,
    display: Display,
    copied: LoggersCallback,
) -> pa.Table:
    """Start Ray, and run the trials; see run_trials."""
    ray, began = start_ray()
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        gpus = search.base.actors.gpus if capacity(ray.cluster_resources())[1] else 0
        search = _with_type(search, directory, partial(call_on, ray, 0 if gpus else 1, gpus))
        with_data = tune.with_parameters(Trial, search=search, train=data.train, test=data.test)
        trainable = tune.with_resources(with_data, {"cpu": 0 if gpus else 1, "gpu": gpus})

        table = TrialsTable(search)

        def keep(trials: Sequence[Any]) -> None:
            write_trials(directory, table.of(trials), search_id)

        shown = ProgressCallback(display, search.tune.metric, search.tune.last_rung, keep)
        callbacks = Callbacks([shown, copied, ResultsCallback(directory / RAY_FOLDER)])
        now.set(callbacks)
        tuner = _tuner(search, trainable, directory, callbacks)
        with display, warnings.catch_warnings():
            # A trial that is tried again reports its first stage again. Optuna warns about this.
            warnings.filterwarnings("ignore", "The reported value is ignored", UserWarning)
            shown.begin(search.tune.trials, _num_ended(tuner))
            results = tuner.fit()
        for error in results.errors[-1:]:
            failure = Failure.described(getattr(error, "cause", None) or error, str(error))
            show_traceback(failure.traceback)
            logger.error("a trial failed three times: %s", failure.line)
        # Ray Tune's internal list of trials also has the drawn values of trials that failed before
        # their first report.
        return table.of(results._experiment_analysis.trials)
    finally:
        now.set(None)
        if began:
            ray.shutdown()


def _with_type(search: Search, directory: Path, call: Call) -> Search:
    """Decide once per search whether `train.dtype=auto` means bfloat16 or float32.

    The first configuration that needs this decision is measured in both types. The result is stored
    in the search's folder, and is used for all trials, so that trials can be compared.

    Args:
        search: the specification of the search, before this decision.
        directory: the search's folder.
        call: function that calls another function on a machine that trains.

    Returns:
        The specification with the decision.
    """
    rates = read_rates(directory)
    if rates is None:
        for values in one_by_one(search.dimensions):
            config = resolved_options(with_values(search.base, values))
            rates = measured_rates(RunSpec(config, search.input_shape, search.num_classes), call)
            if rates is not None:
                record_rates(directory, rates)
                break
    return replace(search, bfloat16_is_faster=rates is not None and rates.bfloat16_is_faster)


def _num_ended(tuner: tune.Tuner) -> int:
    """Count the trials that ended without an error before this start of the search."""
    try:
        results = tuner.get_results()
    except RuntimeError:  # a new search has no results
        return 0
    return sum(_is_over(results[i]) for i in range(len(results)))


def _is_over(result: Any) -> bool:
    return bool(result.metrics and result.metrics.get("done") and not result.error)


def _check_own(directory: Path) -> None:
    """Refuse the stored state of a search if another user may have written it.

    Ray Tune reads the state from pickles, and a pickle can run any program when it is read.
    """
    make_key()
    try:
        check_signed(directory / RAY_FOLDER)
    except UnsignedError as error:
        raise UserError(
            f"search in {directory} must be one that you began, because its files can run any "
            f"program; {error}: choose another run_dir"
        ) from error


def _tuner(search: Search, trainable: Any, directory: Path, callbacks: Callbacks) -> tune.Tuner:
    """Make a new search. If the folder has the state of a search, restore this search instead."""
    path, files = directory / RAY_FOLDER, signed_files()
    if tune.Tuner.can_restore(str(path), files):
        logger.info("continuing the search in %s", directory)
        try:
            # Failed trials are tried again under the same name, by which Optuna knows them.
            return tune.Tuner.restore(
                str(path), trainable, resume_errored=True, storage_filesystem=files
            )
        except Exception as error:  # damaged files raise errors of many types in Ray Tune
            raise UserError(
                f"Ray Tune must be able to read the search in {directory}, got "
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
            storage_filesystem=files,
            callbacks=[callbacks],
            # A failed trial starts again from its first step. A trial takes only seconds.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=_TRIES - 1),
            verbose=0,
        ),
    )


def _folder_name(trial: Any) -> str:
    """Return the name of the empty folder that Ray Tune makes for a trial: the trial's identifier.

    Ray Tune's own name for the folder would contain the values of the searched keys. These values
    may be any text.
    """
    return str(trial.trial_id)


def _sampler(search: Search) -> optuna.samplers.BaseSampler:
    if search.tune.search == "random":
        return optuna.samplers.RandomSampler(seed=search.base.seed)
    # Trials run at the same time. constant_liar counts the configurations of running trials as bad,
    # so that new trials do not try the same configuration.
    return optuna.samplers.TPESampler(seed=search.base.seed, constant_liar=True)


def _scheduler(settings: TuneConfig) -> ASHAScheduler | None:
    if settings.scheduler == "none" or settings.stages == 1:
        return None  # Ray Tune then lets every trial finish
    return ASHAScheduler(
        time_attr="rung",
        grace_period=1,
        max_t=settings.last_rung,
        reduction_factor=settings.reduction,
    )
