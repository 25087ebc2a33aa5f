"""A run knows its family of tasks by name: that the family makes them, and still the same ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import zarr

from harness.errors import UserError
from harness.places.places import Place
from harness.run.spec import TaskInputs
from harness.storage.repair import open_group


@contextmanager
def family_errors(family: str) -> Iterator[None]:
    """Say in one line that a family cannot make the tasks of a run.

    Raises:
        UserError: instead of a ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(
            f"family={family} must make every task of the run, got: {error}: choose another "
            "family or data set, or mend the family"
        ) from error


def check_family(run_dir: Place, family: str, inputs: Mapping[str, TaskInputs]) -> None:
    """Refuse a run whose family has changed since it began.

    Args:
        run_dir: with a store.
        family: its name.
        inputs: what the family makes now.

    Raises:
        UserError: the first or the last task is another one.
    """
    root = open_group(run_dir / "masks.zarr", "r")
    for name, rows in inputs.items():
        ends = (slice(0, 1), slice(rows.shape[0] - 1, rows.shape[0]))
        try:
            stored = cast(zarr.Array[Any], root[f"inputs/{name}"])
            same = all(np.array_equal(stored[end], rows[end]) for end in ends)
        except KeyError:
            same = False
        except Exception:  # whatever zarr makes of bytes that are damaged: the store mends them
            continue
        if not same:
            raise UserError(
                f"run directory {run_dir} must hold the tasks that family={family} makes, got "
                f"others in inputs/{name}: the family has changed since: choose another run_dir"
            )
