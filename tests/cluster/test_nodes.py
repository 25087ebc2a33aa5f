"""On a cluster of several nodes, the loss of a node costs only the work in flight on that node."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from harness.config.compose import checked
from harness.scale import run
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import TASKS
from patience import PATIENCE

SCRIPT = Path(__file__).parent / "run_on_nodes.py"
NUM_UNITS = 6
OPTIONS = [
    *("data=digits", "network=mlp", "network_options.hidden=[24]"),
    *("outputs=20", "tasks=12", "train.block=2"),
    *("train.steps=1200", "train.learning_rate=0.001", "train.smoothing=0.9", "quiet=true"),
    *("evaluate.batches=1", "evaluate.checkpoints=[4,12]", "evaluate.algorithms=[max_logit]"),
]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Environment variables of a separate Ray: its own token, and a short folder for its sockets.

    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 is Ray's switch for desktop systems: Ray then listens on
    loopback only.
    """
    with tempfile.TemporaryDirectory(prefix="nodes-", dir="/tmp") as folder:
        apart = {"RAY_TMPDIR": folder, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        yield os.environ | apart | token


def checksums(run_dir: Path) -> dict[int, int]:
    """Return task number -> CRC-32C of the mask. Each task must occur once."""
    table = read_tables(run_dir / "log", TASKS)
    ids = table["task_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return dict(zip(ids, table["row_crc32c"].to_pylist(), strict=True))


def evaluated(run_dir: Path) -> list[tuple[Any, ...]]:
    """Return the sorted rows of the table `evaluations`, without the timings."""
    table = read_tables(run_dir / "evaluations", EVALUATIONS).drop(["seconds_per_inference"])
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)


@pytest.mark.long
def test_a_run_outlives_a_node_and_has_the_masks_of_one_process(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "nodes"), *OPTIONS]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0
    # The node was removed while units were left, and some units were lost with the node.
    assert 1 <= found["units_at_loss"][0] < NUM_UNITS
    assert any("again: Actor" in line or "again: Node" in line for line in found["said"])

    with initialize_config_module("harness.conf", version_base="1.3"):
        overrides = [*OPTIONS, "executor=serial", f"run_dir={tmp_path / 'serial'}"]
        assert run(checked(compose("config", overrides))) == 0
    assert checksums(tmp_path / "nodes") == checksums(tmp_path / "serial")
    assert evaluated(tmp_path / "nodes") == evaluated(tmp_path / "serial")
