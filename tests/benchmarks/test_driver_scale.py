"""The simulation uses the real driver, store and log, and prints their measured numbers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "driver_scale.py"
SMALL = ["data=digits", "network=mlp", "network_options.hidden=[24]", "outputs=20", "train.block=2"]


@pytest.mark.long
def test_25_units_that_end_together_are_8_files_of_the_log(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--tasks", "100", "300", "--actors", "25"]
    command += [f"--folder={tmp_path}", *SMALL]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.findall(r"(\d+) tasks in (\d+) units", said) == [("100", "50"), ("300", "150")]
    assert re.findall(r"second start, (\d+) log files", said) == ["16", "48"]
    assert len(re.findall(r"-?\d+ bytes per task at the (first|second) start", said)) == 2
    assert list(tmp_path.iterdir()) == []
