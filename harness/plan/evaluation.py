"""Plan the evaluation units of a checkpoint."""

from dataclasses import replace
from typing import Any

from harness.config.names import AUTO
from harness.config.schema import Config, EvaluateConfig
from harness.plan.checkpoints import evaluated_tasks
from harness.plan.units import EvaluationUnit, variant_of
from supsup_core.names import RANKED, WITHOUT_OBJECTIVE

# Number of tasks of one evaluation unit.
TASKS_PER_EVALUATION = 25

# In each unit of one_shot_ranked, this number of answers is compared with exact answers. An exact
# answer takes several times as long, so not all answers are compared.
COMPARED_PER_EVALUATION = 100

# Algorithms that are fast enough to be evaluated among many distractors.
DISTRACTED_ALGORITHMS = ("one_shot", RANKED)

# For each algorithm, the options that change its answers.
_ALGORITHM_KEYS = {
    "binary": ("log_base",),
    "gradient_descent": ("steps", "rate"),
    "frank_wolfe": ("steps",),
}


def evaluation_units(
    config: Config, num_tasks: int, own: EvaluateConfig | None = None
) -> list[EvaluationUnit]:
    """Plan all evaluation units of one checkpoint.

    Args:
        config: the requested configuration, with resolved checkpoints and algorithms.
        num_tasks: k, the checkpoint.
        own: evaluation options of the run itself; None if they equal the requested options. If the
            options of a unit differ from those of the run itself, the unit gets another name, so
            that its file does not replace a file of the run itself.

    Raises:
        ValueError: the algorithms are `auto`.
    """
    evaluate = config.evaluate
    if evaluate.algorithms == AUTO:
        raise ValueError(
            "evaluate.algorithms must be resolved to a list of names, got auto: call resolve first"
        )
    asked = evaluated_tasks(num_tasks, evaluate.tasks)
    groups = [
        tuple(asked[start : start + TASKS_PER_EVALUATION])
        for start in range(0, len(asked), TASKS_PER_EVALUATION)
    ]
    units = [
        EvaluationUnit(num_tasks, algorithm, objective, ids, variant=variant)
        for algorithm in evaluate.algorithms
        for variant in [_variant(evaluate, own or evaluate, algorithm, num_tasks)]
        for objective in _objectives(config, algorithm)
        for ids in groups
    ]
    if evaluate.distractors and num_tasks == max(evaluate.checkpoints):
        units += [
            replace(unit, num_distractors=evaluate.distractors)
            for unit in units
            if unit.algorithm in DISTRACTED_ALGORITHMS
        ]
    return units


def evaluation_settings(evaluate: EvaluateConfig, algorithm: str, num_tasks: int) -> dict[str, Any]:
    """Return the settings that can change the rows of an evaluation unit.

    The masks, the distractors, the algorithm and the objective can also change the rows, but the
    unit's name already contains them.

    Args:
        evaluate: evaluation options, with num_images resolved.
        algorithm: name of the algorithm that infers the task.
        num_tasks: k, the checkpoint.

    Returns:
        A mapping from column name to setting. The table `evaluations` has these columns, so that
        rows with different settings can be distinguished. A setting that the algorithm does not
        use is None.
    """
    read = _ALGORITHM_KEYS.get(algorithm, ())
    options = ("log_base", "steps", "rate")
    return {
        "num_images": evaluate.num_images,
        "batch_size": evaluate.batch_size,
        **{key: getattr(evaluate, key) if key in read else None for key in options},
        "tasks_asked": len(evaluated_tasks(num_tasks, evaluate.tasks)),
        "batches": evaluate.batches,
    }


def _objectives(config: Config, algorithm: str) -> list[str] | list[None]:
    return [None] if algorithm in WITHOUT_OBJECTIVE else config.evaluate.objectives


def _variant(asked: EvaluateConfig, own: EvaluateConfig, algorithm: str, num_tasks: int) -> str:
    """Return "" if the options equal the options of the run itself, otherwise their hash."""
    settings = evaluation_settings(asked, algorithm, num_tasks)
    return (
        "" if settings == evaluation_settings(own, algorithm, num_tasks) else variant_of(settings)
    )
