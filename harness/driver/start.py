"""Start a command on run directories: take the locks, make the executor, and run the stages."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

from rich.console import Console

from harness.config.command import STOPPED
from harness.config.identity import run_directory
from harness.config.options import resolved_options
from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.driver.loop import Driver
from harness.driver.protocol import Stage
from harness.driver.sharding import shard_pool
from harness.driver.together import carry_out_together
from harness.driver.work import Work
from harness.executors.on_ray import RayExecutor
from harness.executors.protocol import Executor, T
from harness.executors.serial import SerialExecutor
from harness.places.places import Place
from harness.places.temporary import temporary_files_in
from harness.plan.pools import EVALUATE, TRAIN, PoolSize, pool_sizes
from harness.reporting.display import Display, make_console, make_display, say
from harness.reporting.end_table import print_summary
from harness.reporting.loggers.protocol import check_packages
from harness.reporting.over_runs import OneRun, print_over_runs
from harness.run.dataset import dataset_of
from harness.run.images import check_images
from harness.run.memory import check_together, check_weights
from harness.run.products import Call
from harness.run.refusals import check_against_data, check_capabilities, readable_path_errors
from harness.run.run import Run
from harness.run.several import check_same_data
from harness.run.spec import RunSpec
from harness.storage.lock import run_lock

logger = logging.getLogger("harness")

Opened = Callable[[Place, Config, Dataset, Call], Run]


def carry_out(
    configs: Sequence[Config],
    opened: Opened,
    stages: Sequence[Callable[[Work], Stage]],
    executors: Callable[[Config], Executor] | None = None,
) -> int:
    """Run the stages of a command on run directories, while this process holds the runs' locks.

    Args:
        configs: the checked configuration of each run, at least one. All runs have the same data
            set, and the same values of the keys that change no result, except run_dir.
        opened: a function that opens a run. Its arguments are the directory, the configuration, the
            data set and Executor.call.
        stages: functions that make the stages. A stage that needs the results of another stage
            comes after that stage.
        executors: a function that makes the executor for a configuration; None: make_executor.

    Returns:
        The exit code: 0 if all is done, 1 if units were set aside, 130 if the user stopped the
        command.

    Raises:
        UserError: a problem that the user can fix, described in one line. If the error came during
            the work on one of several runs, the work on the other runs was done before.
    """
    check_same_data(configs)
    check_packages(sorted({name for config in configs for name in config.loggers}))
    console = make_console()
    display = make_display(console, quiet=configs[0].quiet)
    data = dataset_of(configs[0], download=configs[0].download)
    # A folder's name contains only the options that were typed.
    directories = [run_directory(config) for config in configs]
    configs = [_checked(config, data) for config in configs]
    with ExitStack() as held:

        @cache
        def executor() -> Executor:
            """Make the executor when it is first needed: complete runs start no Ray."""
            made = (executors or make_executor)(configs[0])
            held.callback(made.close)
            return made

        @cache  # so that runs of the same shapes share a measurement, and get the same value
        def call(function: Callable[..., T], *arguments: Any) -> T:
            return executor().call(function, *arguments)

        _take_locks(held, directories)
        runs = _opened_runs(directories, configs, lambda path, one: opened(path, one, data, call))
        drivers = _drivers(configs, runs, stages, display)
        try:
            left = [driver for driver in drivers if not driver.is_complete()]
            if not left:
                logger.info("complete already: nothing left to %s", drivers[0].does)
            else:
                carry_out_together(left, data, executor(), display)
        except KeyboardInterrupt:
            states = "; ".join(f"{one.state()} in {one.run.directory}" for one in drivers)
            say(console, f"stopped: {states}; type the same command again to go on")
            return STOPPED
        return _report(console, drivers)


def _checked(config: Config, data: Dataset) -> Config:
    """Check a configuration against its data set, and give each option that is missing its default.

    Raises:
        UserError: a value is not allowed.
    """
    config = resolved_options(config)
    check_against_data(config, data)
    check_weights(config, data.input_shape, data.num_classes)
    spec = RunSpec(config, data.input_shape, data.num_classes)
    check_capabilities(config, spec.capabilities)
    check_images(spec, data)
    return config


def _take_locks(held: ExitStack, directories: Sequence[Place]) -> None:
    """Take the locks of all runs before any run is changed.

    Args:
        held: holds the locks until it is closed.
        directories: the run directories.

    Raises:
        UserError: another process has the lock of a run, or a run directory cannot be written.
    """
    for directory in directories:
        with readable_path_errors(directory):
            held.enter_context(run_lock(directory))
            held.enter_context(temporary_files_in(directory))


def _opened_runs(
    directories: Sequence[Place],
    configs: Sequence[Config],
    opened: Callable[[Place, Config], Run],
) -> list[Run]:
    """Open the runs, and check that their workers fit into the memory together.

    Raises:
        UserError: a run cannot be opened, or the runs need too much memory.
    """
    runs = []
    for directory, config in zip(directories, configs, strict=True):
        with readable_path_errors(directory):
            runs.append(opened(directory, config))
    check_together([run.spec for run in runs])
    return runs


def _drivers(
    configs: Sequence[Config],
    runs: Sequence[Run],
    stages: Sequence[Callable[[Work], Stage]],
    display: Display,
) -> list[Driver]:
    """Make the driver of each run. With several runs, the label of a run is its folder's name."""
    labels = [""] if len(runs) == 1 else [run.directory.name for run in runs]
    works = [
        Work(config, run, display, label)
        for config, run, label in zip(configs, runs, labels, strict=True)
    ]
    return [Driver(work, [stage(work) for stage in stages]) for work in works]


def _report(console: Console, drivers: Sequence[Driver]) -> int:
    """Print the results of the runs, and return the exit code.

    Raises:
        Exception: the error that ended the work on a run.
    """
    errors = [driver.error for driver in drivers if driver.error is not None]
    whole = [driver for driver in drivers if driver.error is None]
    if len(drivers) == 1 and whole:
        [alone] = whole
        run = alone.run
        print_summary(console, run.directory, run.store.run_id, alone.files(), alone.mistakes)
    elif whole:
        print_over_runs(console, [OneRun.of(one.run, one.files(), one.mistakes) for one in whole])
    code = max((driver.report_failures() for driver in whole), default=0)
    if errors:
        raise errors[0]
    return code


def make_executor(config: Config) -> Executor:
    """Make the executor that the configuration names."""
    if config.executor == "serial":
        return SerialExecutor(on_gpu=False if config.train.device == "cpu" else None)

    def sizes(cpus: int, gpus: float) -> dict[str, PoolSize]:
        train, evaluate = pool_sizes(config, cpus=cpus, gpus=gpus)
        shards = config.actors.shards
        if shards == 1:
            return {TRAIN: train, EVALUATE: evaluate}
        # Each part has a pool of its own with one actor.
        one = replace(evaluate, actors=1, actors_alone=1)
        return {TRAIN: train, **{shard_pool(i): one for i in range(shards)}}

    return RayExecutor(sizes)
