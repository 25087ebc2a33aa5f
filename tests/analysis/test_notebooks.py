"""The notebooks have no outputs, and run in the kernel of JupyterLab on small runs."""

import logging
import os
import pickle
import shlex
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from analysis.load import load
from composing import configured
from harness.scale import run
from patience import PATIENCE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "analysis" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

# The first cell forgets the last notebook, and sets the variables of this one.
BEFORE = """\
import os
for name in ("RUN_DIR", "RUN_DIRS"):
    os.environ.pop(name, None)
os.environ.update({environment!r})
%reset -f
"""
# The last cell gives variables of the notebook to the test.
AFTER = """\
import pickle
from pathlib import Path
Path({path!r}).write_bytes(pickle.dumps([globals()[name] for name in {names!r}]))
"""

SMALL = "data=digits executor=serial quiet=true evaluate.batches=2 train.dtype=float32"
WEIGHTS = (
    f"{SMALL} tasks=6 network=mlp network_options.hidden=[24,16] outputs=20 train.block=3 "
    "evaluate.algorithms=[one_shot,one_shot_ranked,binary] evaluate.checkpoints=[3,6]"
)
OPTIONS = {
    "weights": f"{WEIGHTS} train.steps=60 train.learning_rate=0.01 train.smoothing=0.9",
    "fast": f"{WEIGHTS} train=fast train.steps=30",
    "units": f"{SMALL} experiment=reservoir network_options.hidden=[256] tasks=4 train.steps=20 "
    "evaluate.checkpoints=[2,4]",
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Small runs: name in OPTIONS -> run directory."""
    folder, log = tmp_path_factory.mktemp("runs"), logging.getLogger("harness")
    before = log.level, log.propagate, log.handlers[:]
    for name, options in OPTIONS.items():
        config = configured(*options.split(), f"run_dir={folder / name}")
        assert run(config) == 0
    log.level, log.propagate, log.handlers[:] = before
    return {name: folder / name for name in OPTIONS}


@pytest.fixture(scope="session")
def kernel():
    """A client of one kernel. The kernel executes all notebooks, because it starts slowly."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    client = NotebookClient(new_notebook(), kernel_name="python3", timeout=PATIENCE)
    with client.setup_kernel(cwd=str(FOLDER), env=environment):
        yield client


@pytest.fixture
def executed(kernel, tmp_path):
    """A function that executes notebook `number` and returns the values of some variables.

    It also checks that the notebook shows `figures` images, and prints no warnings.
    """

    def execute(number, names="", figures=0, **environment):
        [path] = FOLDER.glob(f"{number:02}_*.ipynb")
        book, kept = nbformat.read(path, as_version=4), tmp_path / "variables"
        before = BEFORE.format(environment={key: str(environment[key]) for key in environment})
        after = AFTER.format(path=str(kept), names=names.split())
        kernel.nb = book
        book.cells = [new_code_cell(before), *book.cells, new_code_cell(after)]
        kernel.execute(cleanup_kc=False)
        outputs = [one for cell in book.cells for one in cell.get("outputs", [])]
        assert [one.text for one in outputs if one.get("name") == "stderr"] == []
        assert sum("image/png" in one.get("data", {}) for one in outputs) == figures
        return dict(zip(names.split(), pickle.loads(kept.read_bytes()), strict=True))

    return execute


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_jupyter_stores_it_but_without_outputs(path):
    text = path.read_text()
    book = nbformat.reads(text, as_version=4)
    nbformat.validate(book)
    assert text == nbformat.writes(book) + "\n"
    assert book.metadata.kernelspec.name == "python3"
    assert book.cells[0].cell_type == "markdown"
    assert book.cells[0].source.startswith("# ")
    for cell in book.cells:
        if cell.cell_type == "code":
            clear = f"run jupyter nbconvert --clear-output --inplace {path}"
            assert (cell.outputs, cell.execution_count) == ([], None), clear
    assert sum(len(cell.source.splitlines()) for cell in book.cells) <= 100


def test_the_folder_has_notebooks_alone():
    assert len(NOTEBOOKS) == 7
    assert {path.suffix for path in FOLDER.iterdir() if path.is_file()} == {".ipynb"}


def test_the_first_look_sees_every_task_and_reads_a_mask_as_the_table_has_it(executed, runs):
    names = "tasks low high found density last bits"
    seen = executed(1, names, figures=3, RUN_DIR=runs["weights"])
    assert sorted(seen["tasks"]["task_id"]) == list(range(6))
    assert seen["low"] <= seen["tasks"]["accuracy"].mean() <= seen["high"]
    assert len(seen["found"]) == 2 * 3 * 2  # checkpoints, algorithms, objectives
    assert seen["density"] == seen["last"]["density"]
    assert sum(map(len, seen["bits"].values())) == 64 * 24 + 24 * 16 + 16 * 20


def test_the_first_look_reads_masks_over_units_at_a_url_too(executed, runs):
    seen = executed(1, "density last bits", figures=3, RUN_DIR=f"file://{runs['units']}")
    assert seen["density"] == seen["last"]["density"]
    assert list(map(len, seen["bits"].values())) == [256]


def test_ways_to_infer_are_compared_on_the_same_tasks(executed, runs):
    seen = executed(2, "g_minus_h exponents", figures=3, RUN_DIR=runs["weights"])
    rows = load(runs["weights"], "evaluations").to_pandas().query("algorithm == 'binary'")
    by = rows.groupby(["num_tasks", "objective"])["task_accuracy"].mean()
    of_binary = seen["g_minus_h"].xs("binary", level="algorithm")
    assert len(of_binary) == 2
    for (k, *_), row in of_binary.iterrows():
        assert row["G - H"] == pytest.approx(by[k, "G"] - by[k, "H"])
        assert row["95 %"][0] <= row["G - H"] <= row["95 %"][1]
        assert row["tasks"] == k
    exponents = seen["exponents"]
    assert len(exponents) == 3 * 2
    assert list(exponents) == ["of_milliseconds", "of_bits"]
    assert exponents.isna().to_numpy().all()  # two checkpoints give no exponent


def test_reservoirs_are_set_against_theory_and_packed_masks(executed, runs):
    seen = executed(3, "recalled sizes", figures=2, RUN_DIR=runs["units"])
    recalled = seen["recalled"]
    assert set(recalled["num_tasks"]) == {2, 4}
    assert recalled["load"].to_numpy() == pytest.approx(recalled["num_tasks"] / 256)
    assert (recalled["exact_low"] <= recalled["exact_recall"]).all()
    projection = seen["sizes"].xs("projection", level="rule").iloc[0]
    packed = load(runs["units"], "tasks")["mask_bytes"][0].as_py()
    assert projection["break_even"] * packed == projection["reservoir_bytes"]


def test_a_run_without_reservoirs_ends_the_notebook_in_one_line(executed, runs):
    with pytest.raises(CellExecutionError) as ended:
        executed(3, RUN_DIR=runs["weights"])
    assert ended.value.ename == "SystemExit"
    assert "has no table `reservoir`: `make run ARGS=" in ended.value.evalue
    assert "\n" not in ended.value.evalue


def test_runs_are_compared_task_by_task(executed, runs):
    chosen = [str(runs[name]) for name in ("weights", "fast")]
    names = "told trained inferred k"
    seen = executed(4, names, figures=1, RUN_DIRS=shlex.join(chosen))
    assert seen["told"].loc["train.steps"].to_list() == [60, 30]
    assert "seed" not in seen["told"].index
    accuracy = [np.mean(load(run, "tasks")["accuracy"].to_numpy()) for run in chosen]
    trained = seen["trained"].set_index("column").loc["accuracy"]
    assert trained["difference"] == pytest.approx(accuracy[1] - accuracy[0])
    assert trained["low"] <= trained["difference"] <= trained["high"]
    assert trained["pairs"] == 6
    assert seen["k"] == 6
    assert len(seen["inferred"]) == 3 * 2 * 2  # algorithms, objectives, columns


def test_a_method_of_one_s_own_trains_and_its_tasks_are_found(executed):
    results = executed(5, "results")["results"].reset_index().groupby("method")
    assert results.size().to_dict() == {"threshold": 16, "top_share": 16}
    assert results["accuracy"].min().min() > 0.6  # 0.1 by chance
    assert results["task_accuracy"].mean().min() > 0.5  # 1/16 by chance
    density = results.get_group("top_share")["density"].to_numpy()
    assert density == pytest.approx([0.3] * 16, abs=1e-4)


def test_runs_of_several_seeds_are_averaged(executed, runs, tmp_path):
    for name, seed in (("weights", 0), ("fast", 1)):
        shutil.copytree(runs[name], tmp_path / f"seed-{seed}")
        config = tmp_path / f"seed-{seed}" / "config.yaml"
        config.write_text(config.read_text().replace("\nseed: 0\n", f"\nseed: {seed}\n"))
    names = "over evaluations runs by_outputs outputs_figure recalls"
    seen = executed(6, names, figures=1, RUN_DIR=tmp_path)
    assert set(seen["over"]["seeds"]) == {2}
    assert sorted(seen["evaluations"]["seed"].unique()) == [0, 1]
    assert len(seen["runs"]) == 2
    assert list(seen["by_outputs"]) == [20]
    assert seen["outputs_figure"] is None
    assert seen["recalls"] is None


def test_the_recalls_of_one_run_are_drawn(executed, runs):
    seen = executed(6, "over sweeps_figure", figures=2, RUN_DIR=runs["units"])
    assert set(seen["over"]["seeds"]) == {1}
    assert len(seen["sweeps_figure"].axes[0].lines) == 3  # cues


def test_a_model_of_one_s_own_takes_twelve_lines(executed):
    book = nbformat.read(FOLDER / "07_your_own_model.ipynb", as_version=4)
    [cell] = [cell for cell in book.cells if "masks = Supermasks(" in cell.source]
    assert len(cell.source.splitlines()) <= 12
    results = executed(7, "results")["results"]
    assert results["given"].min() > 0.8  # 0.1 by chance
    assert results["task_accuracy"].min() > 0.9  # 0.2 by chance
    assert results["inferred"].to_numpy() == pytest.approx(results["given"], abs=0.05)
    assert results["superposition"].max() < results["given"].min()
