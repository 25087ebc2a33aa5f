"""A run keeps the kind of device that trains its masks."""

import re

import pytest
import torch

from harness import evaluate, scale
from harness.config.identity import from_yaml
from harness.executors.protocol import Trainers
from harness.executors.serial import SerialExecutor
from harness.plan import device
from harness.plan.pools import pool_sizes
from harness.run import directory
from harness.workers import task_rows, training

SMALL = (
    *("data=digits", "network=mlp", "network_options.hidden=[8]", "outputs=12", "tasks=2"),
    *("train.steps=2", "train.block=1", "evaluate.batches=1", "evaluate.algorithms=[max_logit]"),
    *("executor=serial", "run_dir=run"),
)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)


def on_gpus(monkeypatch, on_gpus):
    monkeypatch.setattr(SerialExecutor, "trainers", lambda self: Trainers(1, 0.25 * on_gpus))


def test_a_run_stores_its_kind_of_device(typed, tmp_path):
    assert typed(scale, *SMALL)[0] == 0
    assert from_yaml(tmp_path / "run/config.yaml").train.device == "cpu"
    assert typed(scale, *SMALL, "train.device=cpu")[0] == 0


def test_a_run_does_not_go_on_with_another_kind_of_device(typed, tmp_path, monkeypatch):
    assert typed(scale, *SMALL)[0] == 0
    next((tmp_path / "run/log").glob("*.parquet")).unlink()  # a task is missing
    with monkeypatch.context() as changed:
        on_gpus(changed, True)
        code, out, err = typed(scale, *SMALL)
    assert code == 2
    assert not out
    assert "train.device must be cpu, with which the run began, got cuda" in err
    assert err.strip().endswith("type train.device=cpu to go on without GPUs")
    code, _, err = typed(scale, *SMALL, "train.device=cuda")
    assert (code, "train.device is cpu in the folder, cuda in this command" in err) == (2, True)
    assert typed(scale, *SMALL, "train.device=cpu")[0] == 0


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(typed, tmp_path):
    code, _, err = typed(scale, *SMALL, "train.device=cuda")
    assert code == 2
    assert "train.device must be auto or cpu, because no training actor has a GPU, got cuda" in err
    assert not (tmp_path / "run/masks.zarr").exists()


def test_a_run_on_gpus_says_how_much_memory_training_takes(typed, monkeypatch):
    on_gpus(monkeypatch, True)
    monkeypatch.setattr(directory, "device_type", lambda: "cuda")
    monkeypatch.setattr(training, "training_device", lambda kind: torch.device("cpu"))
    given = *SMALL, "train.device=cuda", "actors.side_by_side=2"
    code, _, err = typed(scale, *given)
    assert code == 0, err
    told = (
        r"each training actor takes up to \d\.\d GB of its GPU for work units of 2 tasks, and a "
        r"GPU has room for 4 such actors \(each reserves 0\.25 of it\); the masks of an evaluation "
        r"actor"
    )
    assert re.search(told, " ".join(err.split()))


def test_a_run_may_be_evaluated_on_any_device(typed, monkeypatch):
    assert typed(scale, *SMALL)[0] == 0
    on_gpus(monkeypatch, True)
    assert typed(evaluate, "run_dir=run", "executor=serial", "evaluate.batches=1")[0] == 0


def test_without_a_gpu_no_actor_reserves_one(composed):
    train, evaluation = pool_sizes(composed(*SMALL), cpus=8, gpus=2)
    assert train.gpus > 0
    train, evaluation = pool_sizes(composed(*SMALL, "train.device=cpu"), cpus=8, gpus=2)
    assert (train.gpus, evaluation.gpus) == (0, 0)
    assert train.cpus > 0


def test_a_run_with_two_models_of_devices_warns_once(typed, tmp_path, monkeypatch):
    _, _, err = typed(scale, *SMALL)
    assert "different devices" not in err
    for log in sorted((tmp_path / "run/log").glob("*.parquet"))[1:]:
        log.unlink()
    monkeypatch.setattr(task_rows, "device_name", lambda _: "NVIDIA A100")
    code, _, err = typed(scale, *SMALL)
    assert code == 0, err
    assert " ".join(err.split()).count("trained on different devices (NVIDIA A100, cpu)") == 1
