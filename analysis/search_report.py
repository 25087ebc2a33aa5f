"""Build the report of a search: its best trial, its scores, its options and its trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import load, read_configuration
from analysis.pages.content import Page
from analysis.pages.render import render as render_page
from analysis.places import name_of
from analysis.search import FAILED, FINISHED, STOPPED, Option, best_of, options_of, scored, written
from analysis.sections.origin import origin, read_starts
from analysis.sections.search import all_trials, best_trial, scores, values

_MOST_NAMED = 6  # options in the first line
# The keys of the configuration that the report shows, and the types of their values.
_SHOWN = {
    **dict.fromkeys(("tasks", "seed", "tune.trials", "tune.among"), int),
    **dict.fromkeys(("network", "data", "family", "method"), str),
    **dict.fromkeys(("tune.metric", "tune.search", "tune.scheduler"), str),
}


def render(folder: str | Path) -> str:
    """Build the report of a search as HTML.

    Args:
        folder: the folder of the search, which may still be running.

    Raises:
        OSError: no trial has ended yet, or a file of the search cannot be read.
        ValueError: a file of the search is damaged, or a table has an unknown schema version.
    """
    text, config = read_configuration(folder)
    starts = read_starts(folder)
    trials = load(folder, "trials").to_pandas()
    _check(config, trials, folder)
    metric: str = config["tune.metric"]
    options = options_of(config, trials)
    found = scored(trials, metric)
    best = best_of(found)
    return render_page(
        Page(
            title=name_of(folder),
            result=_result(trials, best, options, config),
            described=_described(config),
            sections=[
                scores(found, metric),
                values(found, options, metric),
                best_trial(best, folder, config["tune.among"]),
                all_trials(trials, options, metric),
                origin(text, starts),
            ],
            facts=_facts(trials, best, config),
        )
    )


def _check(config: Mapping[str, Any], trials: pd.DataFrame, folder: str | Path) -> None:
    wrong = [key for key, kind in _SHOWN.items() if type(config.get(key)) is not kind]
    if not wrong and config["tune.metric"] not in trials:
        wrong = ["tune.metric"]
    if wrong:
        raise ValueError(
            f"{folder}/config.yaml must have the keys of a search, got no value or a wrong "
            f"value of {', '.join(wrong)}: restore the file from a copy of the search"
        )


def _result(
    trials: pd.DataFrame,
    best: pd.Series | None,
    options: Sequence[Option],
    config: Mapping[str, Any],
) -> str:
    """State the result of the search: the score and the options of the best trial."""
    asked = config["tune.trials"]
    all_of = f"{len(trials)} trials" if len(trials) == asked else f"{len(trials)} of {asked} trials"
    if best is None:
        return f"{all_of} have ended, and none of them has finished."
    metric = config["tune.metric"]
    named = [f"{o.label} {written(best[o.key])}" for o in options[:_MOST_NAMED]]
    if len(options) > _MOST_NAMED:
        named.append(f"{len(options) - _MOST_NAMED} more options")
    begin = "Of" if len(trials) == asked else "So far, of"
    return (
        f"{begin} {all_of}, trial {best['trial']} is the best: {metric} {best[metric]:.4f} with "
        f"{', '.join(named)}. Its accuracy is {best['accuracy']:.4f} with the task given, and its "
        f"task accuracy among its own masks is {best['task_accuracy']:.4f}."
    )


def _described(config: Mapping[str, Any]) -> str:
    scheduler = config["tune.scheduler"]
    stopping = "no early stop" if scheduler == "none" else f"early stops by {scheduler}"
    return (
        f"Search with {config['tune.search']} and {stopping}: {config['network']} on "
        f"{config['data']}, {config['family']} tasks, method {config['method']}, {config['tasks']} "
        f"tasks per trial, seed {config['seed']}"
    )


def _facts(
    trials: pd.DataFrame, best: pd.Series | None, config: Mapping[str, Any]
) -> list[tuple[str, str]]:
    count = trials["status"].value_counts()
    facts = [("trials ended", f"{len(trials)} of {config['tune.trials']}")]
    facts += [
        (name, f"{count.get(status, 0)}")
        for name, status in (("finished", FINISHED), ("stopped early", STOPPED), ("failed", FAILED))
    ]
    if best is not None:
        metric = config["tune.metric"]
        facts.append((f"best {metric.replace('_', ' ')}", f"{best[metric]:.4f}"))
    return [*facts, ("actor time", f"{trials['seconds'].sum():,.0f} s")]
