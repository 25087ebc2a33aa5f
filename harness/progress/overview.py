"""The progress of all runs and searches in a folder, as one table for the screen."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from harness.config.run_folders import runs_in
from harness.errors import UserError
from harness.progress.of_run import Progress
from harness.progress.of_search import SearchProgress
from harness.progress.text import percent
from harness.reporting.end_table import narrow_table

Seen = Progress | SearchProgress
_HEADS = ("run", "state", "done", "accuracy", "evaluated", "problems")
_CAPTION = (
    "accuracy: mean accuracy with the task given; for a search, the best value of its metric. "
    "evaluated: fraction of the evaluations and recalls of all checkpoints. For details, give the "
    "folder of one run."
)


@dataclass(frozen=True)
class Entry:
    """A run or a search in a folder.

    Attributes:
        directory: its folder.
        seen: its progress; None if it cannot be read.
        damage: one line for each damaged file of the mask store; None if the store was not checked.
        error: the reason if it cannot be read or checked, otherwise None.
    """

    directory: Path
    seen: Seen | None
    damage: Sequence[str] | None
    error: Exception | None


def folders_of_runs(directory: Path) -> list[Path]:
    """List the folders of the runs and searches in a folder, also those of several runs in it.

    Returns:
        The folders that have a config.yaml, in the order of their names. Numbers in names are
        ordered by their values. [] if `directory` is missing, or is itself such a folder.
    """
    if not directory.is_dir() or (directory / "config.yaml").exists():
        return []
    found: list[Path] = []
    for one in sorted((path for path in directory.iterdir() if path.is_dir()), key=_order):
        if (one / "config.yaml").exists():
            found.append(one)
        else:
            found += [run for run in runs_in(one) if isinstance(run, Path)]
    return found


def _order(path: Path) -> list[str | int]:
    parts: Sequence[str] = re.split(r"(\d+)", path.name)  # texts and numbers in turns
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def look_at_each(
    folders: Sequence[Path], look: Callable[[Path], Seen], check: Callable[[Path], list[str]] | None
) -> list[Entry]:
    """Measure the progress of several runs and searches. An error of one hides no other.

    Args:
        folders: their folders.
        look: a function that measures the progress of one.
        check: a function that lists the damage of a run's mask store; None: do not check.
    """
    entries = []
    for folder in folders:
        seen, damage, wrong = None, None, None
        try:
            seen = look(folder)
            if check is not None and isinstance(seen, Progress):
                damage = check(folder)
        except (UserError, OSError) as error:
            wrong = error
        entries.append(Entry(folder, seen, damage, wrong))
    return entries


def overview(directory: Path, entries: Sequence[Entry]) -> Table:
    """Make the table of the runs and searches in a folder, without a title.

    Args:
        directory: the folder, to which the names in the table are relative.
        entries: the runs and searches, at least one.
    """
    table = narrow_table(None, _CAPTION)
    for head in _HEADS:
        is_number = head in ("done", "accuracy", "evaluated")
        table.add_column(head, justify="right" if is_number else "left", overflow="fold")
    for entry in entries:
        cells = [str(entry.directory.relative_to(directory)), *_cells(entry)]
        table.add_row(*map(Text, cells))
    return table


def _cells(entry: Entry) -> list[str]:
    seen = entry.seen
    if seen is None:
        return ["unreadable", "", "", "", "see below"]
    if isinstance(seen, SearchProgress):
        best = "" if seen.best is None else f"{seen.best[seen.metric]:.4f}"
        done = f"{sum(seen.ended.values())}/{seen.asked} trials"
        return [seen.state, done, best, "", _problems({"failed": seen.ended.get("failed", 0)})]
    rows, wanted = sum(part.rows for part in seen.parts), sum(part.wanted for part in seen.parts)
    counts = {
        "set aside": len(seen.failed),
        "broken": len(seen.broken),
        "damaged": len(entry.damage or ()),
    }
    return [
        seen.state,
        f"{seen.committed}/{seen.config.tasks} tasks",
        "" if seen.accuracy is None else f"{seen.accuracy:.4f}",
        percent(rows, wanted) if wanted else "",
        _problems(counts),
    ]


def _problems(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
