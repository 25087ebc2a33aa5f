"""Make the listeners to the events of a run: Ray's metrics, and the loggers that the user chose."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.config.keys import keys, leaf
from harness.config.schema import ReservoirConfig
from harness.driver.protocol import TableUnit
from harness.driver.work import Work
from harness.executors.on_ray import RayExecutor
from harness.executors.protocol import Executor
from harness.plan.units import EvaluationUnit, RecallUnit
from harness.reporting.logged import LoggedMetrics
from harness.reporting.loggers.protocol import Logged, begin_loggers
from harness.reporting.metrics import JoinedMetrics, NoMetrics
from harness.reporting.prometheus import RayMetrics


def make_metrics(work: Work, executor: Executor, units: Iterable[TableUnit]) -> NoMetrics:
    """Make one listener that passes each event to all listeners of a run.

    Args:
        work: the run in progress.
        executor: the executor that will run the units.
        units: the units of this start that write their results to table files.

    Raises:
        UserError: a logger cannot begin.
    """
    listeners: list[NoMetrics] = []
    if isinstance(executor, RayExecutor):
        listeners.append(RayMetrics(work.run.directory, executor, work.label))
    if work.typed.loggers:
        listeners.append(_logged(work, units))
    return JoinedMetrics(listeners)


def _logged(work: Work, units: Iterable[TableUnit]) -> LoggedMetrics:
    """Begin the loggers, and copy the results that are on disk.

    An earlier start may have been killed before it copied its last results, or it had no loggers.
    """
    run = work.run
    assert isinstance(run.directory, Path)  # checks.py refuses loggers of a run in object storage
    identity = hashlib.sha256(f"{run.store.run_id} {run.directory}".encode()).hexdigest()[:16]
    options = {key: leaf(work.config, key) for key in keys(work.config)}
    counted = [unit for unit in units if isinstance(unit, EvaluationUnit | RecallUnit)]
    begun = begin_loggers(work.typed.loggers, Logged(run.directory, identity, options))
    found = LoggedMetrics(begun, counted, _settings(work))
    found.committed(0, len(work.masks), work.masks.accuracy)
    for unit, rows in work.files.stored(counted):
        found.add(unit, rows)
    return found


# Settings that the names of parts have anyway, and that change no mean.
_ELSEWHERE = ("checkpoints", "algorithms", "objectives", "distractors", "reservoir")


def _settings(work: Work) -> dict[str, str]:
    """Describe the settings of this start that differ from those of the run; see LoggedMetrics.

    Settings of reservoirs are compared with the defaults, because a run need not have any.
    """
    evaluate = [one.name for one in fields(work.run.own) if one.name not in _ELSEWHERE]
    found = {
        "evaluations": _changed(evaluate, work.run.own, work.config.evaluate),
        "reservoir": _changed(("share", "most_steps"), ReservoirConfig(), work.config.reservoir),
    }
    return {table: text for table, text in found.items() if text}


def _changed(names: Sequence[str], usual: Any, own: Any) -> str:
    """Write the attributes that differ between two configurations, such as num_images_2."""
    pairs = [(name, getattr(own, name)) for name in names]
    words = [f"{name}_{value}" for name, value in pairs if value != getattr(usual, name)]
    return re.sub(r"\W+", "_", "_".join(words))
