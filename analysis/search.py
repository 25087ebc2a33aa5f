"""Read the trials of a search, and compute which of the searched options matter.

The score of a trial is the value that the search maximises, after the trial's last stage.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"  # values of the column `status`
# With fewer trials, the forest of fANOVA is wrong too often. In random searches of a function of
# three options, the most important option came first in 18 of 20 searches with 12 trials, in 17 of
# 20 with 10, and in 14 of 20 with 6.
FEWEST_TRIALS = 12
MOST_FORESTED = 300  # trials in the forest; its time grows faster than their number


@dataclass(frozen=True)
class Option:
    """A searched option.

    Attributes:
        key: its key, such as train.learning_rate.
        label: the last part of the key, or the whole key if another option has the same last part.
        is_range: whether the search draws numbers from a range. Otherwise, it draws from a list.
        is_log: whether the scale of the range is logarithmic.
    """

    key: str
    label: str
    is_range: bool
    is_log: bool


def is_search(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration, with dotted keys, is that of a search and not of a run."""
    return "tune.trials" in config


def options_of(config: Mapping[str, Any], trials: pd.DataFrame) -> list[Option]:
    """List the searched options, in the order of their columns in the table.

    Args:
        config: the configuration of a search, with dotted keys.
        trials: rows of the table `trials`.
    """
    sweeps = {key: str(config.get(f"tune.space.{key}", "")) for key in trials.columns}
    keys = [key for key, sweep in sweeps.items() if sweep]
    ends = [key.rpartition(".")[2] for key in keys]
    return [
        Option(
            key,
            end if ends.count(end) == 1 else key,
            is_range=re.search(r"\b(interval|range)\s*\(", sweeps[key]) is not None,
            is_log=re.search(r"\btag\s*\(\s*log\b", sweeps[key]) is not None,
        )
        for key, end in zip(keys, ends, strict=True)
    ]


def scored(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the trials with a score, in the order in which they ended.

    Failed trials have no score, because they did not end by themselves. The returned frame has two
    more columns: `score`, and `best`, the best score of a finished trial so far (NaN before the
    first trial has finished). A stopped trial has trained fewer steps, so it cannot be the best.
    """
    found = trials[(trials["status"] != FAILED) & trials[metric].notna()]
    found = found.sort_values(["measured_at", "trial"], ignore_index=True)
    best = found[metric].where(found["status"] == FINISHED).cummax().ffill()
    return found.assign(score=found[metric], best=best)


def best_of(found: pd.DataFrame) -> pd.Series | None:
    """Return the finished trial with the largest score; None if no trial has finished.

    If several trials have the largest score, this is the one that started first, as for
    recipe/best.yaml.

    Args:
        found: the result of `scored`.
    """
    finished = found[found["status"] == FINISHED].sort_values("trial")
    return None if finished.empty else finished.loc[finished["score"].idxmax()]


def importance(found: pd.DataFrame, options: Sequence[Option]) -> pd.Series | None:
    """Compute the importance of each option by fANOVA.

    The importance is the fraction of the variance of the scores that this option explains alone.
    The fractions are divided by their sum.

    Args:
        found: the result of `scored`. If there are more than 300 trials, 300 of them are drawn.
        options: the searched options.

    Returns:
        A series from key to importance, in [0, 1], the largest first. None if there are fewer than
        FEWEST_TRIALS trials, or if all scores are equal.

    Source: Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter Importance", as
        optuna.importance computes it.
    """
    if len(found) < FEWEST_TRIALS or found["score"].nunique() < 2:
        return None
    drawn = found.sample(min(len(found), MOST_FORESTED), random_state=0)
    space = {option.key: _distribution(option, drawn[option.key]) for option in options}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={key: _plain(row[key]) for key in space},
                distributions=space,
                value=row["score"],
            )
            for row in drawn.to_dict("records")
        ]
    )
    amounts = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return pd.Series(amounts, dtype=float).sort_values(ascending=False, kind="stable")


def written(value: Any) -> str:
    """Write the value of an option for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _distribution(option: Option, values: pd.Series) -> BaseDistribution:
    """Return a distribution from which the values of an option may have been drawn."""
    if not option.is_range:
        return CategoricalDistribution([_plain(value) for value in values.unique()])
    if pd.api.types.is_integer_dtype(values):
        return IntDistribution(int(values.min()), int(values.max()), log=option.is_log)
    return FloatDistribution(float(values.min()), float(values.max()), log=option.is_log)


def _plain(value: Any) -> Any:
    """Convert a number of NumPy to one of Python, which Optuna needs."""
    return value.item() if isinstance(value, np.generic) else value
