"""A bar of a checkpoint shows the accuracy of one named way, and counts the queries of all ways."""

import pyarrow as pa
import pytest

from harness.driver.bars import CheckpointBars
from harness.plan.units import EvaluationUnit, RecallUnit


class Shown:
    """A display that notes its calls."""

    def __init__(self):
        self.added, self.updates = [], []

    def add(self, *arguments):
        self.added.append(arguments)

    def update(self, name, done, accuracy, under_way=0.0):
        self.updates.append((name, done, accuracy))


def rows(*accuracies):
    return pa.table({"accuracy_gnu": accuracies})


def test_a_bar_shows_the_accuracy_of_the_first_way_and_counts_the_queries_of_all():
    shown = Shown()
    queries = {0: 3, 4: 10}  # task -> number of its queries
    bars = CheckpointBars(shown, "evaluating", "accuracy_gnu", "queries", queries.__getitem__)
    exact = EvaluationUnit(5, "one_shot", "H", (0, 4))
    other = EvaluationUnit(5, "binary", "G", (0, 4))
    among_more = EvaluationUnit(5, "one_shot", "H", (0, 4), num_distractors=9)
    bars.begin(5, [exact, other, among_more])
    bars.add(other, rows(0.1, 0.2))
    bars.add(exact, rows(0.8, 0.9))
    bars.add(among_more, rows(0.3, 0.3))
    name, mean = "evaluating 5 masks", pytest.approx(0.85)
    assert shown.added == [(name, 39, 0, "queries", "one_shot H")]
    assert [update[1:] for update in shown.updates] == [(13, None), (26, mean), (39, mean)]


def test_ways_are_named_in_few_words():
    assert EvaluationUnit(5, "max_logit", None, (0,)).way == "max_logit"
    assert EvaluationUnit(5, "binary", "G", (0,), 9).way == "binary G + 9 untrained"
    assert RecallUnit(5, "hebb", "data", (0,), "abc").way == "hebb data"
