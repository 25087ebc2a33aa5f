"""The first run after installing says that it compiles; later runs say nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from harness.driver.compiling import compile_kernels

ROOT = Path(__file__).parents[3]
SMALL = [
    *("data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20", "tasks=4"),
    *("train.steps=3", "train.dtype=float32", "evaluate.batches=1"),
    *("evaluate.algorithms=[one_shot,max_logit]", "evaluate.objectives=[H]", "executor=serial"),
]


class Bars:
    def __init__(self):
        self.said = []

    def add(self, name, total, done, unit, measure):
        self.said.append((name, done, total))

    def update(self, name, done, accuracy):
        self.said.append((name, done))


def test_progress_is_shown_from_the_first_form_that_compiles():
    bars = Bars()

    def compiles():
        numba.njit(lambda x: x + 1)(1)

    def fails():
        raise ValueError

    compile_kernels([int, compiles, fails], bars)
    assert bars.said == [("compiling", 1, 3), ("compiling", 2), ("compiling", 3)]


def test_nothing_is_shown_if_nothing_compiles(capsys):
    bars, loaded = Bars(), numba.njit(lambda x: x + 1)
    loaded(1)
    compile_kernels([lambda: loaded(1), int], bars)
    assert bars.said == []


@pytest.mark.long
@pytest.mark.timeout(3000)  # compiling takes half a minute of one core
def test_the_first_run_compiles_in_sight_and_before_its_work(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def started(name):
        command = [sys.executable, ROOT / "harness" / "scale.py", *SMALL]
        done = subprocess.run(
            [*command, f"run_dir={tmp_path / name}"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    first = started("first")
    assert re.search(
        r"compiling the kernels for this machine.*compiling: 3/3 forms.*compiled in.*training with",
        first,
        re.DOTALL,
    )
    kernels = set((tmp_path / "cache").rglob("*.nbc"))
    assert "compiling" not in started("second")
    assert set((tmp_path / "cache").rglob("*.nbc")) == kernels
