"""Runs are compared by accuracy and by bytes."""

import sys

import numpy as np
import pyarrow as pa
import pytest
import zarr

from analysis import compare
from analysis.commandline import run_command
from analysis.compare import accuracy_and_bytes, compared, last_rows, short_names, table
from harness.tables.files import write_table
from harness.tables.inference import EVALUATIONS

WEIGHTS = (3, 5)


def make_run(run, method, ways, accuracies, *, row_bytes, shared=False):
    """Make the files of a run that compare reads.

    Args:
        run: the folder.
        method: the run's method.
        ways: pairs of an algorithm and an objective.
        accuracies: a mapping from number of tasks to accuracy with the task given. With the task
            inferred, the accuracy is half of it.
        row_bytes: size of a state.
        shared: whether tasks train the weights together.
    """
    (run / "evaluations").mkdir(parents=True)
    named = f"seed: {run.name[-1]}\noutputs: 20\nmethod: {method}\n"
    (run / "config.yaml").write_text(f"{named}...\n")
    plain, rows = {"string": "cpu", "int64": 1, "double": 0.5}, []
    for algorithm, objective in ways:
        for k, accuracy in accuracies.items():
            row = {one.name: plain[str(one.type)] for one in EVALUATIONS}
            row |= {"num_tasks": k, "num_distractors": 0, "task_id": 0, "algorithm": algorithm}
            gnu = accuracy if algorithm == "given" else accuracy / 2
            row |= {"objective": objective, "accuracy_gg": accuracy, "accuracy_gnu": gnu}
            rows.append(row)
    evaluations = pa.Table.from_pylist(rows, schema=EVALUATIONS)
    write_table(evaluations, run / "evaluations" / "a.parquet", "r")
    root = zarr.open_group(run / "masks.zarr", mode="w")
    root.attrs.update({"planes": [], "row_bytes": row_bytes, "run_id": "r"})
    root.attrs["tensors"] = [{"name": "layer1", "shape": WEIGHTS}]
    if shared:
        arrays = [{"name": "layer1", "shape": WEIGHTS, "type": "float32"}]
        root.attrs.update({"shared": arrays, "trained_weights": "rule"})
    root.create_array("weights/layer1", data=np.zeros(WEIGHTS, np.float32))


@pytest.fixture
def folders(tmp_path):
    """The folder of two runs of masks, and a run of PSP."""
    ways = [("one_shot", "H"), ("one_shot", "G")]
    for seed, best in ((0, 0.8), (1, 0.6)):
        run = tmp_path / "masks" / f"seed-{seed}"
        make_run(run, "threshold", ways, {1: 0.9, 4: best}, row_bytes=128)
    given = [("given", None)]
    make_run(tmp_path / "psp0", "psp", given, {1: 0.9, 4: 0.5}, row_bytes=64, shared=True)
    return [str(tmp_path / "masks"), str(tmp_path / "psp0")]


def test_each_line_has_its_accuracies_and_bytes(folders):
    last = last_rows(compared(folders)).set_index(["name", "way"])
    assert list(last.index) == [("masks", "one_shot G"), ("masks", "one_shot H"), ("psp0", "given")]
    assert last["accuracy_gg"].to_list() == pytest.approx([0.7, 0.7, 0.5])
    assert last["accuracy_gnu"].to_list() == pytest.approx([0.35, 0.35, 0.5])
    assert last["seeds"].to_list() == [2, 2, 1]
    # Masks need their rows and the seed of the weights; PSP needs the trained weights.
    assert last["bytes"].to_list() == [4 * 128 + 8, 4 * 128 + 8, 4 * 64 + 4 * 15]
    assert last["bytes_per_task"].to_list() == [128, 128, 64]


def test_the_figure_has_a_line_for_each_way_and_for_each_given_task(folders):
    left, right = accuracy_and_bytes(compared(folders)).axes
    drawn = {line.get_label(): line for line in left.lines}
    both = "masks, 2 ways, identical: one_shot G, one_shot H"
    assert list(drawn) == [both, "masks, task given", "psp0, task given"]
    assert drawn["psp0, task given"].get_xdata().tolist() == [1, 4]
    assert drawn["psp0, task given"].get_ydata().tolist() == [0.9, 0.5]
    assert drawn[both].get_ydata().tolist() == pytest.approx([0.45, 0.35])
    points = [bar.lines[0] for bar in right.containers]
    at = [(point.get_xdata()[0], point.get_ydata()[0]) for point in points]
    assert at == [(4 * 128 + 8, pytest.approx(0.7)), (4 * 64 + 60, 0.5)]


def test_methods_of_a_folder_are_told_apart_by_their_options(tmp_path):
    for name in ("method-b_x1-seed-0", "method-b_x2-seed-0"):
        make_run(tmp_path / "m" / name, "b", [("one_shot", "H")], {4: 0.8}, row_bytes=8)
    names = compared([str(tmp_path / "m")])["name"].to_list()
    assert names == ["m, method b_x1, outputs 20", "m, method b_x2, outputs 20"]


def test_names_are_the_shortest_that_differ():
    assert short_names(["x/a", "x/b/"]) == ["a", "b"]
    assert short_names(["x/a", "y/a"]) == ["x/a", "y/a"]
    with pytest.raises(ValueError, match="folders must be different, got x, x: leave out copies"):
        short_names(["x", "x"])


def test_the_command_draws_the_figure_and_prints_the_table(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare", *folders, "--file", "both.svg"])
    compare.main()
    out = capsys.readouterr().out
    assert table(compared(folders)) in out
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["run", "method", "inferred", "by"]
    assert lines[3].split() == ["psp0", "psp", "4", "1", "0.5000", "64", "316"]
    assert "psp0, task given" in (tmp_path / "both.svg").read_text()


def test_the_command_prints_differences_from_the_first_method(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, accuracy in (
        ("a-seed-0", 0.5),
        ("a-seed-1", 0.7),
        ("b-seed-0", 0.6),
        ("b-seed-1", 0.9),
    ):
        given = name[0], [("given", None)], {1: 0.5, 4: accuracy}
        make_run(tmp_path / "m" / f"method-{name}", *given, row_bytes=8)
    monkeypatch.setattr(sys, "argv", ["compare", "m", "--difference"])
    compare.main()
    out = capsys.readouterr().out
    assert "\ndifferences from m, method a, outputs 20\n" in out
    row = "m, method b, outputs 20 4 2 2 +0.1500 (+0.1000 to +0.2000) (-0.4853 to +0.7853)"
    assert row in " ".join(out.split())


def test_the_command_prints_all_checkpoints_with_intervals(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare", *folders, "--checkpoints"])
    compare.main()
    printed = capsys.readouterr().out.split("\ncheckpoints\n")[1]
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert len(rows) == 1 + 2 * 2 + 2 + 3  # names; ways and checkpoints; those of PSP; the end
    # Two seeds with one query each. Every query has the task accuracy 0.5, which rounds to 0.
    of_h = [row for row in rows if row.startswith("masks one_shot H 4 2 ")]
    assert of_h == [
        "masks one_shot H 4 2 0 of 2 (0.0000 to 0.6576) 0.7000 (0.6000 to 0.8000) "
        "0.3500 (0.3000 to 0.4000)"
    ]
    assert "psp0 4 1 0.5000 (0.5000 to 0.5000)" in rows


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "are required: folders: try python -m analysis.compare runs/masks runs/batche"),
        (["nowhere"], "nowhere must have a run with the table evaluations, got none"),
        (["psp0", "psp0"], "folders must be different"),
        (["psp0", "--file", "a.xyz"], "--file must end in one of .eps, "),
        (["psp0", "--difference"], "--difference must have at least two runs or methods, got psp0"),
        (["masks", "psp0", "--difference"], "runs must have evaluated the same tasks, seeds"),
    ],
)
def test_bad_input_is_one_line_and_code_2(typed, said, folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare", *typed])
    with pytest.raises(SystemExit) as ended:
        run_command(compare.main)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
    assert said in err
