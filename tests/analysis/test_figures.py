import pandas as pd

from analysis.figures import accuracy_by_masks


def test_every_way_to_infer_is_drawn_at_its_mean():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 2, 4, 4],
            "algorithm": ["one_shot", "max_logit"] * 2,
            "objective": ["H", None] * 2,
            "accuracy_gg": [0.9, 0.9, 0.8, 0.8],
            "accuracy_gnu": [0.7, 0.6, 0.5, 0.4],
            "task_accuracy": [1.0, 0.9, 0.8, 0.7],
        }
    )

    left, right = accuracy_by_masks(rows).axes

    drawn = {c.get_label(): list(c.lines[0].get_ydata()) for c in left.containers}
    assert drawn == {"one_shot H": [0.7, 0.5], "max_logit": [0.6, 0.4]}
    inferred = {c.get_label(): list(c.lines[0].get_ydata()) for c in right.containers}
    assert inferred == {"one_shot H": [1.0, 0.8], "max_logit": [0.9, 0.7]}
    assert [line.get_label() for line in left.lines if line.get_label()[0] != "_"] == [
        "task given (GG)"
    ]
