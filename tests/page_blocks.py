"""Run the Python of a page of the guide, from the first block to the last, as a reader would.

The pages read runs in the folder `runs`. `make_runs` trains small runs with these names.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE

ROOT = Path(__file__).parents[1]
# The blocks of this page are files; tests/test_guide.py runs them.
FILES = "docs/extending.md"

_RUNS = (
    *("data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=20", "tasks=8"),
    *("train.steps=100", "train.learning_rate=0.01", "executor=serial", "quiet=true"),
    *("evaluate.checkpoints=[3,8]", "evaluate.batches=2", "seeds=[0,1]", "run_dir=runs/three"),
)
_SEARCH = (
    *("data=digits", "network=mlp", "network_options.hidden=[24]", "outputs=12", "tasks=4"),
    *("train.learning_rate=tag(log, interval(1e-3, 1e-1))", "train.optimizer=rmsprop,adam"),
    *("train.steps=27", "train.batch_size=32", "tune.trials=3", "evaluate.batches=1"),
    *("quiet=true", "run_dir=runs/tune-mnist5k-permuted-8-fast"),
)
# The page -> code before its first block, which makes what the page takes for granted.
_BEFORE = {
    "docs/data.md": """
import numpy as np
drawn = np.random.default_rng(0)
x_train, x_test = (drawn.integers(0, 256, (n, 8, 8), dtype=np.uint8) for n in (40, 20))
y_train, y_test = np.arange(40) % 4, np.arange(20) % 4
"""
}
# The page -> code after its last block, which checks what the blocks have computed.
_AFTER = {
    "docs/data.md": """
from harness.data.catalogue import load_dataset
data = load_dataset("birds.npz")
assert (len(data.train.images), len(data.test.images), data.num_classes) == (40, 20, 4)
""",
    "docs/data_frames.md": """
import pandas as pd
frames = [by_pandas.reset_index(), by_polars.to_pandas(), by_duckdb.df()]
expected, *others = (one.fillna({"objective": ""}) for one in frames)
assert set(expected["objective"]) == {"G", "H", ""}
for one in others:
    pd.testing.assert_frame_equal(one, expected, check_dtype=False)
assert lost["lost"].is_monotonic_decreasing and len(lost) == 3
assert len(both) == 2 * 8
""",
    "docs/python.md": """
assert "8 of 8 tasks" in repr(run)
assert right.mean() == run.table("tasks").to_pandas().set_index("task_id")["accuracy"][1]
assert found.scores.shape == (1, 8) and several.tasks.shape == (20,)
from safetensors import safe_open
with safe_open("mask1.safetensors", "pt") as file:
    assert all((file.get_tensor(f"mask.{name}") == kept).all() for name, kept in mask.items())
assert mixed(loaders[1][0][0]).shape == logits.shape == (512, 10)
""",
    "docs/results.md": """
from harness.data.catalogue import load_dataset
test = load_dataset("digits").test
answers = [logits(image.ravel()).argmax() for image in test.images]
accuracy = tasks.set_index("task_id")["accuracy"][7]
assert abs((answers == test.labels).mean() - accuracy) < 0.01
assert set(continual_measures(evaluations)["num_tasks"]) == {3, 8}
""",
    "docs/searching.md": """
assert len(search.table()) == len(search.results()) == len(trials.dataframe()) == 3
assert len(results) == 2
""",
    "docs/several_runs.md": """
assert set(over_seeds(evaluations)["seeds"]) == {2}
""",
}


def pages() -> list[str]:
    """List the README and the pages of the guide that have blocks of Python."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    paths += sorted((ROOT / "cluster").glob("*.md"))
    named = [str(path.relative_to(ROOT)) for path in paths]
    return [name for name in named if name != FILES and blocks(name)]


def blocks(page: str) -> list[str]:
    """Return the blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def make_runs(folder: Path, code: Path) -> None:
    """Train the runs that the pages read, in the folder `runs` of a folder."""
    python(folder, code, "-m", "harness.supermask", "scale", *_RUNS)
    for name in ("first", "second", "mnist5k-permuted-32"):
        shutil.copytree(folder / "runs" / "three" / "seed-0", folder / "runs" / name)


def make_search(folder: Path, code: Path) -> None:
    """Make the search that the pages read, with three trials."""
    python(folder, code, "-m", "harness.supermask", "tune", *_SEARCH)


def run_page(page: str, folder: Path, code: Path) -> str:
    """Run the blocks of a page as one program, and return what it prints.

    Args:
        page: the path of the page in the repository.
        folder: the working folder, in which the runs are.
        code: the folder from which Python imports the packages of the project.
    """
    program = folder / f"{Path(page).stem}_page.py"
    program.write_text("\n".join([_BEFORE.get(page, ""), *blocks(page), _AFTER.get(page, "")]))
    return python(folder, code, str(program))


def python(folder: Path, code: Path, *arguments: str) -> str:
    """Run Python in a folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
