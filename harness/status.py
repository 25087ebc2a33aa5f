"""Print the progress of a run from its files. The run may be running, stopped or finished.

    python harness/status.py run_dir=runs/mnist5k-permuted-2500

json=true prints the same values as JSON, for scripts. verify=true also checks the mask store: every
mask must match its checksum, and the rest of the store must have the values that the configuration
gives. This check takes seconds. If run_dir has several runs, for example one for each seed, the
command prints the progress of all of them. If run_dir is the folder of a search of harness/tune.py,
the command prints how many trials have ended, and the best result. It writes no file and waits for
no process. It does not take the run's lock. If it took the lock, a driver that starts at the same
moment could fail. It parses its three options without Hydra and does not import torch, so that it
starts fast.
"""

from harness.config.command import imported, run_command

if __name__ == "__main__":  # first, so that run_command does the other imports
    run_command(imported("harness.status:main"))

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from harness.config.checks import must_be
from harness.config.command import version_text
from harness.config.help import plain_help
from harness.config.kinds import read_text
from harness.config.option import knob, nearest_key, options_of
from harness.config.run_folders import runs_in
from harness.config.stored import stored_values
from harness.errors import UserError
from harness.places.places import is_url, local
from harness.reporting.progress import RATE_OVER, Part, Progress, look
from harness.search.progress import SearchProgress, is_search, look_at_search


@dataclass
class StatusConfig:
    """The options of the command."""

    run_dir: str = knob(
        help="Folder of a run, or of several runs, on this machine.",
        example="runs/mnist5k-permuted-32",
    )
    json: bool = knob(False, help="Whether to print JSON.")
    verify: bool = knob(
        False,
        help="Whether to check the mask store. Every mask must match its checksum. The weights, "
        "inputs and metadata must have the values that the configuration gives.",
    )


def parse(arguments: Sequence[str]) -> StatusConfig:
    """Read the command line.

    Raises:
        UserError: a key is unknown, a value is not allowed, or run_dir is missing.
    """
    options = options_of(StatusConfig)
    given: dict[str, Any] = {}
    for argument in arguments:
        key, is_pair, value = argument.partition("=")
        if not is_pair or key not in options:
            near = nearest_key(key, tuple(options)) or "run_dir"
            raise UserError(
                f"options must be {', '.join(f'{one}=VALUE' for one in options)}, got {argument}: "
                f"try {near}={options[near].example()}"
            )
        is_flag = options[key].kind is bool
        given[key] = _FLAGS.get(value.lower(), value) if is_flag else read_text(value)
        options[key].check(given[key])
    example = options["run_dir"].example()
    if not given.get("run_dir"):
        raise UserError(f"run_dir must be given, got nothing: try run_dir={example}")
    if is_url(given["run_dir"]):
        raise UserError(
            f"run_dir must be a folder on this machine, got {given['run_dir']}: "
            "use analysis.load to read the tables of a run in object storage"
        )
    return StatusConfig(**given)


_FLAGS = {"true": True, "false": False}


def damage(directory: Path) -> list[str]:
    """Find damaged files in the mask store of a run.

    Returns:
        One line per damaged file: the path of the file, and the reason.

    Raises:
        UserError: the run has no store, or its store does not match its configuration.
    """
    # harness.run.directory imports torch, which takes seconds. Only verify=true needs this module.
    from harness.run.directory import verify_run

    return [f"{one.path} {one.reason}" for one in verify_run(directory)]


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
        "best": dict(seen.best) if seen.best else None,
    }


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


def _checkpoint(k: int, parts: list[Part]) -> list[str]:
    """Make the lines for a checkpoint.

    The first line has the number of table rows. If only some of the rows exist, the next lines
    name the incomplete parts.
    """
    rows, wanted = sum(part.rows for part in parts), sum(part.wanted for part in parts)
    if rows == wanted:
        return [f"  checkpoint {k}: complete, {rows} rows"]
    if not rows:
        return [f"  checkpoint {k}: 0 of {wanted} rows"]
    partly = [
        f"    {_label(part)}: {part.rows} of {part.wanted}"
        for part in parts
        if part.rows < part.wanted
    ]
    return [f"  checkpoint {k}: {rows} of {wanted} rows; incomplete parts:", *partly]


def _label(part: Part) -> str:
    if part.table != "evaluations":
        return f"{part.table} {part.name}"
    beside = part.num_distractors
    return f"{part.name} + {beside} distractors" if beside else part.name


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def main(arguments: Sequence[str]) -> int:
    """Print the progress of a run.

    Returns:
        The exit code: 1 if verify=true found damage, otherwise 0.

    Raises:
        UserError: run_dir is not the folder of a run, or a file cannot be read.
    """
    if {"--help", "-h"} & set(arguments):
        print(plain_help("harness/status.py", __doc__, StatusConfig))
        return 0
    if "--version" in arguments:
        print(version_text())
        return 0
    asked = parse(arguments)
    directory = local(asked.run_dir)
    try:
        values = _values_of_a_search(directory)
        return _tell_search(directory, values, asked) if values else _tell_runs(directory, asked)
    except OSError as error:
        raise UserError(str(error)) from error


def _values_of_a_search(directory: Path) -> Any:
    """Read the config.yaml of a search. None if the folder is not the folder of a search."""
    path = directory / "config.yaml"
    values = stored_values(path) if path.exists() else None
    return values if is_search(values) else None


def _tell_search(directory: Path, values: Any, asked: StatusConfig) -> int:
    if asked.verify:
        raise must_be("verify", "false for a search, which has no mask store", True, "verify=false")
    seen = look_at_search(directory, values)
    if asked.json:
        print(json.dumps(search_as_json(seen)))
    else:
        print("\n".join(search_lines(seen)))
    return 0


def _tell_runs(directory: Path, asked: StatusConfig) -> int:
    folders = [one for one in runs_in(directory) if isinstance(one, Path)]
    told = [(look(one), damage(one) if asked.verify else None) for one in folders or [directory]]
    if asked.json:
        found = [{**as_json(seen), "damage": damaged} for seen, damaged in told]
        several = {"run_dir": str(directory), "runs": found}
        print(json.dumps(several if folders else found[0]))
    else:
        for seen, damaged in told:
            print("\n".join(lines(seen)))
            if damaged is not None:
                print("\n".join(f"  damaged: {one}" for one in damaged) or "  every mask is intact")
    return 1 if any(damaged for _, damaged in told) else 0
