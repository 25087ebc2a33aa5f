"""Sphinx extension: make the small runs that the notebooks of the guide read.

Sphinx executes each notebook when it reads the page. Just before, this extension trains the runs of
the notebook, on the 8x8 digits, and sets the environment variable in which the notebook looks.
"""

import os
import shlex
import shutil
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

from sphinx.errors import ExtensionError

from harness.config.compose import checked, compose_overrides
from harness.scale import run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "notebook_runs"
PACKAGES = ("analysis", "harness", "supsup_core")

SMALL = ("data=digits", "executor=serial", "quiet=true", "train.dtype=float32")
MLP = (
    *(*SMALL, "network=mlp", "network_options.hidden=[48,32]", "outputs=40", "tasks=20"),
    *("train.learning_rate=0.01", "train.smoothing=0.9", "evaluate.checkpoints=[2,5,10,20]"),
    *("evaluate.algorithms=[one_shot,one_shot_ranked,binary]", "evaluate.batches=4"),
)
# Run directory in FOLDER -> its options.
RUNS = {
    "seeds/seed-0": (*MLP, "train.steps=60", "seed=0"),
    "seeds/seed-1": (*MLP, "train.steps=60", "seed=1"),
    "fast": (*MLP, "train=fast", "train.steps=30"),
    "units": (
        *(*SMALL, "experiment=reservoir", "network_options.hidden=[256]", "tasks=8"),
        *("train.steps=30", "evaluate.checkpoints=[2,4,8]", "evaluate.batches=2"),
    ),
}
# Notebook -> its variable, the paths that the variable names, and the runs that it needs.
VARIABLES = {
    "01_first_look": ("RUN_DIR", ["seeds/seed-0"], ["seeds/seed-0"]),
    "02_task_inference": ("RUN_DIR", ["seeds/seed-0"], ["seeds/seed-0"]),
    "03_reservoir": ("RUN_DIR", ["units"], ["units"]),
    "04_compare_runs": ("RUN_DIRS", ["seeds/seed-0", "fast"], ["seeds/seed-0", "fast"]),
    "06_over_seeds": ("RUN_DIR", ["seeds"], ["seeds/seed-0", "seeds/seed-1"]),
}


@cache
def make(run_dir):
    """Train and evaluate a run of RUNS anew. The function of the command writes no report."""
    shutil.rmtree(FOLDER / run_dir, ignore_errors=True)
    config = checked(compose_overrides([*RUNS[run_dir], f"run_dir={FOLDER / run_dir}"]))
    with redirect_stdout(StringIO()):
        if run(config):
            raise ExtensionError(f"the run {run_dir} must succeed, got failed units")


def prepare(app, docname, source):
    """Make the runs of a notebook. The page is then out of date if any code changes."""
    folder, _, notebook = docname.rpartition("/")
    if folder != "analysis/notebooks" or app.config.nb_execution_mode == "off":
        return
    variable, paths, run_dirs = VARIABLES.get(notebook, ("RUN_DIR", [], []))
    for run_dir in run_dirs:
        make(run_dir)
    os.environ[variable] = shlex.join(str(FOLDER / path) for path in paths)
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            app.env.note_dependency(str(file))


def setup(app):
    """Call `prepare` before Sphinx reads a page."""
    app.connect("source-read", prepare)
    return {"parallel_read_safe": False}
