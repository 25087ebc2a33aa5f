"""The code of docs/python.md works exactly as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_blocks_of_the_page_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(blocks))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = ["data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20"]
    options += ["tasks=3", "train.steps=100", "train.learning_rate=0.01", "executor=serial"]
    options += ["evaluate.checkpoints=[3]", "run_dir=runs/first"]
    for command in ([str(ROOT / "harness/scale.py"), *options], ["page.py"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "3 of 3 tasks" in done.stdout
    assert (tmp_path / "mask1.safetensors").stat().st_size > 0
