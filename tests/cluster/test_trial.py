"""Try the cluster file: start a cluster over ssh, submit a job, and check the job's results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
import zarr

from analysis.load import load
from harness.storage.store import MaskStore
from patience import PATIENCE

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "cluster"))
import trial  # noqa: E402  (cluster/ is a folder of scripts, not a package)

sys.path.pop(0)


def test_the_trial_tries_the_real_file() -> None:
    config = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
    derived = trial.derive(config, Path("/key"))
    changed = {key for key in config if derived[key] != config[key]}
    assert changed == {"auth", "head_start_ray_commands", "provider", "setup_commands"}
    replaced = [c for c in config["setup_commands"] if c not in derived["setup_commands"]]
    assert len(replaced) == 2  # commands that make the environment and install into it
    assert len(derived["setup_commands"]) == len(config["setup_commands"])
    [start] = [c for c in derived["head_start_ray_commands"] if "ray start" in c]
    assert f"--num-cpus={trial.NUM_CPUS}" in start
    assert f'"max_cpus":{trial.NUM_CPUS}' in start


@pytest.mark.long
def test_a_job_submitted_over_ssh_leaves_its_tables_and_masks(tmp_path: Path) -> None:
    if reason := trial.what_is_missing():
        pytest.skip(f"the trial {reason}")
    command = [sys.executable, str(ROOT / "cluster" / "trial.py"), str(tmp_path)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "refused: a client with another token" in done.stdout

    run_dir = tmp_path / "mnist5k-permuted-8"
    tasks = load(run_dir, "tasks").to_pandas().set_index("task_id").sort_index()
    assert list(tasks.index) == list(range(8))
    assert (tasks["accuracy"] > 0.5).all()
    assert len(set(tasks["worker"])) <= trial.NUM_CPUS
    evaluations = load(run_dir, "evaluations").to_pandas()
    assert sorted(evaluations["task_id"]) == list(range(8))
    # Every stored mask matches its checksum in the log.
    rows = MaskStore.open(run_dir, read_only=True).read(
        list(range(8)), tasks["row_crc32c"].to_list()
    )
    masks = zarr.open_array(run_dir / "masks.zarr" / "masks", mode="r")
    assert (masks[:8] == rows).all()
