"""A run survives random kills. CHAOS_SECONDS is the test's duration in seconds (default 30)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))


def may_have_namespaces() -> bool:
    """Return whether this user may make the namespaces that the program needs."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    try:
        command = ["unshare", *user, "--net", "--pid", "--fork", "--mount-proc", "true"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.timeout(600 + 5 * SECONDS)
@pytest.mark.skipif(not may_have_namespaces(), reason="needs network and process namespaces")
def test_whatever_is_killed_a_run_ends_as_if_nothing_had_been() -> None:
    command = [sys.executable, str(PROGRAM), f"--seconds={SECONDS}"]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "masks, log and evaluations equal those of the undisturbed run" in said
