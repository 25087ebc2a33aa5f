"""Start or continue a search, while this process holds the lock of the search's folder."""

import logging
import shlex
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from rich.console import Console

from harness.config.calls import as_called
from harness.config.command import STOPPED
from harness.config.identity import job_from_yaml, run_name, to_yaml
from harness.config.keys import FREE_KEYS
from harness.config.names import AUTO
from harness.errors import UserError
from harness.places.durable import write_durably
from harness.places.places import local
from harness.places.reading import parse_yaml
from harness.reporting.display import make_console, make_display, say
from harness.reporting.loggers.protocol import check_packages
from harness.run.dataset import dataset_of
from harness.run.images import check_images
from harness.run.provenance import config_hash, record_start
from harness.run.refusals import readable_path_errors
from harness.run.same_tasks import family_errors, warn_of_equal_tasks
from harness.search.config import TuneJob, base_config, check_tune
from harness.search.end_table import print_trials
from harness.search.search import Search
from harness.search.space import one_by_one, read_space, search_differences, with_values
from harness.search.table import FAILED, TABLE, best_trial
from harness.search.trial import checked_spec
from harness.search.trials import write_trials
from harness.search.tuning import run_trials
from harness.storage.lock import run_lock
from harness.tables.files import read_table_file

logger = logging.getLogger("harness")

_BEST = "recipe/best.yaml"
# The name of the recipe in the file of the best trial. The folder names of runs with this recipe
# contain it.
TUNED = "tuned"


def carry_out_search(job: TuneJob) -> int:
    """Run a new search, or the remaining trials of a search that was stopped.

    Args:
        job: the configuration of the search.

    Returns:
        The exit code: 0 if no trial failed, 1 if trials failed, 130 if the user stopped the search.

    Raises:
        UserError: a problem that the user can fix, described in one line.
    """
    check_tune(job)
    check_packages(job.loggers)
    base = base_config(job)
    base.train = replace(base.train, name=TUNED)
    dimensions = read_space(job.tune.space, base)
    console = make_console()
    display = make_display(console, quiet=job.quiet)
    data = dataset_of(job, download=job.download)
    for values in one_by_one(dimensions):
        spec = checked_spec(with_values(base, values), data)
    with family_errors(spec.config.family):
        warn_of_equal_tasks(spec)
        check_images(spec, data)
    search = Search(base, job.tune, dimensions, data.input_shape, data.num_classes)
    directory = search_directory(job)
    with ExitStack() as held:
        with readable_path_errors(directory):
            held.enter_context(run_lock(directory))
            _begin(directory, job)
        try:
            table = _done(directory, search)
            if table is None:
                table = run_trials(search, data, directory, _search_id(directory), display)
                _keep(directory, table, search)
            else:
                logger.info("complete already: no trial is left")
        except KeyboardInterrupt:
            say(
                console,
                f"stopped: the trials so far are kept in {directory}; "
                "type the same command again to go on",
            )
            return STOPPED
    print_trials(console, table, job.tune.metric, [d.key for d in dimensions])
    return _report(console, directory, table)


def search_directory(job: TuneJob) -> Path:
    """Return the absolute path of the search's folder."""
    return local(job.run_dir or f"runs/tune-{run_name(job)}")


def _begin(directory: Path, job: TuneJob) -> None:
    """Write the configuration of a new search, or check the stored configuration.

    Raises:
        UserError: the folder contains another search.
    """
    known = directory / "config.yaml"
    if known.exists():
        if found := search_differences(job_from_yaml(known, TuneJob), job):
            raise UserError(
                f"run directory {directory} holds another search: {'; '.join(found)}: "
                "choose another run_dir, or type the values of the stored search"
            )
    else:
        write_durably(known, to_yaml(job).encode())
    record_start(directory, job)


def _done(directory: Path, search: Search) -> pa.Table | None:
    """Read the table of a complete search.

    Returns:
        The table `trials`. None if the table is missing or damaged, if a trial failed, or if not
        all trials have run.
    """
    path = directory / TABLE
    if not path.exists():
        return None
    try:
        table = read_table_file(path, search.schema, run_id=_search_id(directory))
    except ValueError as error:
        logger.warning("damaged: %s; writing the table again", error)
        return None
    failed = FAILED in table["status"].to_pylist()
    return None if failed or len(table) < search.tune.trials else table


def _search_id(directory: Path) -> str:
    """Compute the identity of the search in a folder. The table `trials` stores it too."""
    return config_hash(job_from_yaml(directory / "config.yaml", TuneJob))


def _keep(directory: Path, table: pa.Table, search: Search) -> None:
    """Write the table `trials`, and a file for Hydra with the configuration of the best trial."""
    with readable_path_errors(directory):
        if found := best_trial(table, search.tune.metric):
            (directory / _BEST).parent.mkdir(exist_ok=True)
            write_durably(directory / _BEST, recipe_file(found, search.tune.metric).encode())
        write_trials(directory, table, _search_id(directory))


def recipe_file(trial: dict[str, Any], metric: str) -> str:
    """Make the content of the file that `+recipe=best` reads.

    The file has all keys of a trial's configuration that can change results.

    Args:
        trial: a row of the table `trials`, as a mapping from column name to value.
        metric: name of the column in which this trial has the largest value.
    """
    config = parse_yaml(trial["config"])
    # The trial's checkpoints are right only for the number of tasks of the trial.
    config["evaluate"]["checkpoints"] = AUTO
    kept = {key: value for key, value in config.items() if key not in FREE_KEYS}
    head = (
        "# @package _global_\n"
        f"# Trial {trial['trial']} of a search: {metric} {trial[metric]:.4f}, accuracy "
        f"{trial['accuracy']:.4f} and task_accuracy {trial['task_accuracy']:.4f} of "
        f"{trial['num_tasks']} tasks.\n"
    )
    return head + str(yaml.safe_dump(kept, sort_keys=False))


def _report(console: Console, directory: Path, table: pa.Table) -> int:
    """Print the search's folder and the command that uses the best trial.

    Returns:
        The exit code: 0 if no trial failed, else 1.
    """
    failed = table.filter(pc.equal(table["status"], FAILED))["trial"].to_pylist()
    lines = [f"table and configuration: {directory}"]
    if (directory / _BEST).exists():
        lines.append(
            f"best configuration: {as_called('python harness/scale.py')} --config-dir "
            f"{shlex.quote(str(directory))} +recipe=best tasks=..."
        )
    for line in lines:
        say(console, line)
    if failed:
        logger.error("trials %s failed three times: type the same command to try again", failed)
    return 1 if failed else 0
