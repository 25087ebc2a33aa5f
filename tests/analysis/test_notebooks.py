"""The notebooks run from top to bottom on small runs, and what they find is what is there."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module

from analysis.load import load
from harness.commandline import from_hydra
from harness.driver import run

NOTEBOOKS = Path(__file__).parents[2] / "analysis" / "notebooks"
SMALL = [
    *("data=digits", "tasks=4", "executor=serial", "train.steps=40", "quiet=true"),
    *("evaluate.batches=2", "evaluate.checkpoints=[2,4]"),
]
PERMUTED = [
    *("network=mlp", "hidden=[32]", "outputs=20", "train.learning_rate=0.003"),
    *("evaluate.algorithms=[one_shot,one_shot_ranked,binary]",),
]
UNITS = ["experiment=reservoir", "hidden=[256]", "evaluate.num_images=32"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs by different recipes, and one whose masks are recalled."""
    folder = tmp_path_factory.mktemp("runs")
    options = {
        "slow": PERMUTED,
        "fast": [*PERMUTED, "train=fast", "train.steps=30"],
        "units": UNITS,
    }
    for name, more in options.items():
        with initialize_config_module("harness.conf", version_base="1.3"):
            config = from_hydra(compose("config", [*SMALL, *more, f"run_dir={folder / name}"]))
        assert run(config) == 0
    return folder


def execute(name, monkeypatch, **environment):
    """Run a notebook's cells one after another; what it leaves behind, by name."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    for key, value in environment.items():
        monkeypatch.setenv(key, str(value))
    (path,) = NOTEBOOKS.glob(f"{name}_*.py")
    found = {"__name__": path.stem}
    exec(compile(path.read_text(), str(path), "exec"), found)
    return SimpleNamespace(**found)


def test_a_first_look_sees_every_task_and_the_mask_s_density(runs, monkeypatch):
    found = execute("01", monkeypatch, RUN_DIR=runs / "slow")
    rows = load(runs / "slow", "tasks").to_pandas().set_index("task_id")
    assert found.tasks["accuracy"].to_dict() == rows["accuracy"].to_dict()
    assert found.low <= rows["accuracy"].mean() <= found.high
    ones = sum(
        found.densities[one["name"]] * one["num_bits"] for one in found.store.attrs["layers"]
    )
    bits = sum(one["num_bits"] for one in found.store.attrs["layers"])
    assert ones / bits == pytest.approx(rows.loc[found.task_id, "density"])


def test_task_inference_is_compared_by_algorithm_and_objective(runs, monkeypatch):
    found = execute("02", monkeypatch, RUN_DIR=runs / "slow")
    assert set(found.exponents["algorithm"]) == {"one_shot", "one_shot_ranked", "binary"}
    assert set(found.means["num_tasks"]) == {2, 4}
    assert (found.wrong["task_accuracy"] < 1).all()


def test_reservoirs_are_looked_at_by_rule_and_cue(runs, monkeypatch):
    found = execute("03", monkeypatch, RUN_DIR=runs / "units")
    assert {cue for _, cue, _ in found.recalled.index} == {"flipped", "erased", "data"}
    kept = 4 * (256 * 256 + 256)  # bytes: a weight for every two units, and the mean
    assert found.crossing == {"projection": kept / found.packed}
    assert "reservoir, projection" in found.sizes


def test_runs_are_compared_task_by_task(runs, monkeypatch):
    both = [runs / "slow", runs / "fast"]
    found = execute("04", monkeypatch, RUN_DIRS=os.pathsep.join(map(str, both)))
    assert {"train.name", "train.steps"} <= set(found.differing.index)
    assert "tasks" not in found.differing.index
    slow, fast = (load(one, "tasks")["accuracy"].to_numpy().mean() for one in both)
    (row,) = found.against_first.to_dict("records")
    assert row["mean"] == pytest.approx(fast - slow)
    assert row["low"] <= row["mean"] <= row["high"]


def test_a_method_of_one_s_own_trains_and_is_told_apart(monkeypatch):
    found = execute("05", monkeypatch).found
    assert (found["accuracy"] > 0.7).all()
    assert (found["task accuracy, H"] > 0.5).all()
    assert found.loc["top half", "density"] == pytest.approx(0.5, abs=1e-3)
    assert abs(found.loc["threshold", "density"] - 0.5) > 1e-4


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_is_short_cells_of_code_and_prose_alone(path):
    cells = re.split(r"^# %%", path.read_text(), flags=re.MULTILINE)[1:]
    kinds = [cell.startswith(" [markdown]\n") for cell in cells]
    assert kinds[0]
    assert 2 <= sum(kinds) < len(cells)
    prose = [
        line for cell, of in zip(cells, kinds, strict=True) if of for line in cell.splitlines()
    ]
    assert all(not line or line.startswith(("#", " [markdown]")) for line in prose)
    assert len(path.read_text().splitlines()) < 100


def test_five_notebooks_are_there():
    assert [path.stem[:2] for path in sorted(NOTEBOOKS.glob("*.py"))] == [
        *("01", "02", "03", "04", "05"),
    ]
