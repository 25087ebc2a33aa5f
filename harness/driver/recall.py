"""The recall stage: store the masks of each checkpoint in reservoirs, and recall some masks."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from harness.driver.reservoir_stage import ReservoirStage
from harness.executors.protocol import Outcome
from harness.plan.reservoirs import recall_units
from harness.plan.units import RecallUnit, ReservoirUnit


class Recall(ReservoirStage[RecallUnit]):
    """The stage that stores masks in reservoirs, and recalls some of them.

    Each checkpoint needs one reservoir for each rule.
    """

    does = "recall"
    doing = "recalling"
    items = "recalls"

    def _units(self, num_tasks: int) -> list[RecallUnit]:
        return recall_units(self._config, num_tasks)

    def _together(self, units: Sequence[RecallUnit]) -> Iterable[ReservoirUnit]:
        # recall_units lists the units of one rule after another, as groupby needs.
        for _, of_rule in groupby(units, lambda unit: unit.rule):
            yield ReservoirUnit(tuple(of_rule))

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See Stage.keep."""
        ended = []
        for outcome in outcomes:
            for row, unit in enumerate(outcome.unit.recalls):
                if outcome.error is None:
                    rows = outcome.result["reservoir"].slice(row, 1)
                    self._work.files.keep(unit, rows)
                    self._work.metrics.recalled(unit, rows)
                    self._bars.add(unit, rows)
                ended.append(replace(outcome, unit=unit))
        return ended
