"""Check that a family can make every task of a run.

The first start makes every task of the run, and warns if some tasks are equal. A run stores only
the name of its family, and the family's code may change later. So each start makes the first and
the last task again, and compares them with the store; see harness/storage/compare.py.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from traceback import format_exception

import numpy as np

from harness.errors import UserError, origin
from harness.run.spec import RunSpec
from supsup_core.tasks.make import first_equals

logger = logging.getLogger("harness")


@contextmanager
def family_errors(family: str) -> Iterator[None]:
    """Turn a ValueError of a family into a one-line error for the user.

    Raises:
        UserError: the family raised a ValueError because it cannot make a task.
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
    config, num_values = spec.config, prod(spec.input_shape)
    firsts = first_equals((spec.task(i) for i in range(config.tasks)), num_values)
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
