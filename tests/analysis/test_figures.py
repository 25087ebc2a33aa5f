import sys

import numpy as np
import pandas as pd
import pytest

from analysis import figures
from analysis.commandline import run_command
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
        "packed rows": 192,
        "float32": 1200,
        "index lists": 120,
        "reservoir, hebb": 900,
        "fixed weights": 800,
        "seed of the weights": 8,
    }
