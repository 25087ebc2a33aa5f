"""Check that a family makes every task of a run, and that it still makes the same tasks.

A run stores only the name of its family, and the family's code may change later. So every start
compares the first and the last task with the tasks in the store. The first start also warns if
some tasks are equal.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from traceback import format_exception
from typing import Any, cast

import numpy as np
import zarr

from harness.errors import UserError, origin
from harness.places.places import Place
from harness.run.spec import RunSpec, TaskInputs
from harness.storage.repair import open_group
from supsup_core.tasks.make import first_equals

logger = logging.getLogger("harness")


@contextmanager
def family_errors(family: str) -> Iterator[None]:
    """Turn a ValueError of a family into a one-line error for the user.

    Raises:
        UserError: the family cannot make a task, and has raised a ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(
            f"family={family} must make every task of the run, got: {error}"
            f"{origin(''.join(format_exception(error)))}: choose another family or data set, or "
            "correct the family"
        ) from error


def warn_of_equal_tasks(spec: RunSpec) -> None:
    """Warn if some tasks of a run are equal, because no inference can tell equal tasks apart.

    Raises:
        ValueError: the family cannot make a task.
    """
    config, num_pixels = spec.config, prod(spec.input_shape[-2:])
    firsts = first_equals((spec.task(i) for i in range(config.tasks)), num_pixels)
    repeats = np.flatnonzero(firsts != np.arange(len(firsts)))
    if len(repeats):
        logger.warning(
            "only %d of %d tasks are different with family=%s; for example, tasks %d and %d show "
            "the same images: choose fewer tasks or other family_options",
            len(firsts) - len(repeats),
            len(firsts),
            config.family,
            firsts[repeats[0]],
            repeats[0],
        )


def check_family(run_dir: Place, family: str, inputs: Mapping[str, TaskInputs]) -> None:
    """Refuse a run whose family has changed since the run began.

    Args:
        run_dir: the run directory, which has a store.
        family: the family's name.
        inputs: the inputs of the tasks as the family makes them now, by array name.

    Raises:
        UserError: the first or the last task differs from the task in the store.
    """
    root = open_group(run_dir / "masks.zarr", "r")
    for name, rows in inputs.items():
        ends = (slice(0, 1), slice(rows.shape[0] - 1, rows.shape[0]))
        try:
            stored = cast(zarr.Array[Any], root[f"inputs/{name}"])
            same = all(np.array_equal(stored[end], rows[end]) for end in ends)
        except KeyError:
            same = False
        except Exception:
            # Zarr raises various errors on damaged bytes. The store finds and repairs them.
            continue
        if not same:
            raise UserError(
                f"run directory {run_dir} must hold the tasks that family={family} makes, got "
                f"other tasks in inputs/{name}: the family has changed: choose another run_dir"
            )
