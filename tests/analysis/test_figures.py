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
)
from analysis.stored import Layout


def test_every_way_to_infer_is_drawn_at_its_mean():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 2, 4, 4, 9],
            "num_distractors": [0, 0, 0, 0, 5],
            "num_images": [1] * 5,
            "algorithm": [*["one_shot", "max_logit"] * 2, "one_shot"],
            "objective": [*["H", None] * 2, "H"],
            "accuracy_gg": [0.9, 0.9, 0.8, 0.8, 0.8],
            "accuracy_gnu": [0.7, 0.6, 0.5, 0.4, 0.3],
            "task_accuracy": [1.0, 0.9, 0.8, 0.7, 0.6],
        }
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


def test_inferences_from_more_images_are_a_line_of_their_own():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 2],
            "num_distractors": [0, 0],
            "algorithm": ["max_logit"] * 2,
            "objective": [None, None],
            "num_images": [1, 4],
            "accuracy_gg": [0.9, 0.9],
            "accuracy_gnu": [0.7, 0.8],
            "task_accuracy": [0.8, 0.9],
        }
    )

    left, _ = accuracy_by_masks(rows).axes

    drawn = {c.get_label(): list(c.lines[0].get_ydata()) for c in left.containers}
    assert drawn == {"max_logit, images: 1": [0.7], "max_logit, images: 4": [0.8]}


def test_recall_is_drawn_by_rule_and_cue_beside_theory_and_bytes():
    rows = pd.DataFrame(
        {
            "rule": ["hebb", "hebb", "hebb", "projection", "projection"],
            "dim": [8] * 5,
            "num_blocks": [1, 1, 1, 3, 3],
            "num_tasks": [4, 2, 4, 2, 4],
            "cue": ["flipped", "flipped", "flipped", "flipped", "data"],
            "share": [0.1, 0.1, 0.1, 0.1, None],
            "num_cues": [30, 10, 10, 10, 10],
            "exact_recall": [0.2, 0.9, 0.6, 1.0, 0.5],
            "capacity": [3.0, 3.0, 3.0, None, None],
            "reservoir_bytes": [256] * 5,
            "store_bytes": [4, 2, 4, 2, 4],
        }
    )

    left, right = recall_by_masks(rows).axes

    lines = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    # The mean is over cues: 0.3 = (30 * 0.2 + 10 * 0.6) / 40.
    assert lines["hebb, 8 bits, flipped 10%"] == pytest.approx([0.9, 0.3])
    assert lines["projection, 3 of 8 bits, flipped 10%"] == [1.0]
    assert lines["projection, 3 of 8 bits, data"] == [0.5]
    assert [line.get_xdata()[0] for line in left.lines if line.get_linestyle() == ":"] == [3.0]
    sizes = {line.get_label(): list(line.get_ydata()) for line in right.lines}
    assert sizes == {
        "hebb, 8 bits": [256, 256],
        "projection, 3 of 8 bits": [256, 256],
        "the masks, packed": [2, 4],
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
        (["~nosuchuser/x", "f.svg"], "run_dir must have an existing user after ~"),
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
        "packed bits": 192,
        "float32": 1200,
        "index lists": 120,
        "reservoir, hebb": 900,
        "fixed weights": 800,
        "seed of the weights": 8,
    }
