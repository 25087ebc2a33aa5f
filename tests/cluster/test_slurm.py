"""The script for SLURM, with programs in the place of SLURM's; a long test uses real Ray."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from analysis.load import load
from patience import PATIENCE

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "slurm.sbatch"
# Like srun on one node, it starts the command after its own options.
SRUN = '#!/bin/bash\necho "srun $*"\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
RAY = """#!/bin/bash
[ "$1" = symmetric-run ] || exit 0
[ -z "$RAY_FAILS" ] || exit 0
while [ "$1" != -- ]; do shift; done
shift; exec "$@"
"""
PYTHON = '#!/bin/bash\necho "python $*, RAY_ADDRESS=$RAY_ADDRESS"\nexit 7\n'


@pytest.fixture
def submitted(tmp_path: Path) -> dict[str, str]:
    """Environment of a job that sbatch has started. The project's folder has only programs."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"export PATH={programs}:$PATH\n")
    for name, text in (("srun", SRUN), ("ray", RAY), ("python", PYTHON)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_CPUS_ON_NODE": "3",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "HEAD_IP": "10.0.0.1",
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
    }


def run(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT, *options], env=environment, capture_output=True, text=True
    )


def test_the_job_gets_the_options_and_ends_with_the_exit_code(submitted: dict[str, str]) -> None:
    done = run(submitted, "tasks=8", "evaluate.checkpoints=[4, 8]")
    assert done.returncode == 7
    srun, python = done.stdout.splitlines()
    for given in ("--cpus-per-task=3", "--min-nodes=2", "--num-cpus=3", "--num-gpus=4"):
        assert given in srun.split()
    assert python == (
        "python harness/scale.py tasks=8 evaluate.checkpoints=[4, 8], RAY_ADDRESS=10.0.0.1:6379"
    )


def test_a_ray_that_does_not_start_is_an_error(submitted: dict[str, str]) -> None:
    done = run(submitted | {"RAY_FAILS": "1"}, "tasks=8")
    assert done.returncode == 2
    assert "error: Ray must start on node 10.0.0.1:6379" in done.stderr


def test_nothing_runs_outside_of_slurm(submitted: dict[str, str]) -> None:
    del submitted["SLURM_SUBMIT_DIR"]
    done = run(submitted)
    assert done.returncode != 0
    assert "must be set by sbatch" in done.stderr


@pytest.mark.long
def test_one_node_with_real_ray_makes_a_run(submitted: dict[str, str], tmp_path: Path) -> None:
    namespaces = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    if not shutil.which("unshare") or subprocess.run([*namespaces, "true"]).returncode:
        pytest.skip("the test needs namespaces: start it as root on Linux")
    programs = tmp_path / ".venv" / "bin"
    for name in ("ray", "python"):
        (programs / name).unlink()
    real = Path(sys.executable).parent
    (programs / "activate").write_text(f"export PATH={programs}:{real}:$PATH\n")
    (tmp_path / "harness").symlink_to(ROOT / "harness")
    options = (
        *("data=digits", "network=mlp", "network_options.hidden=[24]", "outputs=20", "tasks=4"),
        *("train.block=2", "train.steps=20", "quiet=true", f"run_dir={tmp_path / 'run'}"),
        *("evaluate.algorithms=[max_logit]", "evaluate.batches=1"),
    )
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as short:
        environment = submitted | {
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_CPUS_ON_NODE": "2",
            "SLURM_GPUS_ON_NODE": "0",
            "HEAD_IP": "127.0.0.1",
            "RAY_TMPDIR": short,
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
        }
        inside = 'ip link set lo up; bash "$@" & wait $!'
        done = subprocess.run(
            [*namespaces, "bash", "-c", inside, "bash", SCRIPT, *options],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert sorted(load(tmp_path / "run", "tasks").to_pandas()["task_id"]) == [0, 1, 2, 3]
