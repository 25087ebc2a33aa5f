import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import Container

from analysis import figures
from analysis.commandline import run_command
from analysis.drawing import style
from analysis.drawing.accuracy import wrong_tasks
from analysis.drawing.training import blocks_of
from analysis.figures import (
    FIGURES,
    accuracy_by_masks,
    nearest_angles,
    recall_by_masks,
    storage_bytes,
    sweeps_by_masks,
)
from analysis.stored import Layout

PLAIN = {"task_id": 0, "num_batches": 4, "num_distractors": 0, "num_images": 1}
PLAIN |= {"batch_size": 128, "log_base": None, "steps": None, "rate": None}


def _evaluations(**columns):
    """Return a table of evaluations; columns that are left out have the values of PLAIN."""
    return pd.DataFrame(columns).assign(**{k: v for k, v in PLAIN.items() if k not in columns})


def test_every_way_to_infer_is_drawn_at_its_mean():
    rows = _evaluations(
        num_tasks=[2, 2, 4, 4, 9],
        num_distractors=[0, 0, 0, 0, 5],
        algorithm=[*["one_shot", "max_logit"] * 2, "one_shot"],
        objective=[*["H", None] * 2, "H"],
        accuracy_gg=[0.9, 0.9, 0.8, 0.8, 0.8],
        accuracy_gnu=[0.7, 0.6, 0.5, 0.4, 0.3],
        task_accuracy=[1.0, 0.9, 0.8, 0.7, 0.6],
    )

    left, right = accuracy_by_masks(rows).axes

    drawn = {c.get_label(): list(c.lines[0].get_ydata()) for c in left.containers}
    untrained = "one_shot H, with untrained masks"
    assert drawn == {"one_shot H": [0.7, 0.5], "max_logit": [0.6, 0.4], untrained: [0.3]}
    inferred = {c.get_label(): list(c.lines[0].get_ydata()) for c in right.containers}
    assert inferred == {"one_shot H": [1.0, 0.8], "max_logit": [0.9, 0.7], untrained: [0.6]}
    [given] = [line for line in left.lines if line.get_label()[0] != "_"]
    assert given.get_label() == "task given (GG)"
    assert list(given.get_xdata()) == [2, 4]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("num_images", "images"),
        ("batch_size", "batch size"),
        ("log_base", "log base"),
        ("steps", "steps"),
        ("rate", "rate"),
    ],
)
@pytest.mark.parametrize(
    "draw", [accuracy_by_masks, lambda rows: figures.time_by_masks(rows, 1, 1.0)]
)
def test_another_setting_is_a_line_of_its_own(setting, told, draw):
    rows = _evaluations(
        num_tasks=[2, 2],
        algorithm=["max_logit"] * 2,
        objective=[None, None],
        accuracy_gg=[0.9, 0.9],
        accuracy_gnu=[0.7, 0.8],
        task_accuracy=[0.8, 0.9],
        seconds_per_inference=[0.7, 0.8],
        bits_read_fraction=[1.0, 1.0],
        **{setting: [1, 4]},
    )

    left, _ = draw(rows).axes

    bars = {c.get_label(): list(c.lines[0].get_ydata()) for c in left.containers}
    lines = bars or {line.get_label(): list(line.get_ydata()) for line in left.lines[:2]}
    assert lines == {f"max_logit, {told}: 1": [0.7], f"max_logit, {told}: 4": [0.8]}


@pytest.mark.parametrize("draw", [figures.objectives_compared, figures.algorithms_compared])
def test_comparisons_draw_a_line_for_each_setting(draw):
    rows = _evaluations(
        num_tasks=[2] * 6,
        algorithm=[*["binary"] * 4, "one_shot", "one_shot"],
        objective=["H", "H", "G", "G", "H", "G"],
        log_base=[2, 4, 2, 4, None, None],
        task_accuracy=[1.0, 0.9, 0.8, 0.7, 0.6, 0.5],
    )
    drawn = [line.get_label() for axes in draw(rows).axes for line in axes.lines]
    assert sorted(drawn) == sorted(
        [
            *("binary H, log base: 2", "binary H, log base: 4"),
            *("binary G, log base: 2", "binary G, log base: 4"),
            *("one_shot H", "one_shot G"),
        ]
    )


@pytest.fixture
def recalls():
    """Rows of the table `reservoir`: two reservoirs, and a recall that was done twice."""
    return pd.DataFrame(
        {
            "rule": ["hebb", "hebb", "hebb", "projection", "projection"],
            "dim": [8] * 5,
            "block": [8] * 5,
            "most_steps": [50] * 5,
            "batch_size": [128] * 5,
            "batches": [4] * 5,
            "num_blocks": [1, 1, 1, 3, 3],
            "num_tasks": [4, 2, 4, 2, 4],
            "cue": ["flipped", "flipped", "flipped", "flipped", "data"],
            "share": [0.1, 0.1, 0.1, 0.1, None],
            "num_cues": [30, 10, 10, 10, 10],
            "exact_recall": [0.2, 0.9, 0.6, 1.0, 0.5],
            "capacity": [3.0, 3.0, 3.0, None, None],
            "steps": [9.0, 1.5, 2.5, 2.0, 3.0],
            "reservoir_bytes": [256] * 5,
            "store_bytes": [4, 2, 4, 2, 4],
        }
    )


def test_recall_is_drawn_by_rule_and_cue_beside_theory_and_bytes(recalls):
    left, right = recall_by_masks(recalls).axes

    lines = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    # Of the two recalls among 4 masks, the one with 30 cues counts.
    assert lines["hebb, 8 bits, flipped 10%"] == [0.9, 0.2]
    assert lines["projection, 3 of 8 bits, flipped 10%"] == [1.0]
    assert lines["projection, 3 of 8 bits, data"] == [0.5]
    assert [line.get_xdata()[0] for line in left.lines if line.get_linestyle() == ":"] == [3.0]
    sizes = {line.get_label(): list(line.get_ydata()) for line in right.lines}
    assert sizes == {
        "hebb, 8 bits": [256, 256],
        "projection, 3 of 8 bits": [256, 256],
        "the masks, packed": [2, 4],
    }


def test_the_sweeps_of_a_recall_are_drawn_by_rule_and_cue(recalls):
    [axes] = sweeps_by_masks(recalls).axes
    lines = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }
    # Of the two recalls among 4 masks, the one with 30 cues counts.
    assert lines == {
        "hebb, 8 bits, flipped": ([2, 4], [1.5, 9.0]),
        "projection, 3 of 8 bits, flipped": ([2], [2.0]),
        "projection, 3 of 8 bits, data": ([4], [3.0]),
    }


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_draws_a_table_of_the_run(figure, tmp_path, monkeypatch):
    asked = []

    def load(run_dir, table):
        asked.append((run_dir, table))
        raise FileNotFoundError(table)

    monkeypatch.setattr(figures, "load", load)
    monkeypatch.setattr(sys, "argv", ["figures", "s3://bucket/run", "out.svg", "--figure", figure])
    with pytest.raises(FileNotFoundError, match=FIGURES[figure][1]):
        figures.main()
    assert asked == [("s3://bucket/run", FIGURES[figure][1])]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "are required: run_dir, file: try python -m analysis.figures"),
        (["RUN"], "are required: file: try"),
        (["RUN", "f.svg", "more"], "unrecognized arguments: more: try"),
        (["RUN", "f.svg", "--figure", "pie"], "--figure: invalid choice: 'pie' (choose from"),
        (["RUN", "f.xyz"], "file must end in one of .eps, "),
        (["RUN", "figure"], "got 'figure': try figure.svg"),
        (["RUN", "nowhere/f.svg"], "must be in an existing folder, got 'nowhere/f.svg': try f.svg"),
        (["nowhere", "f.svg"], "nowhere/evaluations must hold Parquet files, got none: check"),
        (["~nosuchuser/x", "f.svg"], "run_dir must name an existing user after ~"),
        (["", "f.svg"], "run_dir must be a run's folder or URL, got '': try run_dir="),
        (["ftp://host/run", "f.svg"], "ftp://host/run must be a folder, s3://BUCKET/"),
        (["s3://", "f.svg"], "s3:// must be a folder, s3://BUCKET/FOLDER or gs://"),
    ],
)
def test_bad_input_is_one_line_and_code_2(typed, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures", *typed])
    with pytest.raises(SystemExit) as ended:
        run_command(figures.main)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert said in err


def test_the_nearest_angle_is_found_around_the_circle():
    assert nearest_angles(np.array([350.0, 10.0, 90.0, 370.0])).tolist() == [20, 0, 80, 0]


def test_every_storage_is_counted():
    masks = Layout(row_bytes=64, layers=(("a", 0, 100),), num_weights=200, num_gains=100)
    reservoir = pd.DataFrame({"rule": ["hebb", "hebb"], "reservoir_bytes": [900, 900]})
    sizes = storage_bytes(np.array([1, 3]), masks, 0.1, reservoir)
    assert sizes.loc[3].to_dict() == {
        "packed masks": 192,
        "float32": 1200,
        "index lists, 16 bits": 60,
        "reservoir, hebb": 900,
        "fixed weights": 800,
        "seed of the weights": 8,
    }


def test_lines_with_the_same_values_are_drawn_once_and_named():
    rows = _evaluations(
        num_tasks=[2, 4] * 3,
        algorithm=["one_shot"] * 4 + ["max_logit"] * 2,
        objective=["H", "H", "G", "G", None, None],
        accuracy_gg=[0.9] * 6,
        accuracy_gnu=[0.9, 0.8, 0.9, 0.8, 0.9, 0.7],
        task_accuracy=[1.0] * 6,
    )
    left, right = accuracy_by_masks(rows).axes
    same = "2 ways, identical: one_shot G, one_shot H"
    for axes in (left, right):
        assert sorted(c.get_label() for c in axes.containers) == [same, "max_logit"]
    [axes] = wrong_tasks({"all": rows}, rows).axes
    assert [line.get_label() for line in axes.lines] == [
        "3 ways, identical: max_logit, one_shot G, one_shot H"
    ]


def test_a_way_has_the_same_colour_in_all_figures():
    rows = _evaluations(
        num_tasks=[2, 4] * 4,
        algorithm=["binary"] * 2 + ["given"] * 2 + ["one_shot"] * 4,
        objective=["H", "H", None, None, "G", "G", "H", "H"],
        accuracy_gg=[0.9] * 8,
        accuracy_gnu=[0.9, 0.8, 0.9, 0.9, 0.9, 0.7, 0.9, 0.6],
        task_accuracy=[1.0, 0.9, 1.0, 1.0, 1.0, 0.8, 1.0, 0.7],
        seconds_per_inference=[1.0] * 8,
        bits_read_fraction=[1.0] * 8,
    )
    inferring = rows[rows["algorithm"] != "given"]
    only_h = {"objective H": inferring[inferring["objective"] == "H"]}
    drawn = [accuracy_by_masks(rows), figures.time_by_masks(inferring, 1, 1.0)]
    drawn.append(wrong_tasks(only_h, inferring))
    looks = [
        {
            label: (handle[0] if isinstance(handle, Container) else handle).get_color()
            for label, handle in style.legend_entries(figure).items()
        }
        for figure in drawn
    ]
    for label in ("binary H", "one_shot H"):
        assert len({look[label] for look in looks}) == 1
    assert looks[0]["one_shot G"] == looks[1]["one_shot G"]
    assert len({looks[0][one] for one in ("binary H", "one_shot G", "one_shot H", "given")}) == 4


def test_the_intervals_of_accuracies_stay_between_0_and_1():
    rows = _evaluations(
        num_tasks=[3] * 3,
        task_id=[0, 1, 2],
        algorithm=["one_shot"] * 3,
        objective=["H"] * 3,
        accuracy_gg=[0.9] * 3,
        accuracy_gnu=[1.0, 0.1, 1.0],
        task_accuracy=[1.0, 0.0, 1.0],
    )
    for axes in accuracy_by_masks(rows).axes:
        [bars] = [one for line in axes.containers for one in line.lines[2]]
        ends = np.array(bars.get_segments())[..., 1]
        assert ends.min() >= 0
        assert ends.max() <= 1
        assert ends.max() > ends.min()


@pytest.mark.parametrize(
    ("sizes", "scale", "labels"),
    [
        (
            [10, 500, 1000, 1500, 2000, 2500],
            "linear",
            ["10", "500", "1000", "1500", "2000", "2500"],
        ),
        ([1, 10, 100, 1000], "log", ["1", "10", "100", "1000"]),
        ([8], "linear", ["8"]),
        ([2400, 2450, 2500, 10], "linear", ["10", "", "", "2500"]),
    ],
)
def test_checkpoints_are_ticks_with_labels_that_fit(sizes, scale, labels):
    _, [axes] = style.panels(1)
    style.tick_checkpoints(axes, sizes)
    assert axes.get_xscale() == scale
    assert list(axes.get_xticks()) == sorted(sizes)
    assert [text.get_text() for text in axes.get_xticklabels()] == labels
    assert list(axes.get_xticks(minor=True)) == []


def _trained(*blocks):
    """Rows of the table `tasks`. A block is (worker, end, number of tasks, seconds per task)."""
    rows = [
        {"worker": worker, "finished_at": pd.Timestamp(end, unit="s"), "train_seconds": seconds}
        for worker, end, size, seconds in blocks
        for _ in range(size)
    ]
    return pd.DataFrame(rows).assign(task_id=range(len(rows)), accuracy=0.9)


def test_blocks_are_found_and_pauses_are_cut():
    tasks = _trained(("train-1", 10, 2, 5.0), ("train-2", 12, 4, 2.5), ("train-1", 1020, 1, 8.0))
    blocks = blocks_of(tasks)
    assert blocks["worker"].to_list() == ["train-1", "train-2", "train-1"]
    assert blocks["begin"].to_list() == [0, 2, 12]  # the pause from 12 to 1012 is cut
    assert blocks["end"].to_list() == [10, 12, 20]
    assert blocks[["first", "last"]].to_numpy().tolist() == [[0, 1], [2, 5], [6, 6]]


def test_training_is_drawn_over_time_with_a_row_for_each_actor():
    tasks = _trained(("train-1", 90, 2, 45.0), ("train-10", 90, 1, 60.0), ("train-2", 120, 1, 30.0))
    left, middle, right = figures.training_over_time(tasks).axes
    assert left.get_xlabel() == "minutes"
    assert left.lines[0].get_xdata().tolist() == [0, 1.5, 1.5, 2]
    assert left.lines[0].get_ydata()[-1] == 4
    assert middle.lines[0].get_ydata().tolist() == pytest.approx([0.9] * 3)
    assert [text.get_text() for text in right.get_yticklabels()] == [
        "train-1",
        "train-2",
        "train-10",
    ]
    assert [len(path.vertices) for path in right.collections[0].get_paths()] == [5] * 3
