"""Start a command on a run directory: take the lock, make the executor, and run the stages."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

from harness.config.command import STOPPED
from harness.config.identity import run_directory
from harness.config.options import resolved_options
from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.driver.loop import Driver
from harness.driver.protocol import Stage
from harness.driver.sharding import shard_pool
from harness.driver.work import Work
from harness.errors import UserError
from harness.executors.on_ray import RayExecutor
from harness.executors.protocol import Executor, T
from harness.executors.serial import SerialExecutor
from harness.places.places import Place
from harness.places.temporary import temporary_files_in
from harness.plan.pools import EVALUATE, TRAIN, PoolSize, pool_sizes
from harness.reporting.display import make_console, make_display, say
from harness.reporting.end_table import print_summary
from harness.run.dataset import dataset_of
from harness.run.directory import Run
from harness.run.images import check_images
from harness.run.memory import check_weights
from harness.run.products import Call
from harness.run.refusals import check_against_data, check_capabilities, readable_path_errors
from harness.run.spec import RunSpec
from harness.storage.lock import run_lock
from harness.storage.store import CorruptMask

logger = logging.getLogger("harness")


def carry_out(
    config: Config,
    opened: Callable[[Place, Config, Dataset, Call], Run],
    stages: Sequence[Callable[[Work], Stage]],
    executors: Callable[[Config], Executor] | None = None,
) -> int:
    """Run the stages of a command on a run directory, while this process holds the run's lock.

    Args:
        config: the checked configuration.
        opened: a function that opens the run. Its arguments are the directory, the configuration,
            the data set and Executor.call.
        stages: functions that make the stages. A stage that needs the results of another stage
            comes after that stage.
        executors: a function that takes the configuration and makes the executor; None means
            make_executor.

    Returns:
        The exit code: 0 if all is done, 1 if units were set aside, 130 if the user stopped the run.

    Raises:
        UserError: a problem that the user can fix, described in one line.
    """
    console = make_console()
    display = make_display(console, quiet=config.quiet)
    directory = run_directory(config)
    data = dataset_of(config, download=config.download)
    config = resolved_options(config)
    check_against_data(config, data)
    check_weights(config, data.input_shape, data.num_classes)
    spec = RunSpec(config, data.input_shape, data.num_classes)
    check_capabilities(config, spec.capabilities)
    check_images(spec, data)
    with ExitStack() as held:

        @cache
        def executor() -> Executor:
            """Make the executor when it is first needed: a complete run starts no Ray."""
            made = (executors or make_executor)(config)
            held.callback(made.close)
            return made

        def call(function: Callable[..., T], *arguments: Any) -> T:
            return executor().call(function, *arguments)

        with readable_path_errors(directory):
            held.enter_context(run_lock(directory))
            held.enter_context(temporary_files_in(directory))
            ready = opened(directory, config, data, call)
        work = Work(config, ready, display)
        driver = Driver(work, [stage(work) for stage in stages])
        try:
            if driver.is_complete():
                logger.info("complete already: nothing left to %s", driver.does)
            else:
                driver.carry_out(data, executor())
        except KeyboardInterrupt:
            say(
                console,
                f"stopped: {driver.state()} in {directory}; type the same command again to go on",
            )
            return STOPPED
        except CorruptMask as error:
            raise UserError(f"{error}: {driver.cure} to train the mask again") from error
        mistakes = work.seen.mistakes
        print_summary(console, directory, ready.store.run_id, driver.files(), mistakes)
        return driver.report_failures()


def make_executor(config: Config) -> Executor:
    """Make the executor that the configuration names."""
    if config.executor == "serial":
        return SerialExecutor()

    def sizes(cpus: int, gpus: float) -> dict[str, PoolSize]:
        train, evaluate = pool_sizes(config, cpus=cpus, gpus=gpus)
        shards = config.actors.shards
        if shards == 1:
            return {TRAIN: train, EVALUATE: evaluate}
        # Each part has a pool of its own with one actor, which works on the CPU.
        one = replace(
            evaluate, actors=1, actors_alone=1, cpus=1.0 if gpus else evaluate.cpus, gpus=0.0
        )
        return {TRAIN: train, **{shard_pool(i): one for i in range(shards)}}

    return RayExecutor(sizes)
