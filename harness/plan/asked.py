"""What tables a run's configuration asks for, file by file, from config.yaml as plain YAML.

harness/plan/units.py makes units of the same with all that the algorithms need, and takes
seconds to import; it has from here what both go by, and a test holds the names of the files
together.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WITHOUT_OBJECTIVE = ("min_entropy", "max_logit")
# Algorithms whose cost lets them stand among many distractors.
DISTRACTED_ALGORITHMS = ("one_shot", "one_shot_ranked")
# Tasks whose batches one evaluation unit infers and scores.
TASKS_PER_EVALUATION = 25


@dataclass(frozen=True)
class Asked:
    """One line of a checkpoint.

    Attributes:
        table: evaluations or reservoir.
        num_tasks: the checkpoint.
        num_distractors: untrained masks beside those.
        name: algorithm and objective, or the reservoir's rule.
        rows: by the stem of the file, how many it has once it is there.
    """

    table: str
    num_tasks: int
    num_distractors: int
    name: str
    rows: Mapping[str, int]


def asked_tables(config: Mapping[str, Any]) -> list[Asked]:
    """All that a run evaluates itself, by checkpoint.

    Args:
        config: of a run, every `auto` resolved.

    Raises:
        KeyError, TypeError: it is no run's configuration.
    """
    found = []
    for k in config["evaluate"]["checkpoints"]:
        found += _evaluations(config["evaluate"], k)
        if config["evaluate"].get("reservoir"):
            found += _reservoirs(config, k)
    return found


def _evaluations(evaluate: Mapping[str, Any], k: int) -> list[Asked]:
    ids = evaluated_tasks(k, evaluate["tasks"])
    starts = range(0, len(ids), TASKS_PER_EVALUATION)
    groups = [ids[first : first + TASKS_PER_EVALUATION] for first in starts]
    num_distractors = evaluate.get("distractors", 0) if k == max(evaluate["checkpoints"]) else 0
    found = []
    for distractors in [0, num_distractors] if num_distractors else [0]:
        for algorithm in evaluate["algorithms"]:
            if distractors and algorithm not in DISTRACTED_ALGORITHMS:
                continue
            objectives = [None] if algorithm in WITHOUT_OBJECTIVE else evaluate["objectives"]
            for objective in objectives:
                name = f"{algorithm}-{objective}" if objective else algorithm
                beside = f"-distractors{distractors:06d}" if distractors else ""
                rows = {f"k{k:06d}{beside}-{name}-{some[0]:06d}": len(some) for some in groups}
                found.append(Asked("evaluations", k, distractors, name.replace("-", " "), rows))
    return found


def _reservoirs(config: Mapping[str, Any], k: int) -> list[Asked]:
    reservoir = config["reservoir"]
    values = {key: config["evaluate"][key] for key in ("tasks", "batches", "batch_size")}
    values |= {key: reservoir[key] for key in ("share", "block", "most_steps")}
    values["cues"] = sorted(reservoir["cues"])
    variant = digest(values)
    return [
        Asked("reservoir", k, 0, rule, {f"k{k:06d}-{rule}-{variant}": len(reservoir["cues"])})
        for rule in reservoir["rules"]
    ]


def evaluated_tasks(num_tasks: int, at_most: int | None) -> list[int]:
    """Tasks to ask about among the first k: evenly spaced, the first and the last included."""
    if at_most is None or at_most >= num_tasks:
        return list(range(num_tasks))
    if at_most == 1:
        return [num_tasks - 1]
    return [i * (num_tasks - 1) // (at_most - 1) for i in range(at_most)]


def digest(values: Mapping[str, Any]) -> str:
    """Eight hex digits for what a unit's answers follow from beside what its name says."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]
