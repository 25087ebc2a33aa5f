"""Small run directories, made without training."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import zarr

from analysis import report
from harness.search.table import trials_schema
from harness.tables.files import write_table
from harness.tables.inference import EVALUATIONS, QUERIES
from harness.tables.schemas import TASKS
from harness.workers.query_rows import as_png


def _rows(schema, num_rows, **columns):
    plain = {"string": "x", "int64": 1, "int32": 1, "uint32": 1, "double": 0.5, "float": 0.5}
    plain["timestamp[us, tz=UTC]"] = pd.Timestamp(0, tz="UTC")
    made = {f.name: [plain.get(str(f.type))] * num_rows for f in schema}
    return pa.table({f.name: (made | columns)[f.name] for f in schema}, schema=schema)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A run directory with three tasks, two of them evaluated and confused, and a report."""
    run = tmp_path_factory.mktemp("runs") / "a<b"
    for folder in ("log", "evaluations", "queries"):
        (run / folder).mkdir(parents=True)
    named = "tasks: 3\nnetwork: n\ndata: d\nfamily: rotated\nmethod: m\nseed: 0\n"
    named += "evaluate: {algorithms: [one_shot, binary], objectives: [H, G]}\n"
    (run / "config.yaml").write_text(named + "train: {name: <i>}\n...\n")
    (run / "provenance.json").write_text(json.dumps({"starts": [{"command": ["scale.py"]}]}))
    tasks = _rows(TASKS, 3, task_id=[0, 1, 2], accuracy=[0.9, 0.11, 0.8])
    write_table(tasks, run / "log" / "a.parquet", "r")
    asked = {"task_id": [0, 1] * 2, "num_tasks": [2] * 4, "num_distractors": [0] * 4}
    asked |= {"objective": ["H", "H", "G", "G"], "algorithm": ["one_shot"] * 2 + ["binary"] * 2}
    evaluations = _rows(EVALUATIONS, 4, **asked)
    write_table(evaluations, run / "evaluations" / "a.parquet", "r")
    # Every answer is the other task, and the right task is the runner-up of one query.
    answers = asked | {"inferred": [1, 0] * 2, "runner_up": [None, 1] * 2, "right": [False] * 4}
    answers["picture"] = [as_png(np.array([[0, 90], [180, 255]], np.uint8)), None] * 2
    queries = _rows(QUERIES, 4, **answers)
    write_table(queries, run / "queries" / "a.parquet", "r")
    root = zarr.open_group(run / "masks.zarr", mode="w")
    planes = [
        {"tensor": "layer1", "role": "keep", "coefficient": 1, "byte_offset": 0, "num_bits": 8}
    ]
    tensors = [{"name": "layer1", "source": "layer1", "shape": [2, 4], "over": "weights"}]
    root.attrs.update({"tensors": tensors, "planes": planes, "row_bytes": 1, "run_id": "r"})
    root.attrs["normalisation"] = {"mean": [0.1], "std": [0.3]}
    root.create_array("weights/layer1", data=np.ones((2, 4), np.float32))
    root.create_array("masks", data=np.array([[15], [3], [9]], np.uint8))
    root.create_array("inputs/angles", data=np.array([0.0, 90.0, 180.0]))
    report.write(run)
    return run


@pytest.fixture(scope="session")
def folder_of_methods(tmp_path_factory):
    """A folder with runs of three methods and two seeds, each evaluated at two checkpoints."""
    folder = tmp_path_factory.mktemp("methods")
    ways = [(k, way) for k in (2, 16) for way in (("one_shot", "H"), ("one_shot", "G"))]
    for number, method in enumerate(("threshold", "edge_popup_density0.3", "batche")):
        for seed in (0, 1):
            run = folder / f"method-{method}-seed-{seed}"
            (run / "evaluations").mkdir(parents=True)
            text = f"tasks: 16\nnetwork: n\ndata: d\nfamily: f\nmethod: {method}\n"
            (run / "config.yaml").write_text(f"{text}outputs: 20\nseed: {seed}\n...\n")
            columns = {
                "num_tasks": [k for k, _ in ways],
                "num_distractors": [0] * 4,
                "algorithm": [algorithm for _, (algorithm, _) in ways],
                "objective": [objective for _, (_, objective) in ways],
                "accuracy_gg": [0.9 + 0.02 * number + 0.01 * seed] * 4,
                "accuracy_gnu": [0.8 + 0.02 * number + 0.01 * seed] * 4,
            }
            write_table(_rows(EVALUATIONS, 4, **columns), run / "evaluations" / "a.parquet", "r")
            root = zarr.open_group(run / "masks.zarr", mode="w")
            tensors = [{"name": "layer1", "source": "layer1", "shape": [2, 4], "over": "weights"}]
            root.attrs.update({"tensors": tensors, "planes": [], "row_bytes": 3 * 4**number})
            root.attrs["run_id"] = "r"
            root.create_array("weights/layer1", data=np.zeros((2, 4), np.float32))
    return folder


SEARCH = """
tasks: 6
network: mlp
data: digits
family: permuted
method: edge_popup
seed: 0
tune:
  trials: 16
  metric: expected_accuracy
  among: 2500
  search: optuna
  scheduler: asha
  space:
    train.learning_rate: tag(log, interval(1e-4, 1e-1))
    train: {optimizer: "rmsprop,<i>"}
    network_options.hidden: "choice([24],[24,24])"
...
"""


@pytest.fixture(scope="session")
def search_dir(tmp_path_factory):
    """A search with 16 trials, and its report. Its score depends mostly on the learning rate."""
    folder = tmp_path_factory.mktemp("searches") / "tune-digits-permuted-6"
    (folder / "trials").mkdir(parents=True)
    (folder / "config.yaml").write_text(SEARCH)
    drawn = np.random.default_rng(0)
    rates = 10 ** drawn.uniform(-4, -1, 16)
    scores = 0.9 - 0.2 * (np.log10(rates) + 2.2) ** 2 + 0.01 * drawn.standard_normal(16)
    is_failed = [i in (3, 11) for i in range(16)]
    names = np.where(is_failed, "failed", np.where(scores > 0.8, "finished", "stopped"))
    schema = trials_schema(
        {
            "train.learning_rate": pa.float64(),
            "train.optimizer": pa.string(),
            "network_options.hidden": pa.string(),
        }
    )
    trials = _rows(
        schema,
        16,
        trial=range(16),
        status=names.tolist(),
        expected_accuracy=[None if f else x for f, x in zip(is_failed, scores, strict=True)],
        error=["OSError: no <b>labels</b>" if failed else None for failed in is_failed],
        steps=np.where(names == "finished", 27, 3),
        measured_at=[pd.Timestamp(16 - i, unit="s", tz="UTC") for i in range(16)],
        **{
            "train.learning_rate": rates,
            "train.optimizer": ["rmsprop", "<i>"] * 8,
            "network_options.hidden": ["[24]", "[24, 24]", "[24, 24]", "[24]"] * 4,
        },
    )
    write_table(trials, folder / "trials" / "trials.parquet", "s")
    report.write(folder)
    return folder


@pytest.fixture
def run_of_2500_tasks(run_dir, tmp_path):
    """A run directory with 2500 tasks, all evaluated at six checkpoints in two ways."""
    run, rng = shutil.copytree(run_dir, tmp_path / "large"), np.random.default_rng(0)
    for old in [*run.glob("log/*"), *run.glob("evaluations/*"), *run.glob("queries/*")]:
        old.unlink()
    text = (run / "config.yaml").read_text().replace("tasks: 3", "tasks: 2500")
    (run / "config.yaml").write_text(text)
    num, ids = 2500, np.arange(2500)
    times = pd.to_datetime(ids // 8, unit="s", utc=True)
    own = {"task_id": ids, "accuracy": rng.uniform(0.9, 1, num), "finished_at": times}
    own["worker"] = [f"train-{1 + i // 8 % 2}" for i in ids]
    write_table(_rows(TASKS, num, **own), run / "log" / "a.parquet", "r")
    for k in (10, 500, 1000, 1500, 2000, num):
        for objective in ("H", "G"):
            asked = {"task_id": ids[:k], "num_tasks": [k] * k, "num_distractors": [0] * k}
            asked |= {"objective": [objective] * k, "algorithm": ["one_shot"] * k}
            measured = {name: rng.uniform(0.4, 0.9, k) for name in ("accuracy_gnu", "accuracy_gg")}
            name = f"{k}-{objective}.parquet"
            write_table(_rows(EVALUATIONS, k, **asked, **measured), run / "evaluations" / name, "r")
            answers = {"inferred": rng.integers(0, k, k), "runner_up": rng.integers(0, k, k)}
            answers |= {"right": [False] * k, "picture": [None] * k}
            write_table(_rows(QUERIES, k, **asked, **answers), run / "queries" / name, "r")
    root = zarr.open_group(run / "masks.zarr", mode="a")
    root.create_array("masks", data=rng.integers(0, 256, (num, 1), np.uint8), overwrite=True)
    root.create_array("inputs/angles", data=rng.uniform(0, 360, num), overwrite=True)
    return run
