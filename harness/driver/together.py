"""The driver's loop: the runs of a command share one executor and its actors.

A command with one run uses the same loop. If an error ends the work on one run, for example because
a mask is damaged, the work on the other runs continues.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.data.dataset import Dataset
from harness.driver.compiling import compile_kernels
from harness.driver.loop import Driver
from harness.errors import UserError, one_line
from harness.executors.protocol import Executor, Pool
from harness.plan.device import pick_device
from harness.reporting.display import Display
from harness.storage.chunks import CorruptMask
from harness.workers.several import RunsWorker

logger = logging.getLogger("harness")


def carry_out_together(
    drivers: Sequence[Driver], data: Dataset, executor: Executor, display: Display
) -> None:
    """Do all units of several runs whose results are missing.

    Args:
        drivers: the drivers of the runs, at least one. Their runs are incomplete. If an error ends
            the work on a run, its driver gets the error as the attribute `error`.
        data: the data set of all runs.
        executor: the executor that runs the units. This function closes it at the end.
        display: the display that shows the progress.
    """
    try:
        with display:
            # On a GPU, the Numba kernels have almost no work. On a cluster, the workers compile on
            # their own machines.
            if executor.runs_here() and pick_device().type == "cpu":
                compile_kernels([one for d in drivers for one in d.rehearsals(data)], display)
            images = executor.share(data.train), executor.share(data.test)
            executor.start(_joined({d.label: d.begin(executor, data, *images) for d in drivers}))
            for driver in drivers:
                with _alone(driver, drivers, executor):
                    driver.feed(executor)
            while executor.busy() and any(driver.error is None for driver in drivers):
                _poll(drivers, executor)
    finally:
        executor.close()
        for driver in drivers:
            driver.end()


def _poll(drivers: Sequence[Driver], executor: Executor) -> None:
    """Wait for units to end, pass the outcomes to the drivers of their runs, and show progress."""
    outcomes = executor.poll()
    for driver in drivers:
        if driver.error is None:
            own = [one for one in outcomes if one.unit.run == driver.label]
            with _alone(driver, drivers, executor):
                driver.settle(executor, own)
                driver.show(executor)


@contextmanager
def _alone(driver: Driver, drivers: Sequence[Driver], executor: Executor) -> Iterator[None]:
    """Let an error in the `with` block end the work on one run only."""
    try:
        yield
    except CorruptMask as error:
        damage = UserError(f"{error}: {driver.cure} to train the mask again")
        damage.__cause__ = error
        driver.error = damage
    except Exception as error:
        driver.error = error
    if driver.error is not None:
        executor.forget(driver.label)
        if any(other.error is None for other in drivers):
            error_line = str if isinstance(driver.error, UserError) else one_line
            said = error_line(driver.error)
            logger.error("%s: stopped; the other runs go on: %s", driver.label, said)


def _joined(of_runs: Mapping[str, Mapping[str, Pool]]) -> dict[str, Pool]:
    """Join the pools of several runs: one pool for each name, whose workers serve all runs.

    Args:
        of_runs: a mapping from the label of a run to its pools. Pools with the same name have the
            same factory. An object that is an argument of several pools is sent only once.
    """
    found = {}
    for name, first in {n: pool for pools in of_runs.values() for n, pool in pools.items()}.items():
        own = {run: pools[name] for run, pools in of_runs.items() if name in pools}
        values = list({id(v): v for pool in own.values() for v in pool.arguments}.values())
        index = {id(value): place for place, value in enumerate(values)}
        places = {run: [index[id(v)] for v in pool.arguments] for run, pool in own.items()}
        arguments = (first.factory, places, *values)
        # Ray shows the name of the class as the title of the actors' processes.
        factory = type(first.factory.__name__, (RunsWorker,), {})
        found[name] = Pool(factory, arguments, runs_alone_after=first.runs_alone_after)
    return found
