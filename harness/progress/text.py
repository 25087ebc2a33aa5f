"""Write the progress of a run or a search as lines of text, and as values for JSON."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from harness.progress.of_run import RATE_OVER, Part, Progress
from harness.progress.of_search import SearchProgress


def as_json(seen: Progress) -> dict[str, Any]:
    """Return the progress of a run as a mapping from name to JSON value."""
    holder = seen.holder
    return {
        "run_dir": str(seen.directory),
        "state": seen.state,
        "holder": vars(holder) if holder else None,
        "tasks": seen.config.tasks,
        "committed": seen.committed,
        "allocation": vars(seen.mistakes) if seen.mistakes else None,
        "accuracy": seen.accuracy,
        "tasks_per_second": seen.tasks_per_second,
        "seconds_left": seen.seconds_left,
        "checkpoints": [
            {
                "table": part.table,
                "num_tasks": part.num_tasks,
                "num_distractors": part.num_distractors,
                "name": part.name,
                "rows": part.rows,
                "wanted": part.wanted,
                "queries": part.queries,
            }
            for part in seen.parts
        ],
        "other_files": seen.other_files,
        "failed": dict(seen.failed),
        "broken": [str(path) for path in seen.broken],
        "bytes": seen.num_bytes,
    }


def lines(seen: Progress) -> list[str]:
    """Return the progress of a run as lines of text."""
    config = seen.config
    told = [config.data, config.family, config.network, config.method]
    found = [
        f"{seen.directory}: {seen.state}{_who(seen)}",
        f"  {', '.join(told)}, recipe {config.train.name}, seed {config.seed}",
        f"  {seen.committed} of {config.tasks} tasks {_how_many(seen)}{_how_well(seen)}",
        f"  {_size(seen.num_bytes)} on disk",
    ]
    for k in sorted({part.num_tasks for part in seen.parts}):
        found += _checkpoint(k, [part for part in seen.parts if part.num_tasks == k])
    if seen.other_files:
        found.append(f"  {seen.other_files} files of evaluations that later commands asked for")
    found += [f"  set aside: {unit}: {error}" for unit, error in seen.failed.items()]
    found += [f"  broken: {path}" for path in seen.broken]
    return found


def search_as_json(seen: SearchProgress) -> dict[str, Any]:
    """Return the progress of a search as a mapping from name to JSON value."""
    return {
        "run_dir": str(seen.directory),
        "state": seen.state,
        "holder": vars(seen.holder) if seen.holder else None,
        "trials": seen.asked,
        "ended": dict(seen.ended),
        "metric": seen.metric,
        "best": {key: _plain(value) for key, value in seen.best.items()} if seen.best else None,
    }


def _plain(value: Any) -> Any:
    """Write a time as a text in the form of ISO 8601, because JSON has no times."""
    return value.isoformat() if isinstance(value, datetime) else value


def search_lines(seen: SearchProgress) -> list[str]:
    """Return the progress of a search as lines of text."""
    told = ", ".join(f"{count} {status}" for status, count in sorted(seen.ended.items()))
    found = [
        f"{seen.directory}: search, {seen.state}{_who(seen)}",
        f"  {sum(seen.ended.values())} of {seen.asked} trials ended{': ' if told else ''}{told}",
    ]
    if seen.best:
        found.append(
            f"  best {seen.metric}: {seen.best[seen.metric]:.4f}, trial {seen.best['trial']}"
        )
    return found


def _who(seen: Progress | SearchProgress) -> str:
    if seen.holder is None:
        return ""
    who = f"process {seen.holder.pid} on host {seen.holder.host} since {seen.holder.since}"
    match seen.holder.alive:
        case True:
            return f", {who}"
        case None:
            return f", locked by {who}; only that host can check whether the process is alive"
        case _:
            return f", its driver was killed: {who}"


def _how_many(seen: Progress) -> str:
    return f"seen, {seen.mistakes.described()}" if seen.mistakes else "committed"


def _how_well(seen: Progress) -> str:
    said = f", mean accuracy {seen.accuracy:.4f}" if seen.accuracy is not None else ""
    if seen.tasks_per_second is not None:
        minutes = int(RATE_OVER.total_seconds() / 60)
        said += f", {seen.tasks_per_second:.3g} tasks/s over the last {minutes} minutes of training"
    if seen.seconds_left is not None:
        said += f", {timedelta(seconds=round(seen.seconds_left))} of training left"
    return said


def _checkpoint(k: int, parts: Sequence[Part]) -> list[str]:
    """Make the lines for a checkpoint.

    The first line has the number of queries. If only a part of the results exists, the next lines
    name the incomplete parts.
    """
    rows, wanted = sum(part.rows for part in parts), sum(part.wanted for part in parts)
    num_queries = sum(part.queries for part in parts)
    queries = f", {num_queries} queries" if num_queries else ""
    if rows == wanted:
        return [f"  checkpoint {k}: complete{queries}"]
    if not rows:
        return [f"  checkpoint {k}: nothing evaluated yet"]
    partly = [
        f"    {_label(part)}: {percent(part.rows, part.wanted)}"
        for part in parts
        if part.rows < part.wanted
    ]
    return [f"  checkpoint {k}: {percent(rows, wanted)}{queries}; incomplete parts:", *partly]


def _label(part: Part) -> str:
    if part.table != "evaluations":
        return f"{part.table} {part.name}"
    beside = part.num_distractors
    return f"{part.name} + {beside} distractors" if beside else part.name


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def percent(part: int, whole: int) -> str:
    """Write a fraction in percent. It is 100 % only if nothing is missing."""
    return f"{100 * part // whole} %"
