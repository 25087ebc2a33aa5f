"""The table at the end of a search fits 80 columns, and no value in it is cut."""

import io

import pyarrow as pa
from rich.console import Console

from harness.search.end_table import print_trials
from harness.search.table import trials_schema

KEYS = [f"train.{name}" for name in ("learning_rate", "smoothing", "temperature", "weight_decay")]
TRIAL = {
    "trial": 12,
    "status": "finished",
    **dict.fromkeys(KEYS, 0.00012345678),
    "accuracy": 0.93512,
    "task_accuracy": 0.5,
    "expected_task_accuracy": 0.25,
    "expected_accuracy": 0.125,
    "among": 2500,
    "num_tasks": 6,
    "steps": 1000,
    "seconds": 1234.5,
    "config_hash": "x",
    "config": "x",
}


def test_keys_that_do_not_fit_80_columns_are_left_to_the_table():
    schema = trials_schema(dict.fromkeys(KEYS, pa.float64()))
    table = pa.Table.from_pylist([TRIAL], schema=schema)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    print_trials(console, table, "accuracy", KEYS)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    [row] = [line for line in lines if "0.9351" in line]
    assert (
        row.split()
        == ["12", "0.9351", "0.5000", "0.2500", "0.1250", "1000", "1234.5"] + ["0.0001235"] * 2
    )
    said = " ".join(" ".join(lines).split())
    assert "Only in the table trials: train.temperature, train.weight_decay." in said
