"""Start the report at the end of a run.

A separate process writes the report, because `harness` may not import `analysis`, and because an
error in the report must not end a run. The process starts after the run has released its lock. If
the process fails, its error is only logged.
"""

import logging
import shlex
import subprocess
import sys
from pathlib import Path

from harness.places.places import Place
from harness.places.temporary import temporary_files_in

logger = logging.getLogger("harness")

REPORT = "report.html"
TABLE_FOLDERS = ("log", "evaluations", "reservoir")
TIMEOUT_SECONDS = 120


def is_stale(run_dir: Path) -> bool:
    """Return whether a run has no report, or a report that is older than the run's tables.

    The modification time of report.html is the time when the report's program began to read the
    run.
    """
    report = run_dir / REPORT
    if not report.exists():
        return True
    folders = [run_dir / name for name in TABLE_FOLDERS if (run_dir / name).exists()]
    # Adding or replacing a file changes the modification time of its folder.
    return any(folder.stat().st_mtime >= report.stat().st_mtime for folder in folders)


def write_report(run_dir: Place) -> None:
    """Write the report of a run if it is missing or older than the run's tables.

    A run in object storage gets no report.

    Args:
        run_dir: the run directory. The driver of the run must have ended.
    """
    if not isinstance(run_dir, Path):
        return
    try:
        if not is_stale(run_dir):
            return
        command = [sys.executable, "-P", "-m", "analysis.report", f"run_dir={run_dir}"]
        with temporary_files_in(run_dir):
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except KeyboardInterrupt:
        logger.warning(
            "report not written: stopped; to write it, type python -m analysis.report %s",
            shlex.quote(f"run_dir={run_dir}"),
        )
        return
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("report not written: %s", error)
        return
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        logger.warning("report not written: %s", said[-1])
    else:
        logger.info("report: %s", run_dir / REPORT)
