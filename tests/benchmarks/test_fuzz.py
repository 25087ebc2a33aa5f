"""Six fixed cases of the fuzzer pass its checks. `make fuzz` runs hundreds."""

import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


@pytest.mark.slow
def test_absurd_configurations_damaged_runs_and_damaged_data_end_as_they_should() -> None:
    command = [sys.executable, str(PROGRAM), "--cases=6", "--seed=7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed checks of 0 kinds" in done.stdout
