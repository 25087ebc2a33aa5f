"""The sections of a search: its scores, its options, its best trial, and its trials."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.drawing.parallel import MOST_LINES, inches_of, parallel_coordinates
from analysis.drawing.search import bars_inches, history, importance_bars
from analysis.pages.content import Code, Details, Part, Section, Table, Text, number, table
from analysis.pages.svg import drawing
from analysis.places import is_file
from analysis.search import (
    FAILED,
    FEWEST_TRIALS,
    FINISHED,
    MOST_FORESTED,
    Option,
    importance,
    written,
)

_MOST_ROWS = 200  # of the table of trials
_MOST_ERRORS = 3
_RECIPE = "recipe/best.yaml"
# Column -> its head in the table of trials.
_MEASURED = {
    "expected_accuracy": "expected accuracy",
    "accuracy": "accuracy",
    "task_accuracy": "task accuracy",
    "expected_task_accuracy": "expected task accuracy",
}


def scores(found: pd.DataFrame, metric: str) -> Section:
    """Show the score of each trial in the order in which the trials ended.

    Args:
        found: the result of analysis.search.scored.
        metric: name of the score.
    """
    part: Part = Text("No trial has a score yet.")
    if len(found):
        caption = (
            "The score of each trial after its last stage, in the order in which the trials ended. "
            "A trial that was stopped early has trained fewer steps than a finished trial. The "
            "pointer on a point shows its trial."
        )
        part = drawing(caption, lambda: history(found, metric), "history")
    return Section("History", [part])


def values(found: pd.DataFrame, options: Sequence[Option], metric: str) -> Section:
    """Show which values of the options the trials had, and how much each option matters.

    Args:
        found: the result of analysis.search.scored.
        options: the searched options.
        metric: name of the score.
    """
    if not len(found):
        return Section("Options", [Text("No trial has a score yet.")])
    few = f" Only the {MOST_LINES} best trials are drawn." if len(found) > MOST_LINES else ""
    caption = (
        "A line for each trial, through its score and the values of its options. An axis has the "
        "smallest value at its left end, and the largest at its right end. The pointer on a line "
        f"shows its trial.{few}"
    )
    lines = drawing(
        caption,
        lambda: parallel_coordinates(found, options, metric),
        "parallel",
        height=inches_of(len(options)),
    )
    return Section("Options", [lines, _importance(found, options)])


def _importance(found: pd.DataFrame, options: Sequence[Option]) -> Part:
    if len(options) == 1:
        return Text("The search has one option, so there is no other option to compare it with.")
    if len(found) < FEWEST_TRIALS:
        return Text(
            f"The importance of the options is unknown. It needs {FEWEST_TRIALS} trials with a "
            f"score, and this search has {len(found)}."
        )
    amounts = importance(found, options)
    if amounts is None:
        return Text("No option is important: all trials have the same score.")
    drawn = f"{MOST_FORESTED} trials" if len(found) > MOST_FORESTED else f"{len(found)} trials"
    caption = (
        "The fraction of the variance of the scores that each option explains alone, by fANOVA "
        f"from {drawn}. The fractions are divided by their sum. Trials that were stopped early "
        "count with the score of their last stage. With few trials, the fractions are rough."
    )
    return drawing(
        caption,
        lambda: importance_bars(amounts, options),
        "importance",
        height=bars_inches(len(amounts)),
    )


def best_trial(best: pd.Series | None, folder: str | Path, num_tasks: int) -> Section:
    """Show the configuration of the best trial, and the command that uses it.

    Args:
        best: the result of analysis.search.best_of.
        folder: the folder of the search.
        num_tasks: number of tasks for the command.
    """
    if best is None:
        return Section("Best trial", [Text("No trial has finished yet.")])
    parts: list[Part] = []
    if is_file(folder, _RECIPE):
        command = f"python harness/scale.py --config-dir {shlex.quote(str(folder))} +recipe=best"
        parts += [
            Text("This command trains tasks with the configuration of the best trial:"),
            Code(f"{command} tasks={num_tasks}"),
        ]
    else:
        parts.append(Text(f"The search writes {_RECIPE} when it ends."))
    told = f"Configuration of trial {best['trial']}"
    return Section("Best trial", [*parts, Details(told, [Code(best["config"])])])


def all_trials(trials: pd.DataFrame, options: Sequence[Option], metric: str) -> Section:
    """List the trials, the best first, and say which trials failed.

    Args:
        trials: rows of the table `trials`, at least one.
        options: the searched options.
        metric: name of the score.
    """
    return Section("Trials", [Text(failures(trials)), _listed(trials, options, metric)])


def failures(trials: pd.DataFrame) -> str:
    """Describe the failures of trials in sentences."""
    failed = trials[trials["status"] == FAILED]
    if failed.empty:
        return "No trial failed."
    *rest, last = (str(one) for one in failed["trial"])
    begin = f"Trials {', '.join(rest)} and {last}" if rest else f"Trial {last}"
    told = f"{begin} failed three times. The same command tries failed trials again."
    errors = list(failed["error"].dropna().value_counts().index[:_MOST_ERRORS])
    if errors:
        told += f" {'The most frequent errors' if errors[1:] else 'The error'}: {'; '.join(errors)}"
    return told


def _listed(trials: pd.DataFrame, options: Sequence[Option], metric: str) -> Table:
    measured = [metric, *(name for name in _MEASURED if name != metric)]
    ranked = trials.assign(rank=trials["status"].ne(FINISHED))
    ranked = ranked.sort_values(["rank", metric, "trial"], ascending=[True, False, True])
    rows = [
        [
            row["trial"],
            row["status"],
            *(number(row[name]) for name in measured),
            *(_cell(row[option.key]) for option in options),
            row["steps"],
            number(row["seconds"], ".1f"),
        ]
        for row in ranked.head(_MOST_ROWS).to_dict("records")
    ]
    heads = ["trial", "status", *(_MEASURED[name] for name in measured)]
    heads += [*(option.label for option in options), "steps", "seconds"]
    caption = (
        f"Finished trials first, the best first. {_MEASURED[metric].capitalize()} is the score. "
        "Accuracies are means over the tasks of a trial. Seconds are the time of one actor."
    )
    if len(trials) > _MOST_ROWS:
        caption += f" Only {_MOST_ROWS} of {len(trials)} trials are listed."
    return table(caption, heads, rows)


def _cell(value: object) -> object:
    return number(value, ".4g") if isinstance(value, float) else written(value)
