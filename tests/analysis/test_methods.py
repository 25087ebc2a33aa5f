"""Methods of a folder are compared by accuracy and bytes."""

import pandas as pd

from analysis.methods import accuracy_by_bytes, on_front

POINTS = pd.DataFrame(
    {
        "method": ["a", "b", "c", "d"],
        "outputs": 20,
        "bytes_per_task": [100, 100, 300, 200],
        "accuracy": [0.9, 0.8, 0.95, 0.9],
        "low": [0.88, None, 0.94, 0.89],
        "high": [0.92, None, 0.96, 0.91],
        "inferred": [0.7, None, 0.6, 0.5],
    }
)


def test_the_front_has_the_points_that_no_other_point_beats():
    front = on_front(POINTS["bytes_per_task"], POINTS["accuracy"])
    assert front.tolist() == [True, False, True, False]


def test_equal_points_are_both_on_the_front():
    assert on_front(pd.Series([1, 1]), pd.Series([0.5, 0.5])).tolist() == [True, True]


def test_the_figure_has_each_method_and_joins_the_front():
    points = POINTS.assign(is_best=on_front(POINTS["bytes_per_task"], POINTS["accuracy"]))
    figure = accuracy_by_bytes(points)
    [axes] = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a", "b", "c", "d"]
    front = next(line for line in axes.lines if line.get_linestyle() == "-")
    assert front.get_xdata().tolist() == [100, 300]
    assert front.get_ydata().tolist() == [0.9, 0.95]
