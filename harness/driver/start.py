"""The driver: plans, hands units out, commits what comes back, and says how far it is.

The one process that writes. It trains every task that has no committed mask, and
evaluates a checkpoint of k masks as soon as tasks 0 to k - 1 are committed. Its base,
the evaluator, does the second alone (harness/evaluate.py).
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config.commandline import STOPPED
from harness.config.identity import run_directory
from harness.config.schema import Config
from harness.data.catalogue import load_dataset
from harness.data.dataset import Dataset
from harness.driver.sharding import shard_pool
from harness.driver.work import EVALUATE, TRAIN, Driver, Evaluator, logger
from harness.errors import UserError
from harness.executors.on_ray import RayExecutor
from harness.executors.protocol import Executor, Pool
from harness.executors.serial import SerialExecutor
from harness.places.places import Place
from harness.plan.pools import PoolSize, pool_sizes
from harness.reporting.display import make_console, make_display
from harness.reporting.end_table import print_summary
from harness.run.directory import Run, open_run
from harness.run.refusals import check_against_data, readable_path_errors
from harness.storage.lock import run_lock
from harness.storage.store import CorruptMask
from harness.workers.evaluating import EvaluateWorker
from harness.workers.shard import ShardWorker
from harness.workers.training import TrainWorker


def run(config: Config) -> int:
    """Do the main job; see carry_out."""
    return carry_out(config, open_run, Driver)


def carry_out(
    config: Config,
    opened: Callable[[Place, Config, Dataset], Run],
    kind: type[Evaluator],
    executors: Callable[[Config], Executor] | None = None,
) -> int:
    """Do a job on a run directory, under its lock.

    Args:
        config: checked.
        opened: directory, config and data set -> the run.
        kind: what does the job.
        executors: makes the executor; None: make_executor.

    Returns:
        The exit code: 0, 1 where units were set aside, 130 where the user stopped it.

    Raises:
        UserError: something that the user can mend, in one line.
    """
    console = make_console()
    display = make_display(console, quiet=config.quiet)
    directory = run_directory(config)
    data_dir = Path(config.data_dir) if config.data_dir else None
    data = load_dataset(config.data, data_dir=data_dir, download=config.download)
    check_against_data(config, data)
    with ExitStack() as held:
        with readable_path_errors(directory):
            held.enter_context(run_lock(directory))
            ready = opened(directory, config, data)
        driver = kind(ready, display)
        try:
            with terminated_like_interrupted():
                if driver.is_complete():
                    logger.info("complete already: nothing left to %s", driver.does)
                else:
                    driver.work(config, data, (executors or make_executor)(config))
        except KeyboardInterrupt:
            console.print(
                f"stopped: {driver.state()} in {directory}; type the same command again to go on",
                soft_wrap=True,
                markup=False,
            )
            return STOPPED
        except CorruptMask as error:
            raise UserError(f"{error}: {driver.cure} to train it anew") from error
        print_summary(console, directory, driver.evaluation_files())
        return driver.report_failures()


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM stop a run as cleanly as Ctrl-C does."""

    def interrupt(signal_number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def make_executor(config: Config) -> Executor:
    """The executor that the configuration names."""
    if config.executor == "serial":
        return SerialExecutor()

    def sizes(cpus: int, gpus: float) -> dict[str, PoolSize]:
        train, evaluate = pool_sizes(config, cpus=cpus, gpus=gpus)
        shards = config.actors.shards
        if shards == 1:
            return {TRAIN: train, EVALUATE: evaluate}
        one = replace(evaluate, actors=1, actors_alone=1, gpus=0.0)
        return {TRAIN: train, **{shard_pool(i): one for i in range(shards)}}

    return RayExecutor(sizes)


def pools(run: Run, data: Dataset, share: Callable[[Any], Any], num_shards: int) -> dict[str, Pool]:
    """The pools of a run; the data set is shared with all their workers."""
    train, test, job = share(data.train), share(data.test), share(run.spec)
    training = {TRAIN: Pool(TrainWorker, (job, train, test))}
    if num_shards == 1:
        return training | {EVALUATE: Pool(EvaluateWorker, (job, test), runs_alone_after=TRAIN)}
    shard = Pool(ShardWorker, (job, test), runs_alone_after=TRAIN)
    return training | {shard_pool(i): shard for i in range(num_shards)}
