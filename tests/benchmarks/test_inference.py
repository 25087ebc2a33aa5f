"""The JSON lines of the inference benchmarks are complete. The tests do not judge the times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE

ROOT = Path(__file__).parents[2]
RUN = (
    *("data=digits", "network=mlp", "network_options.hidden=[16]"),
    *("outputs=20", "tasks=5", "train.block=5"),
    *("train.steps=20", "train.batch_size=32", "executor=serial", "evaluate.checkpoints=[]"),
)
FIELDS = {
    *("algorithm", "num_tasks", "seconds_per_inference", "bits_read_fraction", "agreement"),
    *("ratio_dense", "ratio_read", "extra_bytes"),
}


def typed(folder, program, *options):
    command = [sys.executable, str(ROOT / program), *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = typed(folder, "harness/scale.py", *RUN, "run_dir=run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.slow
def test_every_form_has_a_line(run):
    options = ("--run", str(run), "--tasks", "9", "--rounds", "1", "--queries", "6", "--json")
    done = typed(run.parent, "benchmarks/inference.py", *options)
    assert done.returncode == 0, done.stderr
    rows = {row["algorithm"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows.keys() == {
        *("read", "one_shot", "one_shot_ranked", "binary", "batched", "dense", "dense_product")
    }
    for name, row in rows.items():
        assert row.keys() >= FIELDS
        assert row["num_tasks"] == 9
        assert row["seconds_per_inference"] > 0
        assert (
            row["ratio_dense"]
            == rows["dense"]["seconds_per_inference"] / row["seconds_per_inference"]
        )
        if name in ("one_shot", "batched", "dense", "dense_product"):
            assert row["agreement"] == 1
    assert rows["one_shot"]["extra_bytes"] > 0


@pytest.mark.slow
def test_masks_pass_by_from_a_zarr_array_of_their_own(run):
    options = ("--run", str(run), "--tasks", "40", "--rounds", "1", "--stream", "stream")
    done = typed(run.parent, "benchmarks/streaming.py", *options)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["algorithm"] for row in rows] == ["read_store", "streamed", "streamed_batched"]
    assert {row["num_tasks"] for row in rows} == {40}
    assert rows[1]["extra_bytes"] < rows[2]["extra_bytes"]
    # The benchmark refuses a folder that holds masks of another seed.
    path = run.parent / "stream" / "masks-40.zarr" / "zarr.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    again = typed(run.parent, "benchmarks/streaming.py", *options)
    assert again.returncode == 2
    assert "remove the folder, and run again" in again.stderr
