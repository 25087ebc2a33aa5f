"""The JSON lines of the benchmark of GPUs, on the CPU. The tests do not judge the times."""

import json
import multiprocessing.dummy
import queue
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def told(monkeypatch, tmp_path, capsys):
    """A function that runs parts of the benchmark in this process, and returns their lines."""
    rng, arrays = np.random.default_rng(0), {}
    for name, count in (("train", 600), ("test", 30)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, 784), dtype=np.uint8)
        arrays[f"{name}_labels"] = np.arange(count, dtype=np.uint8) % 10
    np.savez(tmp_path / "images.npz", **arrays)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "commandline", raising=False)
    import gpu

    monkeypatch.setattr(gpu.Bench.seconds, "__defaults__", (0.0, 1))

    def run(*arguments):
        given = ["--device", "cpu", "--data", str(tmp_path / "images.npz"), "--block", "2"]
        given += ["--widths", "784", "8", "12", "--tasks", "2", "--steps", "3", "--masks", "20"]
        given += ["--dim", "300", "--patterns", "3"]
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments, *given])
        gpu.main()
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return [line for line in lines if line["part"] != "machine"]

    return run


def test_training_and_inference_have_lines_without_errors(told):
    lines = told("train", "infer", "check", "reservoir", "--dtype", "float32")
    parts = ["train", *["infer"] * 4, *["check"] * 4, *["reservoir"] * 2]
    assert [line["part"] for line in lines] == parts
    assert all(0 < line["share_of_floor"] < 1 for line in lines if line["part"] != "check")
    assert not [line for line in lines if "error" in line]
    assert all(line["same_as_cpu"] == line["compared"] > 0 for line in lines[1:5])
    assert all(line["bits_that_differ_alone"] == 0 for line in lines[5:9])


def test_the_other_parts_have_lines_without_errors(told, monkeypatch):
    # Processes would import torch again, so threads stand for them.
    import gpu_training  # `told` puts its folder on the path

    monkeypatch.setattr(multiprocessing, "get_context", lambda _: multiprocessing.dummy)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    recipe = replace(gpu_training.RECIPES["paper"], steps=3)
    monkeypatch.setitem(gpu_training.RECIPES, "paper", recipe)
    ceilings, whole, *actors = told("ceilings", "whole", "actors", "--actors", "1", "2")
    assert all(ceilings[name] > 0 for name in ceilings["predicted"])
    assert whole["tasks"] == 20
    assert 0 <= whole["lowest_accuracy"] <= whole["accuracy"] <= 1
    assert [line["actors"] for line in actors] == [1, 2]
    assert all(line["task_steps_per_second"] > 0 for line in actors)


def test_a_process_that_fails_ends_the_others(told):
    from gpu_training import seconds_of

    class Nothing:
        def get(self, timeout):
            raise queue.Empty

    ended = []
    others = [
        SimpleNamespace(exitcode=code, kill=lambda code=code: ended.append(code))
        for code in (None, 1)
    ]
    with pytest.raises(RuntimeError, match="1 of 2 processes failed"):
        seconds_of(others, Nothing())
    assert ended == [None, 1]


def test_the_plan_of_memory_grows_with_the_gpu(told):
    lines = told("memory")
    assert not [line for line in lines if "error" in line]
    plans, training, inference = (
        [line for line in lines if line["of"] == kind] for kind in ("plan", "training", "inference")
    )
    assert [line["gigabytes"] for line in plans] == [16, 24, 80]
    most = [line["most_tasks"] for line in plans]
    assert most == sorted(most)
    for line in plans:
        assert 0.7 < line["computed_bytes"] / line["gigabytes"] / 1e9 <= 0.8
    assert [(line["tasks"], line["peak_bytes"]) for line in training] == [(2, None)]
    assert [line["queries"] for line in inference] == [1, 32]
