"""The recovery stage: at each checkpoint, recover some masks by gradient descent."""

from collections.abc import Sequence

from harness.driver.reservoir_stage import ReservoirStage
from harness.executors.protocol import Outcome
from harness.plan.reservoirs import recovery_units
from harness.plan.units import RecoveryUnit


class Recover(ReservoirStage[RecoveryUnit]):
    """The stage that recovers masks from reservoirs by gradient descent, if this is asked for.

    Each unit fills its own reservoirs.
    """

    does = "recover"
    doing = "recovering"
    items = "recoveries"

    def _units(self, num_tasks: int) -> list[RecoveryUnit]:
        return recovery_units(self._config, num_tasks)

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See Stage.keep."""
        for outcome in outcomes:
            if outcome.error is None:
                rows = outcome.result[outcome.unit.table]
                self._work.files.keep(outcome.unit, rows)
                self._bars.add(outcome.unit, rows)
        return outcomes
