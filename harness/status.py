"""Say what a run holds and how far it is, live or dead, from its files alone.

    python harness/status.py run_dir=runs/mnist5k-permuted-2500

json=true prints the same for scripts; verify=true also checks every mask against its checksum,
which reads them all. Nothing is written, locked or waited for. It parses its three options
itself, without Hydra, so that it starts at once.
"""

import difflib
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.places.places import is_url, local
from harness.reporting.progress import RATE_OVER, Part, Progress, look

OPTIONS = ("run_dir", "json", "verify")


def options(arguments: Sequence[str]) -> tuple[Path, bool, bool]:
    """Read the command line.

    Returns:
        The run's directory, whether to print JSON, and whether to verify.

    Raises:
        UserError: an option that there is not, or a value that it cannot have.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, is_pair, value = argument.partition("=")
        if not is_pair:
            raise UserError(f"options must be key=value, of {', '.join(OPTIONS)}, got {argument}")
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPTIONS)}"
            raise UserError(f"unknown key {key}: {hint}")
        given[key] = value
    if not given.get("run_dir"):
        raise UserError(
            "run_dir must be given, got none: for example run_dir=runs/mnist5k-permuted-32"
        )
    if is_url(given["run_dir"]):
        raise UserError(
            f"run_dir must be a folder on this machine, got {given['run_dir']}: "
            "analysis.load reads the tables of a run in object storage"
        )
    directory = local(given["run_dir"])
    return directory, _flag(given, "json"), _flag(given, "verify")


def _flag(given: dict[str, str], key: str) -> bool:
    value = given.get(key, "false").lower()
    if value not in ("true", "false"):
        raise UserError(f"{key} must be true or false, got {given[key]}")
    return value == "true"


def damage(directory: Path) -> list[str]:
    """What of a run's store is not as it was written.

    Raises:
        UserError: no store.
    """
    from harness.storage.store import MaskStore

    found = MaskStore.open(directory, read_only=True).verify()
    return [f"{one.path} {one.reason}" for one in found]


def as_json(seen: Progress) -> dict[str, Any]:
    """The same as `lines`, for scripts."""
    holder = seen.holder
    return {
        "run_dir": str(seen.directory),
        "state": seen.state,
        "holder": vars(holder) if holder else None,
        "tasks": seen.config.tasks,
        "committed": seen.committed,
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
    """What people read."""
    config = seen.config
    told = [config.data, config.family, config.network, config.method]
    found = [
        f"{seen.directory}: {seen.state}{_who(seen)}",
        f"  {', '.join(told)}, recipe {config.train.name}, seed {config.seed}",
        f"  {seen.committed} of {config.tasks} tasks committed{_how_well(seen)}",
        f"  {_size(seen.num_bytes)} on disk",
    ]
    for k in sorted({part.num_tasks for part in seen.parts}):
        found += _checkpoint(k, [part for part in seen.parts if part.num_tasks == k])
    if seen.other_files:
        found.append(f"  {seen.other_files} files of evaluations beyond the run's own")
    found += [f"  set aside: {unit}: {error}" for unit, error in seen.failed.items()]
    found += [f"  broken: {path}" for path in seen.broken]
    return found


def _who(seen: Progress) -> str:
    if seen.holder is None:
        return ""
    who = f"process {seen.holder.pid} on host {seen.holder.host} since {seen.holder.since}"
    match seen.holder.alive:
        case True:
            return f", {who}"
        case None:
            return f", signed by {who}, which only that host can tell to be alive"
        case _:
            return f", its driver was killed: {who}"


def _how_well(seen: Progress) -> str:
    said = f", mean accuracy {seen.accuracy:.4f}" if seen.accuracy is not None else ""
    if seen.tasks_per_second is not None:
        minutes = int(RATE_OVER.total_seconds() / 60)
        said += f", {seen.tasks_per_second:.3g} tasks/s over the last {minutes} minutes of training"
    if seen.seconds_left is not None:
        said += f", {timedelta(seconds=round(seen.seconds_left))} of training left"
    return said


def _checkpoint(k: int, parts: list[Part]) -> list[str]:
    """One line for what is whole or has not begun, else one for each part that is not."""
    rows, wanted = sum(part.rows for part in parts), sum(part.wanted for part in parts)
    if rows == wanted:
        return [f"  checkpoint {k}: whole, {rows} rows"]
    if not rows:
        return [f"  checkpoint {k}: none of {wanted} rows"]
    partly = [
        f"    {_label(part)}: {part.rows} of {part.wanted}"
        for part in parts
        if part.rows < part.wanted
    ]
    return [f"  checkpoint {k}: {rows} of {wanted} rows; not whole:", *partly]


def _label(part: Part) -> str:
    if part.table == "reservoir":
        return f"reservoir {part.name}"
    beside = part.num_distractors
    return f"{part.name} + {beside} distractors" if beside else part.name


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def main(arguments: Sequence[str]) -> int:
    """Print; the exit code: 0, 1 where verify found damage, 2 for a user's error."""
    try:
        directory, wants_json, verifies = options(arguments)
        seen = look(directory)
        found = damage(directory) if verifies else None
    except (UserError, OSError) as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    if wants_json:
        print(json.dumps({**as_json(seen), "damage": found}))
    else:
        print("\n".join(lines(seen)))
        if found is not None:
            print("\n".join(f"  damaged: {one}" for one in found) or "  every mask is as written")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
