"""Start the reports at the end of a command.

A separate process writes the report, because `harness` may not import `analysis`, and because an
error in the report must not end a run. The process starts after the run has released its lock. If
the process fails, its error is only logged.
"""

import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.config.calls import as_called
from harness.config.command import STOPPED
from harness.places.places import Place
from harness.places.temporary import temporary_files_in

logger = logging.getLogger("harness")

REPORT = "report.html"
TABLE_FOLDERS = ("log", "evaluations", "reservoir", "recovery", "trials")
TIMEOUT_SECONDS = 120  # for each report


def is_stale(run_dir: Place) -> bool:
    """Return whether a run has no report, or a report that is older than the run's tables.

    The modification time of report.html is the time when the report's program began to read the
    run. A bucket keeps no such time, so the report of a run there always counts as too old.
    """
    if not isinstance(run_dir, Path):
        return True
    report = run_dir / REPORT
    if not report.exists():
        return True
    folders = [run_dir / name for name in TABLE_FOLDERS if (run_dir / name).exists()]
    # Adding or replacing a file changes the modification time of its folder.
    return any(folder.stat().st_mtime >= report.stat().st_mtime for folder in folders)


def with_reports(code: int, run_dirs: Sequence[Place]) -> int:
    """Write the reports of a command that has ended, and return its exit code.

    Args:
        code: the exit code. If the user stopped the command, no report is written.
        run_dirs: see write_reports.
    """
    if code != STOPPED:
        write_reports(run_dirs)
    return code


def write_reports(run_dirs: Sequence[Place]) -> None:
    """Write the report of each run if it is missing or older than the run's tables.

    If there are several runs, also write the report of the folder that has all of them.

    Args:
        run_dirs: the run directories of a command, or the folder of a search. The driver must have
            ended.
    """
    try:
        wanted = _wanted(run_dirs)
        if wanted:
            _write(wanted)
    except KeyboardInterrupt:
        typed = shlex.join(f"run_dir={one}" for one in wanted)
        logger.warning(
            "report not written: stopped; to write it, type %s %s",
            *(as_called("python -m analysis.report"), typed),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("report not written: %s", error)


def _wanted(run_dirs: Sequence[Place]) -> list[Place]:
    """List the folders without an up-to-date report. The folder of all runs comes last."""
    stale: list[Place] = [one for one in run_dirs if is_stale(one)]
    if len(run_dirs) > 1:
        shared: Place = run_dirs[0].parent
        if stale or not (shared / REPORT).exists():
            stale.append(shared)
    return stale


def _write(folders: Sequence[Place]) -> None:
    """Start the program that writes reports, and wait until it has written them."""
    command = [sys.executable, "-P", "-m", "analysis.report"]
    command += [f"run_dir={one}" for one in folders]
    seconds = TIMEOUT_SECONDS * len(folders)
    with temporary_files_in(folders[0]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        logger.warning("report not written: %s", said[-1])
    else:
        logger.info("report: %s", folders[-1] / REPORT)
