"""A killed search is continued: the trials that it had stored are not repeated."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness import tune
from patience import PATIENCE

SMALL = (
    *("data=digits", "network=mlp", "network_options.hidden=[24]", "outputs=12", "tasks=6"),
    *("train.steps=600",),
    *("train.batch_size=32", "evaluate.batches=2", "tune.among=50", "quiet=true"),
    *("train.learning_rate=tag(log, interval(1e-3, 1e-1))", "actors.train=1"),
    *("tune.trials=30", "tune.scheduler=none"),
)


@pytest.mark.long
def test_a_killed_search_goes_on_with_what_it_had(tmp_path):
    # This path must be short, because the path of a Ray socket can have at most 107 bytes.
    ray_dir = Path(tempfile.mkdtemp(prefix="ray"))
    environment = os.environ | {"RAY_TMPDIR": str(ray_dir), "RAY_ADDRESS": "local"}
    directory = tmp_path / "found"
    command = [sys.executable, tune.__file__, f"run_dir={directory}", *SMALL]

    def start():
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def state():
        return list((directory / "ray").glob("experiment_state-*.json"))

    first = start()
    try:
        limit = time.monotonic() + PATIENCE
        while not any('\\"rung\\": 9' in path.read_text() for path in state()):
            assert time.monotonic() < limit, "no trial was kept"
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.1)
        first.send_signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        first.stderr.close()
        second = start()
        _, said = second.communicate(timeout=PATIENCE)
        assert second.returncode == 0, said
        assert "continuing the search" in said
        found = pq.read_table(directory / "trials" / "trials.parquet").to_pandas()
        assert found["status"].tolist() == ["finished"] * 30
        assert np.isfinite(found["accuracy"]).all()
    finally:
        first.kill()
        shutil.rmtree(ray_dir, ignore_errors=True)
