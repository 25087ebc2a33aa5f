"""Sphinx extension: make the small runs that the notebooks of the guide read.

Sphinx executes each notebook when it reads the page. Just before, this extension trains the runs of
the notebook, on the 8x8 digits, and sets the environment variable in which the notebook looks.
"""

import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "notebook_runs"
PACKAGES = ("analysis", "harness", "supsup_core")

SMALL = ("data=digits", "executor=serial", "quiet=true")
MLP = (
    *("network=mlp", "network_options.hidden=[48,32]", "outputs=40", "tasks=16"),
    *("train.steps=60", "train.learning_rate=0.01", "train.smoothing=0.9"),
    *("evaluate.checkpoints=[2,4,8,16]", "evaluate.batches=4"),
    "evaluate.algorithms=[one_shot,one_shot_ranked,binary]",
)
# Folder of a command in FOLDER -> its options.
RUNS = {
    "seeds": (*SMALL, *MLP, "seeds=[0,1,2]"),
    "fast": (*SMALL, *MLP, "train=fast", "train.steps=30"),
    "units": (
        *(*SMALL, "experiment=reservoir", "network_options.hidden=[256]", "tasks=8"),
        *("train.steps=30", "evaluate.checkpoints=[2,4,8]", "evaluate.batches=2"),
    ),
}
# Notebook -> its variable, and the run directories that the variable names.
VARIABLES = {
    "01_first_look": ("RUN_DIR", ("seeds/seed-0",)),
    "02_task_inference": ("RUN_DIR", ("seeds/seed-0",)),
    "03_reservoir": ("RUN_DIR", ("units",)),
    "04_compare_runs": ("RUN_DIRS", ("seeds/seed-0", "fast")),
    "06_over_seeds": ("RUN_DIR", ("seeds",)),
}


@cache
def made(name):
    """Train a run of RUNS anew. Return nothing, because its folder is FOLDER / name."""
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    command = [sys.executable, "harness/scale.py", *RUNS[name], f"run_dir={FOLDER / name}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def prepare(app, docname, source):
    """Make the runs of a notebook. The page is then out of date if any code changes."""
    folder, _, notebook = docname.rpartition("/")
    if folder != "analysis/notebooks" or app.config.nb_execution_mode == "off":
        return
    variable, run_dirs = VARIABLES.get(notebook, ("RUN_DIR", ()))
    for run_dir in run_dirs:
        made(run_dir.partition("/")[0])
    os.environ[variable] = shlex.join(str(FOLDER / run_dir) for run_dir in run_dirs)
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            app.env.note_dependency(str(file))


def setup(app):
    """Call `prepare` before Sphinx reads a page."""
    app.connect("source-read", prepare)
    return {"parallel_read_safe": False}
