"""The order of the training units, and the data that each unit gets from earlier tasks.

With the order "any", all units can be submitted at once. With "after_first", the unit of task 0 is
submitted first. When it has ended, all other units are submitted, and get the data that task 0
passes on. With "sequence", units are submitted one after another. Each unit gets the data that the
unit before it passes on.

A unit can get two kinds of data. The states of earlier tasks are read from the mask store. Other
data, such as trained weights, are called carried data. They are part of the result of a unit, and
the mask store keeps them only after some tasks. If a unit needs carried data that the store does
not have, the units since the last kept data are trained again ("replayed"). A replay gives the same
data, bit for bit.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from harness.driver.masks import CommittedMasks
from harness.plan.blocks import blocks_of, train_units
from harness.plan.units import TrainUnit
from harness.run.refusals import readable_path_errors
from harness.run.run import Run
from harness.workers.training import TrainedUnit
from supsup_core.training.transfer import ROWS, source_tasks

# A unit, and the further arguments of the worker's `run`.
Due = tuple[TrainUnit, tuple[Any, ...]]


class Order(Protocol):
    """The order in which units are submitted."""

    def due(self, at_most: int) -> list[Due]:
        """Return units that can be submitted now, and the data that they get.

        Args:
            at_most: the largest number of units.
        """
        ...

    def ended(self, trained: TrainedUnit) -> None:
        """Keep the data of a unit that has ended. The masks of the unit are not committed yet."""
        ...

    def again(self, unit: TrainUnit) -> None:
        """Submit a unit again: some of its tasks failed, and may be tried again."""
        ...

    def set_aside(self) -> None:
        """Note that tasks of a unit have failed too often, and get no mask in this start."""
        ...


class AnyOrder:
    """Units that can be submitted at any time.

    Args:
        units: all units that have missing masks.
        arguments: further arguments of the worker's `run` for every unit.
    """

    def __init__(self, units: Iterator[TrainUnit], arguments: tuple[Any, ...] = ()) -> None:
        self._units, self._arguments = units, arguments
        self._again: list[TrainUnit] = []

    def due(self, at_most: int) -> list[Due]:
        """See Order.due."""
        again, self._again = self._again, []
        units = [*again, *islice(self._units, max(0, at_most - len(again)))]
        return [(unit, self._arguments) for unit in units]

    def ended(self, trained: TrainedUnit) -> None:
        """Do nothing, because no task needs the data of another task."""

    def again(self, unit: TrainUnit) -> None:
        """See Order.again."""
        self._again.append(unit)

    def set_aside(self) -> None:
        """Do nothing, because no other task waits."""


class InSequence:
    """Units that are submitted one after another. A unit is one block.

    A unit that must be tried again is still the first unit with a missing mask, so `due` returns it
    again. After a unit was set aside, no more units are due.

    Args:
        run: the open run.
        masks: the run's committed masks.
        blocks: the tasks of each block, in order.
    """

    def __init__(self, run: Run, masks: CommittedMasks, blocks: Sequence[tuple[int, ...]]) -> None:
        self._run, self._masks, self._blocks = run, masks, blocks
        self._config = run.spec.config
        self._carries = run.spec.capabilities.carries
        self._waits = self._is_set_aside = False
        self._first = 0  # the blocks before this one are complete
        # The number of blocks after which the last carried data are known, and these data.
        self._known: tuple[int, dict[str, np.ndarray]] = (0, {})

    @property
    def is_complete(self) -> bool:
        """Whether all masks are committed and all data are kept."""
        while self._first < len(self._blocks) and not self._lacks(self._first):
            self._first += 1
        return self._first == len(self._blocks)

    def due(self, at_most: int) -> list[Due]:
        """See Order.due."""
        if self._waits or self._is_set_aside or at_most < 1 or self.is_complete:
            return []
        self._waits = True
        start, data = self._start() if self._carries else (self._first, {})
        ids = self._blocks[start]
        missing = tuple(i for i in ids if i not in self._masks)
        unit = TrainUnit(f"unit-{ids[0]:06d}", ids, missing)
        seed, transfer = self._config.seed, self._config.train.transfer
        if sources := source_tasks(transfer, ids, seed):
            data = data | {ROWS: self._masks.read(sources)}
        return [(unit, (data,))]

    def ended(self, trained: TrainedUnit) -> None:
        """See Order.ended."""
        self._waits = False
        last = trained.unit.task_ids[-1]
        if trained.failed or not self._carries:
            return
        if self._run.store.shared.keeps(last):
            with readable_path_errors(self._run.directory):
                self._run.store.shared.write(last, trained.shared)
        self._known = self._blocks.index(trained.unit.task_ids) + 1, dict(trained.shared)

    def again(self, unit: TrainUnit) -> None:
        """Do nothing, because the unit still has missing masks."""

    def set_aside(self) -> None:
        """See Order.set_aside."""
        self._waits, self._is_set_aside = False, True

    @property
    def known(self) -> dict[str, np.ndarray]:
        """The carried data that the last block passes on. All masks must be committed."""
        number, data = self._known
        if number == len(self._blocks) or not self._carries:
            return data
        return self._run.store.shared.read(self._blocks[-1][-1])

    def _lacks(self, index: int) -> bool:
        ids, shared = self._blocks[index], self._run.store.shared
        is_kept = not shared.keeps(ids[-1]) or shared.has(ids[-1])
        return not is_kept or any(i not in self._masks for i in ids)

    def _start(self) -> tuple[int, dict[str, np.ndarray]]:
        """Return the index of the block to train next, and the carried data that it gets.

        Usually, this is the first block that lacks a mask or kept data. If the carried data that
        this block needs are not known, an earlier block is returned, and replayed.
        """
        shared = self._run.store.shared
        number, data = self._known
        if number > self._first:
            number, data = 0, {}
        for index in range(self._first - 1, number - 1, -1):
            last = self._blocks[index][-1]
            if shared.has(last):
                return index + 1, shared.read(last)
        return number, data


class AfterFirst:
    """Task 0 is submitted first. Then all other units are submitted, with the data of task 0.

    Args:
        run: the open run.
        masks: the run's committed masks.
    """

    def __init__(self, run: Run, masks: CommittedMasks) -> None:
        self._config, self._masks = run.spec.config, masks
        self._first, self._others = InSequence(run, masks, [(0,)]), AnyOrder(iter(()))
        self._is_ready = False

    def due(self, at_most: int) -> list[Due]:
        """See Order.due."""
        if not self._first.is_complete:
            return self._first.due(at_most)
        if not self._is_ready:
            self._is_ready = True
            total, block = self._config.tasks, int(self._config.train.block)
            units = train_units(total, block, self._masks, start=1)
            self._others = AnyOrder(units, (self._first.known,))
        return self._others.due(at_most)

    def ended(self, trained: TrainedUnit) -> None:
        """See Order.ended."""
        (self._others if self._is_ready else self._first).ended(trained)

    def again(self, unit: TrainUnit) -> None:
        """See Order.again."""
        (self._others if self._is_ready else self._first).again(unit)

    def set_aside(self) -> None:
        """See Order.set_aside."""
        (self._others if self._is_ready else self._first).set_aside()


def order_for(run: Run, masks: CommittedMasks, side_by_side: int) -> Order:
    """Make the order of a run's training units.

    Args:
        run: the open run.
        masks: the run's committed masks.
        side_by_side: number of blocks per unit, if the tasks can be trained in any order.
    """
    total, block = run.spec.config.tasks, int(run.spec.config.train.block)
    match run.spec.capabilities.order:
        case "any":
            return AnyOrder(train_units(total, block, masks, side_by_side))
        case "after_first":
            return AfterFirst(run, masks)
        case "sequence":
            return InSequence(run, masks, list(blocks_of(total, block)))
