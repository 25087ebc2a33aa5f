"""Plan the units of a checkpoint that recall or recover masks from reservoirs."""

from collections.abc import Mapping
from typing import Any

from harness.config.names import DESCENT
from harness.config.schema import Config
from harness.plan.checkpoints import evaluated_tasks
from harness.plan.units import RecallUnit, RecoveryUnit, variant_of


def recall_settings(config: Config, cue: str, num_tasks: int) -> dict[str, Any]:
    """Return the settings that can change the row of a recall unit.

    Args:
        config: the requested configuration, with `auto` resolved.
        cue: kind of cue.
        num_tasks: k, the checkpoint.

    Returns:
        A mapping from column name of the table `reservoir` to setting. `share`, the fraction of the
        cue's bits that are inverted or unknown, is None for cues of the kind "data".
    """
    reservoir = config.reservoir
    share = None if cue == "data" else reservoir.share
    own = {"share": share, "most_steps": reservoir.most_steps}
    num_cues = len(evaluated_tasks(num_tasks, config.evaluate.tasks))
    return {**_settings(config, own), "num_cues": num_cues}


def recall_units(config: Config, num_tasks: int) -> list[RecallUnit]:
    """Plan all recall units of one checkpoint: one unit per rule and kind of cue, except descent.

    Args:
        config: the requested configuration, with `auto` resolved.
        num_tasks: k, the checkpoint.
    """
    asked = tuple(evaluated_tasks(num_tasks, config.evaluate.tasks))
    return [
        RecallUnit(num_tasks, rule, cue, asked, variant_of(recall_settings(config, cue, num_tasks)))
        for rule in config.reservoir.rules
        for cue in config.reservoir.cues
        if cue != DESCENT
    ]


def recovery_settings(config: Config, num_tasks: int) -> dict[str, Any]:
    """Return the settings that can change the rows of a recovery unit.

    Args:
        config: the requested configuration, with `auto` resolved.
        num_tasks: k, the checkpoint.

    Returns:
        A mapping from column name of the table `recovery` to setting.
    """
    tasks_asked = len(evaluated_tasks(num_tasks, config.evaluate.tasks))
    own = {"gradients": config.reservoir.gradients}
    return {**_settings(config, own), "tasks_asked": tasks_asked}


def recovery_units(config: Config, num_tasks: int) -> list[RecoveryUnit]:
    """Plan all recovery units of one checkpoint: one unit per rule, if descent is among the cues.

    Args:
        config: the requested configuration, with `auto` resolved.
        num_tasks: k, the checkpoint.
    """
    if DESCENT not in config.reservoir.cues:
        return []
    asked = tuple(evaluated_tasks(num_tasks, config.evaluate.tasks))
    variant = variant_of(recovery_settings(config, num_tasks))
    gradients = config.reservoir.gradients
    return [
        RecoveryUnit(num_tasks, rule, gradients, asked, variant) for rule in config.reservoir.rules
    ]


def _settings(config: Config, own: Mapping[str, Any]) -> dict[str, Any]:
    """Join a unit's own settings with the settings that both kinds of units have.

    The order of the settings must stay, because `variant_of` hashes them in this order.
    """
    shared = {name: getattr(config.evaluate, name) for name in ("batch_size", "batches")}
    return {"block": config.reservoir.block, **own, **shared}
