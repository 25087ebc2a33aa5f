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
    *("data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20", "tasks=5"),
    *("train.steps=3", "train.dtype=float32", "train.block=2", "evaluate.batches=1"),
    "evaluate.algorithms=[one_shot,one_shot_ranked,binary,max_logit]",
    *("evaluate.objectives=[H,G]", "evaluate.checkpoints=[2,5]", "executor=serial"),
]

# Runs harness/scale.py, and prints each kernel that compiles after the rehearsals.
WATCHED = """
import runpy, sys
from numba.core.event import Listener, install_listener
from harness.driver import together

class Late(Listener):
    def on_start(self, event):
        print("late:", event.data["dispatcher"].py_func.__module__, event.data["args"])
    def on_end(self, event):
        pass

def rehearsed(*arguments, compile_kernels=together.compile_kernels):
    compile_kernels(*arguments)
    install_listener("numba:compile", Late()).__enter__()

together.compile_kernels = rehearsed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


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
@pytest.mark.timeout(3000)  # compiling takes a minute of one core
def test_the_first_run_compiles_in_sight_and_before_its_work(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def started(name):
        command = [sys.executable, "-c", WATCHED, ROOT / "harness" / "scale.py", *SMALL]
        done = subprocess.run(
            [*command, f"run_dir={tmp_path / name}"],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "late:" not in done.stdout
        return done.stderr

    first = started("first")
    assert re.search(
        r"compiling the kernels for this machine.*compiling: 8/8 forms.*compiled in.*training with",
        first,
        re.DOTALL,
    )
    assert "compiling" not in started("second")
