"""The report at the end of a run: a process of its own, for nothing here imports analysis.

A report that cannot be written never fails a run.
"""

import logging
import subprocess
import sys
from pathlib import Path

from harness.places.places import Place

logger = logging.getLogger("harness")

REPORT = "report.html"
TABLE_FOLDERS = ("log", "evaluations", "reservoir")
TIMEOUT_SECONDS = 120


def is_stale(run_dir: Path) -> bool:
    """Whether a run's tables hold more than its report, which has the time of its beginning."""
    report = run_dir / REPORT
    if not report.exists():
        return True
    folders = [run_dir / name for name in TABLE_FOLDERS if (run_dir / name).exists()]
    # A file that is added or replaced changes its folder.
    return any(folder.stat().st_mtime >= report.stat().st_mtime for folder in folders)


def write_report(run_dir: Place) -> None:
    """Write a run's report where it is missing or stale; none for a run in object storage.

    Args:
        run_dir: of a run that no longer works.
    """
    if not isinstance(run_dir, Path):
        return
    try:
        if not is_stale(run_dir):
            return
        command = [sys.executable, "-P", "-m", "analysis.report", f"run_dir={run_dir}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except KeyboardInterrupt:
        logger.warning("report not written: stopped; python -m analysis.report run_dir=%s", run_dir)
        return
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("report not written: %s", error)
        return
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        logger.warning("report not written: %s", said[-1])
    else:
        logger.info("report: %s", run_dir / REPORT)
