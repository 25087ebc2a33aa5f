"""Print the progress of a run from its files. The run may be running, stopped or finished.

    python harness/status.py run_dir=runs/mnist5k-permuted-2500

json=true prints the same values as JSON, for scripts. verify=true also checks the mask store: every
mask must match its checksum, and the rest of the store must have the values that the configuration
gives. This check takes seconds. If run_dir is a folder that has runs or searches, such as runs or
the folder of several seeds, the command prints a table of all of them. If run_dir is the folder of
a search of harness/tune.py, the command prints how many trials have ended, and the best result. It
writes no file and waits for no process. It does not take the run's lock. If it took the lock, a
driver that starts at the same moment could fail. It parses its three options without Hydra and does
not import torch, so that it starts fast.
"""

from harness.config.command import imported, run_command

if __name__ == "__main__":  # first, so that run_command does the other imports
    run_command(imported("harness.status:main"))

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.calls import as_called
from harness.config.checks import must_be
from harness.config.command import BROKEN, version_text
from harness.config.help import plain_help
from harness.config.kinds import read_text
from harness.config.option import knob, nearest_key, options_of
from harness.config.stored import stored_values
from harness.errors import UserError
from harness.places.places import is_url, local
from harness.progress.of_run import Progress, look
from harness.progress.of_search import SearchProgress, is_search, look_at_search
from harness.progress.overview import Entry, folders_of_runs, look_at_each, overview
from harness.progress.text import as_json, lines, search_as_json, search_lines
from harness.reporting.display import make_console, say


@dataclass
class StatusConfig:
    """The options of the command."""

    run_dir: str = knob(
        help="Folder of a run or of a search, or a folder that has runs and searches, on this "
        "machine.",
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


def main(arguments: Sequence[str]) -> int:
    """Print the progress of a run.

    Returns:
        The exit code: 1 if verify=true found damage, 2 if verify=true could not check one of
        several runs, otherwise 0.

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
        if folders := folders_of_runs(directory):
            return _tell_all(directory, folders, asked)
        values = _values_of_a_search(directory)
        return _tell_search(directory, values, asked) if values else _tell_run(directory, asked)
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


def _tell_run(directory: Path, asked: StatusConfig) -> int:
    seen, damaged = look(directory), damage(directory) if asked.verify else None
    if asked.json:
        print(json.dumps({**as_json(seen), "damage": damaged}))
    else:
        print("\n".join(lines(seen)))
        if damaged is not None:
            print("\n".join(f"  damaged: {one}" for one in damaged) or "  every mask is intact")
    return 1 if damaged else 0


def _tell_all(directory: Path, folders: Sequence[Path], asked: StatusConfig) -> int:
    """Print the progress of all runs and searches in a folder."""
    entries = look_at_each(folders, _look, damage if asked.verify else None)
    if asked.json:
        print(json.dumps({"run_dir": str(directory), "runs": list(map(_entry_as_json, entries))}))
    else:
        console = make_console()
        say(console, str(directory))  # as a title, a long path would be broken in its middle
        console.print(overview(directory, entries))
        for entry in entries:
            name = entry.directory.relative_to(directory)
            for one in entry.damage or ():
                say(console, f"{name}: damaged: {one}")
            if entry.error is not None:
                say(console, f"{name}: {as_called(str(entry.error))}")
        if asked.verify and not any(entry.damage or entry.error for entry in entries):
            say(console, "every mask is intact")
    if asked.verify and any(entry.error for entry in entries):
        return BROKEN
    return 1 if any(entry.damage for entry in entries) else 0


def _look(directory: Path) -> Progress | SearchProgress:
    values = _values_of_a_search(directory)
    return look_at_search(directory, values) if values else look(directory)


def _entry_as_json(entry: Entry) -> dict[str, Any]:
    seen = entry.seen
    if seen is None:
        return {"run_dir": str(entry.directory), "error": str(entry.error)}
    if isinstance(seen, SearchProgress):
        return search_as_json(seen)
    return {**as_json(seen), "damage": entry.damage}
