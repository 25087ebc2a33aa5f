"""The runs of a folder are read together, and averaged over seeds."""

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from analysis import report, several, several_report
from analysis.several import load_several, over_seeds, runs_in
from analysis.several_figures import accuracy_over_seeds, task_accuracy_by_outputs
from harness.config import run_folders
from harness.tables.files import write_table
from harness.tables.inference import EVALUATIONS

# seed -> task accuracy of tasks 0 and 1
ACCURACIES = {0: (1.0, 0.8), 1: (0.9, 0.9), 2: (1.0, 1.0)}


def make_run(folder, seed, outputs, accuracies, objectives=("H",)):
    """Make the files of a run that the analysis of several runs reads."""
    (folder / "evaluations").mkdir(parents=True)
    text = (
        f"seed: {seed}\noutputs: {outputs}\ntasks: 2\nnetwork: n\ndata: d\nfamily: f\nmethod: m\n"
    )
    (folder / "config.yaml").write_text(f"{text}...\n")
    plain = {"string": "cpu", "int64": 1, "double": 0.5}
    rows = []
    for objective in objectives:
        for task, accuracy in enumerate(accuracies):
            row = {one.name: plain[str(one.type)] for one in EVALUATIONS}
            row |= {"num_tasks": 2, "num_distractors": 0, "task_id": task, "log_base": None}
            row |= {"algorithm": "one_shot", "objective": objective, "task_accuracy": accuracy}
            rows.append(row)
    table = pa.Table.from_pylist(rows, schema=EVALUATIONS)
    write_table(table, folder / "evaluations" / "a.parquet", "r")


@pytest.fixture
def folder(tmp_path):
    for seed, accuracies in ACCURACIES.items():
        make_run(tmp_path / f"seed-{seed}", seed, 20, accuracies)
    return tmp_path


def test_both_packages_know_the_same_folders(folder):
    assert set(several.SWEPT) == set(run_folders.SWEPT.values())
    make_run(folder / "outputs-9-seed-10", 10, 9, (1.0,))
    make_run(folder / "seed-10", 10, 20, (1.0,))
    make_run(folder / "another", 4, 20, (1.0,))
    make_run(folder / "method-b_x-1-seed-0", 0, 20, (1.0,))
    make_run(folder / "method-b", 0, 20, (1.0,))
    assert runs_in(folder) == [str(one) for one in run_folders.runs_in(folder)]
    assert [run.rpartition("/")[2] for run in runs_in(folder)][3:] == [
        *("seed-2", "seed-10", "method-b_x-1-seed-0", "outputs-9-seed-10"),
    ]


def test_each_row_has_the_seed_of_its_run(folder):
    rows = load_several(folder, "evaluations")
    assert rows.column_names[:3] == ["method", "outputs", "seed"]
    assert rows["method"].to_pylist() == ["m"] * 6
    assert rows["seed"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert rows["outputs"].to_pylist() == [20] * 6
    found = dict(zip(rows["seed"].to_pylist(), rows["task_accuracy"].to_pylist(), strict=True))
    assert found == {0: 0.8, 1: 0.9, 2: 1.0}  # of each run's last row


def test_a_run_alone_has_a_seed_too(folder):
    assert load_several(folder / "seed-1", "evaluations")["seed"].to_pylist() == [1, 1]


def test_a_method_has_the_options_of_its_folder_s_name(tmp_path):
    for name in ("method-b_x1-seed-0", "method-b_x2-seed-0"):
        make_run(tmp_path / name, 0, 20, (1.0,))
    rows = load_several(tmp_path, "evaluations")
    assert rows["method"].to_pylist() == ["b_x1", "b_x2"]
    over = over_seeds(rows.to_pandas())
    assert [label for label, _ in several.lines(over)] == ["b_x1: one_shot H", "b_x2: one_shot H"]


def test_a_seed_of_64_bits_is_kept(tmp_path):
    make_run(tmp_path / f"seed-{2**64 - 1}", 2**64 - 1, 20, (1.0,))
    assert load_several(tmp_path, "evaluations")["seed"].to_pylist() == [2**64 - 1]


def test_a_folder_without_the_table_is_refused(folder):
    with pytest.raises(FileNotFoundError, match="must have a run with the table reservoir"):
        load_several(folder, "reservoir")


def test_means_and_intervals_over_seeds_by_hand(folder):
    [row] = over_seeds(load_several(folder, "evaluations").to_pandas()).to_dict("records")
    of_runs = [0.9, 0.9, 1.0]  # means over the two tasks
    mean = sum(of_runs) / 3
    std = (sum((one - mean) ** 2 for one in of_runs) / 2) ** 0.5
    half = 4.302653 * std / 3**0.5  # the 97.5 % quantile of Student's t with 2 degrees of freedom
    assert (row["outputs"], row["num_tasks"], row["seeds"]) == (20, 2, 3)
    assert row["task_accuracy"] == pytest.approx(mean)
    assert row["task_accuracy_std"] == pytest.approx(std)
    assert row["task_accuracy_low"] == pytest.approx(mean - half, abs=1e-6)
    assert row["task_accuracy_high"] == pytest.approx(mean + half, abs=1e-6)
    assert row["accuracy_gg_std"] == 0.0


def test_one_seed_has_a_mean_and_no_interval(folder):
    [row] = over_seeds(load_several(folder / "seed-0", "evaluations").to_pandas()).to_dict(
        "records"
    )
    assert (row["seeds"], row["task_accuracy"]) == (1, pytest.approx(0.9))
    assert np.isnan([row[f"task_accuracy_{end}"] for end in ("std", "low", "high")]).all()


def test_a_task_that_was_evaluated_twice_counts_once(folder):
    rows = load_several(folder, "evaluations").to_pandas()
    more = rows[rows["seed"] == 0].assign(num_batches=9, batches=9, task_accuracy=0.5)
    found = over_seeds(pd.concat([rows, more]))
    assert found["task_accuracy"].to_list() == pytest.approx([(0.5 + 0.9 + 1.0) / 3])


def test_the_figure_has_a_band_around_each_mean(folder):
    over = over_seeds(load_several(folder, "evaluations").to_pandas())
    left, right = accuracy_over_seeds(over).axes
    assert [len(axes.collections) for axes in (left, right)] == [2, 1]  # bands; left also GG
    [line] = right.lines
    assert line.get_ydata() == pytest.approx([(0.9 + 0.9 + 1.0) / 3])
    low, high = (right.collections[0].get_paths()[0].vertices[:, 1].min(), over.iloc[0])
    assert low == pytest.approx(high["task_accuracy_low"])


def test_two_seeds_have_no_band_because_it_would_fill_the_figure(folder):
    rows = load_several(folder, "evaluations").to_pandas()
    two = over_seeds(rows[rows["seed"] < 2])
    assert [len(axes.collections) for axes in accuracy_over_seeds(two).axes] == [0, 0]
    shutil.rmtree(folder / "seed-2")
    assert "With 2 seeds, no intervals are drawn" in report.write(folder).read_text()


def test_the_best_method_may_also_need_the_fewest_bytes():
    points = pd.DataFrame(
        {"method": ["a", "b"], "accuracy": [0.8, 0.9], "bytes_per_task": [384.0, 384.0]}
    ).assign(num_tasks=6)
    said = several_report._best_method(points)
    assert said.endswith(
        "b has the highest accuracy with the task given (GG): 0.9000, with 384 "
        "bytes per task. No method needs fewer bytes."
    )
    fewer = several_report._best_method(points.assign(bytes_per_task=[100.0, 384.0]))
    assert "a needs the fewest bytes: 100 per task, with an accuracy of 0.8000." in fewer


def test_output_sizes_are_drawn_by_objective(tmp_path):
    for outputs, accuracy in ((12, 0.5), (50, 0.7), (500, 1.0)):
        run = tmp_path / f"outputs-{outputs}"
        make_run(run, 0, outputs, (accuracy, accuracy), objectives=("H", "G"))
    over = over_seeds(load_several(tmp_path, "evaluations").to_pandas())
    [axes] = task_accuracy_by_outputs(over).axes
    [line] = axes.lines  # H and G have the same values
    assert line.get_label() == "2 ways, identical: one_shot G, one_shot H"
    assert line.get_xdata().tolist() == [12, 50, 500]
    assert line.get_ydata().tolist() == [0.5, 0.7, 1.0]


def test_the_report_of_a_folder_has_the_means_and_the_runs(folder):
    path = report.write(folder)
    assert path == folder / "report.html"
    page = path.read_text()
    assert '<section id="over-seeds">' in page
    assert "0.9333" in page
    assert page.count('role="img"') == 2  # accuracy and task accuracy
    assert "At 2 tasks, the mean over 3 seeds is 0.9333 for the task accuracy of one_shot H" in page
    assert "The runs differ in: seed." in page
    assert 'href="seed-0/report.html"' not in page  # the run has no report
    (folder / "seed-0" / "report.html").touch()
    assert 'href="seed-0/report.html"' in report.write(folder).read_text()


def test_the_report_of_output_sizes_has_their_figure(tmp_path):
    for outputs in (12, 50):
        make_run(tmp_path / f"outputs-{outputs}", 0, outputs, (0.5, 0.7))
    page = report.write(tmp_path).read_text()
    assert page.count('role="img"') == 1 + 2 * 2  # by outputs, and two panels for each size
    assert "Task accuracy against the number of outputs" in page
