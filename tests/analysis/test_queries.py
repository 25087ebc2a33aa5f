"""Confused tasks and examples of queries, from small tables."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.drawing.confusion import answering_ways, tasks_confused
from analysis.load import load
from analysis.pages.content import Gallery, Text
from analysis.pages.svg import drawing
from analysis.queries import confusion, last_queries, of_way, wrong_counts
from analysis.sections import queries as section

SETTINGS = {"num_images": 1, "batch_size": 8, "log_base": None, "steps": None, "rate": None}


def queries(inferred, num_tasks=4, algorithm="one_shot", batches=1):
    """Make rows in which query i belongs to task i // batches."""
    tasks = np.arange(len(inferred)) // batches
    rows = pd.DataFrame({"num_tasks": num_tasks, "task_id": tasks, "inferred": inferred})
    rows = rows.assign(num_distractors=0, algorithm=algorithm, objective="H", **SETTINGS)
    rows["batch"] = np.arange(len(inferred)) % batches
    rows["right"] = rows["inferred"] == rows["task_id"]
    return rows.assign(runner_up=rows["task_id"].where(~rows["right"]), margin=0.5, picture=None)


def test_pairs_of_tasks_are_counted_once_and_right_answers_never():
    cells, size = confusion(queries([1, 1, 0, 1, 2, 2, 3, 3], batches=2))
    assert size == 1
    assert cells.to_numpy().tolist() == [[0, 1, 2, 2], [1, 0, 1, 2]]


def test_many_tasks_are_counted_in_groups():
    inferred = np.arange(100)
    inferred[[0, 1, 99]] = [1, 50, 2]  # one of them in the group of its task
    cells, size = confusion(queries(inferred, num_tasks=100))
    assert size == 3
    assert cells[["task_id", "inferred", "wrong", "asked"]].to_numpy().tolist() == [
        [0, 0, 1, 3], [0, 48, 1, 3], [99, 0, 1, 1],
    ]  # fmt: skip


def test_a_query_that_was_asked_twice_counts_once():
    earlier, rows = queries([1, 1], num_tasks=2), queries([1, 1, 2, 3])
    untrained = rows.assign(num_distractors=3, num_tasks=7)
    last = last_queries(pd.concat([earlier, rows, rows.head(2), untrained]))
    assert last["task_id"].tolist() == [0, 1, 2, 3]
    assert wrong_counts(last) == (4, 1, 1)


def test_ways_with_the_same_answers_are_one_and_the_worst_is_first():
    ways = {"one_shot": [0, 1], "binary": [1, 0], "one_shot_ranked": [0, 1]}
    both = pd.concat([queries(one, 2, algorithm) for algorithm, one in ways.items()])
    found = answering_ways(both)
    assert [label for label, _ in found] == [
        "binary H",
        "2 ways, identical: one_shot H, one_shot_ranked H",
    ]
    assert of_way(both, both.iloc[2]).equals(both.iloc[2:4])


def test_each_square_of_a_figure_has_its_counts():
    rows = queries([1, 1, 0, 1, 2, 2, 3, 3], batches=2)
    panel = str(drawing("caption", lambda: tasks_confused(rows), "salt").panels[0])
    assert panel.count("<title>") == 2
    assert "<title>true 0, inferred 1: 2 of 2 (100.0%)</title>" in panel
    with pytest.raises(ValueError, match="queries must have a wrong answer, got none"):
        tasks_confused(rows[rows["right"]])


def test_a_section_without_a_wrong_answer_is_a_sentence(run_dir):
    rows = queries([0, 1, 2, 3])
    found = section.single_queries(rows, rows, run_dir, is_stream=False)
    [text] = found.parts
    assert isinstance(text, Text)
    assert text.text.startswith("0 wrong of 4 queries by all algorithms and objectives, among 4")


def test_examples_name_the_tasks_and_begin_with_wrong_answers(run_dir):
    rows = load(run_dir, "queries").to_pandas()
    rows.loc[0, ["inferred", "right"]] = [0, True]
    found = section.single_queries(rows, rows.iloc[:1], run_dir, is_stream=False)
    gallery = found.parts[-1]
    assert isinstance(gallery, Gallery)
    assert [one.title for one in gallery.pictures] == [
        "task 0, inferred 1 (wrong), runner-up unknown",
        "task 0, inferred 0 (right), runner-up unknown",
    ]
    assert gallery.pictures[1].told == "one_shot H, image 1 of the test set, margin 0.5"


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_pixels_of_a_picture_are_put_back_in_order(shape):
    rng = np.random.default_rng(0)
    original = rng.integers(0, 256, shape).astype(np.uint8)
    order = rng.permutation(24)
    flat = original.reshape(24, -1)[order].reshape(shape)
    file = io.BytesIO()
    Image.fromarray(flat).save(file, format="PNG")
    assert np.array_equal(section._in_order(file.getvalue(), order), original)
