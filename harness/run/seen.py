"""Which tasks a run has seen, and among which masks they are evaluated.

If the task is given in training, a task is seen when its mask is committed. A learner on a stream
has seen a task when the stream has shown all its batches, and all masks that were allocated by then
are committed.
"""

import logging
from collections.abc import Container, Iterable, Iterator
from typing import Protocol

import pyarrow as pa

from harness.config.schema import Config, is_streamed
from harness.places.places import Place, put_aside
from harness.plan.ownership import BY_NUMBER, Decided, Mistakes, Ownership, matched
from harness.plan.units import StreamUnit
from harness.tables.files import read_table_file, table_files
from harness.tables.schemas import ALLOCATION

logger = logging.getLogger("harness")


class Seen(Protocol):
    """The tasks that a run has seen. `task_id in seen` tells whether a task is seen."""

    def __contains__(self, task_id: object, /) -> bool: ...

    def masks_at(self, num_tasks: int) -> tuple[int, Ownership]:
        """Describe the masks of a checkpoint.

        Args:
            num_tasks: k, the checkpoint. The tasks 0 to k - 1 must be seen.

        Returns:
            The number n of masks, which are the masks 0 to n - 1, and their tasks.
        """
        ...

    @property
    def mistakes(self) -> Mistakes | None:
        """The mistakes of a learner on a stream; None if the task is given in training."""
        ...


class SeenGiven:
    """The seen tasks of a run in which the task is given in training.

    Args:
        committed: numbers of the tasks whose masks are committed.
    """

    def __init__(self, committed: Container[int]) -> None:
        self._committed = committed

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._committed

    def masks_at(self, num_tasks: int) -> tuple[int, Ownership]:
        """See Seen."""
        return num_tasks, BY_NUMBER

    @property
    def mistakes(self) -> None:
        """See Seen."""
        return None


class SeenStream:
    """The part of a stream that a learner has followed, from the files of the table `allocation`.

    A part of the stream is complete if the mask that was allocated at its start is committed and
    its decisions are known. The learner continues with the first part that is not complete.

    Args:
        config: the run's resolved configuration.
        committed: numbers of the masks that are committed.
    """

    def __init__(self, config: Config, committed: Container[int]) -> None:
        self._steps, self._committed = config.train.steps, committed
        self._num_batches = config.tasks * config.train.steps
        self._parts: dict[int, list[Decided]] = {}
        self._next: StreamUnit | None = StreamUnit(0, 0)
        self._decisions: list[Decided] = []
        self._matched: tuple[int, Ownership] | None = None  # for a number of decisions

    def add(self, mask: int, decisions: pa.Table) -> None:
        """Add the decisions of one part of the stream.

        Args:
            mask: number of the mask that was allocated at the start of the part.
            decisions: rows of the table `allocation`.
        """
        columns = (decisions[name].to_pylist() for name in ("batch", "mask", "allocated"))
        self._parts[mask] = [Decided(*row) for row in zip(*columns, strict=True)]

    @property
    def next_unit(self) -> StreamUnit | None:
        """The first part that is not complete; None if the whole stream is followed."""
        while self._next is not None and self._is_complete(self._next.mask):
            number, part = self._next.mask, self._parts[self._next.mask]
            self._decisions += part
            goes_on = bool(part) and part[-1].allocates and part[-1].mask == number + 1
            self._next = StreamUnit(number + 1, part[-1].batch) if goes_on else None
        return self._next

    def _is_complete(self, mask: int) -> bool:
        return mask in self._parts and mask in self._committed

    @property
    def num_batches(self) -> int:
        """Number of batches that the learner has followed."""
        unit = self.next_unit
        return self._num_batches if unit is None else unit.first

    @property
    def num_tasks(self) -> int:
        """Number of tasks that are seen: the tasks 0, 1, ... up to this number."""
        return self.num_batches // self._steps

    def __contains__(self, task_id: object) -> bool:
        return isinstance(task_id, int) and task_id < self.num_tasks

    def masks_at(self, num_tasks: int) -> tuple[int, Ownership]:
        """See Seen."""
        end = self.num_batches
        known = [one for one in self._decisions if one.batch < end]
        if self._matched is None or self._matched[0] != len(known):
            self._matched = len(known), matched(known, end, self._steps)
        num_masks = sum(one.allocates for one in known if one.batch < num_tasks * self._steps)
        everything = self._matched[1]
        assert everything.tasks is not None
        assert everything.masks is not None
        own = Ownership(everything.tasks[:num_masks], everything.masks[:num_tasks])
        return num_masks, own

    @property
    def mistakes(self) -> Mistakes:
        """The mistakes so far, for the tasks that are seen."""
        return Mistakes.of(self.masks_at(self.num_tasks)[1])


def mask_number(name: str) -> int | None:
    """Return the number of the mask to which a file of the table `allocation` belongs.

    Args:
        name: the file's name without .parquet.

    Returns:
        The number; None if the name is not that of a StreamUnit.
    """
    digits = name.removeprefix("mask-")
    number = int(digits) if digits.isdecimal() else -1
    return number if name == StreamUnit(number, 0).name else None


def seen_tasks(
    config: Config, committed: Container[int], parts: Iterable[tuple[str, pa.Table]] = ()
) -> Seen:
    """Make the seen tasks of a run.

    Args:
        config: the run's resolved configuration.
        committed: numbers of the tasks, or of the masks of a learner on a stream, that are
            committed.
        parts: for each file of the table `allocation`, its name without .parquet and its rows.
    """
    if not is_streamed(config):
        return SeenGiven(committed)
    seen = SeenStream(config, committed)
    for name, rows in parts:
        if (mask := mask_number(name)) is not None:
            seen.add(mask, rows)
    return seen


def allocation_parts(folder: Place, run_id: str) -> Iterator[tuple[str, pa.Table]]:
    """Read the files of the table `allocation`, and rename damaged files to NAME.broken.

    Args:
        folder: the folder of the table, which may be missing.
        run_id: the identity of the run that the files must belong to.

    Yields:
        For each intact file, its name without .parquet and its rows.

    Raises:
        UserError: another version of this program wrote a file, or a path is no regular file.
    """
    for path in table_files(folder):
        try:
            rows = read_table_file(path, ALLOCATION, run_id=run_id)
        except ValueError as error:
            logger.warning("damaged: %s; following this part of the stream again", error)
            put_aside(path)
            continue
        yield path.name.removesuffix(".parquet"), rows
